"""Each noisy likelihood is the integral over the clean signal that it says it is, and so is the conditional."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chi2, norm
from torch import Tensor

from vae_pyro import VAE, VAEConfig
from vae_pyro.core.isolation import isolated, seeded
from vae_pyro.data.summary import DataSummary
from vae_pyro.densities.log_density import log_densities
from vae_pyro.likelihoods import LIKELIHOODS
from vae_pyro.likelihoods.noise import NOISES, Noise, add_noise
from vae_pyro.likelihoods.noise.mixtures import AtomMixture, OrderedCategorical

SHAPE = (2, 3)
DRAWN = [
    ("gaussian", "gaussian:scale=0.5"),
    ("gaussian:scale=0.4", "gaussian:scale=0.5"),
    ("gaussian:scale=per_dimension", "gaussian:scale=0.5"),
    ("gaussian:scale=predicted", "gaussian:scale=0.5"),
    ("bernoulli", "salt_and_pepper:probability=0.3"),
    ("categorical:num_classes=4", "salt_and_pepper:probability=0.3"),
    ("discretized_logistic:levels=6", "salt_and_pepper:probability=0.3"),
    ("discretized_logistic:levels=6,scale=predicted", "salt_and_pepper:probability=0.3"),
    ("bernoulli", "gaussian:scale=0.5"),
    ("discretized_logistic:levels=6", "gaussian:scale=0.5"),
    ("bernoulli", "poisson:peak=3"),
    ("discretized_logistic:levels=6", "poisson:peak=3"),
    ("gamma", "poisson:peak=3"),
    ("gamma:shape=per_dimension", "poisson:peak=3"),
    ("gamma:shape=predicted", "poisson:peak=3"),
]
DETERMINISTIC = [
    ("gaussian", "gaussian:scale=0.5,deterministic=true"),
    ("gaussian:scale=predicted", "gaussian:scale=0.5,deterministic=true"),
    ("bernoulli", "gaussian:scale=0.5,deterministic=true"),
    ("continuous_bernoulli", "gaussian:scale=0.5,deterministic=true"),
    ("gamma:shape=predicted", "gaussian:scale=0.5,deterministic=true"),
    ("gamma", "poisson:peak=3,deterministic=true"),
    ("bernoulli", "poisson:peak=3,deterministic=true"),
    ("continuous_bernoulli", "poisson:peak=3,deterministic=true"),
    ("poisson", "poisson:peak=3,deterministic=true"),
]


def build(likelihood: str, noise: str, shape: tuple[int, ...] = SHAPE) -> Noise:
    signal = LIKELIHOODS.build(LIKELIHOODS.resolve(likelihood), shape)
    return NOISES.build(NOISES.resolve(noise), signal).double()


def outputs(noisy: Noise, batch: int = 4) -> Tensor:
    with seeded(1):
        return torch.randn(batch, *noisy.output_shape, dtype=torch.float64)


def given(noise: str, x_clean: Tensor, low: float, high: float) -> Any:
    choice = NOISES.resolve(noise)
    kind: Any = NOISES[choice.name]
    return kind.given(x_clean, low, high, **choice.options)


def clean_points(likelihood: str) -> tuple[Tensor, Tensor]:
    """Points of the clean signal's support, and their weights in an integral."""
    if likelihood.startswith("gaussian"):
        points = torch.linspace(-25, 25, 5_001, dtype=torch.float64)
        return points, torch.full_like(points, float(points[1] - points[0]))
    if likelihood.startswith("gamma"):
        u = torch.linspace(-600, 6, 20_001, dtype=torch.float64)  # x = exp(u) reaches densities that rise to 0
        return u.exp(), u.exp() * (u[1] - u[0])
    top = {"b": 1, "c": 3, "d": 5}[likelihood[0]]
    points = torch.arange(top + 1, dtype=torch.float64)
    return points, torch.ones_like(points)


def noisy_points(noise: str, likelihood: str) -> Tensor:
    if noise.startswith("gaussian"):
        return torch.linspace(-3, 3, 7, dtype=torch.float64)
    if noise.startswith("poisson"):
        return torch.tensor([0, 1, 2, 5, 11], dtype=torch.float64)
    return clean_points(likelihood)[0]


@pytest.mark.parametrize(("likelihood", "noise"), DRAWN)
def test_the_clean_signal_is_integrated_out_and_found_again(likelihood: str, noise: str) -> None:
    """p(x | z), E[x_clean | z, x] and its variance beside sums of p(x | x_clean) p(x_clean | z) over x_clean."""
    noisy = build(likelihood, noise)
    output = outputs(noisy)
    points, weight = clean_points(likelihood)
    place = (-1, *[1] * (output.dim() - 1))
    clean = points.reshape(place).expand(-1, len(output), *SHAPE)
    log_signal = noisy.signal(output).log_prob(clean)
    for value in noisy_points(noise, likelihood):
        x = value.expand(len(output), *SHAPE)
        joint = (log_signal + given(noise, clean, float(points[0]), float(points[-1])).log_prob(x)).exp()
        joint = joint * weight.reshape(place)
        evidence = joint.sum(0)
        torch.testing.assert_close(noisy(output).log_prob(x), evidence.log(), atol=1e-6, rtol=1e-6)
        mean = (joint * clean).sum(0) / evidence
        variance = (joint * (clean - mean) ** 2).sum(0) / evidence
        conditional = noisy.clean(output, x)
        assert conditional.batch_shape == x.shape
        torch.testing.assert_close(conditional.mean, mean, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(conditional.variance, variance, atol=1e-6, rtol=1e-6)
        if noisy.signal.discrete:
            torch.testing.assert_close(conditional.log_prob(clean).exp(), joint / evidence, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("likelihood", "noise"), DETERMINISTIC)
def test_a_deterministic_signal_leaves_the_noise_alone(likelihood: str, noise: str) -> None:
    noisy = build(likelihood, noise)
    output = outputs(noisy)
    mean = noisy.signal.mean_of(output)
    assert mean.shape == (4, *SHAPE)
    plain = build(likelihood, noise).signal
    if likelihood.startswith("gaussian"):
        torch.testing.assert_close(mean, output[:, 0])  # before any data, units are those of the decoder
    else:
        torch.testing.assert_close(mean, plain(output).mean)
    for value in noisy_points(noise, likelihood):
        x = value.expand(4, *SHAPE)
        torch.testing.assert_close(
            noisy(output).log_prob(x), given(noise, mean, 0, 1).log_prob(x), atol=1e-4, rtol=1e-5
        )
        assert torch.equal(noisy.clean(output, x).mean, mean)
        assert torch.equal(noisy.clean(output, x).variance, torch.zeros_like(mean))
    assert [name for name, _ in noisy.named_parameters()] == []


@pytest.mark.parametrize(("likelihood", "noise"), DRAWN + DETERMINISTIC)
def test_is_normalised_and_its_gradient_flows(likelihood: str, noise: str) -> None:
    noisy = build(likelihood, noise)
    output = outputs(noisy).requires_grad_()
    if noise.startswith("gaussian"):
        points = torch.linspace(-30, 30, 6_001, dtype=torch.float64)
        weight = torch.full_like(points, float(points[1] - points[0]))
    elif noise.startswith("poisson"):
        points = torch.arange(3000, dtype=torch.float64)
        weight = torch.ones_like(points)
    else:
        points, weight = clean_points(likelihood)
    density = noisy(output)
    assert density.batch_shape == (4, *SHAPE)
    log_p = density.log_prob(points.reshape(-1, 1, 1, 1).expand(-1, 4, *SHAPE))
    total = (log_p.exp() * weight.reshape(-1, 1, 1, 1)).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    parameters = [parameter for parameter in noisy.parameters() if parameter.requires_grad]
    # For a Categorical the last level as well: its classes have no gradient through one level's share alone.
    value = points[1].expand(4, *SHAPE)
    for gradient in torch.autograd.grad(density.log_prob(value).sum(), [output, *parameters]):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize(("likelihood", "noise"), DRAWN + DETERMINISTIC)
def test_draws_and_moments_agree_and_the_noise_drawn_step_by_step_as_well(likelihood: str, noise: str) -> None:
    """z tests of 12 means, with the draws' own standard errors: each fails by chance with probability 1e-6."""
    noisy = build(likelihood, noise)
    output = outputs(noisy, 1)[0]
    limit = norm.isf(0.5e-6 / 12)
    size = 40_000
    with isolated(5):
        x = noisy(output).sample((size,))
        signal = noisy.signal.mean_of(output).expand(size, *SHAPE)
        clean = signal if noisy.deterministic else noisy.signal(output).sample((size,)).double()
    top = {"b": 1, "c": 3, "d": 5, "g": 1, "p": 1}[likelihood[0]]
    again = add_noise(clean, noise, seed=6, low=min(0.0, float(clean.min())), high=max(top, float(clean.max())))
    if noise.startswith("salt"):
        again = add_noise(clean, noise, seed=6, low=0, high=top)
    expected = noisy(output).mean
    for drawn in (x.double(), again.double()):
        error = drawn.std(0) / size**0.5
        assert ((drawn.mean(0) - expected).abs() < limit * error).all()
    conditional = noisy.clean(output, x)
    if noisy.deterministic:
        assert torch.equal(conditional.sample(), signal)
        return
    with isolated(7):
        back = conditional.sample().double()
    # Draws of x_clean given draws of x are draws of p(x_clean | z).
    for power in (1, 2):
        difference = back**power - clean**power
        assert (difference.mean(0).abs() < limit * difference.std(0) / size**0.5).all()


@pytest.mark.parametrize(("likelihood", "noise"), DRAWN)
def test_where_nothing_was_observed_the_clean_signal_has_its_prior(likelihood: str, noise: str) -> None:
    noisy = build(likelihood, noise)
    output = outputs(noisy)
    x = noisy_points(noise, likelihood)[1].expand(4, *SHAPE).clone()
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 0] = False
    x[:, 0] = torch.nan
    conditional, whole = noisy.clean(output, x, mask), noisy.clean(output, torch.nan_to_num(x, nan=1.0))
    signal = noisy.signal(output)
    prior = OrderedCategorical(probs=signal.probs) if isinstance(signal, dist.Categorical) else signal
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(conditional, name)[:, 0], getattr(prior, name)[:, 0])
        torch.testing.assert_close(getattr(conditional, name)[:, 1], getattr(whole, name)[:, 1])


def start_of(noisy: Noise, x: Tensor) -> Any:
    bias = noisy.initialize(x, torch.ones_like(x, dtype=torch.bool), step=0.01)
    assert bias.shape == noisy.output_shape
    return bias[None]


def test_gaussian_noise_is_taken_off_the_scale_that_the_data_have() -> None:
    with seeded(0):
        clean = 3 + 2 * torch.randn(50_000, *SHAPE, dtype=torch.float64)
    x = add_noise(clean, "gaussian:scale=1.5", seed=1)
    for scale, elements in (("learned", 6), ("per_dimension", 1)):
        noisy = build(f"gaussian:scale={scale}", "gaussian:scale=1.5")
        bias = start_of(noisy, x)
        # The start is a scale of the data's own, plus the floor of a thousandth: without the noise that is 2.
        found = noisy.signal.loc_scale(bias)[1]  # type: ignore[operator]
        error = 2.5**2 / (50_000 * elements / 2) ** 0.5 / (2 * 2) * 5  # five sigma, of a variance of 6.25
        assert ((found - 2.002).abs() < error + 1e-9).all()
        torch.testing.assert_close(noisy(bias).mean[0], x.mean(0), atol=1e-9, rtol=0)
    drowned = build("gaussian", "gaussian:scale=10")
    assert (drowned.signal.loc_scale(start_of(drowned, x))[1] > 0.1).all()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("likelihood", "noise", "levels"),
    [
        ("bernoulli", "salt_and_pepper:probability=0.4", 2),
        ("categorical:num_classes=5", "salt_and_pepper:probability=0.4", 5),
        ("discretized_logistic:levels=5", "salt_and_pepper:probability=0.4", 5),
        ("gamma", "poisson:peak=5", 0),
        ("gamma:shape=per_dimension", "poisson:peak=5", 0),
        ("discretized_logistic:levels=5", "poisson:peak=5", 5),
        ("discretized_logistic:levels=5", "gaussian:scale=0.7", 5),
        ("bernoulli", "poisson:peak=5,deterministic=true", 2),
        ("bernoulli", "gaussian:scale=0.7,deterministic=true", 2),
    ],
)
def test_noise_is_taken_off_where_the_output_starts(likelihood: str, noise: str, levels: int) -> None:
    """The signal starts at the mean of the clean data, to five standard errors of the noisy mean."""
    with seeded(3):
        share = torch.rand(SHAPE, dtype=torch.float64) * 0.6 + 0.2
        if levels:
            clean = torch.distributions.Binomial(levels - 1, share).sample((60_000,))
        else:
            clean = torch.distributions.Gamma(2.0 * torch.ones(SHAPE, dtype=torch.float64), 2 / share).sample((60_000,))
    x = add_noise(clean, noise, seed=4)
    noisy = build(likelihood, noise)
    bias = start_of(noisy, x)
    unit = {"p": 5.0, "s": 0.6, "g": 1.0}[noise[0]]
    error = 5 * x.std(0) / unit / len(x) ** 0.5
    if likelihood.startswith("categorical"):
        signal = noisy.signal(bias)
        expected = torch.stack([(clean == c).double().mean(0) for c in range(levels)], -1)
        assert ((signal.probs[0] - expected).abs() < 5 * 0.5 / 0.6 / len(x) ** 0.5 + 1e-3).all()
        return
    # Of levels the location: rounding moves the mean itself a little.
    found = 2 * (1 + bias[:, 0]) if likelihood.startswith("discretized") else noisy.signal.mean_of(bias)
    assert ((found[0] - clean.mean(0)).abs() < error + 1e-3).all()
    if likelihood == "gamma":
        # One shape for all: 2, from the variances of clean data. Its error by five times that of 20 parts of the data.
        shapes = [float(torch.nn.functional.softplus(shape_after(part))) for part in x.chunk(20)]
        spread = torch.tensor(shapes).std() / 20**0.5
        assert abs(float(torch.nn.functional.softplus(shape_after(x))) - 2) < 5 * spread


def shape_after(x: Tensor) -> Tensor:
    noisy = build("gamma", "poisson:peak=5")
    start_of(noisy, x)
    raw: Any = noisy.signal.raw_shape
    return raw.detach()


@pytest.mark.parametrize(
    ("likelihood", "noise", "message"),
    [
        ("laplace", "gaussian:scale=1", "'gaussian' cannot be put on likelihood 'laplace' in closed form; choose"),
        ("gamma", "gaussian:scale=1", "with deterministic=true it can; choose from gaussian, bernoulli"),
        ("poisson", "poisson:peak=9", "with deterministic=true it can; choose from gamma"),
        ("discretized_logistic", "poisson:peak=9,deterministic=true", "with deterministic=false it can"),
        ("gaussian", "poisson:peak=9", "cannot be put on likelihood 'gaussian' in closed form; choose from gamma"),
        ("laplace", "gaussian:scale=1,deterministic=true", "the mean of likelihood 'laplace'"),
        ("gaussian", "salt_and_pepper:probability=0.1", "choose from bernoulli, discretized_logistic, categorical"),
    ],
)  # fmt: skip
def test_refuses_signals_without_a_closed_form_by_name(likelihood: str, noise: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(likelihood, noise)


@pytest.mark.parametrize(
    "noise",
    [
        "gaussian:scale=0",
        "gaussian:scale=inf",
        "gaussian:scale=nan",
        "salt_and_pepper:probability=1.5",
        "salt_and_pepper:probability=nan",
        "poisson:peak=-1",
        "poisson:peak=inf",
        "poisson:peak=nan",
        "gaussian",
    ],
)
def test_refuses_options_out_of_range(noise: str) -> None:
    with pytest.raises(ValueError, match=noise.partition(":")[0]):
        NOISES.resolve(noise)


def test_data_that_the_noise_does_not_make_are_refused() -> None:
    salted = build("discretized_logistic:levels=6", "salt_and_pepper:probability=0.1")
    salted.check(DataSummary(0, 5, True), "discretized_logistic")
    with pytest.raises(
        ValueError, match=r"'salt_and_pepper' on likelihood 'discretized_logistic' makes integers from 0"
    ):
        salted.check(DataSummary(0, 6, True), "discretized_logistic")
    counts = build("bernoulli", "poisson:peak=3,deterministic=true")
    counts.check(DataSummary(0, 60, True), "bernoulli")
    with pytest.raises(ValueError, match=r"got \[0, 1\] with fractions"):
        counts.check(DataSummary(0, 1, False), "bernoulli")
    build("gaussian", "gaussian:scale=1").check(DataSummary(-5, 5, False), "gaussian")


def test_noise_is_reproducible_and_what_it_says() -> None:
    """The share of replaced elements by a binomial tail of 1e-6; the variance of noise by a chi-square tail of 1e-6."""
    clean = torch.full((200, 50), 3.0)
    x = add_noise(clean, "salt_and_pepper:probability=0.2", seed=1, low=0, high=5)
    assert torch.equal(x, add_noise(clean, "salt_and_pepper:probability=0.2", seed=1, low=0, high=5))
    assert not torch.equal(x, add_noise(clean, "salt_and_pepper:probability=0.2", seed=2, low=0, high=5))
    low, high = (x == 0).sum(), (x == 5).sum()
    for count in (low, high):
        assert abs(float(count) - 1000) < norm.isf(0.5e-6) * (10_000 * 0.1 * 0.9) ** 0.5
    assert int(low + high + (x == 3).sum()) == 10_000
    noise = add_noise(clean, "gaussian:scale=0.5", seed=3) - clean
    square = float((noise**2).sum()) / 0.25
    assert chi2.isf(1 - 0.5e-6, 10_000) < square < chi2.isf(0.5e-6, 10_000)
    for bad, noise_name in (
        (clean - 4, "poisson:peak=2"),
        (clean, "salt_and_pepper:probability=0.2"),
        (clean * torch.nan, "gaussian:scale=1"),
        (torch.empty(0), "gaussian:scale=1"),
    ):
        with pytest.raises(ValueError, match="clean"):
            add_noise(bad, noise_name, seed=0)
    for ends in ((torch.nan, 5.0), (0.0, torch.nan), (0.0, torch.inf)):
        with pytest.raises(ValueError, match="low and high are levels of a clean signal, finite numbers"):
            add_noise(clean, "salt_and_pepper:probability=0.2", seed=0, low=ends[0], high=ends[1])


def test_the_mixture_with_atoms_is_a_pyro_distribution() -> None:
    base = dist.Categorical(probs=torch.tensor([0.2, 0.3, 0.5]))
    mixture = AtomMixture(base, torch.tensor([0.0, 2.0]), torch.tensor([0.1, 0.3]))
    probabilities = mixture.log_prob(torch.arange(3)).exp()
    torch.testing.assert_close(probabilities, torch.tensor([0.22, 0.18, 0.6]))
    wide = mixture.expand((4,))
    assert wide.log_prob(torch.ones(4)).shape == (4,)
    with seeded(0):
        assert wide.sample((2,)).shape == (2, 4)
    classes = OrderedCategorical(probs=torch.tensor([[0.2, 0.3, 0.5]])).expand((7, 1))
    torch.testing.assert_close(classes.mean, torch.full((7, 1), 1.3))
    torch.testing.assert_close(classes.variance, torch.full((7, 1), 0.61))


@pytest.mark.parametrize(
    ("likelihood", "noise"),
    [
        ("gaussian", "gaussian:scale=0.5"),
        ("discretized_logistic:levels=6", "salt_and_pepper:probability=0.2"),
        ("categorical:num_classes=6", "salt_and_pepper:probability=0.2"),
        ("gamma", "poisson:peak=4"),
        ("discretized_logistic:levels=6", "poisson:peak=0.7"),
        ("bernoulli", "gaussian:scale=0.5"),
        ("bernoulli", "poisson:peak=4,deterministic=true"),
    ],
)
def test_a_vae_takes_a_noise_like_any_likelihood(likelihood: str, noise: str) -> None:
    vae = VAE(VAEConfig(x_shape=(1, 3, 3), latent_dim=2, likelihood=likelihood, noise=noise, encoder="mlp:hidden=[8]"))
    x = vae.sample(6, seed=0).float()  # draws of classes are integers
    assert x.shape == (6, 1, 3, 3)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, :, 0] = False
    vae.initialize(x)
    with isolated(0, validate=True):
        whole = log_densities(vae.model, vae.guide, x, num_particles=3)
        part = log_densities(vae.model, vae.guide, torch.where(mask, x, torch.nan), num_particles=3, mask=mask)
    for densities in (whole, part):
        assert densities.log_weight.isfinite().all()
    whole.log_weight.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())
    stored = VAEConfig(**vae.config.model_dump(mode="json"))
    assert stored == vae.config
    twin = VAE(stored, seed=1)
    twin.load_state_dict(vae.state_dict())
    assert vae.reconstruct(x, seed=0).shape == x.shape
    torch.testing.assert_close(twin.reconstruct(x, seed=0), vae.reconstruct(x, seed=0))
