"""Disentanglement scores: their known values on perfect, rotated and random codes, their errors, and their refusals.

Also covers `analysis.latent.factor_scores`.
"""

import json
from itertools import product
from math import asin, log, pi, sqrt
from typing import Any

import numpy as np
import pytest

from analysis.draws.codes import posterior_means
from analysis.latent.disentanglement.forests import dci
from analysis.latent.disentanglement.mutual_information import factor_information, mig, modularity
from analysis.latent.disentanglement.predictability import factor_vae_score, sap
from analysis.latent.disentanglement.suite import disentanglement, rotated
from analysis.latent.similarity import udr
from vae_pyro import VAE, FitConfig, VAEConfig, fit, load_data
from vae_pyro.data.sprites import SpriteGrid

type Array = np.ndarray[Any, Any]


def grid(*levels: int, repeats: int = 1) -> Array:
    """Every combination of levels, ``repeats`` times: factors are exactly independent."""
    return np.repeat(np.array(list(product(*map(range, levels)))), repeats, axis=0)


FACTORS = grid(3, 6, 5, repeats=8)  # 720 data
RANDOM = np.random.default_rng(0).normal(size=(len(FACTORS), 4))
# Each factor in a latent of its own, in another order, sign and unit, beside a latent that knows nothing.
PERFECT = np.column_stack([FACTORS[:, 2] * -2.0, RANDOM[:, 0], FACTORS[:, 0] + 5.0, FACTORS[:, 1] / 3])
# Two binary factors a and b as a + b and a - b: both latents know as much of both.
BINARY = grid(2, 2, repeats=200)
ROTATED = np.column_stack([BINARY.sum(1), BINARY[:, 0] - BINARY[:, 1]]).astype(float)


def test_perfect_codes_have_every_score_at_its_best() -> None:
    """Exact: on a balanced grid other factors carry nothing; noise has a little information, which MIG pays for."""
    alone = PERFECT[:, [0, 2, 3]]
    assert mig(alone, FACTORS, num_resamples=0).value == pytest.approx(1)
    assert mig(alone, FACTORS, num_resamples=0).parts == pytest.approx([1, 1, 1])
    assert sap(alone, FACTORS, num_resamples=0).value == pytest.approx(1)
    # Shape in three classes is told without error; a latent that knows nothing has a balanced accuracy of one third.
    assert sap(alone, FACTORS, categorical=[0], num_resamples=0).parts == pytest.approx([2 / 3, 1, 1])
    assert modularity(alone, FACTORS, num_resamples=0).value == pytest.approx(1)
    assert factor_vae_score(PERFECT, FACTORS).value == 1
    assert mig(PERFECT, FACTORS).value > 0.98
    measured = dci(PERFECT, FACTORS)
    assert measured.disentanglement == pytest.approx(1, abs=0.01)
    assert measured.completeness == pytest.approx(1, abs=0.01)
    assert measured.informativeness == 1
    assert measured.importance.argmax(0).tolist() == [2, 3, 0]


def test_rotated_codes_have_every_score_at_its_worst() -> None:
    """I(a + b; a) = log(2) / 2 for both latents and both factors; R squared is 1/2; a fixed factor halves both."""
    np.testing.assert_allclose(factor_information(ROTATED, BINARY), 0.5 * log(2), rtol=1e-12)
    assert mig(ROTATED, BINARY, num_resamples=0).value == pytest.approx(0, abs=1e-12)
    assert modularity(ROTATED, BINARY, num_resamples=0).value == pytest.approx(0, abs=1e-12)
    score = sap(ROTATED, BINARY, num_resamples=0)
    np.testing.assert_allclose(score.matrix, 0.5)
    assert score.value == pytest.approx(0, abs=1e-12)
    votes = factor_vae_score(ROTATED, BINARY, num_votes=4000, num_held_out=4000)
    assert abs(votes.value - 0.5) < 5 * 0.5 / sqrt(4000)  # 6e-7
    measured = dci(ROTATED, BINARY)
    assert measured.informativeness == 1  # nothing is lost
    assert measured.disentanglement < 0.15
    assert measured.completeness < 0.15


def test_random_codes_know_nothing() -> None:
    """MIG and SAP of 720 random codes are differences of maxima of noise, far below 0.02; votes are at chance."""
    assert mig(RANDOM, FACTORS, num_resamples=0).value < 0.02
    assert sap(RANDOM, FACTORS, num_resamples=0).value < 0.02
    assert abs(factor_vae_score(RANDOM, FACTORS).value - 1 / 3) < 0.1
    noise = modularity(RANDOM, FACTORS)
    assert np.isnan(noise.value)
    assert np.isnan(noise.parts).all()
    measured = dci(RANDOM, FACTORS)
    assert abs(measured.informativeness - measured.chance) < 5 * measured.informativeness_se
    assert measured.disentanglement < 0.3


def test_modularity_leaves_out_what_knows_nothing() -> None:
    both = modularity(PERFECT, FACTORS)
    assert both.value == pytest.approx(1, abs=1e-3)
    assert np.isnan(both.parts).tolist() == [False, True, False, False]
    # A latent that holds two factors of equal entropy: 1 - 1 / (3 - 1) = 1/2 for three factors.
    three = grid(4, 4, 4, repeats=4)
    score = modularity((three[:, 0] + 4 * three[:, 1])[:, None], three, num_resamples=0)
    assert score.value == pytest.approx(0.5, abs=1e-9)


def test_information_is_corrected_for_its_bias() -> None:
    """A channel of known information: the mean of 1,000 estimates is within 4 of its errors (6e-5)."""
    levels, kept, n = 4, 0.7, 200
    joint = np.full((levels, levels), (1 - kept) / levels**2) + kept * np.eye(levels) / levels
    truth = float((joint * np.log(joint * levels**2)).sum())
    random = np.random.default_rng(1)
    estimates = []
    for _ in range(1000):
        factor = random.integers(levels, size=n)
        code = np.where(random.random(n) < kept, factor, random.integers(levels, size=n))
        estimates.append(factor_information(code[:, None], factor[:, None])[0, 0])
    error = np.std(estimates) / sqrt(1000)
    assert abs(np.mean(estimates) - truth) < 4 * error
    assert (levels - 1) ** 2 / (2 * n) > 8 * error  # the bias of the plug-in estimate would be seen


@pytest.mark.parametrize("score", [mig, sap, modularity])
def test_standard_errors_are_those_of_repeated_sampling(score: Any) -> None:
    """The spread of 60 repetitions has a relative error of 9 %; that of halves agrees within 4 of them."""
    random = np.random.default_rng(2)
    mixing = np.array([[1.0, 0.4, 0.0], [0.2, 1.0, 0.3]])
    values, errors = [], []
    for repetition in range(60):
        factors = random.integers(5, size=(400, 2))
        codes = factors @ mixing + random.normal(size=(400, 3))
        result = score(codes, factors, num_resamples=20, seed=repetition)
        values.append(result.value)
        errors.append(result.se)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=0.36)


def test_forests_do_not_credit_noise() -> None:
    """A factor that no latent tells takes no importance away from the latents of the others."""
    factors = np.column_stack([FACTORS, np.random.default_rng(3).integers(4, size=len(FACTORS))])
    codes = PERFECT + 0.3 * np.random.default_rng(4).normal(size=PERFECT.shape) * PERFECT.std(0)
    measured = dci(codes, factors)
    assert (measured.importance[:, :3].max(0) > 0.9).all()
    assert measured.disentanglement_se is not None
    assert measured.disentanglement_se < 0.1
    assert dci(codes, factors, num_bootstrap=0).completeness_se is None


def test_udr_of_models_that_agree_or_are_rotated() -> None:
    """Permuted and flipped latents score 1. Two Gaussian axes turned by 45 degrees: every Spearman correlation is
    6/pi asin(r / 2) at r = 1/sqrt 2, and two equal ones score half of it; its error over 20,000 data is 0.005."""
    random = np.random.default_rng(5)
    z = random.normal(size=(20_000, 2))
    idle = 0.01 * random.normal(size=(20_000, 1))
    same = udr([z, z[:, ::-1] * [-1, 2], np.column_stack([z, idle])])
    assert same.value == pytest.approx(1, abs=0.02)  # chance correlations of the two axes are not quite 0
    assert np.isnan(np.diag(same.matrix)).all()
    turned = udr([z, np.column_stack([z.sum(1), z[:, 0] - z[:, 1]])])
    assert turned.value == pytest.approx(6 / pi * asin(sqrt(0.5) / 2) / 2, abs=0.02)
    assert udr([z, random.normal(size=(20_000, 2))]).value < 0.03
    # The median over partners: two models agree, the third is turned.
    third = udr([z, z * [1, -1], z[:, ::-1], np.column_stack([z.sum(1), z[:, 0] - z[:, 1]])])
    assert third.parts[:3] == pytest.approx(np.ones(3), abs=0.02)
    assert third.parts[3] < 0.4
    assert third.se is not None
    # Latents that count may be named; a model without any scores 0.
    assert udr([z, np.column_stack([z, idle])], informative=[[True, True], [True, True, True]]).value < 0.99
    assert udr([z, idle]).value == 0


def test_rotations_are_a_level_test() -> None:
    """Codes on axes at random lead 19 rotations in 1 of 20: of 80, more than 11 with probability 1e-3."""
    random = np.random.default_rng(6)
    factors = grid(4, 4, repeats=8)
    z = (factors - factors.mean(0)) / factors.std(0)
    led = 0
    for repetition in range(80):
        angle = random.uniform(0, 2 * pi)
        turned = z @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

        def gap(codes: Array) -> float:
            return mig(codes, factors, num_resamples=0).value

        led += bool(gap(turned) > rotated(gap, turned, num_rotations=19, seed=repetition).max())
    assert led <= 11


@pytest.mark.slow
def test_all_scores_of_aligned_and_of_random_axes() -> None:
    noise = 0.2 * RANDOM
    codes = (PERFECT - PERFECT.mean(0)) / PERFECT.std(0) + noise
    collapsed = np.column_stack([codes, 1e-3 * FACTORS[:, :1]])  # it knows the shape, within the posterior's noise
    names = ("shape", "scale", "rotation")
    good = disentanglement(collapsed, FACTORS, factor_names=names, num_resamples=10)
    assert good.active.tolist() == [0, 1, 2, 3]
    assert [verdict.outcome for verdict in good.verdicts] == ["pass", "pass"]
    assert good.p_value == 0.01
    assert good.mig.value > good.threshold
    assert "the axes are more aligned with the factors than random axes" in " ".join(str(good).split())
    assert "shape" in str(good)
    assert json.loads(json.dumps(good.summary()))["n"] == len(FACTORS)
    again = disentanglement(collapsed, FACTORS, factor_names=names, num_resamples=10)
    assert good.summary() == again.summary()
    assert disentanglement(collapsed, FACTORS, num_resamples=10, seed=1).summary() != again.summary()

    matrix = np.linalg.qr(np.random.default_rng(7).normal(size=(4, 4)))[0]
    bad = disentanglement(codes @ matrix, FACTORS, factor_names=names, num_resamples=0)
    assert [verdict.outcome for verdict in bad.verdicts] == ["pass", "warn"]
    assert bad.mig.se is None
    assert "no more aligned with the factors than random axes" in " ".join(str(bad).split())
    nothing = disentanglement(RANDOM, FACTORS, num_resamples=0)
    assert nothing.verdicts[0].outcome == "fail"
    assert nothing.summary()["modularity"] is None
    single = disentanglement(codes[:, :1], FACTORS[:, :1], num_resamples=0)
    assert single.verdicts[1].outcome == "warn"
    assert single.summary()["mig_p_value"] is None


@pytest.mark.slow
def test_beta_tcvae_beats_the_plain_vae_on_sprites() -> None:
    """Of three seeds each the fit with the best training bound, since some end in a worse optimum with turned axes.

    Two of five seeds of beta-TCVAE ended so when this was measured; the bound tells them without the factors.
    """
    data = load_data("sprites", validation_fraction=0)
    factors = SpriteGrid().factors_of(data.test.ids.numpy())
    config = VAEConfig(x_shape=data.x_shape, latent_dim=8, likelihood="bernoulli", encoder="mlp:hidden=[400,400,400]")
    best = {}
    for objective in ("elbo", f"beta_tcvae:dataset_size={len(data.train)},beta=6"):
        fits = []
        for seed in (2, 3, 4):
            settings = FitConfig(epochs=80, batch_size=128, optimizer="adam:lr=1e-3", objective=objective)
            result = fit(VAE(config, seed=seed), data.train, config=settings, seed=seed, progress=False)
            fits.append((result.history[-1]["bound"], result.vae))
        _, vae = max(fits, key=lambda fitted: fitted[0])
        codes = posterior_means(vae, data.test)
        best[objective.partition(":")[0]] = mig(codes[:, codes.var(0) > 0.01], factors)
    plain, ours = best["elbo"], best["beta_tcvae"]
    assert plain.se is not None
    assert ours.se is not None
    assert ours.value - plain.value > 5 * np.hypot(ours.se, plain.se)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mig(RANDOM[:5], FACTORS), r"of the same data required, got \(5, 4\) and \(720, 3\)"),
        (lambda: mig(RANDOM * np.nan, FACTORS), "2880 codes are not finite"),
        (lambda: mig(RANDOM, FACTORS + 0.5), "factors are levels 0, 1, 2"),
        (lambda: mig(RANDOM, FACTORS * [1, 0, 1]), "factor 1 has one value in all 720 data; leave it out"),
        (lambda: modularity(RANDOM, FACTORS[:, :1]), "modularity compares factors, got one"),
        (lambda: sap(RANDOM, FACTORS, categorical=[3]), "categorical column 3 of 3 factors"),
        (lambda: factor_vae_score(RANDOM, FACTORS, group=1), "a group of at least 2 data, got 1"),
        (lambda: factor_vae_score(RANDOM * 0, FACTORS), "no latent varies over the data"),
        (lambda: dci(RANDOM[:10], FACTORS[::72]), "requires at least 20, got 10"),
        (lambda: udr([RANDOM]), "at least 2 models, got 1"),
        (lambda: udr([RANDOM, RANDOM[:9]]), "of the same data required"),
        (lambda: rotated(lambda z: 0.0, RANDOM[:, :1]), "at least 2 latents that vary, got 1"),
        (lambda: disentanglement(RANDOM * 1e-3, FACTORS), "the posterior has collapsed"),
        (lambda: disentanglement(RANDOM, FACTORS, factor_names=["a"]), r"3 factors have 1 names \(a\)"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
