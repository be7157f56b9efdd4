"""Data missing not at random: the density of values and mask against quadrature, the mechanism found, less bias."""

from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from scipy.stats import multivariate_normal, norm
from torch import Tensor

import vae_pyro.models.structures.not_at_random  # noqa: F401 (registers it)
from analysis.latent.information.layers import describe_layers
from analysis.latent.information.summary import describe_latent
from analysis.report.report import ReportConfig, make_report
from vae_pyro import VAE, FitConfig, Split, VAEConfig, evaluate, fit
from vae_pyro.applications.imputation import impute
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.densities.log_density import log_densities
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.svi.compiled_svi import CompiledSVI

LINEAR = "mlp:hidden=[]"


def build(structure: str = "not_at_random", shape: tuple[int, ...] = (3,), **options: Any) -> VAE:
    config = {"likelihood": "gaussian", "encoder": LINEAR, "encode_mask": True, "latent_dim": 1, **options}
    return VAE(VAEConfig(x_shape=shape, structure=structure, **config))


def simulate(size: int, seed: int, slope: float) -> tuple[Tensor, Tensor]:
    """Three measurements of one quantity, of which high values of two go missing, and the mask."""
    with seeded(seed):
        x = 2 + 3 * (torch.randn(size, 1) + 0.5 * torch.randn(size, 3))
        missing = torch.rand(size, 3) < torch.sigmoid(slope * (x - 2) / (3 * 1.25**0.5) - 0.5)
    missing[:, 2] = False
    return x, ~missing


# --- the closed form ----------------------------------------------------------------------------------------------

LOADING, NOISE, WEIGHT, BIAS = np.array([1.0, -0.7]), 0.6, np.array([1.5, -2.0]), np.array([-0.3, 0.4])


def linear_vae() -> VAE:
    """x = LOADING z + N(0, NOISE^2), logit P(missing) = WEIGHT x + BIAS, and a guide that is near the posterior."""
    vae = build(shape=(2,), likelihood=f"gaussian:scale={NOISE}").double()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        vae.model.decoder.layers[-1].weight.copy_(torch.from_numpy(LOADING)[:, None])
        vae.guide.posterior.normal.linear.weight[0, :2].copy_(torch.from_numpy(LOADING * 0.5))
        vae.guide.posterior.normal.linear.bias[1] = -0.1
        vae.model.mechanism.raw_weight.copy_(torch.from_numpy(WEIGHT))
        vae.model.mechanism.bias.copy_(torch.from_numpy(BIAS))
        vae.initialized.fill_(True)
    return vae


def log_evidence(x: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> float:
    """log p(x observed, mask) by quadrature over the unobserved elements; z is integrated out by hand."""
    covariance = np.outer(LOADING, LOADING) + NOISE**2 * np.eye(2)
    axis = np.linspace(-9, 9, 1201)
    grids = [axis if not seen else np.array([value]) for value, seen in zip(x, mask, strict=True)]
    points = np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, 2)
    missing = 1 / (1 + np.exp(-(WEIGHT * points + BIAS)))
    density = multivariate_normal(np.zeros(2), covariance).pdf(points) * np.where(mask, 1 - missing, missing).prod(1)
    return float(np.log(density.sum() * (axis[1] - axis[0]) ** int((~mask).sum())))


X = np.array([[0.4, -0.2], [1.5, 0.3], [-0.8, 1.1], [2.0, -2.0]])
MASK = np.array([[True, True], [False, True], [True, False], [False, False]])


def test_the_density_of_values_and_mask_is_that_of_quadrature() -> None:
    vae, truth = linear_vae(), [log_evidence(x, mask) for x, mask in zip(X, MASK, strict=True)]
    x, mask = torch.from_numpy(X), torch.from_numpy(MASK)
    found = evaluate(vae, x, mask=mask, num_draws=20_000, seed=0)
    # 4 errors: a false alarm comes once in 4,000 runs, for 4 data.
    assert bool((np.abs(found.log_px - truth) < 4 * found.log_px_se).all())
    assert found.log_px_se.max() < 0.02
    # The mask is part of the density: the other mask has another, by much more than the error.
    other = log_evidence(X[1], np.array([True, True]))
    assert abs(other - truth[1]) > 0.5
    everything = evaluate(vae, x[:2], num_draws=20_000, seed=0).log_px
    whole = [log_evidence(one, np.array([True, True])) for one in X[:2]]
    assert bool((np.abs(everything - whole) < 0.05).all())  # without a mask all are observed


def test_an_imputation_is_the_posterior_mean_of_what_is_missing() -> None:
    vae = linear_vae()
    found = impute(vae, torch.from_numpy(X), mask=torch.from_numpy(MASK), num_draws=20_000, seed=1)
    axis = np.linspace(-9, 9, 4001)
    slope = LOADING[0] * LOADING[1] / (LOADING[1] ** 2 + NOISE**2)  # of x_1 given x_2
    sd = np.sqrt(LOADING[0] ** 2 + NOISE**2 - slope * LOADING[0] * LOADING[1])
    density = norm(slope * X[1, 1], sd).pdf(axis) / (1 + np.exp(-(WEIGHT[0] * axis + BIAS[0])))
    truth = (axis * density).sum() / density.sum()
    assert abs(found.mean[1, 0] - truth) < 4 * found.mean_se[1, 0]
    assert found.mean_se[1, 0] < 0.02
    assert truth - slope * X[1, 1] > 0.3  # and not that of data missing at random


def test_the_density_of_what_is_missing_cancels_exactly() -> None:
    vae = linear_vae()
    with isolated(0), torch.no_grad():
        densities = log_densities(
            vae.model, vae.guide, torch.from_numpy(X), num_particles=7, mask=torch.from_numpy(MASK)
        )
    log_prior, log_guide = densities.sites["x_missing"]
    assert torch.equal(log_prior, log_guide)
    assert bool((log_prior[:, 1:] != 0).all())
    assert bool((log_prior[:, 0] == 0).all())  # of a datum that misses nothing


def test_what_is_hidden_has_no_influence() -> None:
    vae = linear_vae()
    mask = torch.from_numpy(MASK)
    found = []
    for hidden in (0.0, 55.0, float("nan")):
        x = torch.where(mask, torch.from_numpy(X), hidden)
        vae.zero_grad()
        loss = OBJECTIVES.build(OBJECTIVES.resolve("iwae:num_particles=3"))
        with isolated(0):
            value = loss.differentiable_loss(vae.model, vae.guide, x, mask=mask)
            value.backward()
        found.append(torch.cat([value.detach()[None], *(p.grad.flatten() for p in vae.parameters())]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert bool(found[0].isfinite().all())


# --- objectives and steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["self_masking,known_sign=high", "nonlinear,hidden=[4]"])
def test_a_traced_step_is_the_stock_step(mechanism: str) -> None:
    x, mask = simulate(40, 0, 2.0)
    x = x.double()
    found = []
    for form in (False, "never"):
        vae = build(f"not_at_random:mechanism={mechanism}").double()
        vae.initialize(x, mask)
        # Disagreement with the stock step warns, and a warning is an error here.
        svi = CompiledSVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), 0.05), Trace_ELBO(), compile=form)
        with seeded(5), pyro.get_param_store().scope():
            losses = [float(svi.step(x, mask=mask)) for _ in range(3)]
        found.append(torch.cat([torch.tensor(losses), *(value.detach().flatten() for value in vae.parameters())]))
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["elbo", "iwae", "dreg", "stl", "miwae", "piwae", "ciwae", "renyi", "rws", "tvo", "beta"]
)
def test_every_objective_of_the_weights_has_a_gradient(name: str) -> None:
    x, mask = simulate(30, 0, 2.0)
    vae = build()
    vae.initialize(x, mask)
    loss = OBJECTIVES.build(OBJECTIVES.resolve(name))
    with isolated(0), pyro.get_param_store().scope():
        loss.differentiable_loss(vae.model, vae.guide, x, mask=mask).backward()
    for key, parameter in vae.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all())
        assert float(parameter.grad.abs().sum()) > 0, key


def test_constant_draws_leave_the_decoder_to_the_model() -> None:
    """Under score-function objectives the guide's log q(x_missing | z) is the model's own, and has no gradient."""
    vae = linear_vae()
    with isolated(0):
        densities = log_densities(
            vae.model, vae.guide, torch.from_numpy(X), num_particles=5, mask=torch.from_numpy(MASK), stop_draws=True
        )
        densities.log_guide.sum().backward()
    assert vae.model.decoder.layers[-1].weight.grad is None
    assert float(vae.guide.posterior.normal.linear.weight.grad.abs().sum()) > 0


def test_what_is_missing_of_x_is_no_latent_to_describe() -> None:
    """Unobserved elements are drawn by the guide and cancel; figures of codes are those of z alone."""
    x, mask = simulate(60, 0, 2.0)
    vae = build(latent_dim=2)
    vae.initialize(x, mask)
    assert evaluate(vae, x, mask=mask, num_draws=5).activity.shape == (2,)
    layers = describe_layers(vae, x, mask=mask, num_draws=5)
    assert ([layer.name for layer in layers.layers], layers.guide_order) == (["z"], ("z",))
    assert layers.beside is not None
    assert not layers.beside.any()
    assert layers["z"].information is not None
    assert describe_latent(vae, x, mask=mask, num_draws=5).names == ("z[0]", "z[1]")
    # A guide without a closed density is run for all pairs, and scores nothing but z.
    flow = build(latent_dim=2, posterior="flow")
    flow.initialize(x, mask)
    found = describe_latent(flow, x, mask=mask, num_draws=5)
    assert (found.names, found.total_correlation) == (("z[0]", "z[1]"), None)
    # With a mask or without one, a report has no layers to tell apart. Simulated data have no draws of a missing part,
    # so that the section of the gaps is one that says why it is absent.
    for hidden, only in ((mask, ("gaps", "latent")), (None, ("latent",))):
        report = make_report(vae, Split(x, mask=hidden), config=ReportConfig(only=only))
        assert set(report.results) == {"latent"}


# --- what it finds ------------------------------------------------------------------------------------------------


def fitted(structure: str, slope: float, seed: int = 0) -> tuple[VAE, Tensor, Tensor]:
    x, mask = simulate(800, seed, slope)
    vae = build(structure)
    config = FitConfig(
        epochs=20, batch_size=100, objective="iwae:num_particles=5", optimizer="adam:lr=0.03", compile=False
    )
    fit(vae, torch.where(mask, x, torch.nan), config=config, seed=seed)
    return vae, x, mask


def test_the_mechanism_is_found_and_imputations_are_less_biased() -> None:
    errors = []
    for structure in ("single", "not_at_random"):
        vae, x, mask = fitted(structure, 2.0)
        hidden = torch.where(mask, x, torch.nan)
        mean = torch.as_tensor(impute(vae, hidden, num_draws=100, level=None, seed=1).mean)
        errors.append((mean - x.double())[~mask])
        if structure == "not_at_random":
            weight = vae.model.mechanism.weight.detach()
            # True is 2 for a standard deviation of x, and 1.4 for one of its observed values; see the test below.
            assert bool((weight[:2] > 0.8).all())
    at_random, not_at_random = errors
    se = [float(error.std()) / len(error) ** 0.5 for error in errors]
    assert float(at_random.mean()) < -10 * se[0]  # high values are what is missing
    assert abs(float(not_at_random.mean())) < 0.3 * abs(float(at_random.mean()))
    gain = at_random**2 - not_at_random**2
    assert float(gain.mean()) > 5 * float(gain.std()) / len(gain) ** 0.5


def test_no_mechanism_is_found_where_there_is_none() -> None:
    vae, _, _ = fitted("not_at_random", 0.0)
    # Over seeds the weights have a standard deviation of 0.11; a false alarm comes once in 70,000.
    assert float(vae.model.mechanism.weight.detach().abs().max()) < 0.5


@pytest.mark.parametrize(("sign", "direction"), [("high", 1), ("low", -1)])
def test_a_known_sign_is_kept(sign: str, direction: int) -> None:
    vae = build(f"not_at_random:known_sign={sign}")
    assert bool((vae.model.mechanism.weight * direction > 0).all())
    with torch.no_grad():
        vae.model.mechanism.raw_weight.fill_(-20.0)
    assert bool((vae.model.mechanism.weight * direction > 0).all())
    logits = vae.model.mechanism(torch.tensor([1.0, 0.0, -1.0]))
    assert float(((logits[0] - logits[2]) * direction).detach()) > 0


def test_data_are_drawn_with_their_mask() -> None:
    vae = linear_vae()
    with isolated(0), torch.no_grad():
        drawn = Predictive(vae.model, num_samples=1)(size=4000)
    x, seen = drawn["x"][0].numpy(), drawn["mask"][0].numpy()
    assert x.shape == seen.shape == (4000, 2)
    missing = 1 / (1 + np.exp(-(WEIGHT * x + BIAS)))
    residual = (1 - seen) - missing
    error = residual.std(0) / 4000**0.5
    assert bool((np.abs(residual.mean(0)) < 4 * error).all())
    assert np.corrcoef(x[:, 0], seen[:, 0])[0, 1] < -0.3


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson", "negative_binomial", "categorical:num_classes=3"])
def test_likelihoods_without_such_draws_are_refused(likelihood: str) -> None:
    with pytest.raises(ValueError, match=rf"likelihood '{likelihood.partition(':')[0]}' has none.*choose .*'gaussian'"):
        build(likelihood=likelihood)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "student_t", "continuous_bernoulli"])
@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_likelihoods_with_such_draws_step(likelihood: str, shape: tuple[int, ...]) -> None:
    with seeded(0):
        x, mask = torch.rand(20, *shape), torch.rand(20, *shape) < 0.7
    vae = build(shape=shape, likelihood=likelihood)
    result = fit(vae, x, mask=mask, config=FitConfig(epochs=1, batch_size=10, compile=False))
    assert np.isfinite(result.history[-1]["elbo"])
    assert vae.reconstruct(x, mask=mask).shape == x.shape


def test_a_sign_belongs_to_self_masking() -> None:
    with pytest.raises(ValueError, match="known_sign='high' belongs to mechanism 'self_masking', got 'linear'"):
        build("not_at_random:mechanism=linear,known_sign=high")
    with pytest.raises(ValueError, match="not conditional"):
        linear_vae().model(torch.from_numpy(X), y=torch.zeros(4, dtype=torch.int64))
