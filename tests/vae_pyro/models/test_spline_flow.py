"""Spline flows: values of Pyro's splines, inverses, derivatives, and steps that compile."""

from typing import Any

import pyro
import pytest
import torch
from pyro.distributions.transforms import ConditionalSpline, Spline
from pyro.distributions.transforms import SplineCoupling as Reference
from pyro.infer import Trace_ELBO
from pyro.nn import DenseNN

from tests.vae_pyro.models.test_priors_posteriors import build
from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.models.priors.coupling import SplineCoupling
from vae_pyro.nn.splines import RationalSpline
from vae_pyro.svi.compiled_svi import CompiledSVI

ORDERS = ["linear", "quadratic"]


def reference(order: str, dimension: int, bins: int) -> Any:
    split = dimension // 2
    sizes = [bins, bins, bins - 1, *([bins] if order == "linear" else [])]
    network = DenseNN(split, [7], param_dims=[(dimension - split) * size for size in sizes])
    layer = Reference(dimension, split, network, bins, 3.0, order)
    assert isinstance(layer.lower_spline, Spline)
    assert isinstance(layer.upper_spline, ConditionalSpline)
    return layer.double()


@pytest.mark.parametrize("order", ORDERS)
def test_a_layer_is_that_of_pyro_with_the_same_parameters_and_the_same_start(order: Any) -> None:
    dimension = 5
    with seeded(3):
        theirs = reference(order, dimension, 6)
    with seeded(3):
        layer = SplineCoupling(dimension, (7,), bins=6, bound=3.0, spline=order).double()
    assert list(layer.state_dict()) == list(theirs.state_dict())
    for ours, other in zip(layer.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=0)
    with seeded(4):
        x = 2 * torch.randn(400, dimension, dtype=torch.float64)
    x[0] = torch.tensor([2.999, -2.999, 3.001, -3.001, 0.0])  # a value on the bound is in by rounding
    assert bool((x.abs() > 3).any())
    pairs = []
    for transform in (layer.transform(), theirs):
        at = x.clone().requires_grad_()
        y = transform(at)
        slope = transform.log_abs_det_jacobian(at, y)
        back = transform.inv(y.detach())
        inverse_slope = transform.log_abs_det_jacobian(back, y)
        pairs.append([y, slope, back, inverse_slope, *torch.autograd.grad((y.sin().sum() + slope.sum()), at)])
    torch.testing.assert_close(pairs[0], pairs[1], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(pairs[0][2], x, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_log_derivatives_are_those_of_the_values(order: str) -> None:
    with seeded(0):
        raw = [torch.randn(3, size, dtype=torch.float64) for size in (5, 5, 4, 5)]
    divisions = raw[3].sigmoid() if order == "linear" else None
    spline = RationalSpline(raw[0].softmax(-1), raw[1].softmax(-1), raw[2].exp(), divisions, 2.0)
    x = torch.linspace(-2.5, 2.5, 301, dtype=torch.float64).unsqueeze(-1).repeat(1, 3).requires_grad_()
    y, slope = spline(x)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0].log(), slope)
    assert bool((y.diff(dim=0) > 0).all())
    back, inverse_slope = spline.inverse(y)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)
    torch.testing.assert_close(inverse_slope, -slope, atol=1e-5, rtol=1e-5)
    outside = x.detach().abs() > 2
    assert torch.equal(y[outside], x[outside])


def test_a_spline_of_too_many_bins_is_refused() -> None:
    shares = torch.full((1001,), 1 / 1001)
    with pytest.raises(ValueError, match="at most 1000 bins, got 1001"):
        RationalSpline(shares, shares, shares[1:], None, 1.0)


@pytest.mark.parametrize("order", ORDERS)
def test_a_draw_has_the_density_of_its_point(order: str) -> None:
    vae = build(f"flow:steps=2,spline={order}", latent_dim=3)
    with torch.no_grad(), isolated(1):
        prior = vae.model.prior(vae.guide.encode_features)
        z = prior.sample((50,))
        fresh = vae.model.prior(vae.guide.encode_features).log_prob(z.clone())
        torch.testing.assert_close(prior.log_prob(z), fresh)


def test_a_step_with_a_flow_as_prior_is_traced() -> None:
    network = "mlp:hidden=[4]"
    config = VAEConfig(
        x_shape=(3,), latent_dim=2, likelihood="gaussian", encoder=network, prior="flow:steps=1,hidden=[4],bins=2"
    )
    vae = VAE(config, seed=1)
    with seeded(0):
        x = torch.randn(8, 3)
    svi = CompiledSVI(vae.model, vae.guide, torch.optim.SGD(vae.parameters(), lr=1e-3), Trace_ELBO(), compile=False)
    with seeded(5), pyro.get_param_store().scope():
        for _ in range(2):  # a step that cannot be traced warns, and a warning is an error here
            svi.step(x)
    assert (svi.status().programs, svi.status().stock_steps) == (1, 0)
