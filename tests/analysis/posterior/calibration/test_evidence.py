"""Evidence at true latents against that at draws of the guide: the symmetric KL in closed form, 0 for an exact guide,
infinite where the guide misses support, of which no weight of its own draws knows."""

import json
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from analysis.density.elpd import elpd_of
from analysis.posterior.calibration.evidence import EvidenceBounds
from analysis.posterior.calibration.sbc import calibrate
from tests.truths import PPCA, Program, example
from vae_pyro.core.isolation import seeded

SCALE = 0.3


def bounds_of(pair: tuple[Program, Program], **options: Any) -> EvidenceBounds:
    found = calibrate(pair, quantities=("log_weight",), **options).evidence
    assert found is not None
    return found


def gaussian(truth: PPCA, stretch: float, shift: float) -> tuple[Program, Program]:
    """The posterior with its standard deviations multiplied, and moved by so many of them along its factor."""
    model, _ = truth.programs()

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        loc, covariance = truth.posterior(x)
        factor = torch.linalg.cholesky(covariance)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.MultivariateNormal(loc + shift * factor.sum(1), scale_tril=stretch * factor))

    return model, guide


@pytest.mark.parametrize(("stretch", "shift"), [(1.0, 0.3), (0.7, 0.0), (1.4, 0.0), (1.2, -0.5)])
def test_the_divergence_of_two_gaussians_is_the_closed_form(stretch: float, shift: float) -> None:
    """In two dimensions, s^2 + 1/s^2 - 2 of the widths and (1 + 1/s^2) m^2 of the means, each within 4 standard errors
    (6e-5 each); their halves with log p(x)."""
    truth = example()
    found = bounds_of(gaussian(truth, stretch, shift), num_simulations=4000, num_draws=39, seed=1)
    exact = stretch**2 + stretch**-2 - 2 + (1 + stretch**-2) * shift**2
    assert abs(found.symmetric_kl - exact) < 4 * found.symmetric_kl_se
    assert found.symmetric_kl_se < 0.05
    forward = (1 + shift**2) / stretch**2 - 1 + 2 * log(stretch)  # KL(p || q)
    entropy = -0.5 * (truth.covariance.logdet() + 5 * log(2 * np.pi) + 5)  # E log p(x)
    error = found.upper.std() / len(found.upper) ** 0.5
    assert abs(found.upper.mean() - (float(entropy) + forward)) < 4 * error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_exact_guide_has_no_divergence_and_no_error(dtype: torch.dtype) -> None:
    truth = example()
    truth = replace(truth, weight=truth.weight.to(dtype), mean=truth.mean.to(dtype))

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> Tensor:
        exact = PPCA(truth.weight.double(), truth.mean.double(), truth.variance)
        loc, covariance = exact.posterior(x.double())
        with pyro.plate("data", len(x)):
            factor = torch.linalg.cholesky(covariance).to(dtype)
            return pyro.sample("z", dist.MultivariateNormal(loc.to(dtype), scale_tril=factor))

    for seed in range(5):
        found = bounds_of((truth.programs()[0], guide), seed=seed)
        assert (found.pointwise == 0).all()
        assert found.outcome == "pass"


def both_modes(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
    """``z ~ N(0, 1)``, ``x | z ~ N(|z|, s^2)``: each half of the posterior is a Gaussian cut at 0."""
    one = torch.ones((), dtype=torch.float64)
    with pyro.plate("data", size if x is None else len(x)):
        z = pyro.sample("z", dist.Normal(0 * one, one))
        return pyro.sample("x", dist.Normal(z.abs()[..., None], SCALE * one).to_event(1), obs=x)


class Half(dist.Normal):  # type: ignore[misc]
    """A Gaussian cut at 0, by rejection."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(Half, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        inside = super().log_prob(value) - self._share.log()
        return inside.where(value >= 0, torch.full_like(inside, -torch.inf))

    @property
    def _share(self) -> Tensor:
        return torch.special.ndtr(self.loc / self.scale)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype)
        return self.loc - self.scale * torch.special.ndtri(u * self._share)

    rsample = sample


def one_mode(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
    """Exactly the positive half of the posterior: constant weights, log 2 below the truth."""
    loc = x[:, 0] / (1 + SCALE**2)
    with pyro.plate("data", len(x)):
        pyro.sample("z", Half(loc, torch.full_like(loc, SCALE / (1 + SCALE**2) ** 0.5), validate_args=False))


def test_support_that_the_guide_misses_is_seen_where_its_own_weights_are_constant() -> None:
    """Half of 500 latents are negative: that none is has a probability of 2^-500."""
    with seeded(1):
        x = torch.randn(200, 1, dtype=torch.float64).abs()
    density = elpd_of((both_modes, one_mode), x, num_draws=200)
    assert density.outcome == "pass"
    assert density.width.max() < 1e-6  # ELBO = CUBO
    found = calibrate((both_modes, one_mode), seed=0)
    assert found.evidence is not None
    assert found.evidence.symmetric_kl == np.inf
    assert 200 < found.evidence.num_missed < 300
    verdict = next(verdict for verdict in found.verdicts if verdict.name == "symmetric_kl")
    assert verdict.outcome == "fail"
    assert "support missed: the guide has density zero at the true latents of" in verdict.advice
    assert "density zero at" in str(found.evidence)
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["evidence"]["symmetric_kl"] is None
    assert found.evidence.plot() is not None


def test_draws_that_the_model_excludes_are_named() -> None:
    """A Gaussian guide of a positive latent: log p(x, z) is minus infinity at some of its draws."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Uniform(torch.zeros(1).double(), 1.0, validate_args=False).to_event(1))
            return pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x: Tensor, *, mask: Any = None, y: Any = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 + 0 * x, 0.3).to_event(1))

    found = bounds_of((model, guide), num_simulations=100)
    (verdict,) = found.verdicts
    assert found.num_impossible > 50
    assert verdict.outcome == "fail"
    assert "draws latents that the model excludes" in verdict.advice


def test_estimates_that_are_too_noisy_are_inconclusive() -> None:
    noise = np.random.default_rng(0).normal(size=500)
    for scale, expected in ((0.05, "pass"), (50.0, "warn")):
        found = EvidenceBounds(scale * noise, 0 * noise, 1, 99)
        assert found.outcome == expected
        assert ("inconclusive: raise num_simulations (now 500)" in str(found.verdicts[0])) == (expected == "warn")
    assert EvidenceBounds(noise + 5, 0 * noise, 1, 99).outcome == "fail"


def test_without_log_weights_there_is_no_evidence() -> None:
    found = calibrate(example().programs(), num_simulations=20, num_draws=19, quantities=("log_joint",))
    assert found.evidence is None
    assert "symmetric_kl" not in {verdict.name for verdict in found.verdicts}
    assert found.summary()["evidence"] is None
