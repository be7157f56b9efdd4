"""Data-copying: nominal where nothing is copied, found where it is, and not confused with mass in dense regions."""

import json
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from analysis.samples.copying import data_copying
from analysis.stats.mann_whitney import mann_whitney
from analysis.stats.nearest import nearest

type Array = np.ndarray[Any, Any]


def _normal(seed: int, *shape: int) -> Array:
    draws: Array = np.random.default_rng(seed).normal(size=shape)
    return draws


@pytest.mark.parametrize("ties", [False, True])
def test_mann_whitney_agrees_with_its_definition_and_with_scipy(ties: bool) -> None:
    x, y = _normal(0, 40), _normal(1, 30) + 0.5
    if ties:
        x, y = x.round(0), y.round(0)
    probability, error, z = mann_whitney(x, y)
    above = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
    assert probability == pytest.approx(above.mean())
    assert error == pytest.approx((above.mean(1).var(ddof=1) / 40 + above.mean(0).var(ddof=1) / 30) ** 0.5)
    p = mannwhitneyu(x, y, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert NormalDist().cdf(z) == pytest.approx(p)
    assert mann_whitney(np.ones(5), np.ones(4)) == (0.5, 0.0, 0.0)


def test_nearest_rows_are_found_across_blocks_with_exact_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.stats.nearest._BLOCK", 7)
    reference = 1e4 + _normal(0, 50, 6)
    query = np.concatenate([reference[[3, 48]], reference[[20]] + 1e-6, 1e4 + _normal(1, 20, 6)])
    distance, index = nearest(query, reference)
    assert distance[:2].tolist() == [0.0, 0.0]
    assert index[:3].tolist() == [3, 48, 20]
    assert distance[2] == pytest.approx(6**0.5 * 1e-6, rel=1e-3)
    every = np.linalg.norm(query[:, None] - reference, axis=2)
    np.testing.assert_allclose(distance, every.min(1))
    np.testing.assert_array_equal(index, every.argmin(1))


def test_nothing_copied_is_nominal() -> None:
    """200 repetitions: C_T over its error is standard normal, mean and spread within 4 SE (1 of 16,000 seeds each), and
    5 % are below -1.645 within 4 SE. At the verdict's level of 1e-3, 3 or more alarms come in 1 of 900 seeds."""
    z, alarms = [], 0
    for seed in range(200):
        result = data_copying(
            _normal(3 * seed, 150, 3), _normal(3 * seed + 1, 120, 3), _normal(3 * seed + 2, 300, 3), seed=seed
        )
        z.append(result.copying / result.copying_se)
        alarms += result.verdicts[0].outcome != "pass"
    assert abs(np.mean(z)) < 4 / 200**0.5
    assert abs(np.std(z) - 1) < 4 / 400**0.5
    assert abs(np.mean(np.array(z) < -1.645) - 0.05) < 4 * (0.05 * 0.95 / 200) ** 0.5
    assert alarms <= 2


def test_copies_are_found_and_their_share_is_estimated() -> None:
    """Of 400 samples 30 % are training data with a little noise: found in 20 of 20 (power above 0.95 at the verdict's
    level). Their share is met within 4 errors each time (all 20 in 999 of 1,000 seeds), without bias within 4 SE."""
    shares = []
    for seed in range(20):
        train, held_out = _normal(3 * seed, 500, 5), _normal(3 * seed + 1, 400, 5)
        generated = _normal(3 * seed + 2, 400, 5)
        generated[:120] = train[:120] + 1e-3 * generated[:120]
        result = data_copying(generated, held_out, train, num_cells=1, seed=seed)
        (verdict,) = result.verdicts
        assert verdict.outcome == "warn"
        assert abs(result.share - 0.3) < 4 * result.share_se
        np.testing.assert_array_equal(result.nearest_train[:120], np.arange(120))
        shares.append(result.share)
    assert abs(np.mean(shares) - 0.3) < 4 * np.std(shares) / 20**0.5


def test_a_model_that_only_copies_fails() -> None:
    train = _normal(0, 500, 5)
    result = data_copying(train[:300] + 1e-3, _normal(1, 300, 5), train, seed=0)
    assert result.verdicts[0].outcome == "fail"
    assert result.share > 0.95
    assert result.z < -15
    assert "as if 100% were copies" in str(result) or "as if 99% were copies" in str(result)
    assert json.loads(json.dumps(result.summary()))["num_cells"] == 6


def test_mass_in_a_dense_region_is_not_copying() -> None:
    """Too much of a narrow cluster shortens the distances of all, not those within a cell."""
    random = np.random.default_rng(0)

    def mixture(size: int, narrow: float) -> Array:
        chosen = random.random(size) < narrow
        return np.where(chosen[:, None], 0.1 * random.normal(size=(size, 3)) + 8, random.normal(size=(size, 3)))

    result = data_copying(mixture(500, 0.8), mixture(500, 0.3), mixture(1000, 0.3), num_cells=2, seed=0)
    assert result.z < -10
    assert abs(result.copying) < 4 * result.copying_se
    assert result.verdicts[0].outcome == "pass"


def test_underfit_is_not_copying_either() -> None:
    result = data_copying(3 * _normal(0, 200, 4), _normal(1, 200, 4), _normal(2, 400, 4), seed=0)
    assert result.copying > 4 * result.copying_se
    assert result.verdicts[0].outcome == "pass"
    assert "underfit, not copied" in str(result)
    far = data_copying(50 + _normal(0, 40, 2), _normal(1, 40, 2), _normal(2, 99, 2), num_cells=5, seed=0)
    assert far.z > 5


def test_bad_input() -> None:
    x = _normal(0, 30, 2)
    with pytest.raises(ValueError, match="events differ"):
        data_copying(x, x, x[:, :1], seed=0)
    with pytest.raises(ValueError, match="30 generated, 0 held out, 30 for training"):
        data_copying(x, x[:0], x, seed=0)
    with pytest.raises(ValueError, match="num_cells must be at least 1, got 0"):
        data_copying(x, x, x, num_cells=0, seed=0)
