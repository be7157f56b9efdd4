"""Prior predictive samples in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic
from analysis.results.blocks import Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.result import Findings
from analysis.results.text import flow
from analysis.samples.generated.draws import check_samples, draw_samples
from analysis.samples.generated.plot import plot_samples
from analysis.samples.generated.result import SampleComparison
from vae_pyro.core.config import Config

type Array = np.ndarray[Any, Any]

_SHOWN = 49
_FEWEST = 20
_METHODS = """
    z is drawn from the prior and x from p(x | z). A classifier is trained to distinguish such draws from held-out data,
    by cross-validation; neighbourhoods are those of nearest neighbours.
"""
_REFERENCES = (
    "Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests. arXiv:1610.06545",
    "Gretton et al. 2012, A kernel two-sample test, JMLR 13.",
    "Kynkäänniemi et al. 2019, Improved precision and recall metric. arXiv:1904.06991",
    "Naeem et al. 2020, Reliable fidelity and diversity metrics. arXiv:2002.09797",
    "Meehan, Chaudhuri & Dasgupta 2020, A non-parametric test to detect data-copying. arXiv:2004.05675",
)


class SampleOptions(Config):
    """How much is generated.

    Attributes:
        num_samples: data drawn from the model to compare with real ones.
    """

    num_samples: int = Field(default=2000, ge=_FEWEST)


@dataclass(frozen=True, eq=False, repr=False)
class SampleFindings(Findings):
    """The comparison, and data to look at.

    Attributes:
        comparison: of generated with held-out data.
        data: some held-out data, ``(datum, *x_shape)``.
        expectations: E[x | z] of latents drawn from the prior, ``(draw, *x_shape)``; draws of x for programs that are
            not a `VAE`.
    """

    comparison: SampleComparison
    data: Array
    expectations: Array

    @property
    def parts(self) -> Mapping[str, SampleComparison]:
        return {"comparison": self.comparison}


@DIAGNOSTICS.add
class Samples(Diagnostic[SampleFindings]):
    """Generated data beside held-out ones, by several measures."""

    name, title, order = "samples", "Prior predictive samples", 80
    needs = ("draws",)
    question = "Do prior predictive samples match held-out data?"
    min_data = _FEWEST
    Options = SampleOptions

    def run(self, context: Context) -> SampleFindings:
        pair, test, seed = context.pair, context.test, context.stream(11)
        number = min(context.config.options(SampleOptions).num_samples, len(test))
        found = check_samples(pair, test, num_samples=number, seed=seed, train=context.train)
        x = test.batch(slice(0, _SHOWN))[0].cpu().numpy()
        vae = pair.decodable
        if vae is not None:
            y = None if test.y is None else test.y[torch.arange(_SHOWN) % len(test)]
            return SampleFindings(found, x, vae.sample(_SHOWN, y=y, seed=seed, expectation=True).cpu().numpy())
        return SampleFindings(found, x, draw_samples(pair, _SHOWN, test, seed=seed))

    def section(self, result: SampleFindings) -> Section:
        found = result.comparison
        return Section(
            self.title,
            [
                Listing(str(found)),
                _measures(found),
                Picture.of(
                    plot_samples(result.data, result.expectations),
                    alt=flow(
                        f"""
                        {len(result.data)} held-out data beside {len(result.expectations)} expectations E[x | z] of
                        latents drawn from the prior.
                        """
                    ),
                    caption=flow(
                        """
                        Held-out data, and E[x | z] for z drawn from the prior. Expectations are smoother than draws of
                        x.
                        """
                    ),
                    name="beside",
                ),
            ],
            verdicts=result.verdicts,
            methods=flow(_METHODS),
            references=_REFERENCES,
            name=self.name,
        )


def _measures(found: SampleComparison) -> Table:
    around, test, gap = found.neighbourhoods, found.classifier, found.discrepancy
    names = ("precision", "recall", "density", "coverage")
    rows: list[list[Any]] = [
        ["accuracy of a classifier (1/2 is the best)", Estimate(test.accuracy, test.standard_error)],
        *([name, Estimate(float(getattr(around, name)), float(around.errors[i]))] for i, name in enumerate(names)),
        ["kernel MMD squared", float(gap.value)],
        ["p of the MMD", Estimate(float(gap.p_value), float(gap.p_value_mcse))],
    ]
    return Table(
        f"Generated against held-out data ({found.features})",
        ["measure", "estimate"],
        rows,
        name="samples",
        keys=["figure", "estimate"],
    )
