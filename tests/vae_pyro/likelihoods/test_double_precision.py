"""Densities of counts in float32 models, computed in float64."""

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, softplus

from tests.vae_pyro.likelihoods.counts import INFLATED, outputs
from vae_pyro.core.isolation import seeded
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.counts import RATE_FLOOR
from vae_pyro.likelihoods.double_precision import GammaInDouble, PoissonInDouble, StudentTInDouble


def of_product(x: Tensor, m: Tensor, r: Tensor) -> Tensor:
    """Log density of a negative binomial without a difference of large terms, for counts below 40; float64."""
    k = torch.arange(40.0, dtype=torch.float64)
    ratios = torch.log1p(k / r.unsqueeze(-1)) * (k < x.unsqueeze(-1))
    return ratios.sum(-1) - torch.lgamma(x + 1) + x * m.log() - (x + r) * torch.log1p(m / r)


@pytest.mark.parametrize("dispersion", ["per_dimension", "learned", "predicted"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("r", [10.0, 1e3, 1e4, 1e6])
def test_float32_loses_no_nats_of_a_negative_binomial(dispersion: str, gated: bool, r: float) -> None:
    name = f"{'zero_inflated_' if gated else ''}negative_binomial:dispersion={dispersion}"
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(name), (784,))
    with seeded(0):
        x = torch.poisson(torch.full((20, 784), 5.0))
        output = 5 + 0.1 * torch.randn(20, *likelihood.output_shape)
    if gated:
        output[:, 1] = -2
    if isinstance(raw := likelihood.raw_dispersion, Tensor):
        raw.data.fill_(r)
    else:
        output[:, -1] = r
    output.requires_grad_()
    free = [output, *likelihood.parameters()]
    found = likelihood.observed(output).log_prob(x)

    exact = output.double()
    shape = exact[:, -1] if raw is None else raw.double()
    wanted = of_product(x.double(), softplus(exact[:, 0]) + RATE_FLOOR, (softplus(shape) + RATE_FLOOR).expand(20, 784))
    if gated:
        gate = exact[:, 1]
        wanted = wanted + logsigmoid(-gate)
        wanted = torch.where(x == 0, torch.logaddexp(logsigmoid(gate), wanted), wanted)
    wanted = wanted.sum(-1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=0)
    gradients = zip(torch.autograd.grad(found.sum(), free), torch.autograd.grad(wanted.sum(), free), strict=True)
    for one, other in gradients:
        # Of r they are as small as 1 / r^2, of which the digits of digamma(r) leave some.
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()) + 1e-10, rtol=1e-4)


@pytest.mark.parametrize("text", ["negative_binomial", "zero_inflated_poisson", "multinomial"])
def test_float32_loses_no_nats_of_large_counts(text: str) -> None:
    with seeded(0):
        share = torch.softmax(2 * torch.randn(2000), 0)
        x = torch.poisson((share * 1e6).expand(10, -1))
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (2000,))
    output = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))[None]
    found = likelihood.observed(output).log_prob(x).detach()
    assert found.dtype == torch.float32
    likelihood.double()
    wanted = likelihood.observed(output.double()).log_prob(x.double()).detach()
    torch.testing.assert_close(found.double(), wanted, atol=0.01, rtol=0)  # the sum of 2000 elements is in float32


@pytest.mark.parametrize("text", ["negative_binomial", *INFLATED])
def test_float32_sums_to_one(text: str) -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (2, 3))
    if isinstance(raw := likelihood.raw_dispersion if "poisson" not in text else None, Tensor):
        raw.data.fill_(1e4)
    output = outputs(likelihood).float()
    points = torch.arange(20_000.0).reshape(-1, 1, 1, 1).expand(-1, 5, 2, 3)
    total = likelihood(output).log_prob(points).double().exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def test_the_dispersion_is_bounded_where_the_family_is_a_poisson() -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve("negative_binomial:dispersion=predicted"), (3,))
    output = torch.tensor([[[5.0, 5.0, 5.0], [1e7, 1e12, 1e30]]])
    x = torch.tensor([[0.0, 4.0, 12.0]])
    found = likelihood(output).log_prob(x)
    wanted = torch.distributions.Poisson(likelihood(output).mean).log_prob(x)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("text", ["negative_binomial", *INFLATED])
def test_draws_and_moments_have_the_type_of_the_model(text: str) -> None:
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(text), (2, 3))
    density = likelihood(outputs(likelihood).float())
    wide = density.expand((4, 5, 2, 3))
    assert wide.batch_shape == (4, 5, 2, 3)
    with seeded(0):
        x = wide.sample((7,))
    assert x.shape == (7, 4, 5, 2, 3)
    assert {value.dtype for value in (x, wide.mean, wide.variance, wide.log_prob(x))} == {torch.float32}
    assert density.log_prob(x.double()).dtype == torch.float64
    some = torch.tensor([True, False, True])
    hidden = density.mask(some).to_event(2).log_prob(x[0, 0])
    torch.testing.assert_close(hidden, (density.log_prob(x[0, 0]) * some).sum((-1, -2)))
    with pytest.raises(ValueError, match="support"):
        density.log_prob(torch.full((5, 2, 3), 0.5))


FAMILIES: dict[str, Any] = {
    "poisson": (PoissonInDouble, dist.Poisson, lambda s: (s,), scipy.stats.poisson),
    "gamma": (GammaInDouble, dist.Gamma, lambda s: (s, s / 2), lambda s: scipy.stats.gamma(s, scale=2 / s)),
    "student_t": (StudentTInDouble, dist.StudentT, lambda s: (s, 0.0, 1.0), scipy.stats.t),
}


@pytest.mark.parametrize("size", [10.0, 1e4, 2.0**17, 2.0**20])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_densities_meet_scipy_in_float64(family: str, size: float) -> None:
    """To rounding of the result at every rate, shape and degrees of freedom, where float32 is off by 1e-3 to 1 nats
    from 1e4 on. Draws are in float32, so that the truth is that of the same numbers; the sizes are powers of 2."""
    ours, stock, parameters, truth = FAMILIES[family]
    exact = truth(size)
    x = exact.rvs(size=500, random_state=np.random.default_rng(0)).astype(np.float32)
    expected = exact.logpmf(x.astype(float)) if family == "poisson" else exact.logpdf(x.astype(float))
    values = tuple(torch.tensor(value) for value in parameters(size))
    found = ours(*values).log_prob(torch.from_numpy(x))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    if size >= 1e4:
        lost = np.abs(stock(*values).log_prob(torch.from_numpy(x)).double().numpy() - expected)
        assert lost.mean() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_in_double_are_those_of_the_family(family: str) -> None:
    """Gradients, expansion, masks, draws and refusals of values are the family's own, and float64 is equal."""
    ours, stock, parameters, _ = FAMILIES[family]
    values = [torch.tensor(float(value), requires_grad=True) for value in parameters(8.0)]
    x = torch.tensor([3.0, 5.0])
    pairs = []
    for kind in (ours, stock):
        wide = kind(*values).expand((2,))
        assert type(wide) is kind
        total = wide.mask(torch.tensor([True, False])).to_event(1).log_prob(x)
        pairs.append((total, *torch.autograd.grad(total, values)))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert ours(*values).has_rsample == stock(*values).has_rsample
    double = [value.detach().double() for value in values]
    assert torch.equal(ours(*double).log_prob(x), stock(*double).log_prob(x.double()))
    with seeded(0):
        one = ours(*values).sample((5,))
    with seeded(0):
        assert torch.equal(one, stock(*values).sample((5,)))
    if ours.support is not constraints.real:
        with pytest.raises(ValueError, match="within the support"):
            ours(*values, validate_args=True).log_prob(torch.tensor(-1.0))


def test_likelihoods_take_them() -> None:
    for name in ("gamma", "student_t"):
        likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(name), (3,))
        assert isinstance(likelihood(torch.ones(2, *likelihood.output_shape)), FAMILIES[name][0])
