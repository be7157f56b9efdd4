"""Densities of all pairs of data agree with torch's, in any blocks; fitted densities are normalised and lie below."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from analysis.stats import mixtures
from analysis.stats.mixtures import (
    fitted_log_density,
    full_rank_log_density,
    gaussian_densities,
    gaussian_kl,
    gaussian_mixture_kl,
    gaussian_mixture_log_density,
    pair_densities,
)


def problem(particles: int = 3, n: int = 13, latents: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    loc, scale = random.normal(size=(n, latents)), np.exp(0.3 * random.normal(size=(n, latents)))
    return loc + scale * random.normal(size=(particles, n, latents)), loc, scale


def each(z: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """log q(z[k, i, d] | x_j), shape (particle, datum, latent, j)."""
    normal = torch.distributions.Normal(torch.tensor(loc), torch.tensor(scale))
    return normal.log_prob(torch.tensor(z)[:, :, None]).permute(0, 1, 3, 2).numpy()


@pytest.mark.parametrize("entries", [1, 60, 10_000])
def test_inside_and_outside_are_means_with_and_without_the_own_posterior(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixtures, "_ENTRIES", entries)
    z, loc, scale = problem()
    n = len(loc)
    joint, marginal = gaussian_densities(z, loc, scale)
    per_latent = each(z, loc, scale)
    for found, log_q in ((joint, per_latent.sum(2)), (marginal, per_latent)):
        own = np.stack([log_q[:, i, ..., i] for i in range(n)], axis=1)
        others = log_q.copy()
        for i in range(n):
            others[:, i, ..., i] = -np.inf
        np.testing.assert_allclose(found.own, own, rtol=1e-9)
        np.testing.assert_allclose(found.inside, logsumexp(log_q, axis=-1) - np.log(n), rtol=1e-9)
        np.testing.assert_allclose(found.outside, logsumexp(others, axis=-1) - np.log(n - 1), rtol=1e-9)


def test_posteriors_that_do_not_overlap_lose_no_digits() -> None:
    """Far apart, the own term is all of the mean: nothing is left of the others in it, and they are still right."""
    z, loc, scale = np.zeros((1, 3, 1)), np.array([[0.0], [1e4], [2e4]]), np.full((3, 1), 1.0)
    z[0, :, 0] = loc[:, 0]
    joint, _ = gaussian_densities(z, loc, scale)
    np.testing.assert_allclose(joint.inside, joint.own - np.log(3))
    np.testing.assert_allclose(joint.outside[0, 0], -0.5e8 - 0.5 * np.log(2 * np.pi) - np.log(2))


@pytest.mark.parametrize("block", [1, 4, 100])
def test_pairs_by_blocks_of_data_are_the_same(block: int) -> None:
    z, loc, scale = problem()
    points = np.random.default_rng(1).normal(size=(5, 2))
    rows = np.concatenate([z.reshape(-1, 2), points])
    tril = np.stack([np.diag(row) for row in scale])
    found, at_points = pair_densities(
        lambda some: full_rank_log_density(rows, loc[some], tril[some]), 3, len(loc), block=block, extra=5
    )
    expected, _ = gaussian_densities(z, loc, scale)
    for part in ("own", "inside", "outside"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), rtol=1e-9)
    np.testing.assert_allclose(at_points, gaussian_mixture_log_density(points, loc, scale)[0], rtol=1e-9)


def test_full_rank_densities_are_torchs() -> None:
    random = np.random.default_rng(0)
    z, loc = random.normal(size=(7, 3)), random.normal(size=(4, 3))
    tril = np.tril(random.normal(size=(4, 3, 3)), -1) + np.eye(3) * np.exp(random.normal(size=(4, 1, 3)))
    normal = torch.distributions.MultivariateNormal(torch.tensor(loc), scale_tril=torch.tensor(tril))
    np.testing.assert_allclose(
        full_rank_log_density(z, loc, tril), normal.log_prob(torch.tensor(z)[:, None]).numpy(), rtol=1e-9
    )


def mixture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.log(np.array([0.2, 0.8])), np.array([[-1.0, 0.5], [2.0, 0.0]]), np.array([[0.5, 1.0], [0.7, 2.0]])


def test_a_weighted_mixture_and_its_marginals_are_torchs() -> None:
    weight, loc, scale = mixture()
    z = np.random.default_rng(0).normal(size=(9, 2))
    normal = torch.distributions.Normal(torch.tensor(loc), torch.tensor(scale)).log_prob(torch.tensor(z)[:, None])
    joint, marginal = gaussian_mixture_log_density(z, loc, scale, weight)
    np.testing.assert_allclose(joint, logsumexp(normal.sum(-1).numpy() + weight, axis=1))
    np.testing.assert_allclose(marginal, logsumexp(normal.numpy() + weight[:, None], axis=1))


def test_kl_from_a_gaussian_is_torchs_and_from_a_mixture_that_of_many_draws() -> None:
    """Quadrature against 10^6 draws for each of six figures: within 4.5 standard errors (4e-5 for all)."""
    random = np.random.default_rng(0)
    loc, scale = random.normal(size=(3, 2)), np.exp(random.normal(size=(3, 2)) / 2)
    p = torch.distributions.Normal(torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5]))
    q = torch.distributions.Normal(torch.tensor(loc), torch.tensor(scale))
    exact = torch.distributions.kl_divergence(q, p).numpy()
    np.testing.assert_allclose(gaussian_kl(loc, scale, p.loc.numpy(), p.scale.numpy()), exact, rtol=1e-6)
    one = gaussian_mixture_kl(loc, scale, np.zeros(1), p.loc.numpy()[None], p.scale.numpy()[None])
    np.testing.assert_allclose(one, exact, rtol=1e-6)

    weight, centres, widths = mixture()
    found = gaussian_mixture_kl(loc, scale, weight, centres, widths)
    z = loc + scale * random.normal(size=(1_000_000, 3, 2))
    log_q = -0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    terms = log_q - gaussian_mixture_log_density(z.reshape(-1, 2), centres, widths, weight)[1].reshape(z.shape)
    assert (np.abs(terms.mean(0) - found) < 4.5 * terms.std(0) / 1000).all()
    assert (found > 0).all()


def test_a_fitted_density_is_normalised_and_below_the_truth_by_little() -> None:
    """A fitted density costs about half a nat for each parameter and datum: 5 parameters, 1,000 data to fit, 0.0025."""
    random = np.random.default_rng(0)
    cholesky = np.array([[1.0, 0.0], [0.8, 0.5]])
    z = random.normal(size=(1, 1000, 2)) @ cholesky.T
    rest = random.normal(size=(500, 2)) @ cholesky.T
    found = fitted_log_density(z, rest, seed=0)
    exact = full_rank_log_density(z[0], np.zeros((1, 2)), cholesky[None])[:, 0]
    gap = exact - found[0]
    assert abs(gap.mean()) < 0.0025 + 4 * gap.std() / 1000**0.5
    # In other units the density takes the Jacobian, and the fit is the same.
    np.testing.assert_allclose(
        fitted_log_density(100 * z + 3, 100 * rest + 3, seed=0), found - 2 * np.log(100), rtol=1e-6, atol=1e-6
    )


def test_draws_in_a_subspace_have_no_density() -> None:
    """Shares that add up to 1, in either precision, beside numbers that are only almost dependent."""
    random = np.random.default_rng(0)
    shares = random.dirichlet([0.8, 1.0, 2.0], size=(2, 150))
    for dtype in (np.float64, np.float32):
        assert (fitted_log_density(shares.astype(dtype), np.empty((0, 3)), seed=0) == -np.inf).all()
    near = shares + [0, 0, 1] * random.normal(size=shares.shape) * 0.01
    assert np.isfinite(fitted_log_density(near, np.empty((0, 3)), seed=0)).all()


def test_a_fitted_density_sees_modes() -> None:
    """Four modes at distance 10 of scale 1: entropy of one of them plus log 4, where one Gaussian would lose a nat."""
    random = np.random.default_rng(0)
    z = random.normal(size=(2, 2000, 2)) + 10 * random.integers(0, 2, size=(1, 2000, 2))
    found = fitted_log_density(z, np.empty((0, 2)), seed=0).mean()
    assert abs(found + (1 + np.log(2 * np.pi) + np.log(4))) < 0.1


@pytest.mark.parametrize(
    ("z", "loc"),
    [
        (np.zeros((5, 2)), np.zeros((5, 2))),
        (np.zeros((1, 5, 2)), np.zeros((4, 2))),
        (np.zeros((1, 1, 2)), np.zeros((1, 2))),
    ],
)
def test_bad_shapes(z: Any, loc: Any) -> None:
    with pytest.raises(ValueError, match="at least 2 data required, got"):
        gaussian_densities(z, loc, np.ones_like(loc))
