"""What people hold in memory: it works, or one message says what to pass."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from vae_pyro import VAE, FitConfig, VAEConfig, evaluate, fit, load_data
from vae_pyro.data.dataset import as_split

X = np.random.default_rng(0).standard_normal((40, 4))
FRAME = pd.DataFrame(X, columns=list("abcd"))


class Polars:
    """A table that gives its columns through Arrow's C interface, as those of polars do."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._table = pa.Table.from_pandas(frame)
        self.columns = list(frame.columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def read_only(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = x.copy()
    x.flags.writeable = False
    return x


def build(**options: Any) -> VAE:
    return VAE(VAEConfig(x_shape=(4,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]", **options))


SAME: dict[str, Any] = {
    "DataFrame": FRAME,
    "DataFrame without names": pd.DataFrame(X),
    "nullable columns": FRAME.convert_dtypes(),
    "pyarrow.Table": pa.Table.from_pandas(FRAME),
    "polars": Polars(FRAME),
    "read-only": read_only(X),
    "reversed": X[::-1].copy()[::-1],
    "columns reversed": X[:, ::-1].copy()[:, ::-1],
    "big-endian": X.astype(">f8"),
    "long double": X.astype(np.longdouble),
    "requires_grad": torch.tensor(X, requires_grad=True),
    "TensorDataset": TensorDataset(torch.from_numpy(X)),
    "Subset": Subset(TensorDataset(torch.from_numpy(np.concatenate([X, X]))), range(40)),
    "lists": X.tolist(),
    "masked, nothing hidden": np.ma.MaskedArray(X, False),
}


@pytest.mark.parametrize("name", SAME)
def test_data_of_every_kind_are_the_same_numbers(name: str) -> None:
    split = as_split(SAME[name])
    values, given = split.batch(slice(None), torch.float64)
    np.testing.assert_allclose(values.numpy(), X, rtol=1e-6 if name == "lists" else 0)
    assert given == {}
    assert not values.requires_grad


@pytest.mark.parametrize("name", SAME)
def test_data_of_every_kind_are_fitted_and_evaluated(name: str) -> None:
    vae = build()
    fit(vae, SAME[name], config=FitConfig(epochs=1, compile=False), progress=False)
    found, expected = (evaluate(vae, x, num_draws=5).log_px for x in (SAME[name], X))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.int16, ">i4", np.bool_, np.float16])
def test_numbers_of_other_types(kind: Any) -> None:
    x = np.arange(12).reshape(6, 2).astype(kind)
    np.testing.assert_array_equal(as_split(x).batch(slice(None))[0].numpy(), x.astype(np.float32))
    assert as_split(x).summary().high == x.max()


def test_bfloat16_is_float32() -> None:
    x = torch.arange(12.0).reshape(6, 2)
    split = as_split(x.bfloat16())
    assert split.dtype == torch.float32
    assert torch.equal(split.stored(slice(None)), x)


def test_a_masked_array_keeps_its_mask() -> None:
    hidden = np.random.default_rng(1).random(X.shape) < 0.2
    masked = np.ma.MaskedArray(np.where(hidden, 1e20, X), hidden)
    split = as_split(masked)
    assert split.mask is not None
    np.testing.assert_array_equal(split.mask.numpy(), ~hidden)
    stated = torch.ones(X.shape, dtype=torch.bool)
    stated[0] = False
    both = as_split(masked, stated).mask
    assert both is not None
    np.testing.assert_array_equal(both.numpy(), ~hidden & stated.numpy())
    vae = build()
    fit(vae, masked, config=FitConfig(epochs=1, compile=False), progress=False)
    expected = evaluate(vae, X, mask=torch.from_numpy(~hidden), num_draws=5).log_px
    np.testing.assert_allclose(evaluate(vae, masked, num_draws=5).log_px, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"masked array hides elements; pass its values.*mask=~x.mask"):
        vae.posterior_moments(masked)
    rows = as_split(list(masked))
    assert torch.equal(rows.mask, split.mask)  # type: ignore[arg-type]
    whole = np.ma.MaskedArray(X.astype(np.int64), hidden)
    assert int(as_split(whole).mask.sum()) == int((~hidden).sum())  # type: ignore[union-attr]


class Endless(IterableDataset[Any]):
    """Items that have no numbers."""

    def __iter__(self) -> Any:
        return iter(())


REFUSED: dict[str, tuple[Any, str]] = {
    "DataLoader": (DataLoader(TensorDataset(torch.from_numpy(X))), "pass its data set, loader.dataset"),
    "IterableDataset": (Endless(), "expected is a map-style dataset"),
    "text": (np.array([["a", "b"]]), "data are numbers, got an array of type <U1"),
    "objects": (np.array([[1, None]], dtype=object), "data are numbers, got an array of type object"),
    "complex": (X.astype(complex), "data are numbers, got an array of type complex128"),
    "complex tensor": (torch.zeros(3, 2, dtype=torch.complex64), "data are real numbers"),
    "names of categories": (FRAME.assign(e="u"), r"columns of the table are no numbers: 'e'.*kinds='auto'"),
    "channels last": (np.zeros((5, 16, 16, 3)), r"channels last.*numpy.moveaxis\(x, -1, 1\)"),
    "ragged lists": ([[1.0], [1.0, 2.0]], "data are a tensor, an array, a table of numbers, or a map-style Dataset"),
    "nothing": (None, "expected|data are"),
    "a number": (3.0, "shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused_with_what_to_pass(name: str) -> None:
    x, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        as_split(x)


def test_nothing_is_no_data() -> None:
    with pytest.raises(ValueError, match="data are a tensor, an array, a table of numbers, .*got NoneType"):
        load_data(None)


def test_labels_that_are_names_are_refused_with_how_to_code_them() -> None:
    with pytest.raises(ValueError, match="y holds <U1 .*return_inverse=True"):
        as_split(X, y=np.array(["a", "b"] * 20))
    with pytest.raises(ValueError, match=r"y holds integers, got torch.float64 \(40,\)"):
        as_split(X, y=np.full(40, np.nan))
    with pytest.raises(ValueError, match=r"y holds an integer for each of 40 data, got torch.int64 \(39,\)"):
        as_split(X, y=np.zeros(39, int))
    for y in (pd.Series([0, 1] * 20), [0, 1] * 20, np.array([0, 1] * 20, ">u2"), read_only(np.array([0, 1] * 20))):
        assert as_split(X, y=y).y.tolist() == [0, 1] * 20  # type: ignore[union-attr]


def test_labels_that_a_masked_array_hides_are_unknown() -> None:
    y = np.ma.MaskedArray([0, 1] * 20, np.arange(40) < 3)
    found = as_split(X, y=y).y
    assert found is not None
    assert found.tolist() == [-1, -1, -1, *([0, 1] * 20)[3:]]


@pytest.mark.parametrize("kind", ["list", "reversed", "read-only", "DataFrame", "integers"])
def test_masks_of_every_kind(kind: str) -> None:
    mask = np.random.default_rng(0).random(X.shape) < 0.8
    given = {
        "list": mask.tolist(),
        "reversed": mask[::-1].copy()[::-1],
        "read-only": read_only(mask),
        "DataFrame": pd.DataFrame(mask),
        "integers": mask.astype(int),
    }[kind]
    found = as_split(X, given).mask
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), mask)


@pytest.mark.parametrize("mask", [np.full(X.shape, np.nan), np.full(X.shape, 2), np.full(X.shape, "yes"), X])
def test_masks_of_other_values_are_refused(mask: Any) -> None:
    with pytest.raises(ValueError, match="mask is a boolean for each element of x, got"):
        as_split(X, mask)
