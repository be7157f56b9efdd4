"""What judges imputations: accepts those of the true model, and rejects narrow, shifted and overconfident ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.stats.proper_scores import crps
from analysis.stats.proper_scores import pit_of_draws as ranks
from analysis.tasks.imputation.plot import plot_imputations
from analysis.tasks.imputation.quality import imputation_k, imputation_quality
from tests.truths import PPCA
from tests.vae_pyro.applications.test_imputation import TRUTH, hidden, pair
from vae_pyro.applications.imputation import impute
from vae_pyro.applications.imputation_result import Imputation

N = 400


def judged(truth: PPCA, *, stretch: float = 1.3, num_draws: int = 500) -> tuple[Imputation, Tensor]:
    """Data of the true pPCA, imputed by another one."""
    x, mask = TRUTH.sample(N, seed=21), hidden(N, seed=22)
    made = impute(
        pair(truth, stretch), torch.where(mask, x, torch.nan), num_draws=num_draws, num_imputations=19, seed=1
    )
    return made, x


@pytest.fixture(scope="module")
def right() -> tuple[Imputation, Tensor]:
    return judged(TRUTH)


def test_the_true_model_is_accepted(right: tuple[Imputation, Tensor]) -> None:
    made, x = right
    k = imputation_k(pair(TRUTH), torch.where(torch.from_numpy(made.mask), x, torch.nan), num_draws=500, seed=1)
    quality = imputation_quality(made, x, pareto_k=k)
    # Each verdict warns in at most 1 of 100 data sets, beyond its margin in fewer.
    assert quality.outcome == "pass"
    assert {verdict.name for verdict in quality.verdicts} == {
        "imputation_coverage", "imputation_bias", "imputation_spread", "imputation_error", "imputation_pareto_k",
    }  # fmt: skip
    # The error is that of the exact conditional: its variance, and 1 in 500 * 0.8 more for the draws.
    expected = float((made.sd[made.missing] ** 2).mean())
    assert abs(quality.estimates["mse"].value - expected) < 4 * quality.estimates["mse"].error  # type: ignore[operator]
    assert quality.coverage is not None
    assert abs(quality.coverage.value - 0.9) < 4 * quality.coverage.error  # type: ignore[operator]
    # Of a Gaussian, the CRPS is sd / sqrt(pi) on average.
    assert quality.estimates["crps"].value == pytest.approx(
        float((made.sd[made.missing] / np.sqrt(np.pi)).mean()), abs=4 * quality.estimates["crps"].error
    )  # type: ignore[operator]
    assert "coverage of 90% intervals" in str(quality)
    facts = quality.summary()
    assert facts["outcome"] == "pass"
    assert facts["mse_se"] == quality.estimates["mse"].error


def test_a_model_that_is_too_narrow_is_rejected() -> None:
    """Noise of a quarter of the variance: intervals cover about 70 %, more than 20 standard errors below 90 %."""
    made, x = judged(PPCA(TRUTH.weight, TRUTH.mean, TRUTH.variance / 4))
    quality = imputation_quality(made, x)
    verdicts = {verdict.name: verdict for verdict in quality.verdicts}
    assert verdicts["imputation_coverage"].outcome == "fail"
    assert "too narrow" in verdicts["imputation_coverage"].advice
    assert verdicts["imputation_spread"].outcome == "fail"
    assert quality.estimates["pit_spread"].value > 1.2
    assert quality.outcome == "fail"


def test_a_model_that_is_too_wide_is_rejected() -> None:
    made, x = judged(PPCA(TRUTH.weight, TRUTH.mean, TRUTH.variance * 4))
    quality = imputation_quality(made, x)
    verdicts = {verdict.name: verdict for verdict in quality.verdicts}
    assert verdicts["imputation_coverage"].outcome == "fail"
    assert "too wide" in verdicts["imputation_coverage"].advice
    assert verdicts["imputation_spread"].value < 0.8


def test_a_shift_is_seen(right: tuple[Imputation, Tensor]) -> None:
    made, x = right
    moved = replace(made, imputations=made.imputations + 0.3 * made.sd)
    verdicts = {verdict.name: verdict for verdict in imputation_quality(moved, x).verdicts}
    assert verdicts["imputation_bias"].outcome == "fail"
    assert "too high" in verdicts["imputation_bias"].advice


def test_errors_count_data_and_not_elements() -> None:
    """300 repetitions of 40 data whose 10 errors are one number each: the error is that of 40, not of 400."""
    random = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        x = np.repeat(random.normal(size=(40, 1)), 10, 1)
        made = _imputation(np.zeros((40, 10)), np.ones((40, 10)))
        quality = imputation_quality(made, x)
        means.append(quality.estimates["mse"].value)
        errors.append(quality.estimates["mse"].error)
    # A standard deviation from 300 repetitions has a relative error of 4 % and more of a skew statistic: 6 of them.
    assert np.std(means) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.3)
    assert np.std(means) > 2 * np.sqrt(2 / 400)


def _imputation(mean: Any, sd: Any, **changes: Any) -> Imputation:
    shape = np.shape(mean)
    return replace(
        Imputation(
            mean=np.asarray(mean, dtype=float),
            sd=np.asarray(sd, dtype=float),
            mean_se=np.zeros(shape),
            lower=None,
            upper=None,
            imputations=np.empty((0, *shape)),
            mask=np.zeros(shape, dtype=bool),
            effective_sample_size=np.full(shape[0], 100.0),
            ids=np.arange(shape[0]),
            level=None,
            num_draws=100,
        ),
        **changes,
    )


def test_probabilities_are_judged_by_what_happens() -> None:
    random = np.random.default_rng(3)
    p = random.random((500, 8))
    x = (random.random(p.shape) < p).astype(float)
    quality = imputation_quality(_imputation(p, np.sqrt(p * (1 - p))), x)
    assert quality.kind == "binary"
    assert quality.outcome == "pass"
    brier, score = quality.estimates["brier"], quality.estimates["log_score"]
    assert abs(brier.value - 1 / 6) < 4 * brier.error  # type: ignore[operator]
    assert abs(score.value + 0.5) < 4 * score.error  # type: ignore[operator]
    # Odds to the power of 2: overconfident.
    sure = p**2 / (p**2 + (1 - p) ** 2)
    verdicts = imputation_quality(_imputation(sure, np.sqrt(sure * (1 - sure))), x).verdicts
    assert (verdicts[0].name, verdicts[0].outcome) == ("imputation_probability", "fail")
    assert "overconfident" in verdicts[0].advice


def test_classes_have_an_error_rate() -> None:
    mean, x = np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    quality = imputation_quality(_imputation(mean, np.full((2, 2), np.nan)), x)
    assert quality.kind == "classes"
    assert quality.estimates["error_rate"].value == 0.25


def test_only_what_is_asked_for_and_known_is_judged() -> None:
    x = np.array([[0.5, np.nan], [1.5, 3.0], [2.5, 9.0]])
    made = _imputation(np.zeros((3, 2)), np.ones((3, 2)))
    assert imputation_quality(made, x).num_elements == 5
    scored = np.array([[True, True], [True, False], [False, False]])
    quality = imputation_quality(made, x, scored=scored)
    assert quality.num_elements == 2
    assert quality.estimates["mse"].value == pytest.approx((0.25 + 2.25) / 2)


def test_crps_and_ranks_of_draws_of_the_truth() -> None:
    random = np.random.default_rng(5)
    draws, x = random.normal(size=(10, 20_000)), random.normal(size=20_000)
    score = crps(draws, x)
    # E = 1 / sqrt(pi) whatever the number of draws; 20,000 independent scores.
    assert abs(score.mean() - 1 / np.sqrt(np.pi)) < 4.5 * score.std() / np.sqrt(20_000)
    pair_of = crps(draws[:2], x)
    assert abs(pair_of.mean() - 1 / np.sqrt(np.pi)) < 4.5 * pair_of.std() / np.sqrt(20_000)
    u = ranks(draws, x, seed=0)
    assert abs(u.mean() - 0.5) < 4.5 / np.sqrt(12 * 20_000)
    assert abs(((u - 0.5) ** 2).mean() - 1 / 12) < 4.5 * np.sqrt(1 / 180 / 20_000)
    tied = ranks(np.zeros((9, 20_000)), np.zeros(20_000), seed=1)  # ties leave it uniform
    assert abs(((tied - 0.5) ** 2).mean() - 1 / 12) < 4.5 * np.sqrt(1 / 180 / 20_000)


def test_a_guide_that_misses_is_seen_by_its_weights() -> None:
    """A guide of a quarter of the posterior's width: k = 1 - 1/16 of each weight's tail, above 0.7."""
    x, mask = TRUTH.sample(60, seed=3), hidden(60, seed=4)
    narrow = imputation_k(pair(TRUTH, stretch=0.25), x, mask=mask, num_draws=1000, seed=0)
    wide = imputation_k(pair(TRUTH, stretch=1.3), x, mask=mask, num_draws=1000, seed=0)
    assert len(narrow) == int((~mask.all(1)).sum())
    assert (narrow > 0.7).mean() > 0.5
    assert (wide < 0.5).all()
    made = impute(pair(TRUTH, stretch=0.25), x, mask=mask, num_draws=1000, seed=0)
    verdict = {v.name: v for v in imputation_quality(made, x, pareto_k=narrow).verdicts}["imputation_pareto_k"]
    assert verdict.outcome == "fail"


def test_tied_weights_are_judged_by_their_effective_draws(right: tuple[Imputation, Tensor]) -> None:
    """No tail can be fitted to ties, as of discrete latents: k-hat is NaN, and half of the draws are effective here."""
    made, x = right
    incomplete = ~np.isnan(made.effective_sample_size)
    tied = np.full(int(incomplete.sum()), np.nan)
    poor = replace(made, effective_sample_size=np.where(incomplete, 50.0, np.nan))
    for imputation, outcome in ((made, "pass"), (poor, "fail")):
        quality = imputation_quality(imputation, x, pareto_k=tied)
        assert {v.name: v.outcome for v in quality.verdicts}["imputation_pareto_k"] == outcome
    with pytest.raises(ValueError, match=r"pareto_k has shape \(3,\).*analysis\.imputation_k at the same data"):
        imputation_quality(made, x, pareto_k=tied[:3])


def test_errors_of_weights_that_have_collapsed_are_not_believed() -> None:
    """A guide far from the posterior: one draw has all the weight, and so no Monte Carlo error to show."""
    x, mask = TRUTH.sample(60, seed=3), hidden(60, seed=4)
    model, guide = pair(TRUTH, stretch=0.2)

    def far(x: Tensor, **given: Any) -> Any:
        return guide(x + 6, **given)

    for programs, outcome in ((pair(TRUTH), "pass"), ((model, far), "fail")):
        made = impute(programs, x, mask=mask, num_draws=500, seed=0)
        verdict = {v.name: v for v in imputation_quality(made, x).verdicts}["imputation_error"]
        assert verdict.outcome == outcome
        assert ("fewer than 10 effective draws" in verdict.advice) == (outcome == "fail")
        assert ("itself uncertain" in str(made)) == (outcome == "fail")


def test_intervals_of_counts_may_hold_more_than_they_promise() -> None:
    """Quantiles of a Poisson of mean 2 hold 0 to 5, which is 0.98; ranks, with ties broken, say that all is well."""
    random = np.random.default_rng(0)
    truth = random.poisson(2.0, (500, 1)).astype(float)
    made = replace(
        _imputation(np.full((500, 1), 2.0), np.full((500, 1), 2**0.5)),
        lower=np.full((500, 1), 0.0), upper=np.full((500, 1), 5.0), level=0.9,
        imputations=random.poisson(2.0, (19, 500, 1)).astype(float),
    )  # fmt: skip
    verdicts = {v.name: v.outcome for v in imputation_quality(made, truth, kind="continuous").verdicts}
    assert verdicts["imputation_coverage"] == verdicts["imputation_spread"] == "pass"
    narrow = replace(made, upper=np.full((500, 1), 2.0))  # 0.68
    assert imputation_quality(narrow, truth, kind="continuous").outcome == "fail"


def test_refusals() -> None:
    made = _imputation(np.zeros((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"truth has shape \(3, 1\)"):
        imputation_quality(made, np.zeros((3, 1)))
    with pytest.raises(ValueError, match="scored has shape"):
        imputation_quality(made, np.zeros((3, 2)), scored=np.ones((2, 2)))
    with pytest.raises(ValueError, match="fewer than 2 data"):
        imputation_quality(made, np.full((3, 2), np.nan))
    mixed = _imputation(np.zeros((3, 2)), [[np.nan, 1.0]] * 3)
    with pytest.raises(ValueError, match="judge them apart"):
        imputation_quality(mixed, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="nothing is missing"):
        imputation_k(pair(TRUTH), TRUTH.sample(3, seed=0))


def test_pictures_of_imputations(right: tuple[Imputation, Tensor]) -> None:
    made, x = right
    figure = plot_imputations(x.numpy(), made.mask, made.mean, lower=made.lower, upper=made.upper)
    axes = figure.axes[0]
    drawn = sum(len(lines.get_segments()) for lines in axes.collections if hasattr(lines, "get_segments"))
    assert drawn == 400  # intervals that hold the truth, and those that do not
    random = np.random.default_rng(0)
    images, mask = random.random((12, 8, 8)), random.random((12, 8, 8)) < 0.7
    figure = plot_imputations(images, mask, images, np.stack([images, images]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "x", "observed", "mean", "draw 1", "draw 2",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="nothing was imputed"):
        plot_imputations(images, np.ones_like(mask), images)
    with pytest.raises(ValueError, match="mean has shape"):
        plot_imputations(images, mask, images[:5])
