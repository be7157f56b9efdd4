"""Values of the bounds from importance weights against closed forms, each other and Pyro."""

from dataclasses import replace
from itertools import pairwise
from math import log

import pytest
import torch
from pyro.infer import RenyiELBO
from torch import Tensor

from tests.truths import example
from tests.vae_pyro.objectives.cases import (
    MULTI_SAMPLE,
    Rows,
    orthogonal,
    rows,
    small,
    standard_error,
)
from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import isolated
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.objectives.cubo import cubo


def test_the_bound_of_missing_data_is_that_of_the_observed_elements() -> None:
    """`miwae_missing` is `iwae` of the densities; with the exact posterior given what is seen it is log p(x_obs)."""
    truth = example()
    x = truth.sample(6, seed=3)
    seen = torch.tensor([True, True, False, True, False])
    part = replace(truth, weight=truth.weight[seen], mean=truth.mean[seen])
    model, _ = truth.programs()
    _, of_part = part.programs()

    def guide(x: Tensor, *, mask: Tensor) -> Tensor:
        return of_part(x[:, seen])

    mask = seen.expand(x.shape)
    hidden = torch.where(mask, x, torch.nan)
    with isolated(0):
        loss = OBJECTIVES.build(OBJECTIVES.resolve("miwae_missing")).differentiable_loss(model, guide, x, mask=mask)
    torch.testing.assert_close(-loss, part.log_evidence(x[:, seen]).sum(), rtol=1e-10, atol=0.0)
    losses = []
    for name in ("miwae_missing", "iwae:num_particles=20"):
        objective = OBJECTIVES.build(OBJECTIVES.resolve(name))
        with isolated(0):
            vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian"), seed=0).double()
            loss = objective.differentiable_loss(vae.model, vae.guide, hidden, mask=mask)
            loss.backward()
        losses.append([loss.detach(), *(p.grad for p in vae.parameters())])
    assert all(a is None or torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_bounds_are_ordered_between_elbo_and_evidence_and_cubo_is_above() -> None:
    """Paired over the same draws; a comparison that misses by chance does so with probability below 1e-6 (5 SE)."""
    truth = example()
    pair = rows(truth, 3000, shift=0.0, stretch=1.3)
    log_weight = pair.densities(64).log_weight
    evidence = truth.log_evidence(pair.x)
    values = {k: torch.logsumexp(log_weight.unflatten(0, (-1, k)), 1).mean(0) - log(k) for k in (1, 2, 4, 16, 64)}
    for lower, upper in pairwise([*values.values(), evidence]):
        gain = upper - lower
        assert gain.mean() > 5 * standard_error(gain) > 0
    objective = OBJECTIVES.build(OBJECTIVES.resolve("iwae:num_particles=64"))
    with isolated(1):
        assert objective.loss(pair.model, pair.guide, pair.x) == pytest.approx(-float(values[64].sum()))
    above = cubo(log_weight) - evidence
    assert above.mean() > 5 * standard_error(above)
    with pytest.raises(ValueError, match="n must be at least 1"):
        cubo(log_weight, n=0.5)


def test_limits_of_renyi_tvo_and_cubo_are_their_closed_forms() -> None:
    """Guide N(m, (s S)^2) against posterior N(m, S^2): divergences of zero-mean Gaussians in q dimensions.

    With 200,000 draws the error of each mean is below 0.003; 0.02 is beyond 6 of them.
    """
    s, q = 1.3, 2
    truth = orthogonal()
    x = truth.sample(1, seed=0)
    pair = Rows(truth, x, shift=0.0, stretch=s)
    densities = pair.densities(200_000)
    evidence = float(truth.log_evidence(x))

    def value(choice: str) -> float:
        return float(OBJECTIVES.build(OBJECTIVES.resolve(choice)).bound(densities))

    for alpha in (-0.5, 0.5, 1.3):  # from 1.6 on the mean of w^(1 - alpha) has no variance
        mixed = alpha + (1 - alpha) * s**2
        divergence = q * (-log(s) - log(mixed) / (2 * (alpha - 1)))
        assert value(f"renyi:alpha={alpha}") == pytest.approx(evidence - divergence, abs=0.02)
    elbo = evidence - q / 2 * (s**2 - 1 - 2 * log(s))
    assert value("renyi:alpha=0.9999") == pytest.approx(elbo, abs=0.02)
    for partitions in (1, 2, 5, 60):
        tvo = OBJECTIVES.build(OBJECTIVES.resolve(f"tvo:partitions={partitions}"))
        # Along the path z has precision (1 - b) / s^2 + b, in units of the posterior's scale.
        exact = [
            (b - a) * (evidence + q * (log(s) - (1 - 1 / s**2) / ((1 - a) / s**2 + a) / 2))
            for a, b in pairwise(tvo.points)
        ]
        assert float(tvo.bound(densities)) == pytest.approx(sum(exact), abs=0.02)
    assert sum(exact) == pytest.approx(evidence, abs=0.02)  # the last, of many partitions
    assert value("tvo:partitions=1") == pytest.approx(float(densities.log_weight.mean()))
    upper = evidence + q / 2 * log(s**2 / (2 * s**2 - 1) ** 0.5)
    assert float(cubo(densities.log_weight)) == pytest.approx(upper, abs=0.02)


def test_renyi_falls_with_alpha_and_joins_iwae_at_0() -> None:
    """For every datum and any draws: power means of the same weights are ordered."""
    truth = example()
    densities = rows(truth, 20).densities(8)
    orders = ["max", "-5", "-1", "0", "0.5", "0.9999", "1.0001", "3"]
    values = [OBJECTIVES.build(OBJECTIVES.resolve(f"renyi:alpha={alpha}")).bound(densities) for alpha in orders]
    for larger, smaller in pairwise(values):
        assert (larger > smaller).all()
    torch.testing.assert_close(values[3], OBJECTIVES.build(OBJECTIVES.resolve("iwae")).bound(densities))
    middle = (values[5] + values[6]) / 2
    torch.testing.assert_close(middle, densities.log_weight.mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(values[0], densities.log_weight.max(0).values)
    with pytest.raises(ValueError, match="alpha = 1 is the ELBO; choose objective 'elbo'"):
        OBJECTIVES.resolve("renyi:alpha=1")


@pytest.mark.parametrize("choice", MULTI_SAMPLE)
def test_an_exact_guide_gives_the_evidence_whatever_the_number_of_draws(choice: str) -> None:
    truth = example()
    x = truth.sample(7, seed=0)
    objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
    with isolated(1):
        loss = objective.loss(*truth.programs(), x)
    assert loss == pytest.approx(-float(truth.log_evidence(x).sum()), abs=1e-9)


@pytest.mark.parametrize("num_particles", [2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0])
def test_renyi_is_that_of_pyro_per_datum(alpha: float, num_particles: int) -> None:
    """Pyro sums over plates that some site lies outside of; "data" holds every site, so its bound is per datum too."""
    vae, x = small()
    ours = OBJECTIVES.build(OBJECTIVES.resolve(f"renyi:alpha={alpha},num_particles={num_particles}"))
    theirs = RenyiELBO(alpha, num_particles, max_plate_nesting=1, vectorize_particles=True)
    results = []
    for objective in (ours, theirs):
        vae.zero_grad()
        with isolated(1):
            loss = objective.loss_and_grads(vae.model, vae.guide, x)
        results.append((loss, [parameter.grad.clone() for parameter in vae.parameters() if parameter.grad is not None]))
    assert results[0][0] == pytest.approx(results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b)
