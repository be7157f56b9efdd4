"""Predictive checks: calibrated under the true model, rejecting a wrong one, and mended by weights of the guide."""

import json
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy.special import ndtr

from analysis import predictive_check, to_datatree
from analysis.predictive.checking import predictive_checks
from analysis.predictive.checks import KINDS, PredictiveCheck
from analysis.predictive.replications import guide_weights, resample
from analysis.stats.ecdf_bands import uniformity_p_value
from analysis.stats.p_values import family_wise, randomised_pit, two_sided
from tests.truths import PPCA, example
from vae_pyro import Split


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example()


@pytest.fixture(scope="module")
def tree(truth: PPCA) -> xr.DataTree:
    return to_datatree(truth.programs(), truth.sample(40, seed=0), num_draws=400, seed=1)


@pytest.fixture(scope="module")
def repeated(truth: PPCA) -> dict[str, Any]:
    """Checks of three statistics at 200 data sets of the true model, 20 data and 99 replications each."""
    found: dict[str, Any] = {"rank": [], "p": [], "two_sided": [], "pit": [], "pit_p": [], "family": []}
    for seed in range(200):
        x = truth.sample(20, seed=1000 + seed)
        tree = to_datatree(truth.programs(), x, num_draws=99, seed=seed, statistics=["mean", "sd", "max"])
        for kind in ("held_out", "posterior"):
            result = predictive_checks(tree, kind=kind, seed=seed)
            checks = result.checks
            found["family"].append(result.p_family)
            found["p"].append([check.p_value for check in checks])
            found["two_sided"].append([check.p_two_sided for check in checks])
            if kind == "held_out":
                spread = predictive_check(tree, "mean", kind="prior", over_data="sd")
                found["rank"].append([(c.replicated < c.observed).sum() for c in (*checks, spread)])
                found["pit"].append([check.pit for check in checks])
                found["pit_p"].append([check.pit_p_value for check in checks])
    halves = {name: np.array(found[name]) for name in ("family", "p", "two_sided")}
    return {key: np.array(value) for key, value in found.items()} | {
        f"{name}_{kind}": value[start::2] for name, value in halves.items() for start, kind in ((0, "new"), (1, "same"))
    }


def at_most(share: float, level: float, repetitions: int) -> bool:
    return bool(share <= level + 4 * (level * (1 - level) / repetitions) ** 0.5)


@pytest.mark.slow
def test_p_values_with_new_latents_are_uniform_under_the_true_model(repeated: dict[str, Any]) -> None:
    """The rank of the data among 99 replications is uniform on 0..99; four statistics, failing in 4 of 1,000 seeds. The
    two-sided p-value keeps its level within 4 binomial errors (6e-5 for each statistic)."""
    assert (uniformity_p_value(repeated["rank"], num_ranks=100) > 1e-3).all()
    assert all(at_most(share, 0.05, 200) for share in (repeated["two_sided_new"] <= 0.05).mean(0))
    assert abs((repeated["two_sided_new"] <= 0.5).mean() - 0.5) < 4 * (0.25 / 200) ** 0.5


@pytest.mark.slow
def test_the_family_wise_p_value_keeps_its_level(repeated: dict[str, Any]) -> None:
    """Exactly, for statistics that are correlated; 4 binomial errors on both sides."""
    assert at_most((repeated["family_new"] <= 0.05).mean(), 0.05, 200)
    assert abs((repeated["family_new"] <= 0.5).mean() - 0.5) < 4 * (0.25 / 200) ** 0.5


def test_pits_with_new_latents_are_uniform_under_the_true_model(repeated: dict[str, Any]) -> None:
    """All 4,000 of a statistic together (failing in 3 of 1,000 seeds), and the test of each data set at its level."""
    pooled = repeated["pit"].transpose(0, 2, 1).reshape(-1, 3)
    assert (uniformity_p_value(pooled) > 1e-3).all()
    assert all(at_most(share, 0.05, 200) for share in (repeated["pit_p"] <= 0.05).mean(0))


def test_p_values_at_the_same_data_are_conservative(repeated: dict[str, Any]) -> None:
    """Mean 1/2 and less spread than uniform, p < a at most 2 a of the time (Meng 1994); 4 errors each."""
    p = repeated["p_same"]
    assert (np.abs(p.mean(0) - 0.5) < 4 * (1 / 12 / 200) ** 0.5).all()
    # The fourth moment of a uniform number is 1/80, so that its variance has the error sqrt((1/80 - 1/144) / n).
    assert (p.var(0) < 1 / 12 + 4 * ((1 / 80 - 1 / 144) / 200) ** 0.5).all()
    assert p[:, 1].var() < 0.5 / 12  # plainly so where the latents know the statistic
    assert all(at_most(share, 0.1, 200) for share in (p < 0.05).mean(0))
    assert at_most((repeated["family_same"] <= 0.05).mean(), 0.1, 200)


def test_a_wrong_scale_is_rejected(truth: PPCA) -> None:
    """Noise of twice the scale, 250 data, 199 replications: at least 19 of 20 rejections at 5 %, of one statistic and
    of five at once. Measured over 40 data sets: 1.00 and 1.00 with latents of the same data, 0.95 and 0.95 with new
    ones (of one statistic at 100 data: 1.00 and 0.68)."""
    wrong = PPCA(truth.weight, truth.mean, 4 * truth.variance)
    rejected = dict.fromkeys(("same", "same, all", "new", "new, all", "new, pit"), 0)
    for seed in range(20):
        tree = to_datatree(wrong.programs(), truth.sample(250, seed=seed), num_draws=199, seed=seed)
        same, new = predictive_checks(tree), predictive_checks(tree, kind="held_out")
        assert same["sd"].observed < same["sd"].replicated.mean()
        rejected["same"] += same["sd"].p_two_sided <= 0.05
        rejected["same, all"] += same.p_family <= 0.05
        rejected["new"] += new["sd"].p_two_sided <= 0.05
        rejected["new, all"] += new.p_family <= 0.05
        pit_p = new["sd"].pit_p_value
        assert pit_p is not None
        rejected["new, pit"] += pit_p <= 0.05
    assert min(rejected["same"], rejected["same, all"]) == 20
    assert min(rejected["new"], rejected["new, all"], rejected["new, pit"]) >= 16  # below it in 1 of 400 seeds at 0.95


def tilted(truth: PPCA, size: int, z: float) -> tuple[torch.Tensor, float, float]:
    """Data for which the mean of all elements lies ``z`` predictive standard deviations above its posterior predictive
    mean, and that mean and standard deviation: the exact posterior predictive of the statistic is normal."""
    x = truth.sample(size, seed=7)
    weight = truth.weight
    average = torch.full((len(truth.mean),), 1 / len(truth.mean), dtype=torch.float64)
    across = average - weight @ torch.linalg.lstsq(weight, average).solution  # does not move the posterior
    covariance = weight @ truth.posterior(x)[1] @ weight.T + truth.variance * torch.eye(len(average))
    sd = float((average @ covariance @ average / size).sqrt())

    def expected(x: torch.Tensor) -> torch.Tensor:
        return (truth.posterior(x)[0] @ weight.T + truth.mean) @ average

    short = z * sd - float((x @ average - expected(x)).mean())
    x = x + short / float(average @ across) * across
    return x, float(expected(x).mean()), sd


def test_weights_correct_a_narrow_guide() -> None:
    """Against the closed form, for a guide of 0.7 times the posterior's scale (true k 0.51), which is weighted without
    being asked, and of 0.5 (k 0.75), which is weighted where it is asked. 5 standard errors: fails in 1 of 10^6 seeds
    where the errors are normal. Without weights both are off by more."""
    truth = PPCA(torch.tensor([[1.5], [1.5], [1.5], [1.5], [0.3]]).double(), torch.zeros(5).double(), 0.5)
    z = 1.645
    x, mean, sd = tilted(truth, 30, z)
    for stretch, asked in ((0.7, None), (0.5, True)):
        tree = to_datatree(truth.programs(stretch=stretch), x, num_draws=8000, statistics=["mean"], prior_predictive=0)
        check = predictive_check(tree, "mean", weighted=asked)
        assert check.weighted
        assert check.num_draws < 0.9 * 8000
        assert "with importance weights" in str(check)
        error = 5 * (1 / 8000 + 1 / check.num_draws) ** 0.5
        assert check.replicated.std() == pytest.approx(sd, rel=error / 2**0.5)
        assert check.replicated.mean() == pytest.approx(mean, abs=error * sd)
        assert abs(check.p_value - ndtr(-z)) < 5 * check.p_value_mcse
        raw = predictive_check(tree, "mean", weighted=False)
        assert not raw.weighted
        assert raw.replicated.std() < (1 - error / 2**0.5) * sd
        assert raw.p_value < ndtr(-z) - 5 * raw.p_value_mcse


def test_weights_correct_the_pit_and_functions_of_whole_data_sets(truth: PPCA) -> None:
    """The guide is shifted instead, so that the PITs move; means over 60 data of differences that are zero in truth,
    within 4 standard errors. Shifted draws without weights are off by more."""
    x = truth.sample(60, seed=3)
    model, guide = truth.programs(stretch=1.2)

    def shifted(x: torch.Tensor, **rest: Any) -> Any:
        return guide(x + 0.3, **rest)

    trees = [to_datatree(pair, x, num_draws=3000, statistics=["mean"]) for pair in ((model, shifted), truth.programs())]
    exact = predictive_check(trees[1])
    weighted, raw = (predictive_check(trees[0], weighted=choice) for choice in (None, False))
    assert weighted.weighted
    assert exact.pit is not None
    error = 0.5 * (1 / 3000 + 1 / weighted.num_draws) ** 0.5 / 60**0.5
    assert abs((weighted.pit - exact.pit).mean()) < 4 * error
    assert abs((raw.pit - exact.pit).mean()) > 4 * error
    of_sets = [predictive_check(trees[0], np.mean, weighted=choice) for choice in (None, False)]
    for function, name in zip(of_sets, (weighted, raw), strict=True):
        np.testing.assert_allclose(function.replicated, name.replicated, rtol=1e-10)
        assert function.p_value == name.p_value


@pytest.mark.slow
def test_the_monte_carlo_error_is_that_of_repetitions(truth: PPCA) -> None:
    """The standard deviation of 100 p-values is within 4 of its errors (28 %) of what is stated without weights, and
    not above it with weights, where the statement is a bound."""
    x, _, _ = tilted(truth, 20, 0.7)
    for stretch, low in ((1.0, 0.72), (1.5, 0.4)):
        pair = truth.programs(stretch=stretch)
        checks = []
        for seed in range(100):
            tree = to_datatree(pair, x, num_draws=200, seed=seed, statistics=["mean"], prior_predictive=0)
            checks.append(predictive_check(tree, weighted=stretch != 1.0, seed=seed))
        stated = np.mean([check.p_value_mcse for check in checks])
        assert low < np.std([check.p_value for check in checks]) / stated < 1.28


def test_weights_that_cannot_be_trusted_are_not_used_and_said_so(truth: PPCA) -> None:
    """Half the posterior's scale has tail index 0.75, and few draws are worth anything."""
    tree = to_datatree(truth.programs(stretch=0.5), truth.sample(40, seed=0), num_draws=300, statistics=["mean", "sd"])
    check = predictive_check(tree)
    assert not check.weighted
    assert "the guide is off, and for " in str(check)
    assert "of 40 data the weights cannot be trusted" in check.verdicts[0].advice
    assert "replications are the guide's own; raise num_draws" in str(predictive_checks(tree))
    asked = predictive_check(tree, weighted=True)
    assert asked.weighted
    assert "cannot be trusted (k-hat above 0.60 or fewer than 20 effective draws" in asked.note
    assert predictive_check(tree, kind="prior").note == ""


def test_an_exact_guide_is_left_alone(truth: PPCA, tree: xr.DataTree) -> None:
    check = predictive_check(tree, "sd")
    assert (check.weighted, check.num_draws, check.note) == (False, 400, "")
    weighted = predictive_check(tree, "sd", weighted=True)
    assert weighted.num_draws == pytest.approx(400, rel=1e-6)
    assert abs(weighted.p_value - check.p_value) < 4 * weighted.p_value_mcse


def test_resampling_follows_the_weights() -> None:
    """Shares of 4,000 picks within 5 errors; data are resampled independently."""
    weight = np.array([[0.1, 0.0], [0.6, 0.5], [0.3, 0.5]])
    big = np.zeros((4000, 2))
    big[[5, 17, 3999]] = weight
    picks = resample(big, seed=0)
    assert picks.shape == big.shape
    for column in range(2):
        shares = [(picks[:, column] == row).mean() for row in (5, 17, 3999)]
        np.testing.assert_allclose(shares, weight[:, column], atol=5 * 0.5 / 4000**0.5)
    both = ((picks[:, 0] == 17) & (picks[:, 1] == 17)).mean()
    assert abs(both - 0.3) < 5 * 0.5 / 4000**0.5


def counts(rate: float) -> tuple[Any, Any]:
    def model(x: Any = None, *, size: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 0.1).to_event(1))
            return pyro.sample("x", dist.Poisson(rate * z.exp().expand(*z.shape[:-1], 6)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 0.1).to_event(1))

    return model, guide


def test_zeros_of_counts() -> None:
    """Counts with the model's mean and 20 % more zeros: rejected by ``zeros`` with new latents at each of 10 seeds
    (expected difference 6 standard errors), and by ``mean`` at most 4 times (7e-4)."""
    found = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        rate = 2.0 * np.exp(0.1 * random.normal(size=(100, 1)))
        x = random.poisson(rate / 0.8, size=(100, 6)) * (random.random((100, 6)) < 0.8)
        result = predictive_checks(to_datatree(counts(2.0), x, num_draws=199, seed=seed), kind="held_out")
        found.append((result["zeros"].p_two_sided <= 0.05, result["mean"].p_two_sided <= 0.05))
        assert result["zeros"].effect > 0.2
    assert np.sum(found, axis=0)[0] == 10
    assert np.sum(found, axis=0)[1] <= 4


def test_the_family_wise_level_is_exact() -> None:
    """39 replications and correlated normal statistics: p <= 0.05 with probability 0.05, within 4 errors of 4,000."""
    random = np.random.default_rng(0)
    values = random.normal(size=(4000, 40, 5)) + random.normal(size=(4000, 40, 1))
    p = np.array([family_wise(one[0], one[1:])[0] for one in values])
    for level in (0.05, 0.5):
        assert abs((p <= level + 1e-9).mean() - level) < 4 * (level * (1 - level) / 4000) ** 0.5
    family, adjusted = family_wise(values[0, 0], values[0, 1:])
    assert family == adjusted.min()
    alone = [family_wise(values[0, 0, [i]], values[0, 1:, [i]].T)[0] for i in range(5)]
    assert (adjusted >= alone).all()
    assert family_wise(values[0, 0] + 99, values[0, 1:])[0] == pytest.approx(1 / 40)


def test_a_statistic_said_twice_or_constant_costs_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(100, 1))
    p, alone = family_wise(values[0], values[1:])
    more = np.concatenate([values, values, np.ones_like(values)], 1)
    _, adjusted = family_wise(more[0], more[1:])
    np.testing.assert_allclose(adjusted, [p, p, 1])
    assert alone.tolist() == [p]


def test_two_sided_by_hand() -> None:
    values = np.array([[5.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(two_sided(values), [[0.5, 1], [0.5, 1], [1, 1], [1, 0.5]])


def test_randomised_pit_by_hand() -> None:
    replicated = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0]])
    observed, noise = np.array([2.5, 2.0]), np.array([0.5, 0.25])
    np.testing.assert_allclose(randomised_pit(observed, replicated, noise), [2.5 / 4, 0.75 / 4])
    weight = np.array([[0.2, 0.5], [0.3, 0.3], [0.5, 0.2]])
    np.testing.assert_allclose(randomised_pit(observed, replicated, noise, weight), [0.5, 0.2])


def test_a_function_of_the_data_set(tree: xr.DataTree) -> None:
    def largest_column(x: Any) -> float:
        return float(x.mean(0).max())

    check = predictive_check(tree, largest_column)
    assert check.name == "largest_column"
    assert check.observed == largest_column(tree["observed_data"]["x"].values)
    expected = [largest_column(one) for one in tree["posterior_predictive"]["x"].values[0]]
    np.testing.assert_array_equal(check.replicated, expected)
    assert str(check).startswith("predictive check of 'largest_column': observed ")
    assert check.p_value_mcse >= 0.5 / 400
    assert check.pit is check.pit_p_value is check.pit_distance is check.effect is None
    with pytest.raises(ValueError, match="'largest_column' is a statistic of a whole data set and has no PIT"):
        check.pit_band()


def test_statistics_that_the_tree_was_not_measured_by(truth: PPCA, tree: xr.DataTree) -> None:
    """They are taken of the predictive draws that it keeps whole, as if it had been."""
    required = to_datatree(
        truth.programs(), truth.sample(40, seed=0), num_draws=400, seed=1, statistics=["quantile:q=0.3"]
    )
    for kind in KINDS:
        check = predictive_check(tree, "quantile:q=0.3", kind=kind)
        same = predictive_check(required, "quantile:q=0.3", kind=kind)
        np.testing.assert_allclose(check.replicated, same.replicated, rtol=1e-12)
        np.testing.assert_allclose(check.pit, same.pit, rtol=1e-12)
        assert check.effect == pytest.approx(same.effect)


def test_thinned_draws_are_enough_for_a_function_and_it_is_said(truth: PPCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.draws.datatree._PREDICTIVE_BYTES", 9 * 5 * 8 * 15)
    tree = to_datatree(truth.programs(), truth.sample(9, seed=0), num_draws=60)
    by_name, by_function = predictive_check(tree, "mean"), predictive_check(tree, np.mean)
    assert (len(by_name.replicated), len(by_function.replicated)) == (60, 15)
    np.testing.assert_allclose(by_function.replicated, by_name.replicated[tree["posterior_predictive"]["draw"].values])
    assert by_function.note == "of 60 draws, the 15 that the tree keeps whole"
    assert "15 replications cannot give a p below 0.12; draw more" in by_function.verdicts[0].advice
    with pytest.raises(ValueError, match="at least 25 draws, here are 15"):
        predictive_check(tree, np.mean, weighted=True)


def test_masked_values_do_not_reach_a_check(truth: PPCA) -> None:
    x = truth.sample(30, seed=0)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 3:] = False
    mask[4] = False
    model, _ = truth.programs()
    _, guide = PPCA(truth.weight[:3], truth.mean[:3], truth.variance).programs()
    pair = (model, lambda x, mask=None: guide(torch.where(mask, x, torch.zeros_like(x))[:, :3]))
    found = []
    for hidden in (0.0, 1e6, float("nan")):
        split = Split(torch.where(mask, x, torch.tensor(hidden, dtype=x.dtype)), mask=mask)
        tree = to_datatree(pair, split, num_draws=50)
        checks = [predictive_check(tree, statistic, kind=kind) for statistic in ("mean", np.nanmax) for kind in KINDS]
        found.append([(check.p_value, check.observed) for check in checks])
        assert len(checks[0].pit) == 29
        drawn = tree["posterior_predictive"]["x"].values[0]
        seen = np.where(mask.numpy(), drawn, np.nan).reshape(50, -1)
        raw = predictive_check(tree, np.nanmax, weighted=False)  # a datum hidden altogether has uneven weights
        np.testing.assert_array_equal(raw.replicated, np.nanmax(seen, 1))
    assert found[0] == found[1] == found[2]
    assert found[0][0][1] == pytest.approx(float(x[:, :3][mask[:, 0]].mean()))


def test_verdicts_of_right_and_wrong_models(truth: PPCA) -> None:
    """A right model passes; a wrong one fails; a difference that is certain but small passes as well."""
    x = truth.sample(400, seed=11)

    def outcomes(factor: float, data: torch.Tensor = x) -> dict[str, list[str]]:
        pair = PPCA(truth.weight, truth.mean, factor * truth.variance).programs()
        tree = to_datatree(pair, data, num_draws=199)
        return {
            kind: [verdict.outcome for verdict in predictive_checks(tree, kind=kind).verdicts]
            for kind in ("posterior", "held_out")
        }

    assert outcomes(1.0) == {"posterior": ["pass"], "held_out": ["pass", "pass"]}
    assert outcomes(25.0) == {"posterior": ["fail"], "held_out": ["fail", "fail"]}
    assert outcomes(4.0)["posterior"] == ["warn"]
    many = truth.sample(4000, seed=11)
    pair = PPCA(truth.weight, truth.mean, 1.3 * truth.variance).programs()
    slightly = predictive_checks(to_datatree(pair, many, num_draws=199))
    assert slightly.p_family < 0.05
    assert slightly["sd"].effect == pytest.approx(0, abs=0.2)
    assert slightly.verdicts[0].outcome == "pass"
    assert predictive_check(to_datatree(pair, many, num_draws=199), "sd").verdicts[0].outcome == "pass"


def test_verdicts_by_chance_alone_and_of_few_replications() -> None:
    def of(observed: float, replications: int, effect: float | None) -> Any:
        return PredictiveCheck("t", observed, np.linspace(0, 1, replications), effect=effect).verdicts[0]

    assert [of(2.0, n, None).outcome for n in (1000, 100, 20)] == ["fail", "warn", "warn"]
    assert [of(0.5, n, None).outcome for n in (1000, 20)] == ["pass", "pass"]
    assert [of(2.0, 20, effect).outcome for effect in (0.1, -0.3, 0.6)] == ["pass", "warn", "fail"]
    assert [of(2.0, 100, effect).outcome for effect in (0.1, -0.3, 0.6)] == ["pass", "warn", "fail"]
    assert of(0.985, 1000, 0.6).outcome == "warn"  # p = 0.03, inside the replications
    assert (
        "look at t (2 in the data, 0.5 in replications); try another likelihood or decoder" in of(2, 1000, None).advice
    )


def test_what_is_told(tree: xr.DataTree) -> None:
    result = predictive_checks(tree, kind="held_out")
    text = str(result)
    assert text.startswith("held-out predictive check of 5 statistics, 400 replications: family-wise p = ")
    assert "no statistic differs from its replications beyond chance" in " ".join(text.split())
    assert "uniform under the true model" in text
    summary = json.loads(json.dumps(result.summary()))
    assert summary["p_family"] == result.p_family
    assert [row["statistic"] for row in summary["statistics"]] == ["mean", "sd", "min", "max", "zeros"]
    assert summary["statistics"][1]["p_adjusted"] == result.adjusted[1]
    single = predictive_check(tree, "sd", kind="prior", over_data="sd")
    assert "prior predictive check of 'sd over data of sd'" in str(single)
    assert "if the fit has not seen the data" in " ".join(str(single).split())
    assert "distance of the PIT from uniform" in str(single)
    assert "conservative" in str(predictive_check(tree))
    band = single.pit_band()
    assert band.outside(single.pit) == (single.pit_p_value <= 0.05)
    ordered = np.sort(single.pit)
    largest = max(abs((single.pit <= u).mean() - u) for u in (*ordered, *(ordered - 1e-9)))
    assert single.pit_distance == pytest.approx(largest, abs=1e-6)
    assert [verdict.name for verdict in single.verdicts] == ["predictive_prior", "predictive_pit_prior"]


def test_the_same_seed_gives_the_same_bits(truth: PPCA) -> None:
    tree = to_datatree(truth.programs(stretch=1.4), truth.sample(15, seed=0), num_draws=100)
    first, again, other = (predictive_check(tree, weighted=True, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.replicated, again.replicated)
    np.testing.assert_array_equal(first.pit, again.pit)
    assert (first.replicated != other.replicated).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "median"}, "unknown statistic 'median'.*choose from mean, sd, min, max, zeros"),
        ({"kind": "future"}, "unknown kind 'future'; choose from posterior, prior, held_out"),
        ({"over_data": "median"}, "unknown aggregate 'median'; choose from mean, sd"),
        ({"kind": "prior", "weighted": True}, "kind='prior' draws from the prior; leave them out"),
        ({"statistic": "left_right"}, r"is of images .* shape \(5,\)"),
    ],
)
def test_bad_questions(tree: xr.DataTree, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictive_check(tree, **options)


def test_trees_without_what_is_asked(truth: PPCA) -> None:
    x = truth.sample(9, seed=0)
    tree = to_datatree(truth.programs(), x, num_draws=10, predictive=False)
    with pytest.raises(ValueError, match="has no posterior_predictive; make it without predictive=False"):
        predictive_check(tree)
    with pytest.raises(ValueError, match="has no prior_predictive; make it with prior_predictive=500"):
        predictive_check(tree, kind="prior")
    with pytest.raises(ValueError, match="no statistic to check"):
        predictive_checks(tree)
    with pytest.raises(ValueError, match="at least 25 draws, here are 10; raise num_draws"):
        guide_weights(tree, np.arange(10), True, 0)
    few = to_datatree(truth.programs(stretch=0.5), x, num_draws=10)
    assert not predictive_check(few).weighted
