"""Every objective with 1, 2 and 7 particles: masked data in double precision, and closed forms."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from tests.vae_pyro.objectives.cases import MULTI_SAMPLE, PAIRS, Rows, orthogonal, rows, small
from vae_pyro import log_densities
from vae_pyro.core.isolation import isolated
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.objectives.infovae import InfoVAE

PARTICLES = (1, 2, 7)


def build(choice: str, num_particles: int) -> Any:
    options = f"{choice}{',' if ':' in choice else ':'}num_particles={num_particles}"
    return OBJECTIVES.build(OBJECTIVES.resolve(options))


def fewest(choice: str) -> int:
    return 2 if choice == "tvo" else 1  # a covariance over the particles


def everything() -> list[str]:
    names = [name for name in OBJECTIVES if name != "m2"]  # which requires the classes of its structure
    return [f"{name}:dataset_size=100" if name == "beta_tcvae" else name for name in names]


@pytest.mark.parametrize("options", PAIRS, ids=lambda options: f"{options['prior']}-{options['posterior']}")
@pytest.mark.parametrize("num_particles", PARTICLES)
@pytest.mark.parametrize("choice", everything())
def test_every_objective_takes_particles_and_a_mask(choice: str, num_particles: int, options: dict[str, str]) -> None:
    """Loss and gradients are finite, float64, and do not depend on what is masked."""
    name, posterior = choice.partition(":")[0], options["posterior"]
    if num_particles < fewest(choice):
        with pytest.raises(ValueError, match="greater than or equal to 2"):
            build(choice, num_particles)
        return
    if (name == "beta_tcvae" and posterior != "mean_field") or (name == "dip" and posterior == "flow"):
        pytest.skip("refused, see test_every_objective")
    vae, x = small(**options)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1:, 2] = False
    found = []
    for value in (0.0, 1e3):
        objective = build(choice, num_particles)
        spoiled = torch.where(mask, x, torch.full_like(x, value))
        with isolated(1):
            loss = objective.differentiable_loss(vae.model, vae.guide, spoiled, mask=mask)
            gradients = torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)
        assert loss.dtype == torch.float64
        assert loss.isfinite()
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
        found.append(loss)
    assert found[0] == found[1]


@pytest.mark.parametrize("num_particles", PARTICLES)
@pytest.mark.parametrize("choice", ["elbo", *MULTI_SAMPLE])
def test_an_exact_guide_gives_log_evidence_with_any_number_of_particles(choice: str, num_particles: int) -> None:
    """Constant weights: every bound is log p(x); of a shifted guide it is not."""
    if num_particles < fewest(choice):
        pytest.skip("refused")
    truth = orthogonal()

    def loss(pair: Rows) -> float:
        with isolated(1):
            return float(build(choice, num_particles).loss(pair.model, pair.guide, pair.x))

    exact, wrong = rows(truth, 3, shift=0.0, stretch=1.0), rows(truth, 3, shift=1.0)
    expected = -float(truth.log_evidence(exact.x).sum())
    assert loss(exact) == pytest.approx(expected, rel=1e-9)
    assert loss(wrong) != pytest.approx(expected, rel=1e-3)


def test_the_divergence_of_infovae_is_unbiased() -> None:
    """0 on average for an aggregate that is the prior, within 4 errors of 200 batches (1 in 16,000), and above 0 by
    more than 10 errors for one that is shifted. It is a mean over independent particles: its standard deviation falls
    with their root, within 5 errors (of 5 % each, and of the reference)."""
    x = torch.zeros(8, 1, dtype=torch.float64)

    def divergence(shift: float, num_particles: int) -> Tensor:
        def model(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(x.new_zeros(1), 1.0).to_event(1), obs=x)

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_full((2,), shift), 1.0).to_event(1))

        found = []
        for seed in range(200):
            with isolated(seed):
                densities = log_densities(model, guide, x, num_particles=num_particles)
                found.append(InfoVAE(num_particles=num_particles).divergence(densities))
        return torch.stack(found)

    spread = []
    for num_particles in PARTICLES:
        same, other = divergence(0.0, num_particles), divergence(1.0, num_particles)
        assert abs(same.mean()) < 4 * same.std() / 200**0.5
        assert other.mean() > 10 * other.std() / 200**0.5
        spread.append(float(same.std()) * num_particles**0.5)
    assert spread[1:] == pytest.approx([spread[0]] * 2, rel=0.35)
