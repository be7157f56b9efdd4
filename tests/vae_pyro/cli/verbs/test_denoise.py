"""``vae-pyro denoise``: arrays and pictures of the clean signal, and their quality where it is known."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis import check_denoising
from tests.vae_pyro.cli.calls import done, refused
from vae_pyro import RunFolder, add_noise, load_data

importlib.import_module("skimage.restoration")  # its first import leaves what it leaves before anything is watched
importlib.import_module("skimage.filters")

SIZE = 800
FIT = ["--latent-dim", "2", "--set", "encoder=mlp:hidden=[8]", "--epochs", "1", "--no-compile"]


def smooth_images(size: int) -> torch.Tensor:
    """Sinusoids of random phase and direction, between 0 and 1, ``(size, 1, 8, 8)``."""
    random = torch.Generator().manual_seed(0)
    direction, phase = torch.rand(size, 2, 1, 1, generator=random), 6.3 * torch.rand(size, 1, 1, generator=random)
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"))
    return (0.5 + 0.5 * torch.sin((direction * grid).sum(1) + phase)).unsqueeze(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``counts`` and ``run`` that were fitted on files of noisy data, beside these files and the clean one."""
    folder = tmp_path_factory.mktemp("noisy")
    clean = smooth_images(SIZE)
    np.save(folder / "clean.npy", clean.numpy())
    np.save(folder / "counts.npy", add_noise(clean[:60], "poisson:peak=10", seed=7).numpy())
    np.save(folder / "noisy.npy", add_noise(clean, "gaussian:scale=0.3", seed=8).numpy())
    done(
        "fit", folder / "counts.npy", "--out", folder / "counts", "--likelihood", "gamma",
        "--set", "noise=poisson:peak=10", *FIT,
    )  # fmt: skip
    done("fit", folder / "noisy.npy", "--out", folder / "run", "--set", "noise=gaussian:scale=0.3", *FIT)
    return folder


def test_arrays_and_pictures_are_written(folder: Path, tmp_path: Path) -> None:
    run, data = folder / "counts", folder / "counts.npy"
    for words, size in (([data], 60), ([], 12)):
        shown = done("denoise", run, *words, "--out", tmp_path / "d.npz", "--draws", "50")
        assert f"{size} data denoised with 50 draws each" in shown
        with np.load(tmp_path / "d.npz", allow_pickle=False) as stored:
            assert stored["mean"].shape == stored["x"].shape == (size, 1, 8, 8)
            assert (stored["lower"] < stored["upper"]).all()
            assert stored["id"].shape == (size,)
            assert "clean" not in stored
            if words:
                np.testing.assert_array_equal(stored["x"], np.load(data))
    done("denoise", run, "--out", tmp_path / "d.png", "--limit", "4", "--draws", "50")
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")


def test_estimates_are_scored_against_clean_data(folder: Path, tmp_path: Path) -> None:
    """The run's own data: clean ones are split as they are, and the scores are those of the function."""
    words = ["--clean", folder / "clean.npy", "--data-range", "1", "--draws", "50", "--seed", "3"]
    shown = done("denoise", folder / "run", *words, "--out", tmp_path / "d.npz")
    test = load_data(folder / "noisy.npy").test
    clean = np.load(folder / "clean.npy")[test.ids.numpy()]
    check = check_denoising(RunFolder(folder / "run").load_model(), test, clean, data_range=1, num_draws=50, seed=3)
    assert " ".join(str(check).split()) in shown
    for word in ("question", "estimate", "threshold", *(verdict.outcome for verdict in check.verdicts)):
        assert word in shown
    with np.load(tmp_path / "d.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["clean"], clean)
        np.testing.assert_array_equal(stored["mean"], check.denoised.mean)


def test_filters_are_tuned_on_the_first_images_and_scored_on_the_others(folder: Path, tmp_path: Path) -> None:
    words = ["--clean", folder / "clean.npy", "--draws", "30", "--limit", "190", "--filters", "30"]
    shown = done("denoise", folder / "run", folder / "noisy.npy", *words, "--out", tmp_path / "d.npz")
    assert "160 data" in shown
    for name in ("gaussian(", "median(", "tv_chambolle(", "nl_means(", "bilateral("):
        assert name in shown
    with np.load(tmp_path / "d.npz", allow_pickle=False) as stored:
        assert stored["id"].tolist() == [*range(30, 190)]
        np.testing.assert_array_equal(stored["clean"], np.load(folder / "clean.npy")[30:190])
    done("denoise", folder / "run", folder / "noisy.npy", *words, "--out", tmp_path / "d.png")
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")


def test_refusals(folder: Path, tmp_path: Path) -> None:
    def says(*words: object) -> str:
        return refused("denoise", folder / "run", *words)

    np.save(tmp_path / "few.npy", np.load(folder / "clean.npy")[:-1])
    out = ("--out", tmp_path / "d.npz")
    assert "the ending chooses the format, .png or .npz" in says("--out", tmp_path / "d.csv")
    assert "requires num_draws of at least 19, got 10" in says(*out, "--draws", "10")
    assert "name these with --clean" in says(*out, "--filters", "5")
    assert "gives 799 data for 800 noisy ones" in says(folder / "noisy.npy", *out, "--clean", tmp_path / "few.npy")
    assert "or other rows" in says(*out, "--clean", tmp_path / "few.npy")  # of which other rows are the test data
    assert "at least 150 data, got 9" in says(*out, "--clean", folder / "clean.npy", "--limit", "9")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.npy"]
