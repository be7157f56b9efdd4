"""The ELBO and its analytic form against those of Pyro."""

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from tests.vae_pyro.objectives.cases import PAIRS, kl_by_dimension, loss_and_terms, small
from vae_pyro.core.isolation import isolated
from vae_pyro.objectives import OBJECTIVES, KLWeight
from vae_pyro.objectives.elbo import TraceELBO


@pytest.mark.parametrize("num_particles", [1, 3])
def test_value_and_gradient_are_those_of_pyro(num_particles: int) -> None:
    vae, x = small()
    parameters = list(vae.parameters())
    results = []
    vectorized = {"vectorize_particles": num_particles > 1}
    for objective in (
        OBJECTIVES.build(OBJECTIVES.resolve(f"elbo:num_particles={num_particles}")),
        Trace_ELBO(num_particles=num_particles, **vectorized),
    ):
        with isolated(1):
            if isinstance(objective, Trace_ELBO) and not isinstance(objective, TraceELBO):
                objective.max_plate_nesting = 1 + (num_particles > 1)
            loss = objective.differentiable_loss(vae.model, vae.guide, x)
            results.append((loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)))
    torch.testing.assert_close(results[0][0], results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_the_two_terms_add_up_at_any_weight(num_particles: int) -> None:
    vae, x = small()
    objective = TraceELBO(num_particles=num_particles)
    losses = []
    for weight in (0.0, 0.25, 1.0, 4.0):
        with isolated(1), KLWeight(weight):
            losses.append(objective.differentiable_loss(vae.model, vae.guide, x).detach())
            torch.testing.assert_close(losses[-1], weight * objective.kl - objective.reconstruction)
    assert losses[0] < losses[1] < losses[2] < losses[3]


def test_analytic_elbo_is_that_of_pyro() -> None:
    for options in (*PAIRS, {"prior": "normal", "posterior": "full_rank"}):
        vae, x = small(**options)
        parameters = list(vae.parameters())
        results = []
        for num_particles in (1, 3):
            theirs = TraceMeanField_ELBO(
                num_particles=num_particles, max_plate_nesting=1, vectorize_particles=num_particles > 1
            )
            ours = OBJECTIVES.build(OBJECTIVES.resolve(f"elbo_analytic:num_particles={num_particles}"))
            for objective in (ours, theirs):
                with isolated(1):
                    loss = objective.differentiable_loss(vae.model, vae.guide, x)
                    results.append((loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)))
            (loss, gradients), (expected, expected_gradients) = results[-2:]
            torch.testing.assert_close(loss, expected)
            for a, b in zip(gradients, expected_gradients, strict=True):
                torch.testing.assert_close(a, b)


def test_analytic_elbo_has_the_closed_kl() -> None:
    vae, x = small(prior="normal")
    loss, reconstruction, kl = loss_and_terms("elbo_analytic", vae, x)
    assert loss == pytest.approx(float(kl_by_dimension(vae, x).sum()) - reconstruction)
    assert loss != pytest.approx(kl - reconstruction)
