"""Comparisons meet the closed difference of two Gaussians at their stated rates, and refuse what cannot be compared."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
import torch

from analysis import to_datatree
from analysis.density.comparison import Comparison, compare
from analysis.density.elpd import elpd, elpd_of
from analysis.density.result import ELPD
from tests.truths import PPCA, example
from vae_pyro import VAE, Split, VAEConfig, load_data


@pytest.fixture(scope="module")
def truth() -> PPCA:
    return example()


@pytest.fixture(scope="module")
def other(truth: PPCA) -> PPCA:
    """The same model with a noise variance of 0.7 instead of 0.5."""
    return PPCA(truth.weight, truth.mean, 0.7)


def divergence(first: PPCA, second: PPCA) -> float:
    """KL(p_1(x) || p_2(x)) of two pPCA of one mean, which is what the first gains in each datum of its own."""
    ratio = torch.linalg.solve(second.covariance, first.covariance)
    return 0.5 * float(ratio.trace() - len(ratio) - torch.logdet(ratio))


@pytest.fixture(scope="module")
def pair(truth: PPCA, other: PPCA) -> tuple[ELPD, ELPD]:
    x = truth.sample(400, seed=1)
    return tuple(  # type: ignore[return-value]
        elpd_of(model.programs(stretch=1.4), x, num_draws=300, seed=seed) for seed, model in enumerate((truth, other))
    )


def test_the_better_model_comes_first_whatever_the_order(pair: tuple[ELPD, ELPD]) -> None:
    right, wrong = pair
    for comparison in (
        compare(right, wrong, names=["right", "wrong"]),
        compare(wrong, right, names=["wrong", "right"]),
    ):
        assert comparison.names == ("right", "wrong")
        assert comparison.difference[0] == 0
        assert comparison.se[0] == comparison.mcse[0] == comparison.bias[0] == 0
        assert comparison.difference[1] == pytest.approx(wrong.elpd - right.elpd)
    assert compare(right, wrong).names == ("model 1", "model 2")


def test_errors_are_paired_and_kept_apart(pair: tuple[ELPD, ELPD]) -> None:
    comparison = compare(*pair)
    gap = pair[1].pointwise - pair[0].pointwise
    np.testing.assert_allclose(comparison.pointwise[1], gap)
    assert comparison.se[1] == pytest.approx(sqrt(400) * gap.std(ddof=1))
    assert comparison.se[1] < 0.5 * sqrt(pair[0].se ** 2 + pair[1].se ** 2)  # what unpaired errors would be
    assert comparison.mcse[1] == pytest.approx(sqrt(pair[0].mcse ** 2 + pair[1].mcse ** 2))
    assert comparison.se[1] ** 2 == pytest.approx(comparison.se_test[1] ** 2 + comparison.mcse[1] ** 2)


def rates(truth: PPCA, other: PPCA, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """z of the difference as an estimate of its expectation, and of that on these very data."""
    total, drawn = [], []
    expected = -100 * divergence(truth, other)
    for seed in range(repetitions):
        x = truth.sample(100, seed=2000 + seed)
        results = [
            elpd_of(model.programs(stretch=1.4), x, num_draws=200, seed=2 * seed + i)
            for i, model in enumerate((truth, other))
        ]
        comparison = compare(*results, names=["right", "wrong"])
        sign = 1 if comparison.names[0] == "right" else -1
        gap, exact = sign * comparison.difference[1], float((other.log_evidence(x) - truth.log_evidence(x)).sum())
        total.append((gap - expected) / comparison.se[1])
        drawn.append((gap - exact) / comparison.mcse[1])
    return np.array(total), np.array(drawn)


def check_rates(z: tuple[np.ndarray, np.ndarray]) -> None:
    for values in z:
        assert abs((np.abs(values) < 1.96).mean() - 0.95) < 4 * sqrt(0.95 * 0.05 / len(values))


def test_the_difference_meets_its_closed_form_within_its_errors(truth: PPCA, other: PPCA) -> None:
    """|z| < 1.96 in 95 % of 60 test sets, within 4 binomial errors: for either error, wrong in 1 of 2,000 seeds.

    The bias of 200 draws, 1e-3 nats per datum, is nearly the same for both models.
    """
    check_rates(rates(truth, other, 60))


@pytest.mark.slow
def test_the_difference_meets_its_closed_form_at_its_stated_rate(truth: PPCA, other: PPCA) -> None:
    """The same over 400 test sets; wrong in 1 of 10,000 seeds."""
    check_rates(rates(truth, other, 400))


def test_verdicts_tell_a_worse_model_and_do_not_tell_equal_ones(truth: PPCA, other: PPCA) -> None:
    """With 1,000 data the worse model is behind by 10 standard errors; one and the same, drawn twice, by fewer than 2
    or than 4 nats."""
    x = truth.sample(1000, seed=3)
    right, wrong = (elpd_of(model.programs(), x, num_draws=50) for model in (truth, other))
    comparison = compare(right, wrong, names=["right", "wrong"])
    assert comparison.difference[1] < -6 * comparison.se[1]
    assert [verdict.outcome for verdict in comparison.verdicts] == ["pass", "pass"]
    assert "right predicts better than wrong" in str(comparison)
    assert comparison.mcse[1] < 1e-5

    again = [elpd_of(truth.programs(stretch=1.4), x, num_draws=50, seed=seed) for seed in (1, 2)]
    same = compare(*again)
    assert same.verdicts[0].outcome == "warn"
    assert "is not distinguishable from" in str(same)
    few = compare(*(elpd_of(model.programs(), x[:50], num_draws=50) for model in (truth, other)))
    assert few.verdicts[0].outcome == "warn"


@pytest.mark.parametrize("num_draws", [50, 500])
@pytest.mark.parametrize("stretch", [0.2, 0.3, 0.5])
def test_a_model_that_lacks_draws_is_not_called_worse(truth: PPCA, stretch: float, num_draws: int) -> None:
    """One model, one guide exact and one narrow: the difference is 0, and what is seen is the narrow one's bias, to
    which the first order is blind."""
    x = truth.sample(300, seed=4)
    exact, narrow = (elpd_of(truth.programs(stretch=s), x, num_draws=num_draws) for s in (1.0, stretch))
    comparison = compare(exact, narrow, names=["exact", "narrow"])
    assert comparison.names[0] == "exact"
    assert comparison.difference[1] < 1.5 * narrow.bias  # from twice to twenty times what the first order sees
    verdict = comparison.verdicts[1]
    assert verdict.outcome == "warn"
    assert f"raise num_draws (now {num_draws})" in verdict.advice
    assert "predicts better" not in str(comparison)
    # The best can only rise: a bad guide of the better model does not unsettle the order.
    worse = elpd_of(PPCA(truth.weight, truth.mean, 20.0).programs(), x, num_draws=num_draws)
    assert compare(narrow, worse).verdicts[1].outcome == "pass"


def test_an_upper_bound_settles_what_k_hat_cannot(truth: PPCA) -> None:
    """A model far behind, with a narrow guide: its CUBO lies below the other's estimate."""
    x = truth.sample(300, seed=4)
    far = PPCA(truth.weight, truth.mean, 20.0)
    comparison = compare(*(elpd_of(m.programs(stretch=s), x, num_draws=500) for m, s in ((truth, 1.0), (far, 0.5))))
    assert not comparison.results[1].trusted
    assert comparison.verdicts[1].outcome == "pass"


def test_it_prints_a_table_and_sums_up(pair: tuple[ELPD, ELPD], truth: PPCA) -> None:
    worst = elpd_of(PPCA(truth.weight, truth.mean, 2.0).programs(), truth.sample(400, seed=1), num_draws=300)
    comparison = compare(*pair, worst, names=["right", "wrong", "a long name"])
    lines = str(comparison).splitlines()
    assert len(lines) == 5
    assert [line.split("  ")[0].strip() for line in lines[2:5]] == ["right", "wrong", "a long name"]
    assert "over 400 held-out data, 300 draws each" in lines[0]
    assert len(comparison.verdicts) == 4
    summary = comparison.summary()
    assert summary["best"] == "right"
    assert [row["name"] for row in summary["models"]] == list(comparison.names)
    assert set(summary["models"][1]) >= {"difference", "se", "se_test", "mcse", "bias", "num_bad"}


def test_trees_are_compared_as_results_are(truth: PPCA, other: PPCA) -> None:
    x = truth.sample(30, seed=0)
    trees = [to_datatree(model.programs(diagonal=True), x, num_draws=100, seed=1) for model in (truth, other)]
    results = [elpd_of(model.programs(diagonal=True), x, num_draws=100, seed=1) for model in (truth, other)]
    np.testing.assert_allclose(compare(*trees).difference, compare(*results).difference)
    assert isinstance(compare(trees[0], results[1]), Comparison)


def test_one_datum_has_no_standard_error(truth: PPCA, other: PPCA) -> None:
    x = truth.sample(1, seed=0)
    comparison = compare(*(elpd_of(model.programs(), x, num_draws=30) for model in (truth, other)))
    assert np.isnan(comparison.se).all()
    assert comparison.table()[1]["se"] is None
    assert comparison.verdicts[0].outcome == "warn"
    assert "nan" in str(comparison)


def test_what_cannot_be_compared_is_refused(pair: tuple[ELPD, ELPD], truth: PPCA) -> None:
    right, wrong = pair
    for changed, message in (
        (replace(wrong, space="stored values / 16"), "different observation spaces, 'the values as given' and 'stored"),
        (replace(wrong, ids=wrong.ids + 7), "different data: 400 with ids 0, 1, 2, ..., 400 with ids 7, 8, 9, ..."),
        (replace(wrong, fingerprint="0"), "other values under the same ids"),
        (replace(wrong, num_draws=200), "300 and 200 draws, and bounds of different K are not comparable"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(right, changed)
    densities = replace(right, measure="density"), replace(wrong, measure="probability")
    with pytest.raises(ValueError, match="p\\(x\\) is a density in one and a probability in the other"):
        compare(*densities)
    given = replace(densities[1], measure="probability given the total")
    with pytest.raises(ValueError, match="a probability in one and a probability given the total in the other"):
        compare(replace(right, measure="probability"), given)
    compare(right, densities[1])  # a pair that does not say is believed
    for one, two, message in (
        ("x", "x and y", r"model 1 is scored by log p\(x\), model 2 by log p\(x, y\).*on the data without y"),
        ("x", "x and the mask", r"by log p\(x, mask\).*compare structures 'not_at_random' among themselves"),
        ("x given y", "x", r"by log p\(x \| y\), model 2 by log p\(x\).*compare structures 'conditional' among"),
        ("x and y", "x, and y of 3 in 400 data", "all models with the same y"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(replace(right, of=one), replace(wrong, of=two))
    assert compare(right, replace(wrong, of="x and y")).summary()["of"] == "x and y"
    with pytest.raises(ValueError, match="at least two models, got 1"):
        compare(right)
    for names in (["one"], ["same", "same"]):
        with pytest.raises(ValueError, match="names must be 2 distinct names"):
            compare(right, wrong, names=names)
    shorter = elpd_of(truth.programs(), truth.sample(400, seed=1)[:399], num_draws=300)
    with pytest.raises(ValueError, match="different data: 400 .* 399"):
        compare(right, shorter)


def test_binarizations_and_likelihoods_are_told_apart() -> None:
    """The same rows binarised with two seeds are other data; a Gaussian of 0/1 data is no probability of them."""
    data = load_data("digits", binarize="dynamic")
    few = data.train.take(slice(0, 20))
    options = {"x_shape": data.x_shape, "latent_dim": 2, "encoder": "mlp:hidden=[8]"}
    vae = VAE(VAEConfig(**options))
    one, two = (elpd_of(vae, few.fixed(seed), num_draws=30) for seed in (1, 2))
    np.testing.assert_array_equal(one.ids, two.ids)
    with pytest.raises(ValueError, match="binarised, dequantised, masked or scaled otherwise; fix random"):
        compare(one, two)
    gaussian = elpd_of(VAE(VAEConfig(likelihood="gaussian", **options)), few.fixed(1), num_draws=30)
    with pytest.raises(ValueError, match="is a probability in one and a density in the other"):
        compare(one, gaussian)
    grey = load_data("digits").train.take(slice(0, 20))
    with pytest.raises(ValueError, match="different observation spaces"):
        compare(elpd_of(VAE(VAEConfig(likelihood="gaussian", **options)), grey, num_draws=30), gaussian)


def test_structures_that_score_other_things_are_told_apart() -> None:
    """On one and the same masked or labelled data; without its classes, m2 has the density of x like others."""
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    masked, labelled = Split(x, mask=x < 0.5), Split(x, y=torch.arange(30) % 2)

    def scored(structure: str, split: Split) -> ELPD:
        options = {"structure": structure, "encode_mask": split.mask is not None}
        vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]", **options))
        result = elpd_of(vae, split, num_draws=30)
        assert elpd(to_datatree(vae, split, num_draws=30, predictive=False)).of == result.of
        return result

    single, joint = scored("single", masked), scored("not_at_random", masked)
    assert (single.of, joint.of) == ("x", "x and the mask")
    with pytest.raises(ValueError, match=r"log p\(x\), model 2 by log p\(x, mask\)"):
        compare(single, joint)

    single, given = scored("single", Split(x)), scored("conditional:num_classes=2", labelled)
    with pytest.raises(ValueError, match=r"log p\(x\), model 2 by log p\(x \| y\)"):
        compare(single, given)
    joint = scored("m2:num_classes=2", labelled)
    with pytest.raises(ValueError, match=r"log p\(x\), model 2 by log p\(x, y\)"):
        compare(single, joint)
    compare(single, scored("m2:num_classes=2", Split(x)))
    compare(single, scored("m2:num_classes=2", Split(x, y=torch.full((30,), -1))))
    some = scored("m2:num_classes=2", Split(x, y=torch.where(torch.arange(30) < 10, 1, -1)))
    assert some.of == "x, and y of 10 in 30 data"


def test_other_masks_are_other_data(truth: PPCA) -> None:
    x = truth.sample(20, seed=0)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[3, 2] = False
    results = [elpd_of(truth.programs(), Split(x, mask=m), num_draws=30) for m in (None, mask)]
    with pytest.raises(ValueError, match="other values under the same ids"):
        compare(*results)
