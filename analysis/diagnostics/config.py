"""How much is drawn for a report: what all diagnostics share, and the options that each declares."""

import difflib
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from vae_pyro.core.config import Config


class ReportConfig(Config):
    """How much is drawn for a report, and of which diagnostics it is made.

    Further keywords are the options of the diagnostics (see `analysis.diagnostics.diagnostic.Diagnostic.Options`), such
    as ``num_simulations`` of the calibration.

    Attributes:
        num_draws: of the guide for each held-out datum.
        num_predictive: held-out data whose predictive draws are checked; as many at random where there are more.
        only: names of the diagnostics to run; all if empty.

    Raises:
        ValueError: an unknown option or diagnostic, or a value out of its range.
    """

    model_config = ConfigDict(extra="allow")

    num_draws: int = Field(default=500, ge=100)
    num_predictive: int = Field(default=1000, ge=1)
    only: tuple[str, ...] = ()

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    def options[O: Config](self, kind: type[O]) -> O:
        """The options that one diagnostic declares, those that were not given at their defaults."""
        given: dict[str, Any] = self.model_extra or {}
        return kind(**{name: given[name] for name in kind.model_fields if name in given})

    @model_validator(mode="after")
    def _validate_against_registry(self) -> "ReportConfig":
        from analysis.diagnostics.diagnostic import DIAGNOSTICS

        for name in self.only:
            DIAGNOSTICS[name]
        kinds = [DIAGNOSTICS[name].Options for name in DIAGNOSTICS]
        known = sorted({option for kind in kinds for option in kind.model_fields})
        for name in self.model_extra or {}:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{name} is no option of a report; {hint}choose from {', '.join(known)}")
        for kind in kinds:
            self.options(kind)
        return self
