"""Information in the latents, from log densities: mutual information, marginal KL, total correlation, collapse, holes.

The aggregate posterior ``q(z) = E_x[q(z | x)]`` is known only as a mean over N data. Where the datum that z was drawn
for is left in that mean, log q(z) is too high on average; where it is left out, too low (Jensen). So the two bracket
every estimate here, and to first order in 1/N their biases are equal and opposite: the midpoint has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from analysis.stats.mixtures import Densities
from vae_pyro.core.means import standard_error

type Array = np.ndarray[Any, Any]


# Nats of I(x; z_d) from which on a latent depends on x, whatever its posterior mean does. A Gaussian one whose mean
# varies by 0.01, where Burda et al. call it active, and that is otherwise the prior has 0.005.
_INFORMATIVE = 0.05


@dataclass(frozen=True)
class Bracket:
    """A quantity between a lower and an upper estimate, in nats.

    Attributes:
        lower: at most the true value on average.
        upper: at least the true value on average.
        lower_se: standard error of ``lower``, for another sample of data and draws; likewise ``upper_se``.
        midpoint_se: the same of the midpoint.
        mcse: the part of ``midpoint_se`` that comes from the draws alone; NaN for a single draw of each datum.
    """

    lower: float
    upper: float
    lower_se: float
    upper_se: float
    midpoint_se: float
    mcse: float

    @property
    def estimate(self) -> float:
        """The midpoint."""
        return (self.lower + self.upper) / 2

    @property
    def half_gap(self) -> float:
        """Half the distance of the bounds, which the bias of `estimate` stays below."""
        return abs(self.upper - self.lower) / 2

    @property
    def error(self) -> float:
        """Root mean square error of `estimate` with the largest bias that the bracket allows.

        Where one side is tight the truth lies at that end, so that a smaller share of the gap would not cover.
        """
        return sqrt(self.midpoint_se**2 + self.half_gap**2)

    def summary(self) -> dict[str, float]:
        """Scalars for a report."""
        return {
            "estimate": self.estimate,
            "error": self.error,
            "lower": self.lower,
            "lower_se": self.lower_se,
            "upper": self.upper,
            "upper_se": self.upper_se,
            "mcse": self.mcse,
        }

    def __str__(self) -> str:
        if self.half_gap <= max(2 * self.midpoint_se, 5e-4):
            return f"{self.estimate:.3f} ± {self.error:.2g}"
        return f"between {self.lower:.3g} ± {self.lower_se:.2g} and {self.upper:.3g} ± {self.upper_se:.2g}"


def bracket(lower: Array, upper: Array) -> Bracket:
    """Means of two terms that lie below and above the truth on average.

    Data are the independent units: the draws of one datum are averaged first. What the other data add to the error,
    through the mean that they make, vanishes to first order, since a mixture's own density minimises its
    cross-entropy.

    Args:
        lower: shape ``(particle, datum)``, nats.
        upper: same shape.

    Raises:
        ValueError: other shapes, or fewer than 2 data.
    """
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if lower.ndim != 2 or lower.shape != upper.shape or lower.shape[1] < 2:
        raise ValueError(
            f"two arrays of shape (particle, datum) with at least 2 data required, got {lower.shape} and {upper.shape}"
        )
    middle = (lower + upper) / 2
    particles, n = lower.shape
    within = sqrt((middle.var(axis=0, ddof=1) / particles).sum()) / n if particles > 1 else float("nan")
    low_se, high_se, middle_se = (standard_error(terms.mean(0)) for terms in (lower, upper, middle))
    return Bracket(float(lower.mean()), float(upper.mean()), low_se, high_se, middle_se, within)


def best_floor(candidates: Sequence[Array]) -> Array:
    """Of log densities that are all too low for log q(z) on average, the one that is highest.

    ``E_q[log r(z)] <= E_q[log q(z)]`` for every density r that was made without the draws z.

    Args:
        candidates: shape ``(particle, datum)`` each.

    References:
        Barber & Agakov 2003, The IM algorithm, sec. 2. Poole et al. 2019, arXiv:1905.06922, sec. 2.1.
    """
    return max(candidates, key=lambda log_density: float(np.mean(log_density)))


def mutual_information(joint: Densities, floor: Array | None = None) -> Bracket:
    """I(x; z) under q(z | x) and the data's distribution.

    The lower bound cannot exceed log N, the upper one is loose where the posteriors of N data do not overlap.

    Args:
        joint: shape ``(particle, datum)``.
        floor: what stands for log q(z) in the upper bound, see `best_floor`; ``joint.outside`` where ``None``.

    References:
        Poole et al. 2019, On variational bounds of mutual information, the bounds with a tractable conditional and
        their leave-one-out form. arXiv:1905.06922
        Hoffman & Johnson 2016, ELBO surgery, sec. 2.
    """
    return bracket(joint.own - joint.inside, joint.own - (joint.outside if floor is None else floor))


def marginal_kl(joint: Densities, log_prior: Array, floor: Array | None = None) -> Bracket:
    """KL(q(z) || p(z)) of the aggregate posterior from the prior: the nats per datum that a better prior would win.

    Args:
        joint: shape ``(particle, datum)``.
        log_prior: log p(z) at the same draws.
        floor: see `mutual_information`; used in the lower bound.

    References:
        Hoffman & Johnson 2016, ELBO surgery, sec. 2: average KL = mutual information + marginal KL.
    """
    return bracket((joint.outside if floor is None else floor) - log_prior, joint.inside - log_prior)


def total_correlation(joint: Densities, marginal: Densities, floor: Array | None = None) -> Bracket:
    """KL(q(z) || prod_d q(z_d)): how far the latents are from independent under the aggregate posterior.

    Args:
        joint: shape ``(particle, datum)``.
        marginal: shape ``(particle, datum, latent)``.
        floor: see `mutual_information`; used in the lower bound.

    References:
        Chen et al. 2018, Isolating sources of disentanglement in VAEs, eq. 2. arXiv:1802.04942
    """
    return bracket(
        (joint.outside if floor is None else floor) - marginal.inside.sum(-1), joint.inside - marginal.outside.sum(-1)
    )


def dimension_kl(marginal: Densities, log_prior: Array) -> Bracket:
    """sum_d KL(q(z_d) || p(z_d)) for a prior whose latents are independent.

    Args:
        marginal: shape ``(particle, datum, latent)``.
        log_prior: log p(z_d), same shape.

    References:
        Chen et al. 2018, Isolating sources of disentanglement in VAEs, eq. 2. arXiv:1802.04942
    """
    return bracket((marginal.outside - log_prior).sum(-1), (marginal.inside - log_prior).sum(-1))


def collapsed(kl: Array, *, epsilon: float = 0.01, delta: float = 0.01) -> Array:
    """Which latents are (epsilon, delta)-collapsed: KL(q(z_d | x) || p(z_d)) < epsilon for a share 1 - delta of data.

    Args:
        kl: shape ``(datum, latent)``, nats.
        epsilon: nats.
        delta: share of data.

    Returns:
        Boolean, shape ``(latent,)``.

    References:
        Lucas et al. 2019, Don't blame the ELBO! A linear VAE perspective on posterior collapse, the definition of
        (epsilon, delta)-collapse; both values are conventions. arXiv:1911.02469
    """
    return np.asarray((np.asarray(kl) < epsilon).mean(0) >= 1 - delta)


def unused(
    collapsed: Array, active: Array, information: Bracket | None = None, latent_information: Array | None = None
) -> Array:
    """Which latents do not depend on the data: they are collapsed, or neither active nor informative.

    A posterior may depend on x while its mean does not, as that of ``x | z ~ N(|z|, s^2)``, which is symmetric, or one
    whose scale alone varies: there the mutual information decides.

    Args:
        collapsed: see `collapsed`, ``(latent,)``.
        active: whether the posterior mean varies over data, ``(latent,)``.
        information: I(x; z) of all latents together; it counts where none is active, and the information of single
            latents is not known: then those that are not collapsed are in use.
        latent_information: lower estimates of I(x; z_d), ``(latent,)``.

    Returns:
        Boolean, ``(latent,)``.
    """
    informative = np.zeros_like(active)
    if latent_information is not None:
        informative = np.asarray(latent_information) > _INFORMATIVE
    elif information is not None and not active.any():
        informative |= information.lower - 2 * np.nan_to_num(information.lower_se) > _INFORMATIVE
    return np.asarray(collapsed | ~(active | informative))


def hole_share(log_density: Array, log_density_prior: Array, *, level: float = 0.01) -> tuple[float, float]:
    """Share of prior draws that lie where the aggregate posterior is thinner than at nearly all of its own draws.

    Both scores come from the same number of other data, so that for equal distributions the share is ``level``,
    however rough the score is as an estimate of log q(z).

    Args:
        log_density: ``Densities.outside`` at draws of the aggregate posterior, shape ``(particle, datum)``.
        log_density_prior: log q(z) at draws of the prior, shape ``(row,)``.
        level: quantile of ``log_density`` below which a place counts as a hole.

    Returns:
        The share and its standard error: the binomial one, with that of the quantile (of N independent data, seen
        through the share's slope in ``level``).

    References:
        Rosca, Lakshminarayanan & Mohamed 2018, Distribution matching in variational inference, sec. 4 (low posterior
        samples). arXiv:1802.06847
    """
    own, prior = np.ravel(log_density), np.sort(np.ravel(log_density_prior))
    n = np.shape(log_density)[-1]

    def below(quantile: float) -> float:
        return float(np.searchsorted(prior, np.quantile(own, quantile)) / len(prior))

    share = below(level)
    slope = (below(1.5 * level) - below(0.5 * level)) / level
    smoothed = (share * len(prior) + 1) / (len(prior) + 2)  # no count of zero has an error of zero
    return share, sqrt(smoothed * (1 - smoothed) / len(prior) + slope**2 * level * (1 - level) / n)
