"""The result of `analysis.posterior.gaps`: the inference gap of each datum, its two parts, and checks of both."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.posterior.bounds import Annealing, Sandwich
from analysis.posterior.gaps import thresholds
from analysis.posterior.local_guides import Family
from analysis.posterior.nuts import PosteriorMoments
from analysis.posterior.starts import by_datum, highest
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from vae_pyro.core.means import mean_and_error

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
# Tail index of importance weights above which no practical number of draws suffices (Vehtari et al. 2024).
_BAD_K = 0.7


@dataclass(frozen=True, eq=False, repr=False)
class InferenceGaps(Result):
    """The inference gap log p(x) - ELBO and its two parts, in nats.

    Attributes:
        ids: of the data, ``(datum,)``.
        elbo: of the amortized guide, ``(datum,)``; ``elbo_se`` is its Monte Carlo standard error.
        elbo_local: of the guide optimised for that datum, ``(datum,)``, with ``elbo_local_se``.
        amortization_se: Monte Carlo standard error of `amortization`; both ELBOs see the same noise where the guide is
            Gaussian, and most of it cancels.
        annealing: log p(x) by annealing, of each datum from the start that gives the best bound: the reference.
        log_px_is: log p(x) by importance sampling from the optimised guide, ``(datum,)``, with ``log_px_is_se``.
        pareto_k_local: tail index of its weights, ``(datum,)``.
        log_px_guide: log p(x) by importance sampling from the amortized guide, ``(datum,)``, with
            ``log_px_guide_se``.
        pareto_k_guide: tail index of its weights, ``(datum,)``.
        remaining: nats that a further step of the local optimisation would gain, ``(datum,)``, with ``remaining_se``.
        improved: whether the optimised guide is better than the amortized one, ``(datum,)``.
        latent_dim: numbers in the latents of one datum.
        family: of the optimised guide.
        same_family: whether the amortized guide belongs to it; if not, the two parts are not those of its own family.
        num_draws: draws behind the ELBOs and importance sampling.
        starts: annealing of all data from each start: the optimised guide, the amortized guide, the prior.
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
    log_px_guide_se: Array
    pareto_k_guide: Array
    remaining: Array
    remaining_se: Array
    improved: Array
    latent_dim: int
    family: Family
    same_family: bool
    num_draws: int
    starts: tuple[Annealing, ...]
    sandwich: Sandwich | None = None
    nuts: PosteriorMoments | None = None

    @cached_property
    def bounds(self) -> dict[str, tuple[Array, Array]]:
        """Every estimate of log p(x) other than `annealing`, with its standard error, each ``(datum,)``."""
        by_start = {f"annealing from the {part.start}": (part.log_px, part.log_px_se) for part in self.starts}
        return by_start | {
            "importance sampling from the optimised guide": (self.log_px_is, self.log_px_is_se),
            "importance sampling from the guide": (self.log_px_guide, self.log_px_guide_se),
        }

    @cached_property
    def _best(self) -> tuple[Array, Array]:
        """log p(x) and its standard error, ``(datum,)``: annealing, or a significantly higher bound by importance."""
        values, errors = [self.annealing.log_px], [self.annealing.log_px_se]
        for value, error, k in (
            (self.log_px_is, self.log_px_is_se, self.pareto_k_local),
            (self.log_px_guide, self.log_px_guide_se, self.pareto_k_guide),
        ):
            values.append(value)
            errors.append(np.where(k > _BAD_K, np.inf, error))  # an error that is not to be trusted
        index = highest(values, errors)
        return by_datum(values, index), by_datum(errors, index)

    @property
    def log_px(self) -> Array:
        """log p(x) of each datum, ``(datum,)``: the best bound, see `analysis.posterior.starts.highest`."""
        return self._best[0]

    @property
    def log_px_se(self) -> Array:
        """Monte Carlo standard error of `log_px`, ``(datum,)``."""
        return self._best[1]

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
        return np.hypot(self.log_px_se, self.elbo_local_se)

    @property
    def inference_se(self) -> Array:
        """Monte Carlo standard error of `inference`, ``(datum,)``."""
        return np.hypot(self.log_px_se, self.elbo_se)

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
        return thresholds.verdicts_of(self)

    def summary(self) -> dict[str, Any]:
        """Averages over data in nats per datum, each with ``_se`` (other draws) and ``_sampling_se`` (other data)."""
        values: dict[str, Any] = {
            "elbo": float(self.elbo.mean()),
            "elbo_local": float(self.elbo_local.mean()),
            "log_px": float(self.log_px.mean()),
            "log_px_se": float(np.sqrt((self.log_px_se**2).sum()) / len(self.log_px)),
            "log_px_is": float(self.log_px_is.mean()),
            "log_px_guide": float(self.log_px_guide.mean()),
        }
        for gap in GAPS:
            mean, mcse, sampling = self.average(gap)
            values |= {f"{gap}_gap": mean, f"{gap}_gap_se": mcse}
            values[f"{gap}_gap_sampling_se"] = finite_or_none(sampling)
        values |= {
            "num_bad_k_guide": int((self.pareto_k_guide > _BAD_K).sum()),
            "num_bad_k_local": int((self.pareto_k_local > _BAD_K).sum()),
            "remaining": float(self.remaining.mean()),
            "family": self.family,
            "same_family": self.same_family,
            "latent_dim": self.latent_dim,
            "num_draws": self.num_draws,
            "n": len(self.elbo),
            "annealing": self.annealing.summary(),
            "log_px_by_start": {part.start: part.mean for part in self.starts},
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
            "approximation": f"log p(x) {self.log_px.mean():.3f}; {self.family.replace('_', '-')} Gaussian",
        }
        for (gap, note), verdict in zip(notes.items(), self.verdicts, strict=False):
            mean, mcse, sampling = self.average(gap)
            lines.append(f"  {gap} {mean:z.3f} ± {mcse:.2g}; ± {sampling:.2g} [{verdict.outcome}]: {note}")
        doubts = [verdict for verdict in self.verdicts[2:] if verdict.outcome != "pass"]
        lines += [f"  {verdict}" for verdict in doubts] or ["  the checks of these estimates pass"]
        return screen(lines)
