"""Exact normalisation at every parameter that a decoder can reach, and gradients that flow there."""

import numpy as np
import pytest
import torch

from vae_pyro.core.isolation import seeded
from vae_pyro.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vae_pyro.likelihoods.discretized_logistic import DiscretizedLogistic

LOGITS = [-200.0, -60.0, -20.0, -1.0, -0.11, -0.09, -1e-3, 0.0, 1e-6, 0.1, 0.5, 8.0, 60.0, 200.0]


def grid(points: int = 400_001) -> torch.Tensor:
    return torch.linspace(0, 1, points, dtype=torch.float64)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_with_its_moments(logit: float) -> None:
    x = grid()
    density = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    p = density.log_prob(x).exp()
    # The trapezoid's error on exp(t x) is t^2 / (12 N^2) relative.
    assert torch.trapezoid(p, x).item() == pytest.approx(1, abs=1e-7)
    mean = torch.trapezoid(p * x, x).item()
    assert density.mean.item() == pytest.approx(mean, abs=1e-7)
    assert density.variance.item() == pytest.approx(torch.trapezoid(p * (x - mean) ** 2, x).item(), abs=1e-7)


def test_continuous_bernoulli_holds_in_float32_where_torch_does_not() -> None:
    x = grid()
    logit = torch.tensor(60.0)
    ours = ContinuousBernoulli(logit).log_prob(x.float()).double().exp()
    theirs = torch.distributions.ContinuousBernoulli(logits=logit).log_prob(x.float()).double().exp()
    assert torch.trapezoid(ours, x).item() == pytest.approx(1, abs=1e-4)
    assert torch.trapezoid(theirs, x).item() < 0.5  # the reason for a class of our own


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_quantiles_invert_its_distribution(logit: float) -> None:
    t = torch.tensor(logit, dtype=torch.float64)
    u = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    x = ContinuousBernoulli(t).icdf(u)
    assert ((x >= 0) & (x <= 1)).all()
    back = x if logit == 0 else torch.expm1(t * x) / torch.expm1(t) if logit < 30 else torch.exp(t * (x - 1))
    torch.testing.assert_close(back, u, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [*LOGITS, 1e-3, 1e-8, 1e-12, -0.0499, 0.0499, -0.0501, 0.0501, 30.0])
def test_continuous_bernoulli_quantiles_have_their_derivative(logit: float, dtype: torch.dtype) -> None:
    u = torch.tensor([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999], dtype=dtype)
    t = torch.tensor(logit, dtype=dtype).expand(6).clone().requires_grad_()
    x = ContinuousBernoulli(t).icdf(u)
    (found,) = torch.autograd.grad(x.sum(), t)
    # log(1 + u (e^t - 1)) / t is the mean over s in [0, t] of the derivative of the log, and no ratio of small numbers.
    nodes, weights = (torch.from_numpy(value) for value in np.polynomial.legendre.leggauss(400))
    share, weight = (nodes + 1) / 2, weights / 2
    exact = t.detach().double().requires_grad_()
    tilted = torch.sigmoid(torch.logit(u.double()).unsqueeze(-1) + exact.unsqueeze(-1) * share)
    wanted = (tilted * weight).sum(-1)
    (derivative,) = torch.autograd.grad(wanted.sum(), exact)
    loose = dtype == torch.float32
    torch.testing.assert_close(x.detach().double(), wanted.detach(), atol=1e-6 if loose else 1e-11, rtol=0)
    torch.testing.assert_close(found.double(), derivative, atol=1e-5 if loose else 1e-9, rtol=0)


@pytest.mark.parametrize("logit", [-1000.0, -30.0, -1.0, 0.0, 1e-6, 1.0, 30.0, 1000.0])
def test_continuous_bernoulli_ends_have_quantiles_and_draws_have_gradients(
    logit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.rand gives 0 once in 17 million numbers of float32: at a logit of 30 that was a gradient of NaN."""
    t = torch.full((2,), logit, requires_grad=True)
    density = ContinuousBernoulli(t)
    ends = density.icdf(torch.tensor([0.0, 1.0]))
    assert ends.tolist() == [0, 1]
    assert torch.autograd.grad(ends.sum(), t)[0].tolist() == [0, 0]
    extremes = torch.tensor([0.0, 1 - 2.0**-24])
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: extremes.clone())
    drawn = density.rsample()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert torch.autograd.grad(drawn.sum(), t)[0].isfinite().all()


def test_continuous_bernoulli_draws_have_its_mean() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    density = ContinuousBernoulli(logits)
    with seeded(0):
        draws = density.sample((20_000,))
    error = (draws.mean(0) - density.mean) / (density.variance / 20_000).sqrt()
    assert error.abs().max() < 4.5  # 14 normal z-scores: fails once in 10,000 seeds


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_gradient_is_x_minus_mean(logit: float) -> None:
    t = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    density = ContinuousBernoulli(t)
    (gradient,) = torch.autograd.grad(density.log_prob(torch.tensor(0.3, dtype=torch.float64)), t)
    assert gradient.item() == pytest.approx(0.3 - density.mean.item(), abs=1e-9)


@pytest.mark.parametrize("loc", [-40.0, 0.0, 3.3, 7.5, 15.0, 90.0])
@pytest.mark.parametrize("scale", [1e-3, 0.2, 3.0, 400.0])
def test_discretized_logistic_sums_to_one_with_its_moments(loc: float, scale: float) -> None:
    parameters = [torch.tensor(value, dtype=torch.float64) for value in (loc, scale)]
    density = DiscretizedLogistic(*parameters, levels=16)
    x = torch.arange(16, dtype=torch.float64)
    p = density.log_prob(x).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    mean = (p * x).sum().item()
    assert density.mean.item() == pytest.approx(mean, abs=1e-10)
    assert density.variance.item() == pytest.approx((p * (x - mean) ** 2).sum().item(), abs=1e-9)


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0])
def test_discretized_logistic_has_its_variance_in_float32(scale: float) -> None:
    loc = torch.tensor([3.2, 200.3, 250.2])
    density = DiscretizedLogistic(loc, torch.tensor(scale))
    x = torch.arange(256, dtype=torch.float64).unsqueeze(-1)
    p = DiscretizedLogistic(loc.double(), torch.tensor(scale).double()).log_prob(x).exp()
    centred = x - loc.double()
    wanted = (p * centred**2).sum(0) - (p * centred).sum(0) ** 2
    assert density.variance.dtype == torch.float32
    torch.testing.assert_close(density.variance, wanted.float(), atol=1e-10, rtol=1e-5)


def test_discretized_logistic_keeps_its_digits_and_gradients_in_the_tails() -> None:
    loc = torch.tensor(10.0, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    log_p = DiscretizedLogistic(loc, scale, levels=256).log_prob(torch.tensor([0.0, 128.0, 255.0]))
    # Far above loc, log P(x) = -(x - 1/2 - loc) / scale + log(1 - exp(-1 / scale)), to rounding.
    assert log_p[1].item() == pytest.approx(-1175.0, rel=1e-5)
    assert log_p.isfinite().all()
    gradients = torch.autograd.grad(log_p.sum(), [loc, scale])
    assert all(gradient.isfinite() and gradient != 0 for gradient in gradients)


def test_discretized_logistic_draws_are_levels_with_its_mean() -> None:
    density = DiscretizedLogistic(torch.tensor([1.0, 8.0, 300.0]), torch.tensor([2.0, 5.0, 9.0]), levels=17)
    with seeded(0):
        draws = density.sample((20_000,))
    assert draws.min() >= 0
    assert draws.max() <= 16
    assert (draws == draws.round()).all()
    error = (draws.mean(0) - density.mean) / (density.variance / 20_000).sqrt().clamp(min=1e-6)
    assert error.abs().max() < 4.5


def test_expansion_and_validation() -> None:
    wide = ContinuousBernoulli(torch.zeros(3)).expand([2, 3]).to_event(1)
    assert wide.log_prob(torch.full((2, 3), 0.5)).shape == (2,)
    with pytest.raises(ValueError, match="support"):
        ContinuousBernoulli(torch.zeros(()), validate_args=True).log_prob(torch.tensor(1.5))
    levels = DiscretizedLogistic(torch.zeros(3), torch.ones(3), 4, validate_args=True).expand([2, 3])
    assert levels.log_prob(torch.ones(2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match="support"):
        levels.log_prob(torch.full((2, 3), 4.0))
