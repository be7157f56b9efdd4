"""Results of applications in a notebook."""

from typing import Any


class SummaryTable:
    """A result whose HTML form is the table of its `summary`."""

    def summary(self) -> dict[str, Any]:
        """Scalars, JSON-able."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        import pandas as pd

        table = pd.Series(self.summary(), name="value", dtype=object).to_frame()
        return str(table.to_html(float_format="{:.4g}".format))
