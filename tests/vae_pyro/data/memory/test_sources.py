"""Data in memory are split, described and fitted as those of files are."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from vae_pyro import VAE, FitConfig, RunError, RunFolder, VAEConfig, fit, load_data

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": RANDOM.normal(size=60), "b": RANDOM.normal(size=60), "c": RANDOM.choice(["x", "y"], 60)})
NUMBERS = FRAME[["a", "b"]].to_numpy(copy=True)


def test_a_table_in_memory_is_that_of_a_file(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    for kinds in (None, "auto", {"c": "category"}):
        here, there = load_data(FRAME, kinds=kinds), load_data(tmp_path / "t.csv", kinds=kinds)
        assert torch.equal(here.train.head, there.train.head)
        assert here.facts.fingerprint == there.facts.fingerprint
        assert here.facts.columns == there.facts.columns
        assert here.facts.schema == there.facts.schema


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (NUMBERS, (2,)),
        (torch.from_numpy(NUMBERS).float(), (2,)),
        (NUMBERS.tolist(), (2,)),
        (sparse.csr_matrix(np.eye(60, 4)), (4,)),
        (torch.utils.data.TensorDataset(torch.from_numpy(NUMBERS)), (2,)),
        (np.zeros((60, 1, 4, 4), np.uint8), (1, 4, 4)),
    ],
)
def test_whatever_holds_rows_is_taken(x: Any, shape: tuple[int, ...]) -> None:
    data = load_data(x, test_fraction=0.25)
    assert data.x_shape == shape
    assert len(data.train) + len(data.validation) + len(data.test) == 60
    assert len(data.test) == 15
    assert data.facts.name == "data in memory"


def test_labels_and_hidden_values_stay_with_their_rows() -> None:
    names = np.where(NUMBERS[:, 0] > 0, "up", "down")
    hidden = np.ma.masked_array(NUMBERS, NUMBERS > 1)
    data = load_data(hidden, labels=names, given_labels="all")
    assert data.facts.classes == ("down", "up")
    assert data.train.mask is not None
    assert data.train.y is not None
    x, mask = data.train.batch(slice(None))[0], data.train.mask
    assert torch.equal(data.train.y[mask[:, 0]] == 1, x[mask[:, 0], 0] > 0)
    assert not bool((x[mask] > 1).any())
    assert not bool(mask.all())


def test_a_run_on_data_in_memory_keeps_what_is_known_of_them(tmp_path: Path) -> None:
    data = load_data(FRAME)
    vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]"))
    config = FitConfig(epochs=1, compile=False)
    for resume in (False, True):
        fit(vae, data.train, config=config, data=data, out=tmp_path / "r", resume=resume)
    run = RunFolder(tmp_path / "r")
    assert run.facts().columns == ("a", "b")
    with pytest.raises(RunError, match="was fitted on arrays; pass the data yourself"):
        run.data_config()


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        ("digits", {"labels": [1]}, "labels are of data in memory"),
        (NUMBERS, {"labels": [1, 2]}, r"y has shape \(2,\), x has 60 rows"),
        (torch.utils.data.TensorDataset(torch.zeros(60, 2)), {"labels": [0] * 60}, "has labels of its own"),
        (object(), {}, "data are a tensor, an array, a table of numbers"),
        (np.array(["a", "b"]), {}, "data are numbers"),
        (NUMBERS[:0], {}, "no data|holds no|0 rows"),
    ],
)
def test_refusals(x: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_data(x, **options)
