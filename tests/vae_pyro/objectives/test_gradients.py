"""Gradient estimates of objectives: against formulas, and of one objective against another."""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from tests.truths import LOG_2PI, example
from tests.vae_pyro.densities.test_densities import chain
from tests.vae_pyro.objectives.cases import (
    assert_same_mean,
    orthogonal,
    rows,
    small,
    standard_error,
)
from vae_pyro.core.isolation import isolated
from vae_pyro.objectives import OBJECTIVES


def test_the_gradient_of_iwae_is_that_of_its_formula() -> None:
    truth = example()
    pair = rows(truth, 3)
    loss, guide, model = pair.gradients("iwae:num_particles=6")
    with isolated(1):
        noise = torch.randn(6, 3, 2, dtype=torch.float64)
    z = pair.loc + pair.log_scale.exp() * noise
    normal = torch.distributions.Normal
    log_p = normal(z @ truth.weight.T + pair.mean, truth.variance**0.5).log_prob(pair.x).sum(-1)
    log_p = log_p + normal(0.0, 1.0).log_prob(z).sum(-1)
    log_weight = log_p - normal(pair.loc, pair.log_scale.exp()).log_prob(z).sum(-1)
    expected = -(log_weight.exp().mean(0)).log().sum()
    found = torch.autograd.grad(expected, [*pair.of_guide, *pair.of_model])
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(guide, torch.cat(found[:2], -1))
    torch.testing.assert_close(model, found[2])


@pytest.mark.parametrize(
    ("choice", "guide_of", "model_of"),
    [
        ("dreg:num_particles=6", None, "iwae:num_particles=6"),
        ("stl:num_particles=6", None, "beta:beta=1,num_particles=6"),
        ("rws:num_particles=6", None, "iwae:num_particles=6"),
        ("piwae:num_particles=3,num_groups=2", "miwae:num_particles=3,num_groups=2", "iwae:num_particles=6"),
        ("miwae:num_particles=1,num_groups=6", "beta:beta=1,num_particles=6", "beta:beta=1,num_particles=6"),
        ("ciwae:beta=0,num_particles=6", "iwae:num_particles=6", "iwae:num_particles=6"),
        ("ciwae:beta=1,num_particles=6", "elbo:num_particles=6", "elbo:num_particles=6"),
        ("renyi:alpha=0,num_particles=6", "iwae:num_particles=6", "iwae:num_particles=6"),
        ("tvo:partitions=1,num_particles=6", None, "elbo:num_particles=6"),
    ],
)
@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_gradients_that_two_objectives_share_are_equal_at_the_same_noise(
    choice: str, guide_of: str | None, model_of: str, weight: float
) -> None:
    pair = rows(example(), 4)
    _, guide, model = pair.gradients(choice, weight=weight)
    reference = pair.gradients(model_of, weight=weight)[2]
    torch.testing.assert_close(model, reference)
    if guide_of is not None:
        torch.testing.assert_close(guide, pair.gradients(guide_of, weight=weight)[1])


@pytest.mark.parametrize(
    ("choice", "reference"),
    [
        ("stl:num_particles=4", "beta:beta=1,num_particles=4"),
        ("dreg:num_particles=4", "iwae:num_particles=4"),
        ("tvo:partitions=1,num_particles=4", "beta:beta=1,num_particles=4"),
    ],
)
@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_other_gradients_of_the_guide_have_the_same_mean(choice: str, reference: str, weight: float) -> None:
    pair = rows(example(), 40_000)
    _, guide, _ = pair.gradients(choice, seed=1, weight=weight)
    _, plain, _ = pair.gradients(reference, seed=2, weight=weight)
    assert_same_mean(guide, plain)
    assert (plain.mean(0).abs() > 10 * standard_error(plain)).any()  # so that zero, or twice, would be refused


def test_piwae_gives_each_network_its_own_bound_where_log_q_varies_with_the_draw() -> None:
    """A flow: in a Gaussian guide the gradient of log q along a draw is that of the entropy, whatever the weights."""
    vae, x = small(prior="normal", posterior="flow")
    guide, model = list(vae.guide.parameters()), list(vae.model.parameters())
    found = {}
    for choice in ("piwae:num_groups=2,num_particles=3", "miwae:num_groups=2,num_particles=3", "iwae:num_particles=6"):
        objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
        with isolated(1):
            loss = objective.differentiable_loss(vae.model, vae.guide, x)
        found[choice[:5]] = torch.autograd.grad(loss, [*guide, *model])
    for number, (ours, of_guide, of_model) in enumerate(zip(*found.values(), strict=True)):
        torch.testing.assert_close(ours, of_guide if number < len(guide) else of_model)


@pytest.mark.parametrize(("choice", "reference"), [("stl", "beta:beta=1"), ("dreg", "iwae"), ("piwae", "miwae")])
def test_a_guide_of_several_sites_has_these_gradients_too(choice: str, reference: str) -> None:
    """The second site's distribution depends on the first draw, whose gradient must not be scaled twice."""
    x = torch.full((40_000,), 0.7, dtype=torch.float64)
    scale = torch.full_like(x, 0.8).requires_grad_()
    shift = torch.full_like(x, 0.4).requires_grad_()
    found = []
    for seed, name in enumerate((choice, reference)):
        given = "num_particles=2,num_groups=2" if name.endswith("iwae") and name != "iwae" else "num_particles=4"
        objective = OBJECTIVES.build(OBJECTIVES.resolve(f"{name}{',' if ':' in name else ':'}{given}"))
        with isolated(seed):
            loss = objective.differentiable_loss(*chain(scale, shift), x)
        found.append(torch.stack(torch.autograd.grad(loss, [scale, shift]), -1))
    assert_same_mean(*found)
    assert (found[1].mean(0).abs() > 10 * standard_error(found[1])).all()
    scale, shift = torch.full_like(x, 0.5**0.5).requires_grad_(), torch.zeros_like(x).requires_grad_()
    if choice != "piwae":  # the guide is exact
        with isolated(0):
            loss = OBJECTIVES.build(OBJECTIVES.resolve(choice)).differentiable_loss(*chain(scale, shift), x)
        assert max(float(part.abs().max()) for part in torch.autograd.grad(loss, [scale, shift])) < 1e-10


def test_at_the_posterior_stl_and_dreg_are_exactly_zero_and_others_on_average() -> None:
    pair = rows(orthogonal(), 4000, shift=0.0, stretch=1.0)
    for choice in ("stl", "dreg", "stl:num_particles=3"):
        assert float(pair.gradients(choice)[1].abs().max()) < 1e-10
    for choice in ("elbo", "iwae", "rws", "tvo"):
        _, guide, _ = pair.gradients(choice)
        assert float(guide.abs().max()) > 0.1
        assert_same_mean(guide, torch.zeros_like(guide))


def test_rws_draws_the_guide_to_the_posterior() -> None:
    """With many draws its guide follows d E_p(z|x)[log q], which is closed for two Gaussians."""
    truth = orthogonal()
    pair = rows(truth, 100)
    _, guide, _ = pair.gradients("rws:num_particles=4000")
    mean, _ = truth.posterior(pair.x)
    scale = pair.log_scale.exp().detach()
    off = mean - pair.loc.detach()
    expected = -torch.cat([off / scale**2, (off**2 + truth.mean_field_scale**2) / scale**2 - 1], -1)
    # Self-normalised weights are biased by O(1/K) = 0.00025; the standard error over the rows is ten times that.
    assert_same_mean(guide, expected, errors=6)


def test_the_gradient_of_tvo_is_that_of_its_integral() -> None:
    """One latent dimension: expectations along the path by quadrature, differentiated by autograd."""
    truth = example(d=2, q=1)
    pair = rows(truth, 200, shift=0.4)
    choice = "tvo:partitions=3,beta_min=0.2,num_particles=2000"
    _, guide, model = pair.gradients(choice)
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    first = [tensor[:1].detach().requires_grad_() for tensor in (pair.loc, pair.log_scale, pair.mean)]
    loc, log_scale, mean = first
    log_q = torch.distributions.Normal(loc[0, 0], log_scale[0, 0].exp()).log_prob(z)
    likelihood = torch.distributions.Normal(z[:, None] @ truth.weight.T + mean, truth.variance**0.5)
    log_weight = likelihood.log_prob(pair.x[0]).sum(-1) - z**2 / 2 - LOG_2PI / 2 - log_q
    points = OBJECTIVES.build(OBJECTIVES.resolve(choice)).points
    terms = [(b - a) * (torch.softmax(log_q + a * log_weight, 0) * log_weight).sum() for a, b in pairwise(points)]
    found = torch.autograd.grad(-torch.stack(terms).sum(), first)
    expected = torch.cat([part[0].expand(200, -1) for part in found], -1)
    assert_same_mean(torch.cat([guide, model], -1), expected, errors=6)  # biased by O(1/K), as above


def test_signal_to_noise_of_the_guide_falls_for_iwae_and_not_for_dreg() -> None:
    """Rainforth et al. 2018, theorem 1: SNR ~ K^(-1/2) for IWAE; Tucker et al. 2019: ~ K^(1/2) for DReG.

    From K = 4 to 64 either law is a factor of 4. Over R = 60,000 replicates an SNR has a standard error near
    1 / sqrt(R) = 0.004, which is a 20th of the smallest one here: the range asked for is 5 of them wide to either side,
    and missed by chance once in a million.
    """
    pair = rows(example(d=2, q=1), 60_000, shift=0.3, stretch=1.1)

    def ratio(choice: str, num_particles: int) -> float:
        guide = pair.gradients(f"{choice}:num_particles={num_particles}")[1][:, 0]
        return float(guide.mean().abs() / guide.std())

    assert 4 / 1.4 < ratio("iwae", 4) / ratio("iwae", 64) < 4 * 1.4
    assert 4 / 1.4 < ratio("dreg", 64) / ratio("dreg", 4) < 4 * 1.4


def test_guides_without_reparameterised_draws_are_refused_or_learn_by_score() -> None:
    x = torch.zeros(6, dtype=torch.float64)
    logits = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    levels = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3, dtype=torch.float64) / 3))
            pyro.sample("x", dist.Normal(levels[z], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=logits))

    for choice in ("iwae", "stl", "dreg", "free_bits"):
        with isolated(0), pytest.raises(ValueError, match="(wants|requires) reparameterised draws.*Categorical"):
            OBJECTIVES.build(OBJECTIVES.resolve(choice)).differentiable_loss(model, guide, x)
    for choice in ("rws:num_particles=2000", "tvo:num_particles=2000"):
        with isolated(0):
            loss = OBJECTIVES.build(OBJECTIVES.resolve(choice)).differentiable_loss(model, guide, x)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient[:, 1] < -0.05).all()  # towards the level that x is at
