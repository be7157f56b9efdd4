"""Calibration of the guide in the report."""

from typing import Any

import numpy as np
from pydantic import Field

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic
from analysis.posterior.calibration.evidence import EvidenceBounds
from analysis.posterior.calibration.plot import plot_coverage, plot_tarp
from analysis.posterior.calibration.result import Calibration
from analysis.posterior.calibration.sbc import calibrate
from analysis.results.blocks import Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.result import finite_or_none
from analysis.results.text import flow
from vae_pyro.core.config import Config
from vae_pyro.core.means import standard_error

_MOST_ROWS = 20
_REFERENCES = (
    "Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration. arXiv:1804.06788",
    "Modrák et al. 2023, Simulation-based calibration checking for Bayesian computation. arXiv:2211.02383",
    "Yao & Domke 2023, Discriminative calibration: check Bayesian computation from simulations and flexible "
    "classifier. arXiv:2305.14593",
    "Hermans et al. 2022, A trust crisis in simulation-based inference? arXiv:2110.06581",
    "Lemos et al. 2023, Sampling-based accuracy testing of posterior estimators. arXiv:2302.03026",
    "Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo. "
    "arXiv:1511.02543",
)


class CalibrationOptions(Config):
    """How much is simulated.

    Attributes:
        num_simulations: latents and data drawn from the model.
        num_ranked: draws of the guide that each of them is ranked among; ``num_ranked + 1`` should have many divisors.
    """

    num_simulations: int = Field(default=500, ge=20)
    num_ranked: int = Field(default=99, ge=19)


@DIAGNOSTICS.add
class GuideCalibration(Diagnostic[Calibration]):
    """Ranks, coverage, TARP and evidence of the guide on data of the model."""

    name, title, order = "calibration", "Calibration of the guide", 40
    needs = ("draws", "amortized", "latents")
    question = "Is the guide the posterior of the fitted model?"
    Options = CalibrationOptions

    def run(self, context: Context) -> Calibration:
        options = context.config.options(CalibrationOptions)
        y, data = context.test.y, context.data
        known = data.programs.template is None  # nothing beside which the model draws has to be given
        return calibrate(
            context.pair,
            num_simulations=options.num_simulations,
            num_draws=options.num_ranked,
            seed=context.stream(4),
            x_like=None if known else data.batch(slice(0, options.num_simulations))[0],
            y=None if y is None else y.to(context.pair.place(context.test)[0]),
        )

    def section(self, result: Calibration) -> Section:
        return Section(
            self.title,
            [
                Listing(str(result)),
                _by_latent(result),
                *([_evidence(result.evidence)] if result.evidence else []),
                _ranks(result),
                _coverage(result),
                _tarp(result),
            ],
            verdicts=result.verdicts,
            methods=flow(
                f"""
                Simulation-based calibration: {result.num_simulations:,} times a latent is drawn from the prior and a
                datum from the decoder, and the latent is ranked among {result.num_draws:,} draws of the guide at that
                datum. It tests whether the guide is the posterior of the fitted model, on data of that model; not
                whether the model is right. p-values are multiplied by the number of tests. The mean log weight at the
                latents that made the data is log p(x) + KL(p || q) on average, that at draws of the guide is the ELBO;
                their difference sees support that the guide misses, which no weight of its own draws can show.
                """
            ),
            references=_REFERENCES,
            name=self.name,
        )


def _by_latent(result: Calibration) -> Table:
    level, cover, error = result.coverage_at(0.9)
    rows: list[list[Any]] = [
        [name, Estimate(float(cover[i]), float(error[i])), Estimate(float(result.bias[i]), float(result.bias_se[i])),
         Estimate(float(result.spread[i]), float(result.spread_se[i])), float(result.contraction[:, i].mean()),
         result.labels[i]]
        for i, name in enumerate(result.latents)
    ]  # fmt: skip
    order = np.argsort([-abs(row[1].value - level) for row in rows])[:_MOST_ROWS]
    more = f" {len(rows) - len(order)} more latents are in the pictures." if len(rows) > len(order) else ""
    return Table(
        "Calibration by latent, the worst first",
        ["latent", f"coverage of {level:.0%} intervals", "bias, sd", "spread of z-scores", "contraction", "reading"],
        [rows[i] for i in order],
        note=flow(
            f"""
            Bias is the mean of (truth - mean) / sd, 0 if calibrated. Spread is the size of these z-scores relative to
            that of the guide's own draws: above 1 the guide is too narrow, below 1 too wide. Contraction is 1 minus the
            posterior's share of the prior variance.{more}
            """
        ),
        name="calibration",
    )


def _evidence(bounds: EvidenceBounds) -> Table:
    rows: list[list[Any]] = [
        ["mean log weight at the latents that made the data", float(bounds.upper.mean()), standard_error(bounds.upper)],
        ["mean log weight at draws of the guide, the ELBO", float(bounds.lower.mean()), standard_error(bounds.lower)],
        ["difference, KL(p || q) + KL(q || p)", bounds.symmetric_kl, bounds.symmetric_kl_se],
    ]
    return Table(
        f"Evidence of {len(bounds.upper):,} data of the model from both sides, nats per datum",
        ["quantity", "mean", "± simulated data and draws"],
        [[name, value, finite_or_none(error)] for name, value, error in rows],
        note="The difference is paired by datum, so that log p(x) cancels; it is 0 for an exact guide.",
        name="evidence",
    )


def _ranks(result: Calibration) -> Picture:
    return Picture.of(
        result.plot(),
        alt=flow(
            f"""
            ECDF of the ranks of {len(result.names)} quantities minus uniform, with a simultaneous band:
            {result.statement}.
            """
        ),
        caption=flow(
            """
            Ranks of the truth among draws of the guide, minus uniform. A curve inside its band is consistent with an
            exact posterior; all stay inside in 95 % of such cases.
            """
        ),
        metrics={"statement": result.statement},
        name="ranks",
    )


def _coverage(result: Calibration) -> Picture:
    level, cover, _ = result.coverage_at(0.9)
    nominal, curves = result.coverage
    band = result.coverage_band
    return Picture.of(
        plot_coverage(nominal, curves, band.lower, band.upper, result.latents),
        alt=flow(
            f"""
            Coverage of central intervals against their nominal level; {level:.0%} intervals cover {cover.mean():.1%} on
            average over latents.
            """
        ),
        caption=flow(
            """
            How often central intervals of the guide cover the latent that generated the datum. Below the diagonal the
            guide is too narrow.
            """
        ),
        name="coverage",
    )


def _tarp(result: Calibration) -> Picture:
    nominal, curve = result.tarp_coverage
    return Picture.of(
        plot_tarp(nominal, curve, result.band.lower, result.band.upper),
        alt="Expected coverage of balls around random points against the nominal level, with its band.",
        caption="TARP: coverage of balls around random points, all latents at once.",
        name="tarp",
    )
