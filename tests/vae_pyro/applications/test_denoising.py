"""Denoising beside closed forms: exact posteriors, enumeration, coverage (denoising_calibration), and its plots."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from scipy.stats import f as f_law
from torch import Tensor

from analysis.tasks.denoising.calibration import calibrate_denoising
from analysis.tasks.denoising.calibration_result import DenoisingCalibration, p_of_difference
from analysis.tasks.denoising.check import check_denoising
from analysis.tasks.denoising.filters import FILTERS, available_filters, filtered, tune_filter
from analysis.tasks.denoising.psnr import PSNR, psnr
from tests.truths import PPCA, example, set_exact
from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit
from vae_pyro.applications import denoising
from vae_pyro.applications.denoising import denoise, posterior_blocks
from vae_pyro.core.isolation import seeded
from vae_pyro.data.split import Split
from vae_pyro.likelihoods.noise import add_noise

importlib.import_module("skimage.restoration")  # its first import leaves what it leaves before anything is watched
importlib.import_module("skimage.filters")

CLEAN_VARIANCE, NOISE_VARIANCE = 0.3, 0.5


def linear_vae(truth: PPCA, *, noise_scale: float, clean_scale: float, stretch: float = 1.0) -> VAE:
    """A linear VAE with Gaussian noise; ``truth`` is the pPCA of noisy data, whose posterior is the guide.

    Args:
        truth: with the variance of clean signal and noise together.
        noise_scale: that the VAE states.
        clean_scale: that the VAE has.
        stretch: of the guide's standard deviations.
    """
    d, q = truth.weight.shape
    vae = VAE(
        VAEConfig(
            x_shape=(d,),
            latent_dim=q,
            likelihood={"name": "gaussian", "scale": clean_scale},
            noise={"name": "gaussian", "scale": noise_scale},
            posterior="full_rank",
            encoder="mlp:hidden=[]",
        )
    ).double()
    set_exact(vae, truth, stretch)
    return vae


def right_vae(truth: PPCA, stretch: float = 1.0) -> VAE:
    return linear_vae(truth, noise_scale=NOISE_VARIANCE**0.5, clean_scale=CLEAN_VARIANCE**0.5, stretch=stretch)


def pairs(truth: PPCA, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clean and noisy data."""
    clean = PPCA(truth.weight, truth.mean, CLEAN_VARIANCE).sample(size, seed)
    return clean, add_noise(clean, {"name": "gaussian", "scale": NOISE_VARIANCE**0.5}, seed=seed + 1)


def exact_posterior(truth: PPCA, x: Tensor, observed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean ``(datum, d)`` and covariance of p(x_clean | x), where ``observed`` names the elements that are seen."""
    d = len(truth.mean)
    seen = torch.arange(d) if observed is None else observed
    clean = truth.weight @ truth.weight.T + CLEAN_VARIANCE * torch.eye(d, dtype=torch.float64)
    noisy = (clean + NOISE_VARIANCE * torch.eye(d, dtype=torch.float64))[seen][:, seen]
    gain = clean[:, seen] @ torch.linalg.inv(noisy)
    return truth.mean + (x[:, seen] - truth.mean[seen]) @ gain.T, clean - gain @ clean[seen]


TRUTH = example(d=6, q=2, variance=CLEAN_VARIANCE + NOISE_VARIANCE, seed=3)


@pytest.mark.parametrize("stretch", [1.0, 1.3])
def test_the_linear_posterior_of_the_clean_signal_is_met(stretch: float) -> None:
    """40 x 6 means within 5.5 stated errors (fails once in 10^5), variances within 6 of a sample variance's."""
    clean, noisy = pairs(TRUTH, 40, seed=1)
    vae = right_vae(TRUTH, stretch)
    num_draws = 3000
    found = denoise(vae, noisy, num_draws=num_draws, seed=2)
    mean, covariance = exact_posterior(TRUTH, noisy)
    z = (found.mean - mean.numpy()) / found.mean_se
    assert np.abs(z).max() < 5.5
    assert 0.8 < z.std() < 1.25  # the stated error is the error: 240 scores, some of which belong together
    exact = covariance.diagonal().numpy()
    given = CLEAN_VARIANCE * NOISE_VARIANCE / (CLEAN_VARIANCE + NOISE_VARIANCE)
    error = (exact - given) * np.sqrt(2 / found.effective_sample_size.min())
    assert (np.abs(found.sd**2 - exact) < 6 * error).all()
    if stretch == 1:
        np.testing.assert_allclose(found.effective_sample_size, num_draws, rtol=1e-9)
    else:
        assert (found.effective_sample_size < 0.95 * num_draws).all()
    # Ends of the interval beside the normal's quantiles; the error of a quantile at 5 % is 2.1 sd / sqrt(draws).
    for ends, sign in ((found.lower, -1), (found.upper, 1)):
        off = ends - (mean.numpy() + sign * 1.6449 * np.sqrt(exact))
        assert np.abs(off).max() < 5.5 * 2.11 * np.sqrt(exact.max() / found.effective_sample_size.min())
    assert clean.shape == found.mean.shape


def test_elements_that_were_not_observed_are_inferred_from_the_others() -> None:
    """The exact Gaussian conditional on the observed elements: 30 x 6 means within 5.5 stated errors."""
    _, noisy = pairs(TRUTH, 30, seed=4)
    seen = torch.tensor([0, 1, 3, 5])
    mask = torch.zeros_like(noisy, dtype=torch.bool)
    mask[:, seen] = True
    x = torch.where(mask, noisy, torch.nan)
    found = denoise(right_vae(TRUTH, stretch=1.6), x, mask=mask, num_draws=4000, seed=5)
    mean, covariance = exact_posterior(TRUTH, noisy, seen)
    good = found.effective_sample_size > 100  # the guide takes what is missing for the mean, which is far for some
    assert good.sum() > 20
    assert np.abs((found.mean - mean.numpy()) / found.mean_se)[good].max() < 5.5
    ratio = found.sd[good].mean(0) / np.sqrt(covariance.diagonal().numpy())
    assert np.abs(ratio - 1).max() < 0.05
    assert (found.sd[:, 2] > found.sd[:, 3]).all()


def test_coverage_is_exact_and_a_wrong_scale_of_the_noise_is_rejected() -> None:
    """With the truth the three tests pass, each at 1e-4; stating a tenth or twice the noise fails."""
    clean, noisy = pairs(TRUTH, 500, seed=6)
    right = calibrate_denoising(right_vae(TRUTH), noisy, clean, num_draws=199, seed=7)
    share, error = right.pit_coverage
    assert abs(share - 0.9) < 3.9 * error
    assert error < 0.01
    assert right.p_uniform > 1e-4
    ratio, ratio_se = right.spread
    assert abs(ratio - 1) < 3.9 * ratio_se
    # Interval and PIT are about the same event; of 199 draws the interval covers 180 of 200 ranks, exactly 0.9.
    assert abs(right.coverage[0] - share) < 0.005
    few, few_error = calibrate_denoising(right_vae(TRUTH), noisy, clean, num_draws=19, seed=8).pit_coverage
    assert abs(few - 0.9) < 3.9 * few_error  # ranks among few draws are spread over [0, 1] as well
    # The evidence of noisy data stays about right: what is wrong is how it is divided between signal and noise.
    for noise, grave in ((0.05, True), (1.0, False)):
        wrong = linear_vae(TRUTH, noise_scale=noise**0.5, clean_scale=max(0.8 - noise, 1e-4) ** 0.5)
        made = calibrate_denoising(wrong, noisy, clean, num_draws=99, seed=7)
        assert made.rejected
        assert made.p_uniform < 1e-6
        assert made.spread[0] > 1.1
        outcomes = {verdict.name: verdict.outcome for verdict in made.verdicts}
        assert not grave or set(outcomes.values()) == {"fail"}


def one_latent(likelihood: str, noise: str) -> VAE:
    """A VAE of one latent and four elements whose decoder bends the levels, in float64."""
    vae = VAE(
        VAEConfig(x_shape=(4,), latent_dim=1, likelihood=likelihood, noise=noise, encoder="mlp:hidden=[16]"), seed=2
    ).double()
    with torch.no_grad():
        for parameter in vae.model.decoder.parameters():
            parameter.mul_(2.5)
    return vae


@pytest.mark.parametrize(
    ("likelihood", "noise"),
    [
        ("bernoulli", "salt_and_pepper:probability=0.3"),
        ("discretized_logistic:levels=5", "salt_and_pepper:probability=0.3"),
        ("categorical:num_classes=3", "salt_and_pepper:probability=0.3"),
        ("discretized_logistic:levels=5", "poisson:peak=0.8"),
        ("bernoulli", "gaussian:scale=0.6"),
        ("gamma", "poisson:peak=4"),
        ("bernoulli", "poisson:peak=4,deterministic=true"),
        ("bernoulli", "gaussian:scale=0.4,deterministic=true"),
    ],
)
def test_denoising_agrees_with_enumeration_over_the_latent(likelihood: str, noise: str) -> None:
    """Quadrature over z: 12 x 4 means within 5.5 stated errors, sds within 8 % or 0.02 (rare levels)."""
    vae = one_latent(likelihood, noise)
    x = vae.sample(12, seed=3).double()
    found = denoise(vae, x, num_draws=30_000, seed=4)
    z = torch.linspace(-7, 7, 601, dtype=torch.float64).reshape(-1, 1, 1).expand(-1, 12, 1)
    with torch.no_grad():
        output = vae.model.output(z)
        log_p = vae.model.likelihood.observed(output).log_prob(x) - 0.5 * z[..., 0] ** 2
        weight = log_p.softmax(0).unsqueeze(-1)
        conditional = vae.model.likelihood.clean(output, x)
        mean = (weight * conditional.mean).sum(0)
        variance = (weight * (conditional.variance + (conditional.mean - mean) ** 2)).sum(0)
    off = np.abs(found.mean - mean.numpy())
    assert (off <= 5.5 * found.mean_se + 1e-9).all()
    np.testing.assert_allclose(found.sd, variance.sqrt().numpy(), rtol=0.08, atol=0.02)
    if "salt" in noise:  # draws and intervals are levels
        with_draws = denoise(vae, x, num_draws=200, keep_draws=200, seed=5)
        for values in (with_draws.draws, with_draws.lower, with_draws.upper):
            assert values is not None
            assert (values == values.round()).all()
        inner = (x.numpy() > 0) & (x.numpy() < vae.model.likelihood.high)
        assert (with_draws.sd[inner] < 1e-6).all()  # a value between the ends was kept for certain
        assert (with_draws.lower[inner] == x.numpy()[inner]).all()


def test_draws_are_those_of_the_posterior() -> None:
    """Under a stretched guide as well: mean and variance of 2,000 draws, 20 data, within 5.5 errors."""
    _, noisy = pairs(TRUTH, 20, seed=8)
    found = denoise(right_vae(TRUTH, stretch=1.5), noisy, num_draws=2000, keep_draws=2000, seed=9)
    mean, covariance = exact_posterior(TRUTH, noisy)
    assert found.draws is not None
    assert found.draws.shape == (2000, 20, 6)
    sd = covariance.diagonal().sqrt().numpy()
    size = found.effective_sample_size.min()
    assert (np.abs(found.draws.mean(0) - mean.numpy()) < 5.5 * sd / np.sqrt(size)).all()
    assert (np.abs(found.draws.var(0) / sd**2 - 1) < 5.5 * np.sqrt(2 / size)).all()
    # The order is random: any part of the draws is a sample as well.
    first = denoise(right_vae(TRUTH, stretch=1.5), noisy, num_draws=2000, keep_draws=500, seed=9)
    assert first.draws is not None
    np.testing.assert_array_equal(first.draws, found.draws[:500])
    assert (np.abs(first.draws.mean(0) - mean.numpy()) < 5.5 * sd / np.sqrt(size / 4)).all()


def test_memory_is_bounded_and_every_datum_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    _, noisy = pairs(TRUTH, 50, seed=10)
    monkeypatch.setattr(denoising, "_NUMBERS_AT_ONCE", 400 * 6 * 7)
    vae = right_vae(TRUTH)
    rows = [block.rows for block in posterior_blocks(vae, noisy, num_draws=400)]
    assert [row.start for row in rows] == list(range(0, 50, 7))
    assert rows[-1] == slice(49, 50)
    found = denoise(vae, Split(noisy, ids=torch.arange(100, 150)), num_draws=400, seed=1)
    mean, _ = exact_posterior(TRUTH, noisy)
    assert np.abs((found.mean - mean.numpy()) / found.mean_se).max() < 5.5
    assert found.ids.tolist() == list(range(100, 150))
    again = denoise(vae, noisy, num_draws=400, seed=1)
    np.testing.assert_array_equal(again.mean, found.mean)
    assert not np.array_equal(denoise(vae, noisy, num_draws=400, seed=2).mean, found.mean)
    assert "50 data denoised with 400 draws each" in str(found)
    assert found.summary()["median_effective_sample_size"] == pytest.approx(400)


def test_bad_calls_are_named() -> None:
    vae = right_vae(TRUTH)
    x = torch.zeros(3, 6)
    plain = VAE(VAEConfig(x_shape=(6,), latent_dim=1, likelihood="gaussian"))
    with pytest.raises(ValueError, match=r"likelihood 'gaussian' states no noise.*VAEConfig\(noise="):
        denoise(plain, x)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 1.5"):
        denoise(vae, x, level=1.5)
    with pytest.raises(ValueError, match=r"level 0.9 requires num_draws of at least 19, got 18"):
        denoise(vae, x, num_draws=18)
    denoise(vae, x, num_draws=19)
    with pytest.raises(ValueError, match="keep_draws is between 0 and num_draws = 100, got 101"):
        denoise(vae, x, num_draws=100, keep_draws=101)
    with pytest.raises(ValueError, match=r"\(datum, 6\) expected"):
        denoise(vae, torch.zeros(3, 5))
    counts = VAE(VAEConfig(x_shape=(4,), latent_dim=1, noise="poisson:peak=3,deterministic=true"))
    with pytest.raises(ValueError, match="makes integer counts from 0 up, got"):
        denoise(counts, torch.full((2, 4), 0.5))


def test_a_fit_of_noisy_data_alone_recovers_the_scale_of_the_clean_signal() -> None:
    """Maximum likelihood: clean variance = mean minor eigenvalue of the noisy covariance - variance of the noise."""
    _, noisy = pairs(TRUTH, 1500, seed=11)
    values = torch.linalg.eigvalsh(torch.cov(noisy.T, correction=0))
    optimum = float(values[:4].mean()) - NOISE_VARIANCE
    vae = VAE(
        VAEConfig(
            x_shape=(6,),
            latent_dim=2,
            likelihood="gaussian",
            noise={"name": "gaussian", "scale": NOISE_VARIANCE**0.5},
            posterior="full_rank",
            encoder="mlp:hidden=[]",
        ),
        seed=1,
    )
    config = FitConfig(
        epochs=90, batch_size=300, optimizer="adam:lr=0.04", schedule="cosine", patience=None, compile=False
    )
    fit(vae, noisy.float(), config=config, seed=1, progress=False)
    found = float(vae.model.likelihood.signal.loc_scale(torch.zeros(1, 1, 6))[1].detach()) ** 2
    # The optimum is known; the steps' noise is what is left of it, and far below the distance to any other answer.
    assert abs(found - optimum) < 0.04
    assert abs(optimum - CLEAN_VARIANCE) < 5 * 0.8 * (2 / (1500 * 4)) ** 0.5
    gain = evaluate(vae, noisy.float(), num_draws=50)
    assert gain.log_px.mean() == pytest.approx(float(-0.5 * (6 * np.log(2 * np.pi) + 6)) - 0.5 * float(
        torch.cat([values[:4].mean().expand(4), values[4:]]).log().sum()), abs=0.02)  # fmt: skip


def test_psnr_is_what_it_says() -> None:
    clean = np.zeros((4, 2, 2))
    estimate = clean + np.array([0.1, 0.1, 0.2, 0.2])[:, None, None]
    found = psnr(clean, estimate, data_range=1)
    assert found.value == pytest.approx(10 * np.log10(1 / 0.025))
    assert psnr(clean, estimate, data_range=16).value == pytest.approx(found.value + 20 * np.log10(16))
    assert psnr(clean, clean, data_range=1).value == np.inf
    skimage = importlib.import_module("skimage.metrics")
    assert found.value == pytest.approx(skimage.peak_signal_noise_ratio(clean, estimate, data_range=1))
    broken = np.where(np.arange(16).reshape(4, 2, 2) == 0, np.nan, clean)
    for truth, other, data_range, message in (
        (clean, estimate[:2], 1.0, "must have one shape"),
        (clean, estimate, 0.0, "above 0"),
        (clean, estimate, np.inf, "finite and above 0; got inf"),
        (clean, estimate, np.nan, "finite and above 0; got nan"),
        (broken, estimate, 1.0, "clean data are finite numbers, and 1 of them"),
        (clean, broken, 1.0, "estimates are finite numbers, and 1 of them"),
    ):
        with pytest.raises(ValueError, match=message):
            psnr(truth, other, data_range=data_range)
    shared = psnr(clean, estimate, data_range=1, mean_se=np.full(clean.shape, 0.05))
    assert shared.monte_carlo == pytest.approx(0.1)
    with pytest.raises(ValueError, match="same data"):
        found.minus(psnr(clean, estimate, data_range=2))


def test_the_error_of_a_psnr_is_that_of_other_data() -> None:
    """1,000 samples of 200 data: |z| < 1.96 in 95 % within 5 binomial errors; so for a difference on the same data."""
    random = np.random.default_rng(0)
    scores, differences = [], []
    for _ in range(1000):
        common = random.gamma(4.0, 1.0, 200)
        one = PSNR(common * random.gamma(10.0, 0.1, 200), 1.0)
        two = PSNR(2 * common * random.gamma(10.0, 0.1, 200), 1.0)
        scores.append((one.value - 10 * np.log10(1 / 4.0)) / one.error)
        more, error = one.minus(two)
        differences.append((more - 10 * np.log10(2)) / error)
        assert error < 0.8 * np.hypot(one.error, two.error)
    for z in (scores, differences):
        assert abs((np.abs(z) < 1.96).mean() - 0.95) < 5 * (0.95 * 0.05 / 1000) ** 0.5 + 0.005  # t, not normal, at 199


def shares(pit: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    place = np.minimum((pit * 10).astype(int), 9)
    return np.stack([(place == k).mean(1) for k in range(10)], 1)


def made_of(pit: np.ndarray[Any, Any]) -> DenoisingCalibration:
    inside = ((pit > 0.05) & (pit < 0.95)).mean(1)
    ones = np.ones(len(pit))
    return DenoisingCalibration(inside, inside, shares(pit), ones, ones, 0.9)


def test_uniform_pit_values_that_depend_within_a_datum_are_rejected_as_often_as_promised() -> None:
    """500 samples of 150 data of 64 elements that share a factor: 5 % rejected, between 1e-5 tails of a binomial."""
    from scipy.special import ndtr

    random = np.random.default_rng(1)
    rejected = bent = 0
    for _ in range(500):
        normal = 0.7 * random.standard_normal((150, 1)) + 0.51**0.5 * random.standard_normal((150, 64))
        rejected += made_of(ndtr(normal)).p_uniform < 0.05
        bent += made_of(ndtr(1.25 * normal)).p_uniform < 0.05
    assert binom.ppf(1e-5, 500, 0.05) <= rejected <= binom.ppf(1 - 1e-5, 500, 0.06)
    assert bent > 400  # power against a posterior that is a fifth too narrow


def test_a_right_posterior_of_few_data_is_rejected_as_often_as_promised() -> None:
    """1,000 samples of 150 data that share 0.9 of their variance: a right test fails once in 10^5 of other seeds."""
    from scipy.special import ndtr

    random = np.random.default_rng(2)
    rejected = 0
    for _ in range(1000):
        normal = 0.9**0.5 * random.standard_normal((150, 1)) + 0.1**0.5 * random.standard_normal((150, 64))
        made = made_of(ndtr(normal))
        rejected += replace(made, square=(normal**2).mean(1)).rejected
    assert binom.ppf(1e-5, 1000, 0.04) <= rejected <= binom.ppf(1 - 1e-5, 1000, 0.055)
    # Two-sided at 3 errors, 4 degrees of freedom: closed form, where a normal would give 0.0027.
    assert p_of_difference(3.0, 1.0, 5) == pytest.approx(0.039942, abs=1e-5)
    assert p_of_difference(0.0, 0.0, 5) == 1.0
    assert p_of_difference(0.1, 0.0, 5) == 0.0


def test_a_deviation_without_variance_is_the_clearest_there_is() -> None:
    """A pseudoinverse leaves such a direction out: all values in one bin, or none in a bin, would pass."""
    random = np.random.default_rng(3)
    pit = random.random((200, 40))
    assert made_of(np.full((200, 64), 0.999)).p_uniform == 0
    assert made_of(np.where(pit < 0.1, pit + 0.1, pit)).p_uniform == 0  # the first bin is empty
    even = np.tile((np.arange(40) + 0.5) / 40, (200, 1))
    assert made_of(even).p_uniform == 1
    # The first bin has its share of every datum: 8 directions are left of 9, and T^2 is that of the eight bins.
    fixed = np.concatenate([np.full((200, 4), 0.05), 0.1 + 0.9 * pit[:, 4:]], axis=1)
    left = shares(fixed)[:, 1:-1]
    off = left.mean(0) - 0.1
    t_square = 200 * off @ np.linalg.inv(np.cov(left.T)) @ off
    assert made_of(fixed).p_uniform == pytest.approx(f_law.sf(t_square * 192 / (8 * 199), 8, 192), rel=1e-9)
    assert np.isnan(made_of(pit[:9]).p_uniform)


def test_calibration_refuses_what_it_cannot_judge() -> None:
    clean, noisy = pairs(TRUTH, 150, seed=1)
    vae = right_vae(TRUTH)
    with pytest.raises(ValueError, match="clean data are finite numbers, and 2 of them are not"):
        calibrate_denoising(vae, noisy, torch.where(torch.arange(900).reshape(150, 6) < 2, torch.nan, clean))
    with pytest.raises(ValueError, match="num_bins must be at least 2, got 1"):
        calibrate_denoising(vae, noisy, clean, num_bins=1)
    with pytest.raises(ValueError, match="in 10 bins requires at least 150 data, got 149"):
        calibrate_denoising(vae, noisy[:149], clean[:149])
    with pytest.raises(ValueError, match="in 11 bins requires at least 165 data, got 150"):
        calibrate_denoising(vae, noisy, clean, num_bins=11)


def test_a_comparison_with_filters_refuses_incomplete_data() -> None:
    """A filter would see what stands in the place of a missing element."""
    clean, noisy = pairs(TRUTH, 150, seed=1)
    vae = right_vae(TRUTH)
    mask = torch.ones_like(noisy, dtype=torch.bool)
    mask[3, 1:3] = False
    for given in (Split(noisy, mask=mask), torch.where(mask, noisy, torch.nan)):
        with pytest.raises(ValueError, match=r"requires complete data, and 2 are missing; .* or call denoise\(\)"):
            check_denoising(vae, given, clean, data_range=1)
    whole = check_denoising(vae, Split(noisy, mask=torch.ones_like(mask)), clean, data_range=1, num_draws=19)
    assert whole.noisy.value == pytest.approx(psnr(clean.numpy(), noisy.numpy(), data_range=1).value)


def smooth_images(size: int) -> Tensor:
    """Blobs at random places of 16 x 16 pixels, full intensity 1."""
    with seeded(3):
        places = 4 + 8 * torch.rand(size, 2, 1, 1)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return torch.exp(-((y - places[:, :1, 0]) ** 2 + (x - places[:, 1:, 0]) ** 2) / 12).unsqueeze(1)


def test_every_filter_is_better_than_nothing_at_its_best_options() -> None:
    clean = smooth_images(8)
    noisy = add_noise(clean, "gaussian:scale=0.2", seed=4)
    before = psnr(clean.numpy(), noisy.numpy(), data_range=1)
    for name in available_filters():
        tuned = tune_filter(name, noisy[:3].numpy(), clean[:3].numpy(), data_range=1)
        after = psnr(clean[4:].numpy(), tuned(noisy[4:].numpy()), data_range=1)
        assert after.value > before.value + 1.5, str(tuned)
        errors = [
            ((filtered(name, options, noisy[:3].numpy(), data_range=1) - clean[:3].numpy()) ** 2).mean()
            for options in list(FILTERS[name].options())[:3]
        ]
        assert tuned.mean_squared_error <= min(errors) + 1e-12
    # A range of 16 is a change of units alone.
    tuned = tune_filter("tv_chambolle", 16 * noisy[:3].numpy(), 16 * clean[:3].numpy(), data_range=16)
    one = filtered("tv_chambolle", tuned.options, noisy[4:].numpy(), data_range=1)
    np.testing.assert_allclose(tuned(16 * noisy[4:].numpy()), 16 * one, atol=1e-6)


def test_a_transform_of_counts_is_undone() -> None:
    """A filter that does nothing gives the counts back, but for what makes the inverse unbiased on average: 1/4."""
    clean = smooth_images(3).numpy()
    counts = add_noise(torch.as_tensor(clean), "poisson:peak=20", seed=5).numpy() / 20
    same = filtered("gaussian", {"sigma": 1e-6}, counts, data_range=1, peak=20)
    np.testing.assert_allclose(same, counts + 0.25 / 20, atol=1e-6)


def test_filters_refuse_other_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown filter 'mean'; choose from gaussian"):
        filtered("mean", {}, np.zeros((2, 4, 4)), data_range=1)
    with pytest.raises(ValueError, match=r"got \(2, 4\)"):
        filtered("gaussian", {"sigma": 1}, np.zeros((2, 4)), data_range=1)
    images = np.zeros((3, 4, 4))
    for clean in (images[:, None], images[:1]):  # each would broadcast
        with pytest.raises(ValueError, match=r"must have one shape, got \(3, 4, 4\)"):
            tune_filter("gaussian", images, clean, data_range=1)
    for noisy, clean in ((images + np.nan, images), (images, images + np.inf)):
        with pytest.raises(ValueError, match="are finite numbers"):
            tune_filter("gaussian", noisy, clean, data_range=1)

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"pip install 'vae_pyro\[imaging\]'"):
        available_filters()


def test_a_check_compares_the_vae_with_filters_and_says_so(tmp_path: Path) -> None:
    """Blobs have two numbers each, which a VAE of noisy blobs alone learns; filters of one image cannot know them."""
    clean = smooth_images(600)
    noisy = add_noise(clean, "gaussian:scale=0.3", seed=6)
    vae = VAE(
        VAEConfig(
            x_shape=(1, 16, 16),
            latent_dim=3,
            likelihood="gaussian",
            noise="gaussian:scale=0.3",
            encoder="mlp:hidden=[64]",
        )
    )
    fit(
        vae,
        noisy[:400],  # the others are scored, and are not to be trained on
        config=FitConfig(epochs=30, optimizer="adam:lr=0.005", patience=None, compile=False),
        progress=False,
    )
    check = check_denoising(
        vae, noisy[400:], clean[400:], data_range=1, validation=(noisy[:10].numpy(), clean[:10].numpy()),
        filters=("gaussian", "median"), num_draws=100, seed=1,
    )  # fmt: skip
    assert check.vae.value > check.best_filter[1].value > check.noisy.value  # type: ignore[index]
    assert check.noisy.value == pytest.approx(10 * np.log10(1 / 0.09), abs=0.3)
    verdicts = {verdict.name: verdict for verdict in check.verdicts}
    assert verdicts["denoising_psnr"].outcome == "pass"
    assert len(verdicts) == 5
    assert "VAE, posterior mean" in str(check)
    assert check.rows()[0][0] == "VAE, posterior mean"
    assert check.summary()["psnr_gaussian"] == check.filters[0][1].value
    from analysis.plotting.style import save
    from analysis.tasks.denoising.plot import plot_calibration, plot_denoised

    found = check.denoised
    for name, figure in {
        "pictures": plot_denoised(noisy[400:].numpy(), found.mean, found.sd, clean=clean[400:].numpy()),
        "rows": plot_denoised(
            noisy[400:403].flatten(1).numpy(), found.mean[:3].reshape(3, -1), found.sd[:3].reshape(3, -1)
        ),
        "calibration": plot_calibration(*check.calibration.histogram),
    }.items():
        save(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 3000
    with pytest.raises(ValueError, match="shape"):
        plot_denoised(noisy[:2].numpy(), found.mean[:3], found.sd[:3])


@pytest.mark.parametrize(
    ("structure", "y"),
    [("bottom_up:latent_dims=[2]", False), ("conditional:num_classes=3", True), ("m2:num_classes=3", True)],
)
def test_other_structures_are_denoised_as_well(structure: str, y: bool) -> None:
    """What is weighted is the decoder's own latent, with its label where it has one: moments of the draws agree."""
    vae = VAE(
        VAEConfig(
            x_shape=(4,),
            latent_dim=2,
            likelihood="gaussian:scale=0.5",
            noise="gaussian:scale=0.5",
            encoder="mlp:hidden=[8]",
            structure=structure,
        ),
        seed=1,
    ).double()
    x = PPCA(TRUTH.weight[:4], TRUTH.mean[:4], 0.5).sample(6, seed=2)
    labels = torch.arange(6) % 3 if y else None
    found = denoise(vae, Split(x, y=labels), num_draws=500, keep_draws=500, seed=3)
    assert found.draws is not None
    size = found.effective_sample_size.min()
    assert (np.abs(found.draws.mean(0) - found.mean) < 5.5 * found.sd / np.sqrt(min(size, 500.0))).all()
    if labels is not None:
        other = denoise(vae, Split(x, y=(labels + 1) % 3), num_draws=500, seed=3)
        assert np.abs(other.mean - found.mean).max() > 0.01


def test_filters_of_counts_are_told_the_peak_at_full_intensity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a count for each of 16 levels is a peak of 8."""
    noise = "poisson:peak=0.5"
    vae = VAE(
        VAEConfig(
            x_shape=(1, 16, 16),
            latent_dim=1,
            likelihood="discretized_logistic:levels=17",
            noise=noise,
            encoder="mlp:hidden=[4]",
        )
    )
    clean = (16 * smooth_images(150)).round()
    noisy = add_noise(clean, noise, seed=1)
    passed: list[float | None] = []

    def tune(*given: Any, peak: float | None, **options: Any) -> Any:
        passed.append(peak)
        return tune_filter(*given, peak=peak, **options)

    monkeypatch.setattr(importlib.import_module("analysis.tasks.denoising.check"), "tune_filter", tune)
    pair = (noisy[:20].numpy(), clean[:20].numpy())
    check = check_denoising(vae, noisy, clean, data_range=16, validation=pair, filters=("gaussian",), num_draws=20)
    assert passed == [8]
    assert check.filters[0][1].value > check.noisy.value + 3


@pytest.mark.parametrize(("level", "num_draws"), [(0.9, 19), (0.9, 199), (0.8, 500), (0.5, 10)])
def test_ends_of_an_interval_hold_the_next_draw_with_the_level(level: float, num_draws: int) -> None:
    """The next of R + 1 exchangeable draws has each rank as often: between two places lie their distance of R + 1."""
    lower, upper = denoising._positions(level, num_draws)
    assert (upper - lower) / (num_draws + 1) == pytest.approx(level)
    assert lower + upper == pytest.approx(num_draws - 1)


def test_resampled_draws_are_in_proportion_to_their_weights_and_in_random_order() -> None:
    weight = torch.full((1000, 3), 0.5 / 999, dtype=torch.float64)
    weight[:1] = 0.5
    with seeded(0):
        chosen = denoising._resampled(weight)
    counts = torch.stack([torch.bincount(column, minlength=1000) for column in chosen.T], 1)
    assert ((counts - 1000 * weight).abs() < 1 + 1e-9).all()  # systematic: within one of what is expected
    first = (chosen[:100] == 0).sum(0)
    assert ((first > 20) & (first < 80)).all()  # 50 in expectation; fails for a random order with probability 1e-9
