"""The result of `describe_latent`: rate and distortion, used latents, aggregate posterior against prior."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.latent.information import thresholds
from analysis.latent.information.thresholds import HOLE_LEVEL
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Verdict
from analysis.stats.information import Bracket, unused
from analysis.stats.mmd import MMD
from vae_pyro.core.means import standard_error
from vae_pyro.evaluation.evaluation import ACTIVE_VARIANCE, Evaluation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


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
        """Latents that are collapsed, or neither active nor informative, shape ``(latent,)``.

        See `analysis.stats.information.unused`.
        """
        lower = None if self.latent_information is None else self.latent_information[0]
        return unused(self.collapsed, self.active, self.mutual_information, lower)

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

    @property
    def rate_se(self) -> float:
        """Standard error of `rate`, for another test set."""
        return standard_error(self.evaluation.kl)

    @property
    def distortion_se(self) -> float:
        """Standard error of `distortion`, for another test set."""
        return standard_error(self.evaluation.reconstruction)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Collapse, aggregate posterior against prior, and holes."""
        return thresholds.verdicts_of(self)

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
