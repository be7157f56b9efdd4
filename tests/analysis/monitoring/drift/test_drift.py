"""The drift test: exact at any size, power on known changes, and what it says of latents, data and page."""

import json
from dataclasses import replace
from itertools import combinations
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.ndimage import rotate
from scipy.stats import binom

from analysis.monitoring.drift.plot import plot_latent_drift, plot_latent_marginals, plot_relabelled
from analysis.monitoring.drift.result import Drift
from analysis.monitoring.drift.section import drift_page
from analysis.monitoring.drift.testing import drift_test
from analysis.monitoring.drift.thresholds import STATISTICS
from analysis.plotting import save
from analysis.stats.mmd import mmd
from analysis.stats.two_sample import anderson_darling, discriminant, max_t, min_p, relabellings
from tests.truths import PPCA, example
from vae_pyro import VAE, FitConfig, Split, VAEConfig, fit, load_data
from vae_pyro.data.dataset import as_split

type Array = np.ndarray[Any, Any]


# --- statistics for all relabellings ------------------------------------------------------------------------------


def test_the_relabellings_are_those_of_mmd() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(7, 2)), random.normal(size=(5, 2)) + 0.5
    first = relabellings(7, 5, 20, seed=3)
    assert first.shape == (21, 12)
    assert (first.sum(1) == 7).all()
    pooled = np.concatenate([x, y])
    kernel = np.exp(-((pooled[:, None] - pooled) ** 2).sum(-1) / (2 * 1.3**2))
    np.fill_diagonal(kernel, 0)

    def statistic(labels: Array) -> float:
        one, two = labels == 1, labels == 0
        within = kernel[np.ix_(one, one)].sum() / 42 + kernel[np.ix_(two, two)].sum() / 20
        return float(within - 2 * kernel[np.ix_(one, two)].mean())

    found = mmd(x, y, seed=3, bandwidth=1.3, num_permutations=20)
    values = [statistic(labels) for labels in first]
    np.testing.assert_allclose(values, [found.value, *found.null], atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_anderson_darling_is_the_weighted_integral_of_squared_differences(ties: bool) -> None:
    """By its definition, ``mn/N`` times the integral of (F - G)^2 / (H (1 - H)) dH."""
    random = np.random.default_rng(1)
    values = random.normal(size=17)
    values = np.round(values) if ties else values
    values[0] = -np.inf
    first = relabellings(10, 7, 8, seed=0)
    expected = []
    for labels in first == 1:
        total = 0.0
        for z in np.unique(values)[:-1]:
            f, g, h = (float((some <= z).mean()) for some in (values[labels], values[~labels], values))
            total += (f - g) ** 2 / (h * (1 - h)) * float((values == z).mean())
        expected.append(70 / 17 * total)
    np.testing.assert_allclose(anderson_darling(values, first), expected, rtol=1e-12)
    assert anderson_darling(np.zeros(17), first).tolist() == [0.0] * 9
    values[3] = np.nan
    with pytest.raises(ValueError, match="1 values are NaN, the first is 3"):
        anderson_darling(values, first)


def test_anderson_darling_is_one_on_average() -> None:
    """Over all arrangements of 6 and 4 rows, the sum of N / (N - 1) times 1 / N over i = 1 .. N - 1 is 1."""
    first = np.zeros((210, 10))
    for row, chosen in enumerate(combinations(range(10), 6)):
        first[row, list(chosen)] = 1
    assert anderson_darling(np.arange(10.0), first).mean() == pytest.approx(1.0, abs=1e-12)


def test_the_discriminant_is_fitted_anew_for_each_arrangement() -> None:
    random = np.random.default_rng(2)
    values = np.concatenate([random.normal(size=(30, 3)), random.normal(size=(40, 3)) + np.eye(3)[0]])
    first = relabellings(30, 40, 12, seed=1)
    together, scores = discriminant(values, first, seed=5)
    for row in range(13):
        alone, _ = discriminant(values, first[row : row + 1], seed=5)
        assert alone[0] == pytest.approx(together[row], abs=1e-12)
    above = (scores[30:, None] > scores[:30]).mean()
    assert together[0] == pytest.approx(above, abs=1e-12)
    # The null has no room for what the given labels have.
    assert together[0] > together[1:].max()


def test_the_discriminant_reaches_the_known_area() -> None:
    """Two unit Gaussians a distance d apart have AUROC Phi(d / sqrt 2), and one of equal mean and doubled spread, by
    their squares, 2 / pi arctan 2. 4,000 rows know it to 0.009; a fit on 3,200 loses less than that."""
    random = np.random.default_rng(3)
    first = relabellings(2000, 2000, 1, seed=0)
    apart = np.concatenate([random.normal(size=(2000, 4)), random.normal(size=(2000, 4)) + 0.5])
    found, _ = discriminant(apart, first, seed=0)
    assert found[0] == pytest.approx((1 + erf(1.0 / 2)) / 2, abs=4 * 0.009)
    wider = np.concatenate([random.normal(size=(2000, 1)), 2 * random.normal(size=(2000, 1))])
    found, _ = discriminant(wider, first, seed=0)
    assert found[0] == pytest.approx(2 / np.pi * np.arctan(2), abs=4 * 0.009)
    with pytest.raises(ValueError, match="5 folds of 2000 and 3 rows"):
        discriminant(apart[:2003], first[:, np.r_[:2000, 2000:2003]], seed=0)


def test_the_discriminant_is_judged_on_rows_that_it_was_not_fitted_to() -> None:
    """30 dimensions for 60 rows: on its own rows it would tell nearly all of them apart; held out, 1/2 on average. The
    mean of 400 relabellings is known to a twentieth of their spread, and 5 of these are allowed."""
    values = np.random.default_rng(6).normal(size=(60, 30))
    found, _ = discriminant(values, relabellings(30, 30, 400, seed=0), seed=0)
    assert abs(found[1:].mean() - 0.5) < 5 * found[1:].std() / 20
    assert found[1:].std() < 0.15


def test_p_values_are_exact_whichever_arrangement_is_the_given_one() -> None:
    """Each of 40 exchangeable rows in turn: no more than a share a of them have p <= a, and without ties that share."""
    random = np.random.default_rng(4)
    statistics = random.normal(size=(40, 3)) + random.normal(size=(40, 1))
    statistics[5] = statistics[6]
    smallest, single, largest = [], [], []
    for row in range(40):
        turned = np.roll(statistics, -row, axis=0)
        p, adjusted = min_p(turned)
        assert (adjusted >= p - 1e-12).all()
        expected = [(turned[:, k] >= turned[0, k]).mean() for k in range(3)]
        np.testing.assert_allclose(p, expected)
        smallest.append(adjusted.min())
        single.append(p[0])
        largest.append(max_t(turned).min())
    for level in np.arange(1, 40) / 40:
        for values, loss in ((smallest, 3), (single, 2), (largest, 2)):
            share = np.mean(np.array(values) <= level + 1e-9)
            assert level - loss / 40 - 1e-9 <= share <= level + 1e-9


def test_max_t_rejects_one_of_many_where_a_factor_of_their_number_could_not() -> None:
    random = np.random.default_rng(5)
    statistics = random.exponential(size=(200, 100))
    statistics[0, 7] = 50.0
    adjusted = max_t(statistics)
    assert adjusted[7] == 1 / 200  # Holm's rule has 100 / 200 here
    assert (np.delete(adjusted, 7) > 0.05).all()


# --- level --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_level_is_exact_with_an_exact_pair() -> None:
    """300 repetitions on a pPCA with 10 draws and 99 relabellings: together the rate lies between 0.02 and 0.05, each
    alone at 0.05. The counts stay in these bounds but for 1 of 10,000 seeds each."""
    truth = example()
    pair = truth.programs()
    found = []
    for seed in range(300):
        x = truth.sample(50, seed=seed)
        found.append(drift_test(pair, x[:30], x[30:], num_permutations=99, num_draws=10, seed=seed))
    assert binom.ppf(5e-5, 300, 0.02) <= sum(one.drifted for one in found) <= binom.ppf(1 - 5e-5, 300, 0.05)
    rejected = (np.array([one.p_values for one in found]) <= 0.05).sum(0)
    for count in [*rejected, sum(one.latent_adjusted.min() <= 0.05 for one in found)]:
        assert binom.ppf(5e-5, 300, 0.05) <= count <= binom.ppf(1 - 5e-5, 300, 0.05)


@pytest.mark.slow
def test_false_alarms_on_digits_lie_between_three_and_seven_percent() -> None:
    """300 repetitions on held-out digits, each with rows, binarisation, draws and relabellings of its own. A test whose
    rate is 0.05 leaves 3 to 7 % in 1 of 12 choices of seeds; with these it does not. Against training data of a model
    that has learnt them by heart a fifth or more are false alarms: the reason to refuse them as a reference."""
    data = load_data("digits", binarize="dynamic", validation_fraction=0.0, test_fraction=0.75)
    vae = _fitted(data.train, 300)
    pool = _grey("digits", 0.75)
    alarms, wrong = [], []
    for seed in range(300):
        rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(pool))[:400])
        known, new = (pool.take(some).fixed(2 * seed + i) for i, some in enumerate((rows[:200], rows[200:])))
        alarms.append(drift_test(vae, known, new, num_permutations=399, num_draws=30, seed=seed).drifted)
        if seed < 60:
            seen = data.train.sample(200, seed).fixed(2 * seed)
            wrong.append(drift_test(vae, seen, new, num_permutations=399, num_draws=30, seed=seed).drifted)
    assert 0.03 <= np.mean(alarms) <= 0.07
    assert np.mean(wrong) > 0.2


# --- power --------------------------------------------------------------------------------------------------------


def _fitted(train: Split, epochs: int) -> VAE:
    config = VAEConfig(x_shape=train.x_shape, latent_dim=6, encoder={"name": "mlp", "hidden": [48]})
    fitting = FitConfig(epochs=epochs, batch_size=64, optimizer="adam:lr=4e-3", compile=False, device="cpu")
    return fit(VAE(config, seed=0), train, config=fitting, seed=0, progress=False).vae


def _grey(name: str, test_fraction: float) -> Split:
    """Held-out intensities, to be binarised by whoever takes some."""
    source = load_data(name, validation_fraction=0.0, test_fraction=test_fraction)
    return replace(source.test, draw="binarize", space="0/1, one draw of Bernoulli(intensity)")


@pytest.fixture(scope="module")
def digits() -> tuple[VAE, Split]:
    """A short fit to four tenths of the digits, and the others as intensities in a random order."""
    data = load_data("digits", binarize="dynamic", validation_fraction=0.0, test_fraction=0.6)
    pool = _grey("digits", 0.6)
    return _fitted(data.train, 40), pool.sample(len(pool), seed=0)


def _turned(split: Split, degrees: float) -> Split:
    values = rotate(split.values.numpy().astype(np.float32), degrees, axes=(-2, -1), reshape=False, order=1)
    return replace(split, values=torch.from_numpy(values.clip(0, split.top)))


def _changed(name: str, split: Split) -> Split:
    assert split.top is not None
    assert split.labels is not None
    values = split.values.float()
    if name.startswith("rotated"):
        return _turned(split, float(name.split()[1]))
    if name == "darker":
        return replace(split, values=0.7 * values)
    if name == "inverted":
        return replace(split, values=split.top - values)
    if name == "permuted":
        order = torch.from_numpy(np.random.default_rng(0).permutation(64))
        return replace(split, values=values.flatten(1)[:, order].reshape(values.shape))
    assert name == "other classes"
    return split.take(split.labels < 3)


@pytest.mark.parametrize(
    "change", ["rotated 15", "rotated 30", "rotated 45", "darker", "inverted", "permuted", "other classes"]
)
def test_known_changes_are_found(digits: tuple[VAE, Split], change: str) -> None:
    """300 held-out data, and 200 new ones (of three classes alone about 120). In 40 repetitions with other seeds each
    change was found every time, with p = 0.015 at most: a miss has a rate below 0.07 (95 %), and is far off."""
    vae, pool = digits
    known = pool.take(slice(0, 300)).fixed(1)
    new = _changed(change, pool.take(slice(300, 700))).take(slice(0, 200)).fixed(2)
    found = drift_test(vae, known, new, num_permutations=199, num_draws=30, seed=0)
    assert found.drifted
    assert found.seen_by
    if change in ("rotated 45", "inverted", "permuted"):
        assert found.p_values[0] == 1 / 200
        assert found.p_value <= 3 / 200
        assert found.log_px_shift[0] < -4 * found.log_px_shift[1]
        assert found.verdicts[1].outcome != "pass"
    assert "the data have changed" in str(found)


def test_data_of_the_same_distribution_are_let_through(digits: tuple[VAE, Split]) -> None:
    """5 repetitions, at a level that 1 of 40 seeds would exceed."""
    vae, pool = digits
    p = []
    for seed in range(5):
        some = pool.sample(400, seed)
        known, new = some.take(slice(0, 200)).fixed(2 * seed), some.take(slice(200, 400)).fixed(2 * seed + 1)
        found = drift_test(vae, known, new, num_permutations=199, num_draws=30, seed=seed, alpha=0.005)
        p.append(found.p_value)
        assert found.verdicts[0].outcome == "pass"
        assert "no change is detected" in str(found)
    assert max(p) > 0.05


def test_a_change_in_spread_alone_is_found() -> None:
    """Means stay: the classifier's squares, the tails of log p(x) and the kernel see it."""
    truth = example()
    known = truth.sample(200, seed=0)
    new = truth.mean + 1.6 * (truth.sample(200, seed=1) - truth.mean)
    found = drift_test(truth.programs(), known, new, num_permutations=199, num_draws=10)
    assert found.seen_by == STATISTICS


# --- what it says -------------------------------------------------------------------------------------------------


def _orthogonal() -> PPCA:
    weight = torch.zeros(6, 3, dtype=torch.float64)
    weight[:3] = 2.0 * torch.eye(3, dtype=torch.float64)
    return PPCA(weight, torch.zeros(6, dtype=torch.float64), 1.0)


def test_the_latent_that_moved_is_named_and_measured() -> None:
    """x + W e_2: posterior means M^-1 W' x move by 4/5 in latent 2 alone, whose standard deviation is sqrt(4/5)."""
    truth = _orthogonal()
    new = truth.sample(400, seed=1) + truth.weight[:, 2]
    found = drift_test(truth.programs(), truth.sample(400, seed=0), new, num_permutations=199, num_draws=200)
    assert found.latents == ("z[0]", "z[1]", "z[2]")
    assert found.moved.tolist() == [2]
    assert found.latent_adjusted[2] == 1 / 200
    error = sqrt(2 / 400)
    assert found.latent_shift[2] == pytest.approx(sqrt(4 / 5), abs=4 * error)
    assert np.abs(found.latent_shift[:2]).max() < 4 * error
    assert np.abs(np.log(found.latent_spread)).max() < 4 * sqrt(1 / 400)
    assert found.summary()["moved"] == ["z[2]"]
    assert "1 of 3 latents moved: z[2] by +0." in str(found)


def test_the_least_likely_data_are_listed_first() -> None:
    truth = example()
    x = truth.sample(60, seed=1)
    x[17] += 20.0
    x[40] += 10.0
    new = replace(as_split(x), ids=torch.arange(100, 160))
    found = drift_test(truth.programs(), truth.sample(99, seed=0), new, num_permutations=99, num_draws=50)
    assert found.ids_new[found.surprising(2)].tolist() == [117, 140]
    assert found.summary()["surprising"][0]["id"] == 117
    assert found.strangeness[17] == 1 / 100
    below = (found.log_px_reference <= found.log_px_new[3]).sum()
    assert found.strangeness[3] == (1 + below) / 100
    # The exact guide of a pPCA has constant weights: log p(x) is the closed form.
    np.testing.assert_allclose(found.log_px_new, truth.log_evidence(x).numpy(), atol=1e-9)


def test_all_statistics_see_the_same_relabellings() -> None:
    """Kernel and classifier look at the same latents, so that their values under one relabelling go together: their
    correlation over 999 is far above the 0.03 that other relabellings would leave by chance."""
    truth = example()
    found = drift_test(truth.programs(), truth.sample(60, seed=0), truth.sample(60, seed=1), num_draws=20)
    assert np.corrcoef(found.statistics[1:, 1], found.statistics[1:, 2])[0, 1] > 0.2


def test_effects_are_those_of_the_arrays() -> None:
    truth = example()
    found = drift_test(truth.programs(), truth.sample(50, seed=0), truth.sample(30, seed=1) + 0.3, num_permutations=99)
    shift, error = found.log_px_shift
    a, b = found.log_px_reference, found.log_px_new
    assert shift == pytest.approx(b.mean() - a.mean())
    assert error == pytest.approx(sqrt(a.var(ddof=1) / 50 + b.var(ddof=1) / 30))
    assert found.less_likely[0] == pytest.approx((b[:, None] < a).mean())
    assert found.statistics.shape == (100, 3)
    assert found.statistics[0, 1] == found.discrepancy.value
    assert found.statistics[0, 2] == pytest.approx(found.classifier.auroc)
    figures = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert (figures["num_reference"], figures["num_new"], figures["num_permutations"]) == (50, 30, 99)
    assert figures["p_value"] == min(figures["p_values_adjusted"].values())


def test_the_seed_decides_and_rows_are_cut(digits: tuple[VAE, Split]) -> None:
    vae, pool = digits  # random observations are fixed by the seed
    known, new = pool.take(slice(0, 80)), pool.take(slice(80, 200))
    arguments: dict[str, Any] = {"num_permutations": 49, "num_draws": 5, "max_data": 60}
    first, again = (drift_test(vae, known, new, seed=3, **arguments) for _ in range(2))
    other = drift_test(vae, known, new, seed=4, **arguments)
    assert first.statistics.tobytes() == again.statistics.tobytes()
    assert first.log_px_new.tobytes() == again.log_px_new.tobytes()
    assert not np.array_equal(first.statistics, other.statistics)
    assert len(first.log_px_new) == len(first.log_px_reference) == 60
    assert set(first.ids_new) <= set(new.ids.tolist())
    assert sorted(first.ids_new) != sorted(other.ids_new)
    arguments["max_data"] = 2000
    one, two = (drift_test(vae, known.fixed(0), new.fixed(1), seed=seed, **arguments) for seed in (3, 4))
    assert not np.array_equal(one.log_px_new, two.log_px_new)
    assert not np.array_equal(one.log_px_reference, two.log_px_reference)
    assert not np.array_equal(one.codes_new, two.codes_new)


def test_what_is_not_observed_does_not_matter(digits: tuple[VAE, Split]) -> None:
    vae, pool = digits
    some = pool.fixed(0).take(slice(0, 100))
    mask = torch.rand(some.values.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    results = []
    for hidden in (0, 1):
        values = torch.where(mask, some.values, torch.full_like(some.values, hidden))
        split = replace(some, values=values, mask=mask)
        results.append(
            drift_test(vae, split.take(slice(0, 50)), split.take(slice(50, 100)), num_permutations=19, num_draws=5,
                       alpha=0.05)
        )  # fmt: skip
    assert results[0].statistics.tobytes() == results[1].statistics.tobytes()


def test_what_cannot_be_tested_is_refused() -> None:
    truth = example()
    pair, x = truth.programs(), truth.sample(60, seed=0)
    with pytest.raises(ValueError, match="got 19 reference and 41 new data"):
        drift_test(pair, x[:19], x[19:])
    with pytest.raises(ValueError, match="shape \\(5,\\) and new data of shape \\(4,\\)"):
        drift_test(pair, x[:30], x[30:, :4])
    with pytest.raises(ValueError, match="smallest p-value is 0.1; raise num_permutations"):
        drift_test(pair, x[:30], x[30:], num_permutations=9)
    with pytest.raises(ValueError, match="alpha=1 "):
        drift_test(pair, x[:30], x[30:], alpha=1.0)
    one, two = (replace(as_split(some), space=space) for some, space in ((x[:30], "bits"), (x[30:], "grey levels")))
    with pytest.raises(ValueError, match="'bits' and the new data 'grey levels'"):
        drift_test(pair, one, two)


def test_classes_are_known_in_both_samples_or_in_neither() -> None:
    """Of a datum with a class the density is log p(x, y), which lies below log p(x) though nothing has changed."""
    config = VAEConfig(
        x_shape=(4,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[8]",
        structure="m2:num_classes=3,hidden=8",
    )  # fmt: skip
    vae, known = VAE(config, seed=0), torch.arange(30) % 3
    x = vae.sample(60, seed=0)
    some = torch.where(torch.arange(30) < 5, known, -1)
    options: dict[str, Any] = {"num_permutations": 19, "num_draws": 5}
    for one, other, words in (
        (known, None, "known of all reference data and of no new data"),
        (None, some, "known of no reference data and of some new data"),
        (some, known, "known of some reference data and of all new data"),
    ):
        with pytest.raises(ValueError, match=f"{words}.*leave it out of both"):
            drift_test(vae, as_split(x[:30], y=one), as_split(x[30:], y=other), **options)
    for one, other in ((known, known), (torch.full((30,), -1), None), (some, some)):
        drift_test(vae, as_split(x[:30], y=one), as_split(x[30:], y=other), **options)


def test_a_guide_without_continuous_latents_is_refused() -> None:
    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            k = pyro.sample("k", dist.Categorical(torch.full((2,), 0.5)))
            return pyro.sample("x", dist.Normal(k.unsqueeze(-1).float(), 1.0).expand([*k.shape, 2]).to_event(1), obs=x)

    def guide(x: Any, *, mask: Any = None, y: Any = None) -> Any:
        with pyro.plate("data", len(x)):
            return pyro.sample("k", dist.Categorical(torch.full((2,), 0.5)))

    with pytest.raises(ValueError, match="no continuous latent, only k"):
        drift_test((model, guide), torch.zeros(20, 2), torch.zeros(20, 2), num_permutations=19, num_draws=5)


def test_data_that_the_model_holds_for_impossible_are_the_most_surprising() -> None:
    """A model of x = z exactly where z > 0: log p(x) is minus infinity for one datum, and ranks can bear it."""

    def model(x: Any = None, *, size: Any = None, mask: Any = None, y: Any = None) -> Any:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pyro.sample("x", dist.Uniform(z - 50, z + 50, validate_args=False).to_event(1), obs=x)

    def guide(x: Any, *, mask: Any = None, y: Any = None) -> Any:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))

    x = torch.randn(60, 1, generator=torch.Generator().manual_seed(0))
    x[45] = 1e6
    found = drift_test((model, guide), x[:30], x[30:], num_permutations=19, num_draws=20)
    assert found.surprising(1).tolist() == [15]
    assert found.summary()["surprising"][0]["log_px"] is None
    assert found.summary()["log_px_shift"] is None
    assert "\N{MINUS SIGN}∞ nats per datum" in str(found)
    drift_page(found).render()


# --- pictures and page ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved() -> Drift:
    truth = _orthogonal()
    new = truth.sample(60, seed=1) + 1.5 * truth.weight[:, 2]
    return drift_test(truth.programs(), truth.sample(60, seed=0), new, num_permutations=99, num_draws=20)


def test_pictures_show_what_was_found(moved: Drift, tmp_path: Path) -> None:
    figure = plot_relabelled(moved.statistics, STATISTICS, moved.adjusted)
    assert [axes.get_title() for axes in figure.axes] == [f"{name}\np = 0.01" for name in STATISTICS]
    given = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines if line.get_label() == "these data"]
    np.testing.assert_allclose(given, moved.statistics[0])
    save(figure, tmp_path / "a.png")
    figure = plot_latent_drift(moved.latent_shift, moved.latent_spread, moved.latent_adjusted, moved.latents)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "z[2]"
    filled = figure.axes[0].collections[1]
    np.testing.assert_allclose(filled.get_offsets()[:, 0], [moved.latent_shift[2]])
    save(figure, tmp_path / "b.png")
    save(plot_latent_marginals(moved.codes_reference, moved.codes_new, moved.latents), tmp_path / "c.png")
    with pytest.raises(ValueError, match="at least one relabelling"):
        plot_relabelled(moved.statistics[:1])
    with pytest.raises(ValueError, match="spread is a ratio above 0"):
        plot_latent_drift(np.zeros(2), np.array([1.0, 0.0]), np.ones(2))
    with pytest.raises(ValueError, match="p_values has 3 entries"):
        plot_latent_drift(np.zeros(2), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="new has 2 entries"):
        plot_latent_marginals(np.zeros((4, 3)), np.zeros((4, 2)))


def test_the_page_holds_the_figures(moved: Drift) -> None:
    page = drift_page(moved, np.zeros((4, 6)), {"run": "r"})
    assert page.title == "The data have changed"
    figures = page.metrics()
    assert figures["sections"]["drift"]["p_value"] == moved.p_value
    assert figures["sections"]["latents"]["latents"][0]["latent"] == "z[2]"
    assert [verdict["name"] for verdict in figures["verdicts"]] == ["drift", *(f"drift_{name}" for name in STATISTICS)]
    assert "least likely new data" in page.render()


def test_the_page_names_a_small_level(moved: Drift) -> None:
    text = drift_page(replace(moved, alpha=0.001)).render()
    assert "less likely than all but 0.1% of the held-out data; 0.06 are expected without a change" in text
    assert "all but 5% of the held-out data; 3 are expected" in drift_page(moved).render()
