"""Structures: the parts are put together as the configuration says; a label conditions both programs."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from analysis import calibrate, elpd_of, inference_gaps
from analysis.draws.codes import posterior_means
from analysis.latent.information.summary import describe_latent
from analysis.samples.generated.draws import draw_samples
from vae_pyro import VAE, FitConfig, Split, VAEConfig, evaluate, fit, load_data
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.densities.log_density import log_densities
from vae_pyro.models.structures import STRUCTURES
from vae_pyro.nn.features import Features, Inputs, OneHot


def conditional(**options: object) -> VAE:
    config = {"x_shape": (4,), "latent_dim": 2, "likelihood": "gaussian", "encoder": "mlp:hidden=[8]"}
    return VAE(VAEConfig(**{**config, "structure": "conditional:num_classes=3", **options}), seed=1)


def data(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    with seeded(0):
        return torch.randn(count, 4), torch.arange(count) % 3


def test_inputs_are_features_mask_and_label() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, float("nan")]])
    mask = ~x.isnan()
    plain = Inputs(Features((2,)))
    assert plain(x, mask).tolist() == [[1, 2], [3, 0]]
    both = Inputs(Features((2,)), encode_mask=True, num_classes=3)
    assert both.feature_shape == (7,)
    assert both(x, mask, torch.tensor([2, 0])).tolist() == [[1, 2, 1, 1, 0, 0, 1], [3, 0, 1, 0, 1, 0, 0]]
    assert both(x[:1], None, torch.tensor([1])).tolist() == [[1, 2, 1, 1, 0, 1, 0]]


@pytest.mark.parametrize(("shape", "channels"), [((5, 6), 2), ((3, 5, 6), 6)])
def test_inputs_of_images_are_channels(shape: tuple[int, ...], channels: int) -> None:
    with seeded(0):
        x, mask = torch.randn(4, *shape), torch.rand(4, *shape) < 0.5
    inputs = Inputs(Features(shape), encode_mask=True, num_classes=2)
    assert inputs.feature_shape == (channels + 2, 5, 6)
    out = inputs(x, mask, torch.tensor([0, 1, 1, 0]))
    assert out.shape == (4, *inputs.feature_shape)
    assert torch.equal(out[:, channels // 2 : channels].reshape(mask.shape), mask.float())
    assert torch.equal(out[:, -1], torch.tensor([0.0, 1, 1, 0])[:, None, None].expand(4, 5, 6))


def test_inputs_of_classes_spread_the_mask() -> None:
    inputs = Inputs(OneHot((2,), 3), encode_mask=True)
    out = inputs(torch.tensor([[2.0, 1.0]]), torch.tensor([[True, False]]))
    assert out[0, :6].sum() == 1
    assert out[0, 6:].sum() == 3


def test_a_hidden_value_moves_nothing_though_the_mask_is_seen() -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", encode_mask=True))
    x, _ = data()
    with seeded(3):
        mask = torch.rand(x.shape) < 0.6
    spoiled = torch.where(mask, x, torch.nan)
    figures = [evaluate(vae, some, mask=mask, num_draws=20).elbo for some in (x, torch.where(mask, x, 1e30), spoiled)]
    np.testing.assert_array_equal(figures[0], figures[1])
    np.testing.assert_array_equal(figures[0], figures[2])
    whole = vae.encode(x[:3]).mean
    assert not torch.allclose(whole, vae.encode(x[:3] * mask[:3], mask=mask[:3]).mean)


def test_the_label_conditions_both_programs() -> None:
    vae = conditional()
    x, y = data()
    with isolated(0):
        densities = log_densities(vae.model, vae.guide, x, num_particles=5, y=y)
    z = densities.latents["z"]
    torch.testing.assert_close(densities.log_likelihood, vae.decode(z, y=y).log_prob(x))
    torch.testing.assert_close(densities.log_guide, vae.encode(x, y=y).log_prob(z))
    assert not torch.allclose(vae.encode(x, y=y).mean, vae.encode(x, y=(y + 1) % 3).mean)
    assert not torch.allclose(vae.expectation(z, y=y), vae.expectation(z, y=(y + 1) % 3))
    assert vae.sample(5, y=[0, 1, 2, 0, 1], seed=2).shape == (5, 4)
    assert vae.reconstruct(x, y=y).shape == x.shape


def test_labels_are_wanted_or_refused_before_anything_is_drawn() -> None:
    vae = conditional()
    x, y = data()
    with pytest.raises(ValueError, match="this model is conditional: it requires y, classes from 0 to 2"):
        vae.sample(3)
    with pytest.raises(ValueError, match="conditional: it requires y"):
        fit(vae, x)
    with pytest.raises(ValueError, match="has classes from 0 to 2, got y from 0 to 4"):
        fit(vae, x, y=y * 2)
    with pytest.raises(ValueError, match="has classes from 0 to 2, got y from -1 to 1"):
        evaluate(vae, x, y=y - 1)
    with pytest.raises(ValueError, match="not conditional: y must be None"):
        fit(VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian")), x, y=y)
    with pytest.raises(ValueError, match="prior 'vamp' is made of posteriors, which here require a label"):
        conditional(prior="vamp:components=4")
    with pytest.raises(ValueError, match="unknown structure 'pair'"):
        conditional(structure="pair")
    assert str(STRUCTURES.resolve("single")) == "single"


def test_a_conditional_fit_learns_what_the_label_says() -> None:
    """x is the label plus small noise: given it, log p(x) is that of the noise; without it, of a mixture."""
    with seeded(0):
        y = torch.randint(0, 3, (1500,))
        x = 4.0 * y[:, None] + 0.1 * torch.randn(1500, 4)
    config = FitConfig(epochs=40, batch_size=100, optimizer="adam:lr=2e-2", schedule="cosine", compile=False)
    given = fit(conditional(encoder="mlp:hidden=[]"), x[:1200], y=y[:1200], config=config, progress=False).vae
    found = evaluate(given, x[1200:], y=y[1200:], num_draws=50)
    entropy = -4 * (np.log(0.1) + 0.5 * np.log(2 * np.pi) + 0.5)  # of the noise, in nats
    assert found.log_px.mean() == pytest.approx(entropy, abs=0.25)
    wrong = evaluate(given, x[1200:], y=(y[1200:] + 1) % 3, num_draws=50)
    assert wrong.log_px.mean() < found.log_px.mean() - 10


@pytest.mark.slow
def test_diagnostics_of_a_conditional_pair_are_given_its_labels() -> None:
    """The exact posterior of z given x and y passes; the same guide given other labels is found out."""

    def model(x=None, *, size=None, mask=None, y=None):  # type: ignore[no-untyped-def]
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z + 3.0 * y.unsqueeze(-1), 0.5).to_event(1), obs=x)

    def guide(x, *, mask=None, y=None, turned=0):  # type: ignore[no-untyped-def]
        loc = (x - 3.0 * ((y + turned) % 3).unsqueeze(-1)) / 1.25
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(loc, torch.full_like(loc, 0.2**0.5)).to_event(1))

    y = torch.arange(60) % 3
    with isolated(4):
        x = model(y=y)
    found = elpd_of((model, guide), Split(x, y=y), num_draws=100)
    exact = torch.distributions.Normal(3.0 * y.double(), 1.25**0.5).log_prob(x[:, 0])
    np.testing.assert_allclose(found.elpd, float(exact.sum()), rtol=1e-10)
    right = calibrate((model, guide), num_simulations=300, y=y, seed=1)
    wrong = calibrate((model, partial(guide, turned=1)), num_simulations=300, y=y, seed=1)
    assert all(verdict.outcome == "pass" for verdict in right.verdicts)
    assert any(verdict.outcome == "fail" for verdict in wrong.verdicts)
    gaps = inference_gaps((model, guide), Split(x, y=y), num_data=4, num_simulated=4, seed=2)
    assert np.abs(gaps.inference).max() < 0.05
    assert draw_samples((model, guide), 50, Split(x, y=y), seed=3).shape == (50, 1)


def test_compiled_steps_take_labels_and_masks() -> None:
    loaded = load_data("digits", given_labels="all", binarize="dynamic")
    config = FitConfig(epochs=2, batch_size=100)
    histories = []
    for compiled in (True, False):
        vae = VAE(
            VAEConfig(x_shape=loaded.x_shape, latent_dim=3, structure="conditional:num_classes=10", encode_mask=True)
        )
        result = fit(vae, loaded.train, config=config.replace(compile=compiled), progress=False)
        histories.append([row["elbo"] for row in result.history])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)


@pytest.mark.parametrize("structure", ["conditional:num_classes=3", "m2:num_classes=3"])
def test_classes_that_there_are_not_are_refused_everywhere(structure: str) -> None:
    vae, (x, _) = conditional(structure=structure), data(2)
    z = torch.zeros(2, 2)
    for y, message in (([1, 3], "from 1 to 3"), ([-2, 0], "from -2 to 0"), ([1.0, 0.5], "y holds integers")):
        for call in (
            lambda y: vae.decode(z, y=y),
            lambda y: vae.expectation(z, y=y),
            lambda y: vae.sample(2, y=y),
            lambda y: vae.encode(x, y=y),
            lambda y: vae.reconstruct(x, y=y),
        ):
            with pytest.raises(ValueError, match=message):
                call(y)


def test_classes_beside_data_are_those_of_a_split() -> None:
    vae, (x, y) = conditional(), data(40)
    for made in (
        lambda *x, **y: elpd_of(vae, *x, num_draws=30, **y).pointwise,
        lambda *x, **y: posterior_means(vae, *x, **y),
        lambda *x, **y: np.array(list(describe_latent(vae, *x, num_draws=4, **y).summary().values()), dtype=object),
    ):
        beside, inside, other = made(x, y=y), made(Split(x, y=y)), made(x, y=(y + 1) % 3)
        np.testing.assert_array_equal(beside, inside)
        assert not np.array_equal(beside, other)


STRUCTURED = ["single", "conditional:num_classes=3", "bottom_up:latent_dims=[2]", "ladder:latent_dims=[3,2]"]
STRUCTURED += ["m2:num_classes=3", "not_at_random", "not_at_random:mechanism=nonlinear"]
STRUCTURED += [name for name in STRUCTURES if name not in {text.partition(":")[0] for text in STRUCTURED}]


@pytest.mark.parametrize("structure", STRUCTURED)
def test_model_and_guide_share_no_name_of_different_tensors(structure: str) -> None:
    """Pyro's store knows parameters by name: of two with one name, a stock SVI would fit one and forget the other."""
    vae = conditional(structure=structure)
    model, guide = (dict(program.named_parameters()) for program in (vae.model, vae.guide))
    assert all(model[name] is guide[name] for name in set(model) & set(guide))
