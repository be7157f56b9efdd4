"""The result of `analysis.posterior.gaps`: the inference gap of each datum, its two parts, and checks of both."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.posterior.bounds import Annealing, Sandwich
from analysis.posterior.local_guides import Family
from analysis.posterior.nuts import PosteriorMoments
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict, graded
from analysis.stats.means import mean_and_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]
type Gap = Literal["amortization", "approximation", "inference"]

GAPS: tuple[Gap, ...] = ("amortization", "approximation", "inference")
NAMES: dict[Gap, str] = {
    "inference": "inference gap, log p(x) - ELBO",
    "approximation": "approximation gap, the family's",
    "amortization": "amortization gap, the encoder's",
}
# Nats for each latent: half the square of a shift of 1/sqrt(2), and of 1, posterior standard deviations.
_WARN, _FAIL = 0.25, 0.5
_CONVENTION = (
    "definition: Cremer et al. 2018, Table 1, arXiv:1801.03558 (1.43 and 1.34 nats, approximation and amortization, on "
    "MNIST); the threshold is a convention: the loss of a guide whose means are off by 0.7 (fail: by 1) posterior "
    "standard deviations in every latent"
)


@dataclass(frozen=True, eq=False, repr=False)
class InferenceGaps(Result):
    """The inference gap log p(x) - ELBO and its two parts, in nats.

    Attributes:
        ids: of the data, ``(datum,)``.
        elbo: of the amortized guide, ``(datum,)``; ``elbo_se`` is its Monte Carlo standard error.
        elbo_local: of the guide optimised for that datum, ``(datum,)``, with ``elbo_local_se``.
        amortization_se: Monte Carlo standard error of `amortization`; both ELBOs see the same noise where the guide is
            Gaussian, and most of it cancels.
        annealing: log p(x) by annealing from the optimised guide: the reference.
        log_px_is: log p(x) by importance sampling from the optimised guide, ``(datum,)``, with ``log_px_is_se``.
        pareto_k_local: tail index of its weights, ``(datum,)``.
        log_px_guide: log p(x) by importance sampling from the amortized guide, ``(datum,)``.
        pareto_k_guide: tail index of its weights, ``(datum,)``.
        remaining: nats that a further step of the local optimisation would gain, ``(datum,)``, with ``remaining_se``.
        improved: whether the optimised guide is better than the amortized one, ``(datum,)``.
        latent_dim: numbers in the latents of one datum.
        family: of the optimised guide.
        same_family: whether the amortized guide belongs to it; if not, the two parts are not those of its own family.
        num_draws: draws behind the ELBOs and importance sampling.
        sandwich: bounds on simulated data, which certify the reference; ``None`` where not asked for.
        nuts: posterior moments of a few data by NUTS; ``None`` where not asked for.
    """

    ids: Array
    elbo: Array
    elbo_se: Array
    elbo_local: Array
    elbo_local_se: Array
    amortization_se: Array
    annealing: Annealing
    log_px_is: Array
    log_px_is_se: Array
    pareto_k_local: Array
    log_px_guide: Array
    pareto_k_guide: Array
    remaining: Array
    remaining_se: Array
    improved: Array
    latent_dim: int
    family: Family
    same_family: bool
    num_draws: int
    sandwich: Sandwich | None = None
    nuts: PosteriorMoments | None = None

    @property
    def log_px(self) -> Array:
        """log p(x) of each datum by annealing, ``(datum,)``."""
        return self.annealing.log_px

    @property
    def amortization(self) -> Array:
        """ELBO of the best guide for the datum minus that of the amortized guide, ``(datum,)``."""
        return self.elbo_local - self.elbo

    @property
    def approximation(self) -> Array:
        """log p(x) minus the ELBO of the best guide for the datum, ``(datum,)``."""
        return self.log_px - self.elbo_local

    @property
    def inference(self) -> Array:
        """log p(x) minus the ELBO of the amortized guide, ``(datum,)``: the sum of the two."""
        return self.log_px - self.elbo

    @property
    def approximation_se(self) -> Array:
        """Monte Carlo standard error of `approximation`, ``(datum,)``."""
        return np.hypot(self.annealing.log_px_se, self.elbo_local_se)

    @property
    def inference_se(self) -> Array:
        """Monte Carlo standard error of `inference`, ``(datum,)``."""
        return np.hypot(self.annealing.log_px_se, self.elbo_se)

    def average(self, gap: Gap) -> tuple[float, float, float]:
        """Mean of a gap over data, its Monte Carlo standard error, and that of another sample of data.

        The latter is the spread over data divided by sqrt(n), which contains the former; NaN for a single datum.
        """
        values, errors = getattr(self, gap), getattr(self, f"{gap}_se")
        mean, sampling = mean_and_error(values)
        return mean, float(np.sqrt((errors**2).sum()) / len(values)), sampling

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Both gaps, then whether the estimates behind them are reliable."""
        checks = [self._optimised(), self._agreement(), *self.annealing.verdicts]
        checks += self.sandwich.verdicts if self.sandwich else ()
        checks += self.nuts.verdicts if self.nuts else ()
        return (
            self._gap(
                "amortization",
                "Is the encoder's guide as good as one fitted to each datum?",
                "train longer, widen the encoder, or refine q for the data that matter",
            ),
            self._gap(
                "approximation",
                f"Is the family of the guide ({self.family.replace('_', '-')} Gaussian) rich enough?",
                "choose posterior 'full_rank' or 'flow'"
                if self.family == "mean_field"
                else "choose posterior 'flow', or weight draws by importance",
            ),
            *checks,
        )

    def _gap(self, gap: Literal["amortization", "approximation"], question: str, advice: str) -> Verdict:
        mean, mcse, sampling = self.average(gap)
        error = mcse if np.isnan(sampling) else sampling
        good, bad = _WARN * self.latent_dim, _FAIL * self.latent_dim
        low = mean - 2 * error
        outcome = graded(low, good, bad)
        note = "" if self.same_family else "split by a Gaussian family, to which the guide does not belong; "
        return Verdict(
            question,
            mean,
            error,
            "nats per datum",
            f"at most {good:g}, {_WARN} for each of {self.latent_dim} latents (fail above {bad:g}), beyond two "
            "standard errors",
            _CONVENTION,
            outcome,
            note + ("" if outcome == "pass" else advice),
            f"{gap}_gap",
        )

    def _optimised(self) -> Verdict:
        mean, n = float(self.remaining.mean()), len(self.remaining)
        error = float(np.sqrt((self.remaining_se**2).sum()) / n)
        outcome: Outcome = "pass" if mean - 2 * error <= 0.1 else "warn"
        return Verdict(
            "Has the optimisation of each datum's guide converged?",
            mean,
            error,
            "nats per datum that a further natural-gradient step would gain",
            "at most 0.1, beyond two standard errors",
            "convention: small beside the gaps",
            outcome,
            remedy="raise num_steps: the amortization gap is too small by about this much",
            name="local_convergence",
        )

    def _agreement(self) -> Verdict:
        difference = self.log_px - self.log_px_is
        n = len(difference)
        mean = float(difference.mean())
        error = float(np.sqrt((self.annealing.log_px_se**2 + self.log_px_is_se**2).sum()) / n)
        bad = int((self.pareto_k_local > 0.7).sum())
        outcome: Outcome = "pass" if mean >= -max(0.1, 3 * error) else "warn"
        advice = (
            "annealing is too short: raise num_temperatures"
            if outcome == "warn"
            else f"importance sampling is low by as much: its k-hat is above 0.7 for {bad:,} of {n:,} data"
            if bad and mean > 3 * error
            else ""
        )
        return Verdict(
            "Is log p(x) by annealing at least as high as by importance sampling?",
            mean,
            error,
            "nats per datum, annealing minus importance sampling from the optimised guide",
            "not below -0.1 or minus three standard errors",
            "both are lower bounds on average, the higher is nearer (Wu et al. 2017, arXiv:1611.04273); 0.1 is a "
            "convention",
            outcome,
            advice,
            "log_px_agreement",
        )

    def summary(self) -> dict[str, Any]:
        """Averages over data in nats per datum, each with ``_se`` (other draws) and ``_sampling_se`` (other data)."""
        values: dict[str, Any] = {
            "elbo": float(self.elbo.mean()),
            "elbo_local": float(self.elbo_local.mean()),
            "log_px": self.annealing.mean,
            "log_px_se": self.annealing.mean_mcse,
            "log_px_is": float(self.log_px_is.mean()),
            "log_px_guide": float(self.log_px_guide.mean()),
        }
        for gap in GAPS:
            mean, mcse, sampling = self.average(gap)
            values |= {f"{gap}_gap": mean, f"{gap}_gap_se": mcse}
            values[f"{gap}_gap_sampling_se"] = finite_or_none(sampling)
        values |= {
            "num_bad_k_guide": int((self.pareto_k_guide > 0.7).sum()),
            "num_bad_k_local": int((self.pareto_k_local > 0.7).sum()),
            "remaining": float(self.remaining.mean()),
            "family": self.family,
            "same_family": self.same_family,
            "latent_dim": self.latent_dim,
            "num_draws": self.num_draws,
            "n": len(self.elbo),
            "annealing": self.annealing.summary(),
            "sandwich": self.sandwich.summary() if self.sandwich else None,
            "nuts": self.nuts.summary() if self.nuts else None,
        }
        return values

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum, by its id: ELBOs, log p(x), the gaps with their Monte Carlo errors, and k-hat."""
        import pandas as pd

        columns: dict[str, Array] = {"elbo": self.elbo, "elbo_local": self.elbo_local, "log_px": self.log_px}
        for gap in GAPS:
            columns |= {gap: getattr(self, gap), f"{gap}_se": getattr(self, f"{gap}_se")}
        columns |= {"pareto_k_guide": self.pareto_k_guide, "pareto_k_local": self.pareto_k_local}
        return pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))

    def plot(self) -> "Figure":
        """The inference gap and its two parts, with the sampling errors of their averages."""
        from analysis.plotting import plot_bars

        averages = [self.average(gap) for gap in NAMES]
        # The sampling error is that of the spread of the estimates, and contains the Monte Carlo error.
        errors = [sampling if np.isfinite(sampling) else mcse for _, mcse, sampling in averages]
        return plot_bars(list(NAMES.values()), [mean for mean, _, _ in averages], errors)

    def __str__(self) -> str:
        lines = [f"inference gaps over {len(self.elbo):,} data, nats per datum (± other draws; ± other data)"]
        notes: dict[Gap, str] = {
            "amortization": f"ELBO {self.elbo.mean():.3f} of the encoder, {self.elbo_local.mean():.3f} fitted to each",
            "approximation": f"log p(x) {self.annealing.mean:.3f}; {self.family.replace('_', '-')} Gaussian",
        }
        for (gap, note), verdict in zip(notes.items(), self.verdicts, strict=False):
            mean, mcse, sampling = self.average(gap)
            lines.append(f"  {gap} {mean:z.3f} ± {mcse:.2g}; ± {sampling:.2g} [{verdict.outcome}]: {note}")
        doubts = [verdict for verdict in self.verdicts[2:] if verdict.outcome != "pass"]
        lines += [f"  {verdict}" for verdict in doubts] or ["  the checks of these estimates pass"]
        return screen(lines)
