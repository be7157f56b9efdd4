"""The result of `describe_latent`: rate and distortion, used latents, aggregate posterior against prior."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict
from analysis.stats.information import Bracket
from analysis.stats.mmd import MMD
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE, Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

# Conventions. VAEs of MNIST with 2 and 20 latents have an aggregate posterior at 3 to 13 % of the rate from the prior,
# and 3 to 8 % of prior draws in holes; the thresholds are well above that.
UNUSED_SHARE = 0.5
_KL_SHARE = 0.2
HOLE_LEVEL, _HOLES_WARN, _HOLES_FAIL = 0.01, 0.25, 0.75


@dataclass(frozen=True, eq=False, repr=False)
class LatentSummary(Result):
    """Information in the latents of a fitted pair, in nats per datum.

    Attributes:
        evaluation: rate (``kl``), distortion (``-reconstruction``) and activity, from all data.
        names: of the latents, ``z[0]`` and so on.
        kl: KL(q(z_d | x) || p(z_d)), shape ``(datum, latent)``; exact for a Gaussian prior, by quadrature for a
            mixture; ``None`` where guide or prior has no marginals in closed form.
        collapsed: (epsilon, delta)-collapse of each latent; all false where ``kl`` is ``None``.
        mutual_information: I(x; z).
        latent_information: I(x; z_d), lower and upper estimate, shape ``(2, latent)``, or ``None``.
        marginal_kl: KL(q(z) || p(z)).
        total_correlation: KL(q(z) || prod q(z_d)), or ``None``.
        dimension_kl: sum_d KL(q(z_d) || p(z_d)), or ``None``.
        mmd: between draws of the aggregate posterior and of the prior.
        holes: share of prior draws where q(z) is below its own 1 % quantile.
        holes_se: its standard error.
        log_density: log q(z) at draws of the aggregate posterior, shape ``(particle, datum)``, from the other data.
        log_density_prior: log q(z) at draws of the prior, shape ``(row,)``.
        aggregate: draws of the aggregate posterior, one a datum, shape ``(datum, latent)``.
        aggregate_ids: their ids.
        prior: draws of the prior, shape ``(row, latent)``.
        epsilon: nats below which a latent counts as collapsed for a datum.
        delta: share of data that may be above it.
    """

    evaluation: Evaluation
    names: tuple[str, ...]
    kl: Array | None
    collapsed: Array
    mutual_information: Bracket
    latent_information: Array | None
    marginal_kl: Bracket
    total_correlation: Bracket | None
    dimension_kl: Bracket | None
    mmd: MMD
    holes: float
    holes_se: float
    log_density: Array
    log_density_prior: Array
    aggregate: Array
    aggregate_ids: Array
    prior: Array
    epsilon: float = 0.01
    delta: float = 0.01

    @property
    def num_compared(self) -> int:
        """Data whose densities were compared with each other."""
        return len(self.aggregate)

    @property
    def ceiling(self) -> float:
        """log N, the maximum of the lower estimate of the mutual information."""
        return float(np.log(self.num_compared))

    @property
    def active(self) -> Array:
        """Latents whose posterior mean varies over data with a variance above 0.01, shape ``(latent,)``."""
        return np.asarray(self.evaluation.activity > ACTIVE_VARIANCE)

    @property
    def unused(self) -> Array:
        """Latents that are collapsed or not active, shape ``(latent,)``."""
        return np.asarray(self.collapsed | ~self.active)

    @property
    def rate(self) -> float:
        """E KL(q(z | x) || p(z)), nats per datum.

        References:
            Alemi et al. 2018, Fixing a broken ELBO, sec. 3: distortion + rate = -ELBO. arXiv:1711.00464
        """
        return float(self.evaluation.kl.mean())

    @property
    def distortion(self) -> float:
        """-E log p(x | z), nats per datum."""
        return -float(self.evaluation.reconstruction.mean())

    @property
    def mean_kl(self) -> Array | None:
        """KL(q(z_d | x) || p(z_d)) averaged over data, shape ``(latent,)``."""
        return None if self.kl is None else np.asarray(self.kl.mean(0))

    def _error(self, name: str) -> float:
        """Standard error of an average over data, for another test set and other draws."""
        values = getattr(self.evaluation, name)
        return float(values.std(ddof=1) / np.sqrt(len(values)))

    @property
    def rate_se(self) -> float:
        """Standard error of `rate`, for another test set."""
        return self._error("kl")

    @property
    def distortion_se(self) -> float:
        """Standard error of `distortion`, for another test set."""
        return self._error("reconstruction")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Collapse, aggregate posterior against prior, and holes."""
        return self._collapse_verdict(), self._aggregate_verdict(), self._holes_verdict()

    def _collapse_verdict(self) -> Verdict:
        unused, total = int(self.unused.sum()), len(self.names)
        which = ", ".join(name for name, off in zip(self.names, self.unused, strict=True) if off)
        outcome: Outcome = "fail" if unused == total else "warn" if unused > UNUSED_SHARE * total else "pass"
        advice = {
            "fail": "the posterior has collapsed: x is ignored; lower beta, warm the KL up, or lower the likelihood's "
            "variance",
            "warn": f"most latents are unused ({which}): lower latent_dim or beta, or warm the KL up",
            "pass": f"unused: {which}" if unused else "",
        }[outcome]
        # An active count that is wrong by one changes the share by 1 / total.
        error = round(self.evaluation.active_units_se / total, 6)
        return Verdict(
            "Do the latents depend on the data?",
            unused / total,
            error,
            "share of latents unused",
            f"at most {UNUSED_SHARE:g}",
            "unused: (epsilon, delta)-collapse of Lucas et al. 2019 (arXiv:1911.02469), or inactive by Burda et al. "
            "2016, sec. 5 (arXiv:1509.00519); the share is a convention",
            outcome,
            advice,
            "posterior_collapse",
        )

    def _aggregate_verdict(self) -> Verdict:
        # Below a hundredth of a nat no share of a rate matters.
        bound, limit = self.marginal_kl, max(_KL_SHARE * self.rate, 0.01)
        far = bound.lower - 2 * bound.lower_se > limit
        advice = ""
        if far:
            advice = (
                "draws of the prior do not look like the data's latents: choose a learned prior ('mixture', 'vamp', "
                "'flow'), which would gain at least these nats"
            )
        elif bound.upper - 2 * bound.upper_se > limit:
            advice = (
                f"a lower bound: at most {bound.upper:.3g}, since {self.num_compared:,} data resolve at most log N = "
                f"{self.ceiling:.2g} nats of information"
            )
        return Verdict(
            "Is the aggregate posterior close to the prior?",
            bound.lower,
            bound.lower_se,
            "nats per datum, KL(q(z) || p(z)), at least",
            f"at most {limit:.3g}, {_KL_SHARE:.0%} of the rate",
            "Hoffman & Johnson 2016, ELBO surgery (the KL is the gain of a better prior); the share is a convention",
            "warn" if far else "pass",
            advice,
            "aggregate_posterior",
        )

    def _holes_verdict(self) -> Verdict:
        surely = self.holes - 2 * self.holes_se
        outcome: Outcome = "fail" if surely > _HOLES_FAIL else "warn" if surely > _HOLES_WARN else "pass"
        return Verdict(
            "Do draws of the prior fall where the aggregate posterior has mass?",
            self.holes,
            self.holes_se,
            f"share of prior draws below the {HOLE_LEVEL:.0%} quantile of q(z)",
            f"at most {_HOLES_WARN:g} ({HOLE_LEVEL:g} if prior and aggregate posterior agree)",
            "Rosca et al. 2018 (arXiv:1802.06847), low-posterior samples; the share is a convention",
            outcome,
            ""
            if outcome == "pass"
            else "samples from there are not like data: choose a learned prior, or sample from the aggregate posterior",
            "prior_holes",
        )

    def summary(self) -> dict[str, Any]:
        """Scalars for a report, nats per datum."""
        values: dict[str, Any] = {
            "rate": self.rate,
            "rate_se": self.rate_se,
            "distortion": self.distortion,
            "distortion_se": self.distortion_se,
            "active_units": int(self.active.sum()),
            "collapsed": int(self.collapsed.sum()),
            "unused": int(self.unused.sum()),
            "latents": len(self.names),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "holes": self.holes,
            "holes_se": self.holes_se,
            "num_data": len(self.evaluation),
            "num_draws": self.evaluation.num_draws,
            "num_compared": self.num_compared,
            "log_num_compared": self.ceiling,
            "mmd": self.mmd.summary(),
        }
        for name in ("mutual_information", "marginal_kl", "total_correlation", "dimension_kl"):
            value = getattr(self, name)
            values[name] = None if value is None else value.summary()
        return values

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a latent, by name: activity, KL and information where they have closed forms, and its use."""
        import pandas as pd

        none = np.full(len(self.names), np.nan)
        activity = self.evaluation.activity
        lower, upper = (none, none) if self.latent_information is None else self.latent_information
        columns = {
            "activity": activity if len(activity) == len(self.names) else none,
            "kl": none if self.mean_kl is None else self.mean_kl,
            "information_lower": lower,
            "information_upper": upper,
            "collapsed": self.collapsed,
            "unused": self.unused,
        }
        return pd.DataFrame(columns, index=pd.Index(self.names, name="latent"))

    def plot(self) -> "Figure":
        """KL and activity of each latent; the aggregate posterior against the prior where there is no KL by latent."""
        from analysis.latent.information.plot import plot_aggregate, plot_kl

        if self.mean_kl is None:
            return plot_aggregate(self.aggregate, self.prior, self.names)
        activity = self.evaluation.activity
        error = None if self.kl is None or len(self.kl) < 2 else self.kl.std(0, ddof=1) / np.sqrt(len(self.kl))
        return plot_kl(self.mean_kl, error, activity=activity if len(activity) == len(self.mean_kl) else None)

    def __str__(self) -> str:
        total = len(self.names)
        apart = f"I(x; z) {self.mutual_information}, KL(q(z) || p(z)) {self.marginal_kl}"
        if self.total_correlation is not None:
            apart += f", total correlation {self.total_correlation}"
        text = (
            f"{total - int(self.unused.sum())} of {total} latents in use: {int(self.active.sum())} active, "
            f"{int(self.collapsed.sum())} collapsed\n"
            f"  rate {self.rate:.3f} ± {self.rate_se:.2g}, distortion {self.distortion:.3f} ± {self.distortion_se:.2g} "
            f"nats per datum ({len(self.evaluation):,} data)\n"
            f"  {apart}\n"
            f"  ({self.num_compared:,} data compared; the lower estimates of information cannot exceed log N = "
            f"{self.ceiling:.2f} nats)\n"
            f"  {self.holes:.1%} ± {self.holes_se:.1%} of prior draws in holes of q(z), {HOLE_LEVEL:.0%} if they "
            f"agree; MMD^2 {self.mmd.value:.2g}, p = {self.mmd.p_value:.3f}"
        )
        return screen(text.splitlines())
