"""Layers of latents: densities, draws and guides against closed forms."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tests.vae_pyro.models.hierarchies import (
    DIMS,
    KINDS,
    data,
    exact,
    hierarchy,
    small,
)
from vae_pyro import evaluate
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.densities.log_density import log_densities
from vae_pyro.densities.sites import draw_latents, score_latents
from vae_pyro.models.structures.ladder import precision_weighted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", DIMS)
def test_an_exact_guide_has_constant_weights_equal_to_the_evidence(kind: str, dims: tuple[int, ...]) -> None:
    truth = hierarchy(kind, dims=dims)
    vae, x = exact(kind, truth), truth.sample(20, seed=1)
    with isolated(0):
        densities = log_densities(vae.model, vae.guide, x, num_particles=7)
    torch.testing.assert_close(densities.log_weight, truth.log_evidence(x).expand(7, -1), rtol=0, atol=1e-9)
    evaluation = evaluate(vae, x, num_draws=5)
    np.testing.assert_allclose(evaluation.elbo, truth.log_evidence(x).numpy(), atol=1e-9)
    np.testing.assert_allclose(evaluation.log_px, truth.log_evidence(x).numpy(), atol=1e-9)
    assert len(evaluation.activity) == sum(dims)


def test_both_guides_are_exact_where_every_conditional_is_diagonal() -> None:
    truth = hierarchy("both")
    x = truth.sample(20, seed=1)
    for vae in (exact("bottom_up", truth, "mean_field"), exact("ladder", truth)):
        with isolated(0):
            densities = log_densities(vae.model, vae.guide, x, num_particles=2)
        torch.testing.assert_close(densities.log_weight, truth.log_evidence(x).expand(2, -1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_guide_of_the_other_kind_is_not_exact(kind: str) -> None:
    """The same model with an independence that its posterior has not: the weights vary."""
    other = hierarchy("ladder" if kind == "bottom_up" else "bottom_up")
    with pytest.raises(AssertionError, match="not close"):
        exact(kind, other)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_the_guide_have_the_moments_of_the_joint_posterior(kind: str) -> None:
    """Covariance of 40,000 draws of (z, z2): each entry within 5 of its standard errors (15 entries: 1e-5)."""
    truth = hierarchy(kind)
    vae, x = exact(kind, truth), truth.sample(1, seed=2)
    with isolated(1):
        latents, log_guide = draw_latents(vae.guide, x, num_particles=40_000)
        z, _ = vae.guide.draw(x, shape=(40_000,))
    gain, covariance = truth.given((1, 2), (0,))
    drawn = torch.cat([latents["z"][:, 0], latents["z2"][:, 0]], dim=1)
    joint = torch.distributions.MultivariateNormal(((x - truth.mean) @ gain.T)[0], covariance)
    torch.testing.assert_close(log_guide[:, 0], joint.log_prob(drawn), rtol=0, atol=1e-9)
    variance = covariance.diagonal()
    error = ((variance[:, None] * variance + covariance**2) / 40_000).sqrt()
    assert ((torch.cov(drawn.T) - covariance).abs() < 5 * error).all()
    assert ((torch.cov(z[:, 0].T) - covariance[:3, :3]).abs() < 5 * error[:3, :3]).all()
    assert ((z[:, 0].mean(0) - joint.mean[:3]).abs() < 5 * (variance[:3] / 40_000).sqrt()).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", DIMS)
def test_draws_of_the_model_have_its_marginal_covariance(kind: str, dims: tuple[int, ...]) -> None:
    """20,000 draws of x, and of z by `draw`: each entry within 5 standard errors."""
    truth = hierarchy(kind, dims=dims)
    vae = exact(kind, truth)
    with isolated(3), torch.no_grad():
        x = vae.model(size=20_000)
        z, y = vae.model.draw(20_000)
    assert y is None
    for draws, index in ((x, 0), (z, 1)):
        at = truth.columns(index)
        covariance = truth.covariance[at][:, at]
        variance = covariance.diagonal()
        error = ((variance[:, None] * variance + covariance**2) / 20_000).sqrt()
        assert ((torch.cov(draws.T) - covariance).abs() < 5 * error).all()
    assert vae.sample(4, seed=0).shape == (4, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_densities_of_three_layers_are_those_written_by_hand(kind: str) -> None:
    vae, x = small(kind), data()
    model: Any = vae.model
    guide: Any = vae.guide
    normal = torch.distributions.Normal
    with isolated(0), torch.no_grad():
        densities = log_densities(model, guide, x, num_particles=3)
        z, z2, z3 = (densities.latents[name] for name in ("z", "z2", "z3"))
        prior = {
            "z3": normal(0.0, 1.0).log_prob(z3).sum(-1),
            "z2": normal(*model.layers[1](z3)).log_prob(z2).sum(-1),
            "z": normal(*model.layers[0](z2)).log_prob(z).sum(-1),
        }
        d1 = guide.encoder(x)
        if kind == "bottom_up":
            moments = {
                "z": guide.posterior.normal(d1),
                "z2": guide.upward[0](z),
                "z3": guide.upward[1](z2),
            }
        else:
            d2, second = guide.rungs[0](d1)
            _, third = guide.rungs[1](d2)
            moments = {"z3": third}
            for name, (loc, scale), (prior_loc, prior_scale) in (
                ("z2", second, model.layers[1](z3)),
                ("z", guide.posterior.normal(d1), model.layers[0](z2)),
            ):
                precision = 1 / scale**2 + 1 / prior_scale**2
                weighted = (loc / scale**2 + prior_loc / prior_scale**2) / precision
                moments[name] = (weighted, 1 / precision.sqrt())
        for name, expected in prior.items():
            torch.testing.assert_close(densities.sites[name][0], expected)
            loc, scale = moments[name]
            torch.testing.assert_close(
                densities.sites[name][1], normal(loc, scale).log_prob(densities.latents[name]).sum(-1)
            )
        again = score_latents(model, x, densities.latents)
        torch.testing.assert_close(again[0], densities.log_likelihood)
        torch.testing.assert_close(again[1], densities.log_prior)


def test_precision_weighting_is_the_product_of_two_gaussians() -> None:
    grid = torch.linspace(-3, 3, 101, dtype=torch.float64)
    first = (torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64))
    second = (torch.tensor(-1.0, dtype=torch.float64), torch.tensor(1.9, dtype=torch.float64))
    normal = torch.distributions.Normal
    product = normal(*first).log_prob(grid) + normal(*second).log_prob(grid)
    found = normal(*precision_weighted(first, second)).log_prob(grid)
    torch.testing.assert_close(product - product.max(), found - found.max())


def test_precision_weighting_where_squares_of_scales_overflow() -> None:
    one, zero = torch.ones(3), torch.zeros(3)
    loc, scale = precision_weighted((one, torch.tensor([1e-25, 1e25, 1e30])), (zero, torch.tensor([1.0, 1.0, 1e30])))
    torch.testing.assert_close(loc, torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(scale, torch.tensor([1e-25, 1.0, 1e30 / 2**0.5]))


def test_scales_of_a_ladder_have_a_lower_bound() -> None:
    for structure, lowest in (("ladder", 1e-3), ("bottom_up", 0.0)):
        layer: Any = small(structure).model.layers[0]
        with torch.no_grad():
            layer.normal.linear.weight.zero_()
            layer.normal.linear.bias.fill_(-60.0)
            first = next(layer.parameters())
            scale = layer(first.new_zeros(1, first.shape[1]))[1]
        torch.testing.assert_close(scale, scale.new_full(scale.shape, lowest), rtol=1e-5, atol=1e-20)


def test_the_guide_of_a_ladder_learns_through_layers_that_the_model_owns() -> None:
    vae, x = small("ladder"), data()
    assert not {id(p) for p in vae.guide.parameters()} & {id(p) for p in vae.model.parameters()}
    assert len(list(vae.state_dict())) == len(set(vae.state_dict()))
    with isolated(0):
        densities = log_densities(vae.model, vae.guide, x)
    shared = list(vae.model.layers.parameters())
    slopes = torch.autograd.grad(densities.log_guide.sum(), shared, allow_unused=True)
    assert all(slope is not None and bool((slope != 0).any()) for slope in slopes)
    twin = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in twin.model.layers.parameters():
            parameter.add_(1.0)
    with isolated(0):  # the copy's guide has the copy's layers, not those of the first
        before, after = (log_densities(v.model, v.guide, x).log_guide for v in (vae, twin))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(before, densities.log_guide)


@pytest.mark.parametrize("kind", KINDS)
def test_a_masked_element_never_matters(kind: str) -> None:
    vae, x = small(kind), data()
    with seeded(3):
        mask = torch.rand(x.shape) < 0.6
    other = torch.where(mask, x, torch.nan)
    for value in (x, other):
        with isolated(4):
            densities = log_densities(vae.model, vae.guide, value, num_particles=2, mask=mask)
        slopes = torch.autograd.grad(densities.log_weight.sum(), list(vae.parameters()))
        if value is x:
            first, first_slopes = densities.log_weight, slopes
    torch.testing.assert_close(first, densities.log_weight, rtol=0, atol=0)
    for one, two in zip(first_slopes, slopes, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
