"""How stored values become observations: scale, binarization, dequantization, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vae_pyro import DataConfig, load_data
from vae_pyro.core.isolation import seeded
from vae_pyro.data.tables.schema import Column


def digits(**options: Any) -> Any:
    return load_data("digits", **options)


def test_dynamic_binarization_is_new_at_every_call_and_fixed_in_evaluation() -> None:
    data = digits(binarize="dynamic")
    with seeded(0):
        first, _ = data.train.batch(slice(0, 200))
        second, _ = data.train.batch(slice(0, 200))
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    for split in (data.test, data.validation, data.split("train")):
        one, _ = split.batch(slice(None))
        two, _ = split.batch(slice(None))
        assert torch.equal(one, two)
        assert set(one.unique().tolist()) == {0.0, 1.0}
    assert "binarised once with seed 0" in data.facts.evaluation
    assert torch.equal(digits(binarize="dynamic").test.values, data.test.values)
    assert torch.equal(digits(binarize="static").test.values, data.test.values)


def test_binarization_draws_have_the_right_probability() -> None:
    data = digits(binarize="dynamic")
    grey, _ = digits().train.batch(slice(None))
    with seeded(1):
        mean = torch.stack([data.train.batch(slice(None))[0] for _ in range(100)]).mean(0)
    spread = (grey * (1 - grey) / 100).sqrt()
    assert torch.equal(mean[spread == 0], grey[spread == 0])
    z = ((mean - grey) / spread)[spread > 0]
    # The mean of n z-scores of variance 1; 5 standard errors.
    assert abs(float(z.mean())) < 5 / len(z) ** 0.5
    assert float(z.var()) == pytest.approx(1, abs=0.05)


def test_static_and_threshold() -> None:
    static, cut = digits(binarize="static"), digits(binarize="threshold")
    assert torch.equal(static.train.batch(slice(None))[0], static.train.batch(slice(None))[0])
    grey, _ = digits().test.batch(slice(None))
    assert torch.equal(cut.test.batch(slice(None))[0], (grey >= 0.5).float())
    assert cut.facts.evaluation == "no random element"


def test_dequantized_data_are_a_density_on_the_unit_interval() -> None:
    data = digits(dequantize=True)
    x, _ = data.test.batch(slice(None))
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() <= 1
    raw, _ = digits(scale="none").test.batch(slice(None))
    assert torch.equal((x * 17).floor().clamp(max=16), raw)
    assert data.train.summary().step is None
    assert data.facts.space == "(stored values + uniform noise) / 17"
    with pytest.raises(ValueError, match="exclude each other"):
        digits(dequantize=True, binarize="static")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"binarise": "dynamic"}, "binarise: is not a known key .*known keys: source, root"),
        ({"binarize": "soft"}, "binarize"),
        ({"validation_fraction": 1.0}, "validation_fraction: Input should be less than 1, got 1.0"),
        ({"test_fraction": 0.0}, "test_fraction"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        digits(**options)


def test_tables_cannot_be_binarized() -> None:
    with pytest.raises(ValueError, match=r"binarize requires intensities, got \[0, 4254\] without a known top"):
        load_data("breast_cancer", binarize="dynamic")


def test_equal_configurations_are_one_key() -> None:
    one, two = (DataConfig(source="x.csv", kinds={"a": "real", "b": ("s", "m")}) for _ in range(2))
    assert hash(one) == hash(two)
    assert len({one: 1, two: 2, one.replace(kinds={}): 3}) == 2


def test_a_table_of_all_kinds_is_not_streamed() -> None:
    for options in ({"kinds": {}}, {"columns": (Column(name="a", kind="real"),)}):
        with pytest.raises(ValueError, match="a table with columns of all kinds cannot be streamed; leave stream out"):
            DataConfig(source="x.parquet", stream=True, **options)  # type: ignore[arg-type]


def test_missing_values_do_not_hide_what_the_others_reach(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((40, 2, 3))
    x[3, 1, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", binarize="dynamic")
    assert any(part.mask is not None for part in (data.train, data.validation, data.test))
    np.save(tmp_path / "x.npy", 3 * x)
    with pytest.raises(ValueError, match=r"binarize requires intensities, got \[0.0.*, 2.9.*\] without a known top"):
        load_data(tmp_path / "x.npy", binarize="dynamic")
