"""The two programs keep the Pyro contract, and stock Pyro takes them as they are."""

import copy
import warnings
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO

from tests.truths import example, normal_kl
from vae_pyro import VAE, VAEConfig, load_data
from vae_pyro.core.isolation import isolated, seeded


def build(**changes: Any) -> VAE:
    settings = {"x_shape": (1, 4, 5), "latent_dim": 3, "likelihood": "bernoulli", "encoder": "mlp:hidden=[16]"}
    return VAE(VAEConfig(**{**settings, **changes}))


def binary(size: int = 6) -> torch.Tensor:
    with seeded(0):
        return (torch.rand(size, 1, 4, 5) < 0.4).float()


def test_sites_plates_and_shapes() -> None:
    vae = build()
    with isolated(0, validate=True):
        trace = poutine.trace(vae.model).get_trace(binary())
        assert trace.nodes["x"]["is_observed"]
        assert trace.nodes["z"]["value"].shape == (6, 3)
        assert [frame.name for frame in trace.nodes["z"]["cond_indep_stack"]] == ["data"]
        assert [frame.name for frame in trace.nodes["x"]["cond_indep_stack"]] == ["data"]
        trace.compute_log_prob()
        assert trace.nodes["x"]["log_prob"].shape == (6,)
        drawn = vae.model(size=4)
        assert drawn.shape == (4, 1, 4, 5)
        assert set(drawn.unique().tolist()) <= {0.0, 1.0}


def test_bad_calls_are_named() -> None:
    vae = build()
    with pytest.raises(ValueError, match=r"call model\(x\), or model\(size=n\)"):
        vae.model()
    with pytest.raises(ValueError, match="not conditional: y must be None"):
        vae.model(binary(), y=torch.zeros(6))
    with pytest.raises(ValueError, match="not conditional"):
        vae.guide(binary(), y=torch.zeros(6))
    with pytest.raises(ValueError, match=r"\(datum, 1, 4, 5\) expected, got \(6, 20\)"):
        vae.encode(binary().flatten(1))
    with pytest.raises(ValueError, match=r"z of shape \(\.\.\., 3\) expected"):
        vae.decode(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        vae.sample(0)


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), TraceMeanField_ELBO(), Trace_ELBO(num_particles=3, vectorize_particles=True)]
)
def test_stock_svi_trains_it(elbo: Any) -> None:
    data = load_data("digits", binarize="static")
    x, _ = data.train.batch(slice(0, 128))
    vae = build(x_shape=data.x_shape, encoder="mlp:hidden=[64]")
    vae.initialize(x)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(x) for _ in range(150)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    assert svi.evaluate_loss(x) < losses[0]


@pytest.mark.usefixtures("own_store")
def test_stock_predictive_draws_from_prior_and_posterior() -> None:
    vae = build()
    prior = Predictive(vae.model, num_samples=7, parallel=True)(size=5)
    assert prior["x"].shape == (7, 5, 1, 4, 5)
    assert prior["z"].shape == (7, 5, 3)
    x = binary(5)
    z = Predictive(vae.guide, num_samples=4)(x)["z"]
    posterior = Predictive(vae.model, posterior_samples={"z": z}, return_sites=["x"])(size=5)
    assert posterior["x"].shape == (4, 5, 1, 4, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_stock_nuts_finds_the_exact_posterior_of_a_linear_model() -> None:
    truth = example(d=4, q=2)
    vae = VAE(
        VAEConfig(
            x_shape=(4,),
            latent_dim=2,
            likelihood={"name": "gaussian", "scale": truth.variance**0.5},
            encoder="mlp:hidden=[]",
        )
    ).double()
    last = vae.model.decoder.layers[-1]
    with torch.no_grad():
        last.weight.copy_(truth.weight)
        last.bias.copy_(truth.mean)
    x = truth.sample(2, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc = MCMC(NUTS(vae.model), num_samples=400, warmup_steps=200, disable_progbar=True)
        mcmc.run(x)
    draws = mcmc.get_samples()["z"]
    loc, covariance = truth.posterior(x)
    assert draws.shape == (400, 2, 2)
    # NUTS draws of a Gaussian are near independent; 6 standard errors of 200 effective ones.
    assert ((draws.mean(0) - loc).abs() < 6 * (covariance.diagonal() / 200).sqrt()).all()
    torch.testing.assert_close(torch.cov(draws[:, 0].T), covariance, atol=0.3 * float(covariance.max()), rtol=0)


@pytest.mark.parametrize("likelihood", ["gaussian:scale=learned", "bernoulli", "categorical:num_classes=2", "poisson"])
@pytest.mark.parametrize("posterior", ["mean_field", "full_rank", "flow"])
def test_a_masked_element_never_matters(likelihood: str, posterior: str) -> None:
    vae = build(likelihood=likelihood, posterior=posterior, prior="mixture")
    x = binary()
    with seeded(1):
        mask = torch.rand_like(x) < 0.6
    results = []
    for hidden in (0.0, 1.0, 17.0, float("nan"), -float("inf")):
        changed = torch.where(mask, x, torch.full_like(x, hidden))
        vae.zero_grad()
        with isolated(2):
            loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, changed, mask=mask)
            loss.backward()
        gradients = [p.grad.clone() for p in vae.parameters() if p.grad is not None]
        results.append((loss.detach(), gradients))
    first_loss, first_gradients = results[0]
    assert first_loss.isfinite()
    for loss, gradients in results[1:]:
        assert torch.equal(loss, first_loss)
        assert all(torch.equal(a, b) for a, b in zip(gradients, first_gradients, strict=True))


def test_an_observed_element_does_matter() -> None:
    vae = build()
    x = binary()
    mask = torch.ones_like(x, dtype=torch.bool)
    with isolated(2):
        with_all = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x, mask=mask)
    with isolated(2):
        without_mask = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    with isolated(2):
        changed = Trace_ELBO().differentiable_loss(vae.model, vae.guide, 1 - x, mask=mask)
    assert torch.equal(with_all, without_mask)
    assert not torch.equal(with_all, changed)


def test_an_all_masked_datum_has_zero_likelihood_and_the_prior_for_its_reconstruction() -> None:
    vae = build()
    mask = torch.zeros(6, 1, 4, 5, dtype=torch.bool)
    with isolated(0):
        trace = poutine.trace(vae.model).get_trace(binary(), mask=mask)
        trace.compute_log_prob()
    assert torch.equal(trace.nodes["x"]["log_prob"], torch.zeros(6))


def test_draws_repeat_by_seed_and_leave_the_caller_alone() -> None:
    vae = build()
    assert torch.equal(vae.sample(5, seed=1), vae.sample(5, seed=1))
    assert not torch.equal(vae.sample(5, seed=1), vae.sample(5, seed=2))
    assert torch.equal(vae.reconstruct(binary(), seed=1), vae.reconstruct(binary(), seed=1))
    assert vae.sample(5, expectation=True).min() > 0
    assert torch.equal(next(build().parameters()), next(build().parameters()))


def test_a_random_start_follows_its_seed() -> None:
    config = build().config
    first, second = VAE(config, seed=1), VAE(config, seed=2)
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_only_the_first_initialization_acts() -> None:
    vae = build()
    vae.initialize(binary())
    before = vae.model.decoder.layers[-1].bias.clone()
    vae.initialize(1 - binary())
    assert torch.equal(before, vae.model.decoder.layers[-1].bias)
    start = vae.decode(torch.zeros(1, 3)).mean
    assert start.shape == (1, 1, 4, 5)


def test_initial_weights_have_the_variance_that_their_rule_says() -> None:
    for init, variance in (("torch", 1 / (3 * 400)), ("glorot", 2 / (400 + 300)), ("he", 2 / 400)):
        vae = VAE(VAEConfig(x_shape=(400,), latent_dim=2, encoder="mlp:hidden=[300]", init=init))
        weight = vae.guide.encoder.layers[0].weight.detach()
        assert float(weight.var()) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dims": 3}, "latent_dims: is not a known key .*known keys: x_shape, latent_dim"),
        ({"latent_dim": 0}, "latent_dim: Input should be greater than 0, got 0"),
        ({"x_shape": ()}, "x_shape"),
        ({"x_shape": (4, 0)}, "greater than 0, got 0"),
        ({"likelihood": "gausian"}, "did you mean 'gaussian'"),
        ({"likelihood": "gaussian:scale=-1"}, "scale"),
        ({"decoder": "mlp:hiden=[3]"}, "decoder 'mlp' has no option 'hiden'"),
        ({"init": "xavier"}, "init"),
    ],
)
def test_bad_configurations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_a_network_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="network 'conv' requires images"):
        build(x_shape=(20,), encoder="conv")


def test_configurations_are_frozen_and_survive_json() -> None:
    config = build(prior="vamp:components=3", encoder="mlp:hidden=[8,4]").config
    with pytest.raises(ValueError, match="frozen"):
        config.latent_dim = 5
    assert VAEConfig(**config.model_dump(mode="json")) == config
    assert config.decoder.options["hidden"] == (4, 8)
    assert config.replace(latent_dim=9).latent_dim == 9


def test_a_mirrored_decoder_follows_its_encoder() -> None:
    config = build(encoder="mlp:hidden=[8,4]").config
    assert config.replace(encoder="mlp:hidden=[6,5]").decoder.options["hidden"] == (5, 6)
    own = build(encoder="mlp:hidden=[8,4]", decoder="mlp:hidden=[3]").config
    assert own.replace(encoder="mlp:hidden=[6,5]").decoder.options["hidden"] == (3,)


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp:components=3", "flow"])
@pytest.mark.parametrize("posterior", ["mean_field", "flow"])
def test_a_used_vae_can_be_copied(prior: str, posterior: str) -> None:
    if prior.startswith("vamp") and posterior == "flow":
        pytest.skip("refused")
    vae = build(prior=prior, posterior=posterior)
    with isolated(0):
        Trace_ELBO().differentiable_loss(vae.model, vae.guide, binary()).backward()
    copied = copy.deepcopy(vae)
    assert torch.equal(copied.sample(3, seed=1), vae.sample(3, seed=1))
    with torch.no_grad():
        next(copied.parameters()).add_(1.0)
    assert not torch.equal(next(copied.parameters()), next(vae.parameters()))


def test_the_kl_of_a_mean_field_guide_is_the_closed_form() -> None:
    vae = build().double()
    x = binary().double()
    q = vae.encode(x)
    loc, scale = vae.posterior_moments(x)
    expected = normal_kl(loc, scale)
    computed = torch.distributions.kl_divergence(q, vae.model.prior(vae.guide.encode_features).expand(q.batch_shape))
    torch.testing.assert_close(computed.detach(), expected)


def test_digits_in_every_preset_family_of_networks() -> None:
    data = load_data("digits", binarize="dynamic")
    for encoder in ("mlp", "conv", "resnet"):
        vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder=encoder))
        x, _ = data.test.batch(slice(0, 3))
        assert vae.reconstruct(x).shape == (3, 1, 8, 8)
