"""Log densities of mixtures of posteriors at draws of all of them, with each draw's own posterior kept apart."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

# Entries of a (row, datum) matrix of densities held at once: within a processor's cache.
_ENTRIES = 500_000
_LOG_2PI = float(np.log(2 * np.pi))
# Components of a fitted density; the Bayesian information criterion chooses.
_COMPONENTS = (1, 10)
# Standard deviation, relative to that of single latents, below which a direction counts as none.
_DEGENERATE = 1e-5
_FIT_ROWS = 10_000
# Fewest and most points of a table of a marginal density.
_GRID = (500, 20_000)


@dataclass(frozen=True)
class Densities:
    """Log densities at draws of q(z | x_i), each of shape ``(particle, datum)``, or that with a latent dimension added.

    Attributes:
        own: log q(z | x_i).
        inside: log of the mean of q(z | x_j) over all data, i among them; too high for log q(z) on average.
        outside: log of the mean over all other data; too low on average.
    """

    own: Array
    inside: Array
    outside: Array


def own_in_out(own: Array, others: Array, n: int) -> Densities:
    """Put the datum that a draw is of into the mean over N data, or leave it out.

    Args:
        own: log of (1/N) q(z | x_i).
        others: log of (1/N) times the sum of q(z | x_j) over j other than i, same shape.
        n: number of data N.
    """
    return Densities(own + np.log(n), np.logaddexp(own, others), others + np.log(n / (n - 1)))


def gaussian_densities(z: Array, loc: Array, scale: Array) -> tuple[Densities, Densities]:
    """Densities of the aggregate posterior and of each of its marginals, for diagonal Gaussian q(z | x).

    Time grows as ``particle datum^2 latent``; memory stays bounded.

    Args:
        z: draws, ``z[k, i]`` of q(z | x_i), shape ``(particle, datum, latent)``.
        loc: of q(z | x_j), shape ``(datum, latent)``.
        scale: same shape.

    Returns:
        The joint densities, shape ``(particle, datum)``, and the marginal ones, ``(particle, datum, latent)``. For a
        guide that is not diagonal only the marginal ones are right, with its marginal scales.

    Raises:
        ValueError: other shapes, or fewer than 2 data.
    """
    z, loc, scale = (np.asarray(a, dtype=np.float64) for a in (z, loc, scale))
    if z.ndim != 3 or loc.shape != z.shape[1:] or scale.shape != loc.shape or len(loc) < 2:
        raise ValueError(
            "z of shape (particle, datum, latent) with loc and scale of shape (datum, latent) and at least 2 data "
            f"required, got {z.shape}, {loc.shape} and {scale.shape}"
        )
    particles, n, latents = z.shape
    owner = np.tile(np.arange(n), particles)
    joint, marginal = _mixture(z.reshape(-1, latents), loc, scale, np.full(n, -np.log(n)), owner)
    (own, rest), (own_marginal, rest_marginal) = joint, marginal
    shape = (particles, n)
    return (
        own_in_out(own.reshape(shape), rest.reshape(shape), n),
        own_in_out(own_marginal.reshape(z.shape), rest_marginal.reshape(z.shape), n),
    )


def pair_densities(
    log_q: Callable[[slice], Array], particles: int, n: int, *, block: int, extra: int = 0
) -> tuple[Densities, Array]:
    """Densities of the aggregate posterior for any q(z | x), from log q(z | x_j) a block of data at a time.

    Args:
        log_q: gives log q(row | x_j) for a slice of data j, shape ``(row, block)``; its rows are the draws of all data
            for each particle in turn, ``particles * n`` of them, and then ``extra`` draws of something else.
        particles: draws of each datum.
        n: number of data.
        block: data at once.
        extra: rows that belong to no datum.

    Returns:
        The densities, shape ``(particle, datum)``, and log of the mean over all data at the extra rows, ``(extra,)``.
    """
    owned = particles * n
    owner = np.concatenate([np.tile(np.arange(n), particles), np.full(extra, -1)])
    own, rest = np.full(owned + extra, -np.inf), np.full(owned + extra, -np.inf)
    for start in range(0, n, block):
        stop = min(start + block, n)
        term = np.array(log_q(slice(start, stop)), dtype=np.float64) - np.log(n)
        mine = np.flatnonzero((owner >= start) & (owner < stop))
        own[mine] = term[mine, owner[mine] - start]
        term[mine, owner[mine] - start] = -np.inf
        rest = np.logaddexp(rest, _log_sum_exp(term))
    shape = (particles, n)
    return own_in_out(own[:owned].reshape(shape), rest[:owned].reshape(shape), n), rest[owned:]


def gaussian_mixture_log_density(
    z: Array, loc: Array, scale: Array, log_weight: Array | None = None
) -> tuple[Array, Array]:
    """log of a mixture of diagonal Gaussians at any points, and of each of its marginals.

    Args:
        z: shape ``(row, latent)``.
        loc: shape ``(component, latent)``.
        scale: same shape.
        log_weight: shape ``(component,)``, normalised; equal weights where ``None``.

    Returns:
        Shapes ``(row,)`` and ``(row, latent)``, float64, nats.
    """
    z, loc, scale = (np.asarray(a, dtype=np.float64) for a in (z, loc, scale))
    weight = np.full(len(loc), -np.log(len(loc))) if log_weight is None else np.asarray(log_weight, dtype=np.float64)
    (_, joint), (_, marginal) = _mixture(z, loc, scale, weight, None)
    return joint, marginal


def full_rank_log_density(z: Array, loc: Array, scale_tril: Array) -> Array:
    """log N(z; loc_j, L_j L_j') for every row and component, as one matrix product.

    Args:
        z: shape ``(row, latent)``.
        loc: shape ``(component, latent)``.
        scale_tril: shape ``(component, latent, latent)``, lower triangular.

    Returns:
        Shape ``(row, component)``, nats, float64.
    """
    components, latents = loc.shape
    inverse = np.linalg.inv(scale_tril)
    whitened = z @ inverse.transpose(2, 0, 1).reshape(latents, -1)
    whitened -= np.einsum("jde,je->jd", inverse, loc).ravel()
    square = (whitened**2).reshape(len(z), components, latents).sum(-1)
    log_det = np.log(np.diagonal(scale_tril, axis1=1, axis2=2)).sum(-1)
    return np.asarray(-0.5 * square - log_det - 0.5 * latents * _LOG_2PI)


def fitted_log_density(z: Array, rest: Array, *, seed: int) -> Array:
    """log of a Gaussian mixture at each draw, fitted to draws of other data: a floor for log q(z) in many dimensions.

    Two folds of data; each is scored by the mixture of ``rest`` and the other fold. Of one and ten components with
    full covariance, the Bayesian information criterion chooses.

    Args:
        z: shape ``(particle, datum, latent)``.
        rest: draws of still other data, shape ``(row, latent)``, possibly without rows.
        seed: of the fit.

    Returns:
        Shape ``(particle, datum)``, nats, float64; minus infinity where draws lie in a subspace, as those of a simplex:
        their densities are of fewer dimensions, and a mixture of all of them is none.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    particles, n, latents = z.shape
    out = np.empty((particles, n))
    folds = (slice(0, n // 2), slice(n // 2, n))
    for fold, other in (folds, folds[::-1]):
        train = np.concatenate([rest, z[:, other].reshape(-1, latents)])[:_FIT_ROWS]
        # Scaled, since the mixture's ridge is absolute; the log determinant goes back into the density.
        centre, spread = train.mean(0), train.std(0) + 1e-12
        train = (train - centre) / spread
        kind = "full" if len(train) > 10 * latents else "diag"
        if kind == "full" and np.linalg.matrix_rank(train, tol=_DEGENERATE * len(train) ** 0.5) < latents:
            return np.full((particles, n), -np.inf)
        fits = []
        for components in _COMPONENTS:
            if len(train) < 20 * components:
                continue
            mixture = GaussianMixture(components, covariance_type=kind, reg_covar=1e-4, random_state=seed % 2**32)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # any mixture is a valid floor
                fits.append(mixture.fit(train))
        best = min(fits, key=lambda mixture: mixture.bic(train)) if fits else None
        held_out = (z[:, fold].reshape(-1, latents) - centre) / spread
        scores = np.full(len(held_out), -np.inf) if best is None else best.score_samples(held_out)
        out[:, fold] = scores.reshape(particles, -1) - np.log(spread).sum()
    return out


def gaussian_kl(loc: Array, scale: Array, prior_loc: Array, prior_scale: Array) -> Array:
    """KL(N(loc, scale^2) || N(prior_loc, prior_scale^2)) elementwise, nats, float64."""
    loc, scale = np.asarray(loc, dtype=np.float64), np.asarray(scale, dtype=np.float64)
    ratio = scale / prior_scale
    return np.asarray(0.5 * (ratio**2 + ((loc - prior_loc) / prior_scale) ** 2 - 1) - np.log(ratio))


def gaussian_mixture_kl(
    loc: Array, scale: Array, prior_log_weight: Array, prior_loc: Array, prior_scale: Array
) -> Array:
    """KL(N(loc, scale^2) || mixture of Gaussians) for each datum and latent, nats, float64.

    Exact for one component. For several, E_q[log p] by the trapezoidal rule over 8 standard deviations on either side
    (exponentially accurate for smooth integrands), of a log p that is tabulated on a grid finer than its components (in
    up to 20,000 points) and joined by cubic splines, so that many components cost no more than one.

    Args:
        loc: of q(z_d | x), shape ``(datum, latent)``.
        scale: same shape.
        prior_log_weight: shape ``(component,)``, normalised.
        prior_loc: shape ``(component, latent)``.
        prior_scale: same shape.
    """
    if len(prior_loc) == 1:
        return gaussian_kl(loc, scale, prior_loc[0], prior_scale[0])
    from scipy.interpolate import CubicSpline

    loc, scale = np.asarray(loc, dtype=np.float64), np.asarray(scale, dtype=np.float64)
    node = np.linspace(-8, 8, 97)
    weight = np.exp(-0.5 * node**2)
    weight /= weight.sum()
    low, high = (loc - 8 * scale).min(0), (loc + 8 * scale).max(0)
    steps = ((high - low) / (prior_scale.min(0) / 8)).max()
    grid = np.linspace(low, high, int(np.clip(steps, *_GRID)))
    table = gaussian_mixture_log_density(grid, prior_loc, prior_scale, prior_log_weight)[1]
    cross = np.zeros(loc.shape)
    for d in range(loc.shape[1]):
        log_p = CubicSpline(grid[:, d], table[:, d])
        for x, w in zip(node, weight, strict=True):
            cross[:, d] += w * log_p(loc[:, d] + x * scale[:, d])
    return -np.log(scale) - 0.5 * (_LOG_2PI + 1) - cross


def _mixture(
    z: Array, loc: Array, scale: Array, log_weight: Array, owner: Array | None
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Weighted own term and log sum of all other terms, joint and marginal; of all terms where rows have no owner."""
    rows, latents = z.shape
    own, own_marginal = np.full(rows, -np.inf), np.full((rows, latents), -np.inf)
    rest, rest_marginal = np.empty(rows), np.empty((rows, latents))
    shift, slope = np.ascontiguousarray((loc / scale).T), np.ascontiguousarray((1 / scale).T)
    constant = np.ascontiguousarray((-np.log(scale) - 0.5 * _LOG_2PI).T)
    size = max(_ENTRIES // len(loc), 1)
    for start in range(0, rows, size):
        block = slice(start, min(start + size, rows))
        index = np.arange(block.stop - start)
        who = None if owner is None else owner[block]
        total = np.tile(log_weight, (len(index), 1))
        for d in range(latents):
            term = np.multiply.outer(z[block, d], slope[d])
            term -= shift[d]
            np.square(term, out=term)
            term *= -0.5
            term += constant[d]
            total += term
            term += log_weight
            if who is not None:
                own_marginal[block, d] = term[index, who]
                term[index, who] = -np.inf
            rest_marginal[block, d] = _log_sum_exp(term)
        if who is not None:
            own[block] = total[index, who]
            total[index, who] = -np.inf
        rest[block] = _log_sum_exp(total)
    return (own, rest), (own_marginal, rest_marginal)


def _log_sum_exp(term: Array) -> Array:
    """Over the last dimension, in place; scipy's makes several copies."""
    largest = term.max(axis=1)
    largest[~np.isfinite(largest)] = 0
    term -= largest[:, None]
    np.exp(term, out=term)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(term.sum(axis=1)) + largest)
