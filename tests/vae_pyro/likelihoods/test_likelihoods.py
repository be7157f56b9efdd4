"""Each likelihood is normalised, has a gradient, starts at the data's mean, and refuses what it cannot hold."""

import math
from typing import Any

import pytest
import torch

from vae_pyro.core.isolation import seeded
from vae_pyro.data.summary import DataSummary
from vae_pyro.likelihoods import LIKELIHOODS, Likelihood

DISCRETE = ["bernoulli", "categorical:num_classes=4", "discretized_logistic:levels=6"]
DISCRETE += ["discretized_logistic:levels=6,scale=predicted", "discretized_logistic:levels=6,scale=learned"]
COUNTS = [
    "poisson",
    "negative_binomial",
    "negative_binomial:dispersion=learned",
    "negative_binomial:dispersion=predicted",
]
CONTINUOUS = ["continuous_bernoulli"]
SCALED = [f"{name}:scale={scale}" for name in ("gaussian", "laplace") for scale in ("0.7", "learned", "per_dimension")]
SCALED += [
    "gaussian:scale=predicted",
    "laplace:scale=predicted",
    "student_t:df=3",
    "student_t:df=learned,scale=predicted",
]
ALL = DISCRETE + COUNTS + CONTINUOUS + SCALED


def build(text: str, shape: tuple[int, ...] = (2, 3)) -> Likelihood:
    return LIKELIHOODS.build(LIKELIHOODS.resolve(text), shape).double()


def outputs(likelihood: Likelihood, batch: int = 5) -> torch.Tensor:
    with seeded(1):
        return torch.randn(batch, likelihood.num_params, *likelihood.x_shape, dtype=torch.float64)


def quadrature(text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the support and their weights."""
    if text in DISCRETE:
        top = {"b": 1, "c": 3, "d": 5}[text[0]]
        points = torch.arange(top + 1, dtype=torch.float64)
        return points, torch.ones_like(points)
    if text in COUNTS:
        points = torch.arange(30_000, dtype=torch.float64)
        return points, torch.ones_like(points)
    if text in CONTINUOUS:
        points = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    else:
        # x = sinh(u) reaches the tails of the t distribution; dx = cosh(u) du.
        u = torch.linspace(-16, 16, 160_001, dtype=torch.float64)
        return u.sinh(), u.cosh() * (u[1] - u[0])
    weight = torch.full_like(points, float(points[1] - points[0]))
    weight[0] = weight[-1] = weight[0] / 2
    return points, weight


@pytest.mark.parametrize("text", ALL)
def test_integrates_or_sums_to_one_and_its_gradient_flows(text: str) -> None:
    likelihood = build(text)
    output = outputs(likelihood).requires_grad_()
    points, weight = quadrature(text)
    density = likelihood(output)
    assert density.batch_shape == (5, 2, 3)
    log_p = density.log_prob(points.reshape(-1, 1, 1, 1).expand(-1, 5, 2, 3))
    total = (log_p.exp() * weight.reshape(-1, 1, 1, 1)).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=2e-5, rtol=0)
    value = points[1].expand(5, 2, 3)
    parameters = [parameter for parameter in likelihood.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(density.log_prob(value).sum(), [output, *parameters])
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("text", ALL)
def test_particles_and_data_are_batch_dimensions(text: str) -> None:
    likelihood = build(text)
    output = outputs(likelihood, batch=12).reshape(4, 3, likelihood.num_params, 2, 3)
    with seeded(0):
        x = likelihood(output).sample()
    assert x.shape == (4, 3, 2, 3)
    log_p = likelihood(output).to_event(2).log_prob(x)
    assert log_p.shape == (4, 3)
    torch.testing.assert_close(log_p[2, 1], likelihood(output[2, 1]).to_event(2).log_prob(x[2, 1]))
    assert likelihood.expectation(likelihood(output)).shape == (4, 3, 2, 3)


def data_for(text: str) -> torch.Tensor:
    with seeded(2):
        u = torch.rand(4000, 2, 3, dtype=torch.float64)
        if text in SCALED:
            return 50 + 8 * torch.randn(4000, 2, 3, dtype=torch.float64)
    if text == "bernoulli":
        return (u < 0.2).double()
    if text in CONTINUOUS:
        return u**2
    return (u**2 * (3 if text.startswith("categorical") else 5)).round()


@pytest.mark.parametrize("text", ALL)
def test_the_output_bias_starts_at_the_mean_of_the_data(text: str) -> None:
    likelihood = build(text)
    x = data_for(text)
    bias = likelihood.initialize(x, torch.ones_like(x, dtype=torch.bool))
    assert bias.shape == (likelihood.num_params, 2, 3)
    start = likelihood(bias[None])
    if text.startswith("categorical"):
        share = torch.stack([(x == c).double().mean(0) for c in range(4)], -1)
        torch.testing.assert_close(start.probs[0], share, atol=2e-3, rtol=0)
    elif text.startswith("discretized"):
        # The location starts at the mean; rounding and the ends move the mean of the distribution a little.
        torch.testing.assert_close(start.loc[0] if hasattr(start, "loc") else start.mean[0], x.mean(0))
    else:
        torch.testing.assert_close(likelihood.expectation(start)[0], x.mean(0), atol=2e-3, rtol=1e-4)


def test_masked_elements_do_not_enter_the_start() -> None:
    likelihood = build("gaussian:scale=per_dimension", (3,))
    x = data_for("gaussian:scale=0.7")[:, 0, :]
    observed = torch.ones_like(x, dtype=torch.bool)
    observed[:1000] = False
    clean = likelihood.initialize(x, observed).clone()
    scale = likelihood.reference.clone()
    x[:1000] = float("nan")
    torch.testing.assert_close(likelihood.initialize(x, observed), clean)
    torch.testing.assert_close(likelihood.reference, scale)


def test_a_learned_scale_starts_at_the_sd_of_the_data_and_cannot_vanish_on_a_lattice() -> None:
    x = data_for("gaussian:scale=learned")
    likelihood = build("gaussian:scale=learned")
    likelihood.initialize(x.round(), torch.ones_like(x, dtype=torch.bool), step=1.0)
    _, scale = likelihood.loc_scale(outputs(likelihood))
    assert float(scale.detach()) == pytest.approx(float(x.round().std()) + 1 / 12**0.5, rel=0.01)
    with torch.no_grad():
        likelihood.raw_scale.fill_(-1e4)
    _, scale = likelihood.loc_scale(outputs(likelihood))
    assert float(scale.detach()) == pytest.approx(1 / 12**0.5)  # the sd of rounding to integers


def test_units_are_those_of_the_data() -> None:
    """Rescaling x by c shifts a log density by -log c for each element: it is a density in the units of x."""
    x = data_for("gaussian:scale=per_dimension")
    everything = torch.ones_like(x, dtype=torch.bool)
    values = []
    for factor in (1.0, 1000.0):
        likelihood = build("gaussian:scale=per_dimension")
        bias = likelihood.initialize(factor * x, everything)
        values.append(likelihood(bias[None]).to_event(2).log_prob(factor * x[:10]))
    shift = torch.full((10,), 6 * torch.tensor(1000.0).log().item(), dtype=torch.float64)
    torch.testing.assert_close(values[0] - values[1], shift)


@pytest.mark.parametrize("shape", ["learned", "per_dimension", "predicted"])
def test_a_gamma_starts_the_same_in_any_units(shape: str) -> None:
    """Each column has units of its own; in units of 1e-7 the data lie below what keeps counts from zero."""
    with seeded(0):
        x = torch.distributions.Gamma(4.0, 4.0).sample((2000, 3)) * torch.tensor([1.0, 1e-4, 30.0])
    everything = torch.ones_like(x, dtype=torch.bool)
    scores = []
    for unit in (1.0, 1e-3, 1e-7, 1e4):
        likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve(f"gamma:shape={shape}"), (3,))
        start = likelihood(likelihood.initialize(unit * x, everything)[None])
        torch.testing.assert_close(start.mean[0] / unit, x.mean(0), atol=0, rtol=1e-5)
        torch.testing.assert_close(start.concentration[0], torch.full((3,), 4.0), atol=0, rtol=0.1)
        log_p = start.to_event(1).log_prob(unit * x).double().mean()
        scores.append(float(log_p.detach()) + 3 * math.log(unit))
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-4)


def test_a_gamma_of_noisy_zeros_starts_at_a_share_of_the_others() -> None:
    x = torch.tensor([[0.0, 2e-5, 6e-5], [0.0, 4e-5, 2e-5]])
    observed = torch.tensor([[True, True, True], [True, True, False]])
    for unit in (1.0, 1e3):
        likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve("gamma"), (3,))
        mean = likelihood(likelihood.initialize(unit * x, observed)[None]).mean[0]
        torch.testing.assert_close(mean / unit, torch.tensor([3e-8, 3e-5, 6e-5]), atol=0, rtol=1e-5)
    likelihood = LIKELIHOODS.build(LIKELIHOODS.resolve("gamma"), (3,))
    mean = likelihood(likelihood.initialize(0 * x, observed)[None]).mean[0]
    torch.testing.assert_close(mean, torch.full((3,), 1e-3), atol=0, rtol=1e-5)


def test_one_hot_features_of_classes() -> None:
    likelihood = build("categorical:num_classes=3", (2,))
    x = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    features = likelihood.features(x)
    assert features.shape == (1, *likelihood.features.feature_shape)
    assert features.reshape(3, 2).argmax(0).tolist() == [0, 2]
    hidden = likelihood.features(x, torch.tensor([[True, False]]))
    assert hidden.reshape(3, 2).sum(0).tolist() == [1, 0]


GREY, BINARY, COUNT, REAL = (
    DataSummary(0.0, 1.0, False),
    DataSummary(0.0, 1.0, True),
    DataSummary(0.0, 16.0, True),
    DataSummary(-3.0, 2.5, False),
)


@pytest.mark.parametrize(
    ("text", "summary", "message"),
    [
        ("bernoulli", GREY, r"requires values in \{0, 1\}, got \[0, 1\] with fractions; pass binarize='dynamic'"),
        ("bernoulli", COUNT, r"got \[0, 16\]; pass binarize='dynamic', scale the data, or choose .*'poisson'"),
        ("continuous_bernoulli", COUNT, r"requires values in \[0, 1\], got \[0, 16\]"),
        ("categorical:num_classes=4", COUNT, "requires integers from 0 to 3"),
        ("poisson", REAL, r"requires integer counts from 0 up, got \[-3, 2.5\] with fractions; .*choose 'gaussian'"),
        ("negative_binomial", GREY, "integer counts"),
        ("discretized_logistic", DataSummary(0.0, 300.0, True), "integers from 0 to 255, got \\[0, 300\\]"),
    ],
)
def test_data_outside_the_support_are_refused_with_a_way_out(text: str, summary: DataSummary, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(text).check(summary, text.partition(":")[0])


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("bernoulli", BINARY),
        ("continuous_bernoulli", GREY),
        ("gaussian", REAL),
        ("categorical:num_classes=17", COUNT),
        ("poisson", COUNT),
        ("discretized_logistic", COUNT),
    ],
)
def test_data_inside_the_support_pass(text: str, summary: DataSummary) -> None:
    build(text).check(summary, text.partition(":")[0])


def test_a_likelihood_is_one_class_and_one_line() -> None:
    @LIKELIHOODS.register("unit_exponential")
    class UnitExponential(Likelihood):
        """Exponential with the decoder's rate."""

        discrete = False
        support = "positive values"

        def forward(self, output: torch.Tensor) -> Any:
            import pyro.distributions as dist

            return dist.Exponential(self.parameter(output, 0).exp())

        @staticmethod
        def accepts(summary: DataSummary) -> bool:
            return summary.low >= 0

    try:
        with pytest.raises(ValueError, match="unit_exponential"):
            build("bernoulli").check(COUNT, "bernoulli")  # it is offered at once
        from vae_pyro import VAE, VAEConfig

        vae = VAE(VAEConfig(x_shape=(2,), latent_dim=1, likelihood="unit_exponential"))
        assert vae.sample(3).shape == (3, 2)
    finally:
        LIKELIHOODS.unregister("unit_exponential")
