"""Draws of a table in the report."""

import numpy as np
from pydantic import Field

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic
from analysis.results.blocks import Listing, Picture, Section, Table
from analysis.results.text import flow
from analysis.samples.generated.draws import draw_samples, hidden_alike, observations
from analysis.samples.synthetic.check import FEWEST, check_values
from analysis.samples.synthetic.plot import plot_associations, plot_columns
from analysis.samples.synthetic.result import SyntheticDataCheck
from vae_pyro.core.config import Config
from vae_pyro.data.split import Split
from vae_pyro.data.tables.conditions import bounded
from vae_pyro.data.tables.schema import Schema

_METHODS = """
    Rows are drawn from the model, and compared with held-out rows; training rows, compared with the same, are the
    reference. Columns are compared by Kolmogorov-Smirnov and chi-squared tests with Holm's adjusted p-values, pairs of
    columns by rank correlation, correlation ratio and Cramér's V. Gradient boosting distinguishes draws from rows, and
    predicts columns of held-out rows from models that were trained on draws and on training rows.
"""
_REFERENCES = (
    "Esteban, Hyland & Rätsch 2017, Real-valued (medical) time series generation with recurrent conditional GANs. "
    "arXiv:1706.02633",
    "Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests. arXiv:1610.06545",
    "Yeom, Giacomelli, Fredrikson & Jha 2018, Privacy risk in machine learning. arXiv:1709.01604",
)
_MOST_COLUMNS = 60


class SyntheticOptions(Config):
    """How draws of a table are checked.

    Attributes:
        num_targets: columns that are predicted by models trained on draws.
        max_table_rows: rows of each table that are used.
    """

    num_targets: int = Field(default=4, ge=0)
    max_table_rows: int = Field(default=3000, ge=FEWEST)


@DIAGNOSTICS.add
class SyntheticData(Diagnostic[SyntheticDataCheck]):
    """Draws of a table beside its rows, column by column, and what they disclose."""

    name, title, order = "synthetic", "Draws of the table", 85
    question = "Are draws of the table as good as its rows?"
    requires = ("train", "schema")
    needs = ("draws",)
    min_data = FEWEST
    Options = SyntheticOptions

    def available(self, context: Context) -> str | None:
        schema = context.schema
        if schema is not None and len(schema.columns) > _MOST_COLUMNS:
            return f"pairs of {len(schema.columns):,} columns are too many; at most {_MOST_COLUMNS} are compared"
        if context.train is not None and len(context.train) < FEWEST:
            return f"at least {FEWEST} training rows are required, got {len(context.train)}"
        return super().available(context)

    def run(self, context: Context) -> SyntheticDataCheck:
        schema, options = context.schema, context.config.options(SyntheticOptions)
        assert schema is not None
        assert context.train is not None
        seed, test = context.stream("synthetic"), context.test
        rows = min(options.max_table_rows, max(len(test), len(context.train)))
        drawn = bounded(draw_samples(context.pair, rows, test, seed=seed).astype(np.float64), schema)
        drawn = hidden_alike(drawn, test, np.random.default_rng(context.stream("synthetic", 1)))
        return check_values(
            _values(context.train, schema),
            _values(test, schema),
            drawn,
            schema,
            num_targets=options.num_targets,
            max_rows=options.max_table_rows,
            seed=context.stream("synthetic", 2),
        )

    def section(self, result: SyntheticDataCheck) -> Section:
        frame = result.to_dataframe().sort_values("distance", ascending=False, kind="stable")
        rows = [
            [str(name), row["kind"], float(row["distance"]), float(row["distance_train"]), float(row["p_value"])]
            for name, row in frame.iterrows()
        ]
        return Section(
            self.title,
            [
                Listing(str(result)),
                Table(
                    "Distance of each column to held-out rows",
                    ["column", "kind", "draws", "training rows", "p (Holm)"],
                    rows,
                    name="columns",
                    keys=["column", "kind", "distance", "distance_train", "p_value"],
                ),
                Picture.of(
                    plot_columns(result),
                    alt=f"Histograms of columns of {result.num_draws:,} draws over those of held-out rows.",
                    caption="Columns of held-out rows and of draws; codes where they are categories.",
                    name="histograms",
                ),
                Picture.of(
                    plot_associations(result),
                    alt="Two matrices of associations between columns, of held-out rows and of draws.",
                    caption=flow(
                        """
                        Association of each pair of columns: rank correlation of numbers, correlation ratio of a number
                        and a category, Cramér's V of two categories.
                        """
                    ),
                    name="associations",
                ),
            ],
            verdicts=result.verdicts,
            methods=flow(_METHODS),
            references=_REFERENCES,
            metrics=result.summary(),
            name=self.name,
        )


def _values(split: Split, schema: Schema) -> np.ndarray:
    """Rows as numbers on the lattices of their columns, NaN where missing."""
    return bounded(observations(split, slice(None)), schema)
