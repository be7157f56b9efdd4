"""Outlying held-out data in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic, Reducers
from analysis.monitoring.outliers.detection import EvidenceReducer, conformal, evidence
from analysis.monitoring.outliers.result import Detection
from analysis.plotting import plot_data, plot_scores
from analysis.results.blocks import Listing, Picture, Section
from analysis.results.result import Findings
from analysis.results.text import flow

type Array = np.ndarray[Any, Any]

_FEWEST_VALIDATION = 100
_SHOWN = 16
# Draws of each datum, as many for validation as for held-out data; those of the latter are the first of the report's.
_NUM_DRAWS = 100
_EVIDENCE = "evidence"


@dataclass(frozen=True, eq=False, repr=False)
class OutlierFindings(Findings):
    """The detection, and data to look at.

    Attributes:
        detection: of the held-out data, with validation data as the normal ones.
        strangest: the held-out data of the largest scores, ``(datum, *x_shape)``.
    """

    detection: Detection
    strangest: Array

    @property
    def parts(self) -> Mapping[str, Detection]:
        return {"detection": self.detection}


@DIAGNOSTICS.add
class Outliers(Diagnostic[OutlierFindings]):
    """Held-out data that are unlike the validation data."""

    name, title, order = "outliers", "Outlying held-out data", 100
    question = "Which held-out data are unlike the validation data?"
    requires = ("validation",)
    needs = ("amortized",)

    def available(self, context: Context) -> str | None:
        if context.validation is not None and len(context.validation) < _FEWEST_VALIDATION:
            return f"at least {_FEWEST_VALIDATION} validation data are required, got {len(context.validation)}"
        return super().available(context)

    def reducers(self, context: Context) -> Reducers:
        return {_EVIDENCE: lambda: EvidenceReducer(_NUM_DRAWS)}

    def run(self, context: Context) -> OutlierFindings:
        assert context.validation is not None
        seed = context.stream(13)
        normal = evidence(context.pair, context.validation.fixed(seed), num_draws=_NUM_DRAWS, seed=seed)
        scores = [-found.log_px for found in (normal, context.collected(_EVIDENCE))]
        found = conformal(*scores, score="log_px", ids=context.test.ids.cpu().numpy())
        order = np.argsort(-found.scores)[:_SHOWN]
        rows = context.test.take(torch.from_numpy(order.copy()))
        return OutlierFindings(found, rows.batch(slice(None))[0].cpu().numpy())

    def section(self, result: OutlierFindings) -> Section:
        found = result.detection
        threshold = float(found.threshold) if np.isfinite(found.threshold) else None
        return Section(
            self.title,
            [
                Listing(str(found)),
                Picture.of(
                    plot_scores(
                        found.calibration,
                        found.scores,
                        threshold=threshold,
                        names=("validation data", "test data"),
                        xlabel="-log p(x), nats",
                    ),
                    alt=flow(
                        """
                        Histograms of -log p(x) of validation and test data with the threshold above which a datum is
                        flagged.
                        """
                    ),
                    caption="-log p(x) of validation data, which set the threshold, and of test data.",
                    name="scores",
                ),
                Picture.of(
                    plot_data(result.strangest, "the least probable held-out data"),
                    alt=f"The {len(result.strangest)} held-out data of the lowest log p(x).",
                    caption="The least probable held-out data, in order of log p(x).",
                    name="strangest",
                ),
            ],
            verdicts=result.verdicts,
            methods=flow(
                """
                A datum is flagged where its -log p(x) exceeds the conformal threshold of the validation data, so that
                at most the nominal share of exchangeable data is flagged.
                """
            ),
            references=("Bates et al. 2023, Testing for outliers with conformal p-values. arXiv:2104.08279",),
            name=self.name,
        )
