"""The contract of every registered objective: stock SVI, no value read on the host, masks, the weight of the KL."""

from dataclasses import replace
from math import isfinite
from typing import Annotated, Any

import pyro
import pytest
import torch
from pydantic import Field
from pyro.infer import SVI
from pyro.optim import Adam
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.vae_pyro.objectives.cases import (
    PAIRS,
    loss_and_terms,
    small,
)
from vae_pyro import FitConfig, LogDensities, fit, log_densities
from vae_pyro.core.isolation import isolated
from vae_pyro.objectives import OBJECTIVES, MonteCarloObjective, Particles

# The loss is linear in the weight of the KL; of every other objective it is that of densities with the weight in them.
LINEAR = ("elbo", "elbo_analytic", "beta", "capacity", "free_bits", "beta_tcvae", "dip", "infovae")
REFUSED = {"beta_tcvae": ("full_rank", "flow"), "dip": ("flow",)}


def everything() -> list[str]:
    names = [name for name in OBJECTIVES if name != "m2"]  # which requires the classes of its structure
    return [f"{name}:dataset_size=100" if name == "beta_tcvae" else name for name in names]


def test_the_published_objectives_are_registered() -> None:
    published = {
        *("elbo", "elbo_analytic", "stl", "iwae", "dreg", "ciwae", "miwae", "piwae", "renyi", "rws", "tvo"),
        *("beta", "capacity", "free_bits", "beta_tcvae", "dip", "infovae", "miwae_missing", "m2"),
    }
    assert published <= set(OBJECTIVES)


@pytest.mark.parametrize("weight", [1.0, 0.4])
@pytest.mark.parametrize(("choice", "factor"), [("elbo", 1.0), ("stl", 1.0), ("beta:beta=3", 3.0), ("beta", 4.0)])
def test_the_constant_factor_of_the_kl_is_that_of_the_loss(choice: str, factor: float, weight: float) -> None:
    vae, x = small()
    objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
    objective.kl_weight.fill_(weight)
    with isolated(1):
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
    assert objective.kl_factor == factor
    torch.testing.assert_close(loss, factor * weight * objective.kl - objective.reconstruction)


@pytest.mark.parametrize("choice", ["iwae", "rws", "capacity", "free_bits", "beta_tcvae:dataset_size=9", "dip"])
def test_an_objective_of_another_form_has_no_constant_factor_of_the_kl(choice: str) -> None:
    assert OBJECTIVES.build(OBJECTIVES.resolve(choice)).kl_factor is None


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("choice", everything())
def test_stock_svi_takes_every_objective(choice: str) -> None:
    for options in PAIRS:
        vae, x = small(**options)
        objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
        svi = SVI(vae.model, vae.guide, Adam({"lr": 0.01}), loss=objective)
        before = [parameter.detach().clone() for parameter in vae.parameters()]
        pyro.clear_param_store()
        if options["posterior"] in REFUSED.get(choice.partition(":")[0], ()):
            with pytest.raises(ValueError, match="choose posterior 'mean_field'"):
                svi.step(x)
            continue
        losses = [svi.step(x), svi.step(x), svi.evaluate_loss(x)]
        assert all(isinstance(loss, float) and isfinite(loss) for loss in losses)
        after = list(vae.parameters())
        assert all(parameter.isfinite().all() for parameter in after)
        assert sum(bool((a != b).any()) for a, b in zip(before, after, strict=True)) > len(before) // 2
        figures = objective.metrics
        assert {name: (value.shape, value.requires_grad) for name, value in figures.items()} == {
            "reconstruction": ((), False),
            "kl": ((), False),
        }


class NoSynchronisation(TorchDispatchMode):
    """Refuses what would read a tensor's value on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("choice", [choice for choice in everything() if not choice.startswith("elbo")])
def test_no_objective_reads_a_value_on_the_host(choice: str) -> None:
    vae, x = small(prior="normal")
    objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
    with isolated(0), NoSynchronisation():
        loss = objective.differentiable_loss(vae.model, vae.guide, x)
        torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)


@pytest.mark.parametrize("choice", everything())
def test_a_mask_reaches_every_objective(choice: str) -> None:
    vae, x = small(prior="normal")
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1:, 2] = False
    losses = []
    for value in (0.0, 1e3):
        spoiled = torch.where(mask, x, torch.full_like(x, value))
        objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
        with isolated(1):
            losses.append(objective.loss(vae.model, vae.guide, spoiled, mask=mask))
    with isolated(1):
        losses.append(objective.loss(vae.model, vae.guide, x))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("choice", everything())
def test_the_weight_multiplies_the_kl_and_is_read_at_every_loss(choice: str) -> None:
    vae, x = small(prior="normal")
    objective = OBJECTIVES.build(OBJECTIVES.resolve(choice))
    assert objective.kl_weight.shape == ()

    def loss(weight: float) -> Tensor:
        objective.kl_weight.fill_(weight)  # in place: a compiled step holds this very tensor
        with isolated(1):
            return objective.differentiable_loss(vae.model, vae.guide, x).detach()

    none, half, one = loss(0.0), loss(0.5), loss(1.0)
    unweighted = dict(objective.metrics)
    assert one.dtype == torch.float64
    assert none != one
    if choice.partition(":")[0] in LINEAR:
        torch.testing.assert_close(half, (none + one) / 2)
    else:
        with isolated(1), torch.no_grad():
            drawn = log_densities(vae.model, vae.guide, x, num_particles=objective.num_particles)
        halved = replace(drawn, log_prior=0.5 * drawn.log_prior, log_guide=0.5 * drawn.log_guide)
        torch.testing.assert_close(half, -objective.bound(halved).sum())
    if choice not in ("dip", "infovae"):
        particles = {"num_particles": objective.num_particles}
        with isolated(1), torch.no_grad():
            draws = log_densities(vae.model, vae.guide, x, **particles).log_likelihood
        if choice.startswith(("beta", "free_bits", "capacity", "elbo", "stl")):
            torch.testing.assert_close(none, -draws.mean(0).sum())
    for name in ("reconstruction", "kl"):  # without weights
        loss(0.25)
        torch.testing.assert_close(objective.metrics[name], unweighted[name])


def test_an_objective_of_ones_own_in_six_lines() -> None:
    @OBJECTIVES.register("mine")
    class Mine(MonteCarloObjective):
        def __init__(self, *, num_particles: Particles = 1, option: Annotated[float, Field(gt=0)] = 1.0) -> None:
            super().__init__(num_particles=num_particles)
            self.option = option

        def bound(self, densities: LogDensities) -> Tensor:
            return self.option * densities.log_weight.mean(0)

    try:
        vae, x = small(prior="normal")
        config = FitConfig(objective="mine:option=2", epochs=2, batch_size=5, device="cpu")
        assert str(config.objective) == "mine:num_particles=1,option=2.0"
        assert len(fit(vae, x, config=config).history) == 2
        loss, reconstruction, kl = loss_and_terms("mine:option=2", vae, x)
        assert loss == pytest.approx(2 * (kl - reconstruction))
        with pytest.raises(ValueError, match="greater than 0"):
            FitConfig(objective="mine:option=-2")
    finally:
        OBJECTIVES.unregister("mine")
