"""Inference gaps in the report."""

from typing import Any

from pydantic import Field

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic
from analysis.posterior.gaps.decomposition import inference_gaps
from analysis.posterior.gaps.result import NAMES, InferenceGaps
from analysis.posterior.joint import LogJoint
from analysis.results.blocks import Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.text import flow
from vae_pyro.core.config import Config
from vae_pyro.core.isolation import isolated

_METHODS = """
    For each datum a guide of the same family is optimised on its own. Its ELBO minus the encoder's is the amortization
    gap; log p(x), by annealed importance sampling with Hamiltonian moves, minus its ELBO is the approximation gap.
    Chains start from that guide, from the encoder's and from the prior, since those that start in one mode of a
    posterior do not find the others; of each datum the best bound is taken. On data simulated from the model,
    annealing forward from these and backward from the latents that generated the data brackets log p(x), which
    certifies the reference.
"""
_REFERENCES = (
    "Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders. arXiv:1801.03558",
    "Wu et al. 2017, On the quantitative analysis of decoder-based generative models. arXiv:1611.04273",
    "Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo. "
    "arXiv:1511.02543",
)


class GapOptions(Config):
    """How many gaps are estimated.

    Attributes:
        num_gap_data: held-out data whose gaps are estimated, each by an optimisation and annealing of its own.
    """

    num_gap_data: int = Field(default=30, ge=2)


@DIAGNOSTICS.add
class Gaps(Diagnostic[InferenceGaps]):
    """Approximation gap of the family and amortization gap of the encoder."""

    name, title, order = "gaps", "Inference gaps", 50
    needs = ("draws", "amortized", "codes")
    question = "How much of log p(x) does the guide lose, and to what?"
    Options = GapOptions

    def available(self, context: Context) -> str | None:
        reason = super().available(context)
        if reason is not None:
            return reason
        data = context.data
        with isolated(0):
            head, given = data.batch(slice(0, 1))
            kinds = data.programs.draw(head, 1, **given).kinds
        if "data" in kinds.values():
            return (
                "the gaps are certified on data that are simulated with their latents, and what is missing of x is a "
                "latent here; report on data without a mask"
            )
        with isolated(0):
            LogJoint(data.programs, head, **given)  # it refuses latents that are not real-valued
        return None

    def run(self, context: Context) -> InferenceGaps:
        number = min(context.config.options(GapOptions).num_gap_data, len(context.test))
        return inference_gaps(context.pair, context.test, num_data=number, seed=context.stream(5))

    def section(self, result: InferenceGaps) -> Section:
        averages = {gap: result.average(gap) for gap in NAMES}
        rows: list[list[Any]] = [
            [label, Estimate(*averages[gap][:2]), averages[gap][2]] for gap, label in NAMES.items()
        ]
        values = ", ".join(f"{label} {averages[gap][0]:.2f}" for gap, label in NAMES.items())
        return Section(
            self.title,
            [
                Listing(str(result)),
                Table(
                    f"Gaps, nats per datum, over {len(result.ids):,} held-out data",
                    ["gap", "estimate ± Monte Carlo", "± other data and draws"],
                    rows,
                    name="gaps",
                ),
                Picture.of(
                    result.plot(),
                    alt=f"Bars of the gaps: {values} nats per datum.",
                    caption=flow(
                        """
                        The inference gap and its two parts. A large approximation gap calls for a richer family, a
                        large amortization gap for a refit of the guide or a larger encoder.
                        """
                    ),
                    name="bars",
                ),
            ],
            verdicts=result.verdicts,
            methods=flow(_METHODS),
            references=_REFERENCES,
            name=self.name,
        )
