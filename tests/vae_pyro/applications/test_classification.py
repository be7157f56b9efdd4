"""Classes: exact where the model is; scores by their definitions; calibration accepted, and the lack of it rejected."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.tasks.classification.result import ClassScores
from analysis.tasks.classification.scores import class_scores
from vae_pyro import VAE, Split, VAEConfig
from vae_pyro.applications.classification import classify, write
from vae_pyro.applications.classification_result import Classification

CLASSES = 3


def linear(structure: str) -> VAE:
    """p(x | z, y) = N(W z + V y + b, 0.4^2) with z of 2 and x of 4 dimensions: p(x | y) is known."""
    vae = VAE(
        VAEConfig(
            x_shape=(4,), latent_dim=2, likelihood="gaussian:scale=0.4", encoder="mlp:hidden=[]", structure=structure
        ),
        seed=2,
    ).double()
    with torch.no_grad():
        vae.model.decoder.layers[-1].weight.mul_(1.5)
        vae.guide.posterior.normal.linear.weight.zero_()  # q(z | x, y) is p(z): weights are bounded
        vae.guide.posterior.normal.linear.bias.zero_()
    return vae


def exact(vae: VAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x | y), shape ``(datum, class)``."""
    weight, bias = vae.model.decoder.layers[-1].weight.detach(), vae.model.decoder.layers[-1].bias.detach()
    covariance = weight[:, :2] @ weight[:, :2].T + 0.16 * torch.eye(4).double()
    found = []
    for c in range(CLASSES):
        normal = torch.distributions.MultivariateNormal(bias + weight[:, 2 + c], covariance)
        found.append(normal.log_prob(x))
    return torch.stack(found, 1)


M2 = f"m2:num_classes={CLASSES},hidden=8"
CONDITIONAL = f"conditional:num_classes={CLASSES}"


@pytest.mark.parametrize("structure", [M2, CONDITIONAL])
def test_model_probabilities_are_those_of_the_linear_model(structure: str) -> None:
    """Within 5 standard errors for 30 numbers, a chance of 2 in 100,000 to fail; the errors are small and right."""
    vae = linear(structure)
    x = vae.sample(10, y=torch.arange(10) % CLASSES, seed=1)
    reference = exact(vae, x).softmax(1).numpy()
    made = classify(vae, x, num_draws=20_000, seed=3)
    assert made.model is not None
    assert made.model_se is not None
    assert made.log_px is not None
    assert made.model_se.max() < 0.06
    assert (np.abs(made.model - reference) < 5 * made.model_se + 1e-4).all()
    log_px = exact(vae, x).logsumexp(1).numpy() - math.log(CLASSES)
    np.testing.assert_allclose(made.log_px, log_px, atol=0.25)
    assert (made.guide is None) == (structure == CONDITIONAL)


def test_prior_of_a_conditional_model_enters() -> None:
    vae, log_prior = linear(CONDITIONAL), np.log([0.9, 0.09, 0.01])
    x = vae.sample(6, y=torch.arange(6) % CLASSES, seed=1)
    flat, tilted = (classify(vae, x, num_draws=50, seed=0, log_prior=one) for one in (None, log_prior))
    assert flat.model is not None
    assert tilted.model is not None
    joint = flat.model * np.exp(log_prior)
    np.testing.assert_allclose(tilted.model, joint / joint.sum(1, keepdims=True), rtol=1e-9)


def test_standard_error_of_probabilities_is_their_spread() -> None:
    """Over 60 repetitions the spread is within 30 % of the reported error (of which a chi of 60 has 9 %)."""
    vae = linear(M2)
    x = vae.sample(1, y=torch.tensor([0]), seed=5)
    made = [classify(vae, x, num_draws=400, seed=seed) for seed in range(60)]
    draws = np.stack([one.model for one in made if one.model is not None])[:, 0]
    errors = np.stack([one.model_se for one in made if one.model_se is not None])[:, 0]
    assert draws.std(0, ddof=1) == pytest.approx(np.sqrt((errors**2).mean(0)), rel=0.3)


def test_same_seed_same_probabilities_and_guide_alone() -> None:
    vae = linear(M2)
    x = vae.sample(5, seed=0)
    one, two, alone = (classify(vae, x, num_draws=draws, seed=1, labels=[0, 1, 2, 0, 1]) for draws in (20, 20, 0))
    assert one.model is not None
    assert two.model is not None
    np.testing.assert_array_equal(one.model, two.model)
    assert alone.model is alone.log_px is None
    assert alone.guide is not None
    np.testing.assert_allclose(alone.guide.sum(1), 1)
    assert "guide" in str(alone)
    assert "model" not in str(alone)
    with pytest.raises(ValueError, match="choose from guide"):
        alone.of("model")


def test_guide_alone_takes_intensities_and_the_model_does_not() -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, structure=M2))
    grey = torch.full((3, 4), 0.25)
    assert classify(vae, grey, num_draws=0).of("guide").shape == (3, CLASSES)
    with pytest.raises(ValueError, match="bernoulli"):
        classify(vae, grey, num_draws=2)
    with pytest.raises(ValueError, match="shape"):
        classify(vae, grey[:, :3], num_draws=0)


def test_what_cannot_be_classified_is_refused() -> None:
    vae, x = linear(M2), torch.zeros(3, 4)
    with pytest.raises(ValueError, match="has no classes"):
        classify(VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian")), x)
    with pytest.raises(ValueError, match="num_draws is 0 or at least 2, got 1"):
        classify(vae, x, num_draws=1)
    with pytest.raises(ValueError, match="of its own"):
        classify(vae, x, log_prior=[0.0, 0.0, 0.0])
    with pytest.raises(
        ValueError, match=re.escape("log_prior must have shape (3,), one number for each class, got (2,)")
    ):
        classify(linear(CONDITIONAL), x, log_prior=[0.0, 0.0])
    for prior in ([0.0, 0.0, 0.0], [np.nan, 0.0, -np.inf], [np.inf, 0.0, 0.0], [-np.inf] * 3):
        with pytest.raises(ValueError, match="logarithms of probabilities that sum to 1"):
            classify(linear(CONDITIONAL), x, log_prior=prior)
    with pytest.raises(ValueError, match="got 0 to 3"):
        classify(vae, x, labels=[0, 3, 1], num_draws=0)
    with pytest.raises(ValueError, match="integer for each of 3"):
        classify(vae, x, labels=[0, 1], num_draws=0)
    with pytest.raises(ValueError, match="not known"):
        classify(vae, x, num_draws=0).accuracy("guide")


def made(labels: bool = True) -> Classification:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    known = np.array([0, 1]) if labels else None
    return Classification(p, np.log(p / 7), np.full((2, 3), 0.01), known, np.arange(2), 9)


def test_scores_are_their_definitions() -> None:
    one = made()
    assert one.accuracy("guide") == one.accuracy("model") == 0.5
    assert one.log_score("guide") == pytest.approx((math.log(0.7) + math.log(0.3)) / 2)
    np.testing.assert_allclose(one.log_px, -math.log(7))


def test_a_class_may_be_left_out_of_the_prior() -> None:
    vae = linear(CONDITIONAL)
    x = vae.sample(6, y=torch.arange(6) % CLASSES, seed=1)
    found = classify(vae, x, num_draws=20, log_prior=[math.log(0.5), math.log(0.5), -math.inf])
    assert not found.of("model")[:, 2].any()
    assert np.isfinite(found.of("model")).all()


def test_log_scores_have_no_floor() -> None:
    """Log probabilities of -2,000 and -3,000 nats, whose exponentials are 0 in float64, are scored as such."""
    logs, labels = np.array([[0.0, -2000.0], [-3000.0, 0.0]]), np.array([1, 0])
    one = Classification(np.exp(logs), logs - 7, np.zeros((2, 2)), labels, np.arange(2), 9, log_guide=logs)
    np.testing.assert_array_equal(one.log_of("guide"), logs)
    np.testing.assert_allclose(one.log_of("model"), logs)
    assert one.log_score("guide") == pytest.approx(-2500)
    assert one.log_score("model") == pytest.approx(-2500)
    bare = Classification(np.exp(logs), None, None, labels, np.arange(2), 0)
    assert bare.log_score("guide") == -math.inf
    scores = class_scores(one.of("model"), labels, log_probabilities=one.log_of("model"), num_bins=1)
    assert scores.log_score == pytest.approx(-2500)
    assert scores.log_score_se == pytest.approx(500)
    without = class_scores(one.of("model"), labels, num_bins=1)
    assert without.log_score == -math.inf
    assert math.isnan(without.log_score_se)
    assert "\N{MINUS SIGN}\N{INFINITY} nats per datum" in str(without)


def test_the_guide_keeps_log_probabilities_of_what_is_next_to_impossible() -> None:
    vae = linear(M2)
    last = next(m for m in reversed(list(vae.guide.modules())) if getattr(m, "out_features", None) == CLASSES)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, -1000.0, -2000.0]))
    found = classify(vae, torch.zeros(2, 4).double(), num_draws=0, labels=[1, 2])
    np.testing.assert_allclose(found.log_of("guide"), [[0, -1000, -2000]] * 2)
    assert found.log_score("guide") == pytest.approx(-1500)


def test_files_hold_what_was_found(tmp_path: Path) -> None:
    write(made(), tmp_path / "deep" / "a.csv")
    rows = list(csv.DictReader((tmp_path / "deep" / "a.csv").read_text().splitlines()))
    assert [row["guide_class"] for row in rows] == ["0", "2"]
    assert (rows[0]["label"], float(rows[1]["model_p2"])) == ("0", 0.6)
    write(made(labels=False), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert "labels" not in arrays
        np.testing.assert_array_equal(arrays["guide"], made().guide)
    with pytest.raises(ValueError, match=r"\.csv or \.npz"):
        write(made(), tmp_path / "a.txt")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a.csv", "a.npz"]


# --- how good they are ---------------------------------------------------------------------------------------------


def simulated(rows: int, seed: int, sharpen: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and those probabilities with their logits multiplied by a number."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 4)) * 1.5
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (random.random((rows, 1)) > p.cumsum(1)).sum(1).clip(max=3)
    sharpened = np.exp(sharpen * logits)
    return sharpened / sharpened.sum(1, keepdims=True), y


def verdict(scores: ClassScores, name: str) -> str:
    return next(one.outcome for one in scores.verdicts if one.name == name)


def test_calibrated_probabilities_are_accepted() -> None:
    """p-values of 200 calibrated classifiers: below 1 % at most 8 times (a chance of 1 in 4,000), 5 % at most 22."""
    scores = [class_scores(*simulated(500, seed), num_bootstrap=300, seed=seed) for seed in range(200)]
    p_values = np.array([one.ece_p_value for one in scores])
    assert (p_values < 0.01).sum() <= 8
    assert (p_values < 0.05).sum() <= 22
    assert 0.4 < p_values.mean() < 0.6  # 5 standard errors of 0.02


@pytest.mark.parametrize(("sharpen", "side"), [(2.0, "overconfident"), (0.5, "underconfident")])
def test_other_probabilities_are_rejected(sharpen: float, side: str) -> None:
    scores = class_scores(*simulated(2000, 0, sharpen), seed=0)
    found = next(one for one in scores.verdicts if one.name == "class_calibration")
    assert found.outcome == "fail"
    assert side in found.advice
    assert scores.ece_p_value < 0.002
    assert abs(scores.overconfidence) > 5 * scores.overconfidence_se


def test_small_miscalibration_warns_and_no_more() -> None:
    scores = class_scores(*simulated(40_000, 0, 1.08), num_bootstrap=300, seed=0)
    assert scores.ece_p_value < 0.01
    assert scores.excess_ece < 0.02
    assert verdict(scores, "class_calibration") == "warn"


def test_bias_of_the_calibration_error_is_what_chance_gives() -> None:
    """Of calibrated classifiers, the mean ECE is the bias that is reported: 100 of them, 5 standard errors."""
    scores = [class_scores(*simulated(400, 1000 + seed), num_bootstrap=200, seed=seed) for seed in range(100)]
    ece, bias = (np.array([getattr(one, name) for one in scores]) for name in ("ece", "ece_by_chance"))
    assert ece.mean() > 0.03
    assert abs((ece - bias).mean()) < 5 * (ece - bias).std(ddof=1) / 10


def test_metrics_are_their_definitions() -> None:
    p = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    scores = class_scores(p, np.array([0, 1, 1, 0]), num_bins=2, seed=0)
    assert scores.error == 0.25
    assert scores.error_se == pytest.approx(math.sqrt(0.25 * 0.75 / 4))
    assert scores.majority_error == 0.5
    assert scores.log_score == pytest.approx(np.log([0.8, 0.4, 0.7, 0.9]).mean())
    assert scores.brier == pytest.approx(2 * np.mean([0.04, 0.36, 0.09, 0.01]))
    # Bins of two: confidences 0.6, 0.7 with one right, 0.8, 0.9 with both.
    assert scores.ece == pytest.approx((abs(1.3 - 1) + abs(1.7 - 2)) / 4)
    assert scores.overconfidence == pytest.approx(0.75 - 0.75)
    np.testing.assert_allclose(scores.reliability.confidence, [0.65, 0.85])
    np.testing.assert_array_equal(scores.reliability.accuracy, [0.5, 1])
    assert "25" in str(scores)
    assert scores.summary()["error_low"] == scores.error_interval[0]


def test_interval_is_that_of_the_binomial() -> None:
    """Coverage of at least 95 % at every rate, by summing the binomial; and known ends."""
    from scipy.stats import binom

    def interval(wrong: int, size: int) -> tuple[float, float]:
        certain = np.tile([0.9, 0.1], (size, 1))
        labels = (np.arange(size) < wrong).astype(int)
        return class_scores(certain, labels, num_bins=1, num_bootstrap=1).error_interval

    assert interval(0, 10)[0] == 0
    assert interval(10, 10)[1] == 1
    assert interval(0, 10)[1] == pytest.approx(1 - 0.025 ** (1 / 10))
    for rate in (0.01, 0.1, 0.5, 0.93):
        inside = [low <= rate <= high for low, high in (interval(k, 40) for k in range(41))]
        assert binom.pmf(np.arange(41), 40, rate)[inside].sum() >= 0.95


def test_chance_is_not_learning() -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4), 500)
    assert verdict(class_scores(p, random.integers(4, size=500)), "class_error") == "fail"
    assert verdict(class_scores(*simulated(500, 0)), "class_error") == "pass"


def test_what_is_no_probability_is_refused() -> None:
    p = np.full((20, 2), 0.5)
    for wrong, labels, words in (
        (p * 2, np.zeros(20, int), "sum to 1"),
        (p, np.full(20, 2), "got 2 to 2"),
        (p, np.zeros(20), "integers"),
        (p[:5], np.zeros(5, int), "15 bins"),
    ):
        with pytest.raises(ValueError, match=words):
            class_scores(wrong, labels)
    for logs in (np.log(p) - 1, np.zeros((20, 2)), np.log(p)[:, :1], np.full((20, 2), np.nan), np.full((20, 2), 1e4)):
        with pytest.raises(ValueError, match="logarithms of probabilities"):
            class_scores(p, np.zeros(20, int), log_probabilities=logs)


def test_split_that_was_given_labels_is_classified_without_them() -> None:
    """The classes that the programs were given do not leak into what is predicted."""
    vae = linear(M2)
    x = vae.sample(6, seed=0)
    given = Split(x, labels=torch.arange(6) % CLASSES, y=torch.arange(6) % CLASSES)
    with_y, without = (classify(vae, one, num_draws=5, seed=0) for one in (given, x))
    np.testing.assert_array_equal(with_y.of("guide"), without.of("guide"))
    np.testing.assert_array_equal(with_y.of("model"), without.of("model"))
