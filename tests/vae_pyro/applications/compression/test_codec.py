"""Data come back bit for bit, and what cannot be coded is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from tests.vae_pyro.applications.compression.models import tiny
from vae_pyro import VAE, Dataset, Split, VAEConfig, load_data
from vae_pyro.applications.compression import codec as codec_module
from vae_pyro.applications.compression.archive import Archive, read_archive
from vae_pyro.applications.compression.codec import compress, decompress
from vae_pyro.core.isolation import derive_seed

type Array = np.ndarray[Any, Any]


@pytest.mark.parametrize(
    ("likelihood", "high"),
    [
        ("bernoulli", 1),
        ("categorical:num_classes=5", 4),
        ("discretized_logistic:levels=40", 39),
        ("discretized_logistic:levels=9,scale=predicted", 8),
        ("poisson", 30),
        ("negative_binomial", 30),
        ("negative_binomial:dispersion=predicted", 20_000),
    ],
)
def test_every_discrete_likelihood_gives_the_data_back(likelihood: str, high: int) -> None:
    x = np.random.default_rng(0).integers(0, high + 1, (30, 3, 2)).astype(np.int16)
    vae = tiny(likelihood, (3, 2), 2)
    made = compress(vae, x)
    again = decompress(vae, made)
    assert again.dtype == x.dtype
    np.testing.assert_array_equal(again, x)
    assert made.header.escape == (high > 4096)


@pytest.mark.parametrize(
    ("likelihood", "noise", "high"),
    [
        ("bernoulli", "poisson:peak=3", 9),
        ("discretized_logistic:levels=6", "poisson:peak=2", 5000),
        ("gamma", "poisson:peak=3", 9),
        ("discretized_logistic:levels=6", "salt_and_pepper:probability=0.2", 5),
    ],
)
def test_noisy_data_that_are_discrete_come_back(likelihood: str, noise: str, high: int) -> None:
    x = np.random.default_rng(0).integers(0, high + 1, (30, 4))
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=1, likelihood=likelihood, noise=noise, encoder="mlp:hidden=[8]"))
    made = compress(vae, x)
    np.testing.assert_array_equal(decompress(vae, made), x)
    assert made.header.escape == (high > 4096)


def test_digits_come_back_in_their_type_with_their_rows(fitted: VAE, digits: Dataset, file: Path) -> None:
    read = read_archive(file)
    again = decompress(fitted, read)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, digits.test.values.numpy())
    np.testing.assert_array_equal(read.ids, digits.test.ids.numpy())
    assert read.length.file == 8 * file.stat().st_size
    plain = compress(fitted, digits.test.values.numpy()[:3])
    assert plain.header.first_id == 0
    np.testing.assert_array_equal(plain.ids, np.arange(3))


def test_random_observations_are_fixed_by_the_seed() -> None:
    split = load_data("digits", binarize="dynamic").train.take(slice(0, 40))
    vae = tiny(x_shape=split.x_shape)
    again = decompress(vae, compress(vae, split, seed=4))
    np.testing.assert_array_equal(again, split.fixed(derive_seed(4, 0)).values.numpy())
    assert again.dtype == np.uint8


def test_scaled_and_floating_data_come_back() -> None:
    x = np.random.default_rng(0).integers(0, 2, (20, 4))
    vae = tiny()
    scaled = Split(torch.from_numpy(255 * x.astype(np.uint8)), top=255.0)
    again = decompress(vae, compress(vae, scaled))
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, x)
    for kind in (np.float16, np.float32, np.bool_):
        typed = decompress(vae, compress(vae, x.astype(kind)))
        assert typed.dtype == kind
        np.testing.assert_array_equal(typed, x)
    truths = decompress(vae, compress(vae, torch.from_numpy(x).bool()))
    assert truths.dtype == np.bool_


def test_a_type_that_cannot_come_back_is_refused_before_anything_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("coded")

    monkeypatch.setattr(codec_module, "encode", never)
    with pytest.raises(ValueError, match="data of dtype bfloat16 cannot be restored; convert them to booleans"):
        compress(tiny(), torch.zeros(3, 4, dtype=torch.bfloat16))


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_counts_beyond_the_precision_of_float64_are_refused(kind: type) -> None:
    vae = tiny("poisson", (1,))
    largest: Array = np.array([[2**53 - 1]], dtype=kind)
    np.testing.assert_array_equal(decompress(vae, compress(vae, largest)), largest)
    for value in (2**53, 2**53 + 1):
        with pytest.raises(ValueError, match="x must have values below 9007199254740992"):
            compress(vae, np.array([[value]], dtype=kind))


def test_sparse_data_come_back_in_the_smallest_type_that_holds_them() -> None:
    x = np.random.default_rng(0).integers(0, 300, (20, 4))
    again = decompress(vae := tiny("poisson"), compress(vae, csr_matrix(x)))
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, x)


@pytest.mark.parametrize(
    ("change", "way_out"),
    [
        ({"structure": "conditional:num_classes=3"}, "structure 'single'; this VAE is 'conditional'"),
        ({"posterior": "full_rank"}, "fit one with posterior='mean_field'"),
        ({"posterior": "flow"}, "fit one with posterior='mean_field'"),
        ({"prior": "mixture"}, "fit one with prior='normal'"),
        ({"likelihood": "gaussian"}, "'gaussian' is a density; fit one with 'bernoulli'"),
        ({"likelihood": "multinomial"}, "not independent given z"),
    ],
)
def test_models_that_cannot_code_are_refused_with_the_way_out(change: dict[str, str], way_out: str) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2).replace(**change))
    with pytest.raises(ValueError, match=way_out):
        compress(vae, np.zeros((3, 4)))


def test_data_that_cannot_be_coded_are_refused() -> None:
    vae = tiny()
    with pytest.raises(ValueError, match=r"requires values in \{0, 1\}"):
        compress(vae, np.full((3, 4), 2))
    with pytest.raises(ValueError, match="requires complete data"):
        compress(vae, Split(torch.zeros(3, 4), mask=torch.tensor([[True, True, False, True]] * 3)))
    with pytest.raises(ValueError, match="shape"):
        compress(vae, np.zeros((3, 5)))


def test_without_the_library_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ValueError, match=r"pip install 'vae_pyro\[compression\]'"):
        compress(tiny(), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"pip install 'vae_pyro\[compression\]'"):
        decompress(tiny(), archive)
