"""Held-out log density: exact at the exact posterior, within its error elsewhere, and between its bounds."""

from dataclasses import replace
from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from analysis import elpd, to_datatree
from analysis.density.elpd import elpd_of
from analysis.density.result import ELPD
from analysis.experiments.measurement import measure_run, read_held_out
from analysis.results.verdict import Verdict
from analysis.stats.importance import estimates, log_evidence
from tests.truths import PPCA, example
from vae_pyro import VAE, Dataset, FitConfig, Split, VAEConfig, evaluate, fit, load_data
from vae_pyro.data.dataset import DataConfig
from vae_pyro.runs.folder import RunFolder


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example()


def test_elpd_of_the_exact_posterior_is_exact(truth: PPCA) -> None:
    x = truth.sample(50, seed=3)
    result = elpd(to_datatree(truth.programs(), x, num_draws=100))
    assert result.elpd == pytest.approx(truth.log_evidence(x).sum().item(), abs=1e-8)
    assert result.mcse < 1e-6
    assert (result.pareto_k == -np.inf).all()
    assert result.num_bad == 0
    assert "the guide is close enough to the posterior to estimate the average" in str(result)


def test_elpd_meets_the_truth_within_its_error(truth: PPCA) -> None:
    """A wide guide has bounded weights. |z| < 1.96 for 95 % of 200 data, within 4 binomial errors (6e-5)."""
    x = truth.sample(200, seed=4)
    result = elpd(to_datatree(truth.programs(stretch=1.4), x, num_draws=2000))
    z = (result.pointwise - truth.log_evidence(x).numpy()) / result.pointwise_mcse
    assert abs((np.abs(z) < 1.96).mean() - 0.95) < 4 * (0.95 * 0.05 / 200) ** 0.5
    assert result.num_bad == 0
    assert result.se == pytest.approx(200**0.5 * result.pointwise.std(ddof=1))


def test_k_hat_rejects_a_narrow_guide(truth: PPCA) -> None:
    """Half the posterior's scale has tail index 1 - 0.25 = 0.75: above the threshold, and said so."""
    x = truth.sample(60, seed=5)
    result = elpd(to_datatree(truth.programs(stretch=0.5), x, num_draws=4000))
    assert result.pareto_k.mean() == pytest.approx(0.75, abs=0.15)
    assert result.num_bad > 30
    assert "raise num_draws" in str(result)
    wide = elpd(to_datatree(truth.programs(stretch=1.4), x, num_draws=4000))
    assert wide.num_bad == 0


def test_log_evidence_is_a_stable_log_mean_exp() -> None:
    weight = np.array([[-1e4, 0.0], [-1e4 + np.log(3), 0.0]])
    estimate, error = log_evidence(weight)
    np.testing.assert_allclose(estimate, [-1e4 + np.log(2), 0.0])
    # Two weights 1 and 3: sum w^2 / (sum w)^2 - 1/2 = 10/16 - 1/2.
    np.testing.assert_allclose(error, [0.125**0.5, 0.0], atol=1e-7)


def test_elpd_of_a_tree_wants_its_weights() -> None:
    with pytest.raises(ValueError, match="make it with analysis.to_datatree"):
        elpd(xr.DataTree())
    with pytest.raises(ValueError, match="a tail needs at least 25 draws, got 10; raise num_draws"):
        elpd_of(example().programs(), example().sample(5, seed=0), num_draws=10)


# A guide of the exact mean and s times the exact scale, in q = 2 dimensions: w / p(x) has mean 1 and a closed second
# moment for s^2 > 1/2, and the ELBO is log p(x) - KL(q || p).
STRETCH = 1.4
SECOND_MOMENT = (STRETCH**2 / sqrt(2 * STRETCH**2 - 1)) ** 2
KL = 2 * (0.5 * (STRETCH**2 - 1) - log(STRETCH))


def test_the_sandwich_is_the_closed_form(truth: PPCA) -> None:
    """Averages over 2,000 data of 500 draws within five of their standard errors: wrong in fewer than 1 of 1e6 seeds.

    The bias of CUBO's logarithm, 1/4 Var(w^2) / (E w^2)^2 / 500 = 4e-4, is smaller than its standard error of 6e-4.
    """
    x = truth.sample(2000, seed=6)
    result = elpd_of(truth.programs(stretch=STRETCH), x, num_draws=500, seed=2)
    exact = truth.log_evidence(x).numpy()
    for estimate, offset in ((result.elbo, -KL), (result.upper, 0.5 * log(SECOND_MOMENT)), (result.pointwise, 0.0)):
        error = estimate - exact - offset
        assert abs(error.mean()) < 5 * error.std() / sqrt(len(x))
    mcse = sqrt((SECOND_MOMENT - 1) / 500)
    np.testing.assert_allclose(result.pointwise_mcse.mean(), mcse, rtol=0.02)
    assert (result.elbo <= result.pointwise).all()
    assert (result.pointwise <= result.upper).all()
    np.testing.assert_allclose(result.width, 0.5 * np.log(500 / result.effective_sample_size))


def test_the_bias_is_that_of_few_draws(truth: PPCA) -> None:
    """-Var(w) / (2 K p(x)^2) = -0.0053 nats per datum at K = 30, estimated and true, each within five of its errors."""
    x = truth.sample(20_000, seed=7)
    result = elpd_of(truth.programs(stretch=STRETCH), x, num_draws=30, seed=1)
    first_order = -(SECOND_MOMENT - 1) / (2 * 30)
    error = result.pointwise - truth.log_evidence(x).numpy()
    assert abs(error.mean() - first_order) < 5 * error.std() / sqrt(len(x))
    assert abs(result.bias / len(x) - first_order) < 5 * result.rise.std() / sqrt(len(x))
    assert error.mean() < -5 * error.std() / sqrt(len(x)) / 2  # there is a bias to be seen at all
    assert (result.rise >= 0).all()


def test_smoothed_weights_estimate_the_same(truth: PPCA) -> None:
    x = truth.sample(500, seed=8)
    result = elpd_of(truth.programs(stretch=STRETCH), x, num_draws=1000, seed=1)
    error = result.smoothed - truth.log_evidence(x).numpy()
    assert abs(error.mean()) < 5 * error.std() / sqrt(len(x))
    assert error.std() == pytest.approx(result.pointwise_mcse.mean(), rel=0.2)


def test_a_pair_and_its_tree_say_the_same(truth: PPCA) -> None:
    x = truth.sample(40, seed=0)
    pair = truth.programs(diagonal=True)
    streamed, kept = elpd_of(pair, x, num_draws=300, seed=5), elpd(to_datatree(pair, x, num_draws=300, seed=5))
    for name in ("pointwise", "pointwise_mcse", "pareto_k", "rise", "smoothed", "elbo", "upper", "ids"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(kept, name), rtol=1e-9, atol=1e-9)
    assert (streamed.space, streamed.fingerprint, streamed.num_draws) == (kept.space, kept.fingerprint, 300)
    again = elpd_of(pair, x, num_draws=300, seed=5)
    np.testing.assert_array_equal(again.pointwise, streamed.pointwise)
    assert not np.array_equal(elpd_of(pair, x, num_draws=300, seed=6).pointwise, streamed.pointwise)


def test_a_vae_is_streamed_as_evaluate_does_and_says_what_it_observes() -> None:
    data = load_data("digits", binarize="dynamic")
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=4, encoder="mlp:hidden=[16]"))
    result, figures = elpd_of(vae, data.test, num_draws=30, seed=3), evaluate(vae, data.test, num_draws=30, seed=3)
    # The same draws. `evaluate` adds up log weights of some 50 nats in float32, whose ulp there is 4e-6.
    np.testing.assert_allclose(result.pointwise, figures.log_px, atol=1e-5)
    np.testing.assert_allclose(result.elbo, figures.elbo, atol=1e-5)
    np.testing.assert_allclose(result.effective_sample_size, figures.effective_sample_size, rtol=1e-5)
    assert result.measure == "probability"
    assert result.space == "0/1, one draw of Bernoulli(intensity)"
    np.testing.assert_array_equal(result.ids, data.test.ids.numpy())
    few = data.test.take(slice(0, 3))
    for likelihood, measure in (("gaussian", "density"), ("multinomial", "probability given the total")):
        other = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=4, encoder="mlp:hidden=[16]", likelihood=likelihood))
        assert elpd_of(other, few, num_draws=30).measure == measure


def test_blocks_bound_memory_and_do_not_change_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = 2 * np.random.default_rng(0).normal(size=(100, 50)).astype(np.float32)
    whole = estimates(weight)
    monkeypatch.setattr("analysis.stats.importance._AT_ONCE", 700)
    for name, values in estimates(weight)._asdict().items():
        np.testing.assert_array_equal(values, getattr(whole, name))


def test_masked_values_do_not_reach_it(truth: PPCA) -> None:
    x = truth.sample(30, seed=0)
    pair, seen, mask = truth.hidden(3, x)
    results = [
        elpd_of(pair, torch.where(mask, x, torch.tensor(hidden, dtype=x.dtype)), num_draws=50, mask=mask)
        for hidden in (0.0, 1e6, float("nan"))
    ]
    for result in results:
        np.testing.assert_allclose(result.pointwise, seen.log_evidence(x[:, :3]), atol=1e-9)
        assert result.fingerprint == results[0].fingerprint
    assert results[0].fingerprint != elpd_of(truth.programs(), x, num_draws=50).fingerprint


def test_the_fingerprint_is_of_the_values_and_not_of_their_type(truth: PPCA) -> None:
    x = truth.sample(30, seed=0)
    prints = [elpd_of(truth.programs(), data, num_draws=25).fingerprint for data in (x, x.float().double(), x + 1e-3)]
    assert prints[0] == prints[1] != prints[2]


def test_weights_of_zero_are_told_and_do_not_warn() -> None:
    weight = np.zeros((50, 3))
    weight[:, 1], weight[0, 2] = -np.inf, -np.inf
    found = estimates(weight)
    assert found.log_px[1] == -np.inf
    assert np.isnan(found.log_px_mcse[1])
    assert found.log_px[2] == pytest.approx(log(49 / 50))
    assert found.pareto_k.tolist() == [-np.inf, np.inf, np.inf]


def result_of(log_weight: object) -> ELPD:
    """As of a pair with these log weights."""
    weight = np.asarray(log_weight)
    found = estimates(weight)
    return ELPD(
        pointwise=found.log_px,
        pointwise_mcse=found.log_px_mcse,
        pareto_k=found.pareto_k,
        num_draws=len(weight),
        rise=found.rise,
        smoothed=found.smoothed,
        elbo=found.elbo,
        upper=found.upper,
        ids=np.arange(weight.shape[1]),
    )


def outcomes(result: ELPD) -> dict[str, str]:
    assert all(isinstance(verdict, Verdict) and verdict.source for verdict in result.verdicts)
    return {verdict.name: verdict.outcome for verdict in result.verdicts}


def test_verdicts_pass_a_right_guide_and_reject_a_wrong_one(truth: PPCA) -> None:
    """The exact guide, and one of 1.4 its scale, pass every row; half the scale (k = 0.75) is warned of, and weights of
    index 1.5 or of too few draws fail."""
    x = truth.sample(100, seed=9)
    for stretch in (1.0, 1.4):
        result = elpd_of(truth.programs(stretch=stretch), x, num_draws=1000)
        assert set(outcomes(result).values()) == {"pass"}
    narrow = elpd_of(truth.programs(stretch=0.5), x, num_draws=4000)
    assert outcomes(narrow)["pareto_k"] == outcomes(narrow)["log_px_bias"] == "warn"

    random = np.random.default_rng(0)
    level = random.normal(size=200)
    heavy = result_of(level - 1.5 * np.log(random.uniform(size=(1000, 200))))
    assert outcomes(heavy)["pareto_k"] == "fail"
    assert outcomes(heavy)["sandwich"] != "pass"
    assert "vae-pyro refit" in str(heavy.verdicts[0])
    assert "raise num_draws (now 1,000)" in str(heavy.verdicts[0])
    # Data that hardly differ, and weights that do: the draws decide the mean, not the test set.
    noisy = result_of(1e-3 * level + 3 * random.normal(size=(50, 200)))
    assert outcomes(noisy)["log_px_mcse"] != "pass"
    assert outcomes(noisy)["log_px_bias"] == "fail"


@pytest.mark.parametrize("num_draws", [50, 500])
@pytest.mark.parametrize("stretch", [0.2, 0.3, 0.5, 0.8, 1.4])
def test_what_passes_is_true(truth: PPCA, stretch: float, num_draws: int) -> None:
    """Where the bias passes, no more is missing than it allows; where the upper bound does, it is one. A narrow guide
    of true index 0.96 lacks 1.4 nats per datum with 50 draws, of which the first order sees a fifteenth."""
    x = truth.sample(300, seed=4)
    result = elpd_of(truth.programs(stretch=stretch), x, num_draws=num_draws)
    exact = float(truth.log_evidence(x).sum())
    found = outcomes(result)
    if found["log_px_bias"] == "pass":
        assert exact - result.elpd < result.se_test / 3 + 5 * result.mcse
    else:
        assert stretch < 1
    if found["sandwich"] == "pass":
        assert result.upper.sum() > exact
    if stretch == 0.2 and num_draws == 50:
        assert exact - result.elpd > 10 * -result.bias
        assert result.upper.sum() < exact
        assert found["sandwich"] != "pass"


def test_the_two_standard_errors_are_kept_apart(truth: PPCA) -> None:
    """The spread over data holds both; a thousand copies of one datum have nothing but the draws' error."""
    copies = truth.sample(1, seed=0).expand(1000, -1)
    result = elpd_of(truth.programs(stretch=STRETCH), copies, num_draws=200)
    # The standard deviation of 1,000 nearly normal values has a relative error of 1 / sqrt(2000); five are allowed.
    assert result.se == pytest.approx(result.mcse, rel=5 / sqrt(2000))
    assert result.se_test < 0.5 * result.mcse
    spread = elpd_of(truth.programs(stretch=STRETCH), truth.sample(1000, seed=0), num_draws=200)
    assert spread.se**2 == pytest.approx(spread.se_test**2 + spread.mcse**2)


def test_it_prints_and_sums_up(truth: PPCA) -> None:
    result = elpd_of(truth.programs(stretch=STRETCH), truth.sample(50, seed=0), num_draws=100)
    text = str(result)
    assert 2 <= len(text.splitlines()) <= 6
    assert "(another test set)" in text
    assert "biased down; at most 2.3 above the estimate with 100 draws" in text
    summary = result.summary()
    assert summary["elpd"] == result.elpd
    assert all(value is None or isinstance(value, str | int | float) for value in summary.values())
    one = replace(result, **{name: getattr(result, name)[:1] for name in ("pointwise", "pointwise_mcse", "pareto_k")})
    assert one.summary()["elpd_se"] is None


@pytest.mark.parametrize("num_data", [1, 2])
def test_few_data_have_verdicts_too(truth: PPCA, num_data: int) -> None:
    result = elpd_of(truth.programs(diagonal=True), truth.sample(num_data, seed=0), num_draws=100)
    assert len(result.verdicts) == 4
    assert "elpd" in str(result)


def test_a_tree_that_says_what_p_is_keeps_it(truth: PPCA) -> None:
    tree = to_datatree(truth.programs(), Split(truth.sample(5, seed=0), space="metres"), num_draws=30)
    tree.attrs["measure"] = "density"
    assert elpd(tree).of is None
    tree.attrs["of"] = "x given y"
    assert (elpd(tree).measure, elpd(tree).space, elpd(tree).of) == ("density", "metres", "x given y")


def test_a_measured_run_keeps_what_is_scored(tmp_path: Path) -> None:
    """The file of a run says what its densities are of, as its pair does."""
    x, y = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 2
    parts = [Split(x[rows], y=y[rows]) for rows in (slice(0, 20), slice(20, 40), slice(40, 60))]
    data = Dataset(*parts, DataConfig(source="none"), {})
    config = VAEConfig(
        x_shape=(3,),
        latent_dim=1,
        likelihood="gaussian",
        encoder="mlp:hidden=[4]",
        structure="conditional:num_classes=2",
    )
    fit(VAE(config), data.train, config=FitConfig(epochs=1, compile=False), out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    made = measure_run(run, run.load_model(), data, num_draws=30)
    assert made.of == made.elpd.of == read_held_out(run).of == "x given y"


@pytest.mark.slow
def test_it_meets_the_truth_at_its_stated_rate(truth: PPCA) -> None:
    """200 test sets of 100 data: |z| < 1.96 in 95 % of them for either error, within 4 binomial errors (6e-5 each)."""
    pair = truth.programs(stretch=STRETCH)
    # E_x log p(x) of the true model: minus the entropy of N(mu, C).
    expected = -0.5 * float(torch.logdet(2 * torch.pi * torch.e * truth.covariance))
    z = []
    for seed in range(200):
        x = truth.sample(100, seed=1000 + seed)
        result = elpd_of(pair, x, num_draws=500, seed=seed)
        exact = float(truth.log_evidence(x).sum())
        z.append(((result.elpd - exact) / result.mcse, (result.elpd - 100 * expected) / result.se))
    covered = (np.abs(np.array(z)) < 1.96).mean(0)
    assert (np.abs(covered - 0.95) < 4 * sqrt(0.95 * 0.05 / 200)).all()
