"""``vae-pyro compare``: a plan from a file or options, its table, and refusals before anything is fitted."""

from pathlib import Path

import numpy as np
import pytest

from tests.vae_pyro.cli.calls import done, refused


def test_compare_from_a_file_prints_a_table_and_continues(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        """
        [model]
        latent_dim = 2
        encoder = {name = "mlp", hidden = [8]}
        [fit]
        epochs = 2
        compile = false
        [experiment]
        objectives = ["elbo", "stl"]
        seeds = 2
        grid = {"optimizer.lr" = [1e-3, 1e-2]}
        baseline = "stl"
        """
    )
    arguments = ("compare", "digits", "--config", tmp_path / "e.toml", "--draws", "25", "--limit", "40", "--out")
    first = done(*arguments, tmp_path / "e", "--backend", "sequential")
    for word in ("8 done", "stl optimizer.lr=0.01", "log p(x)", "nats per datum", "comparison.html"):
        assert word in first
    assert "elbo optimizer.lr=0.01 minus stl" in first
    weights = {file: file.stat().st_mtime_ns for file in (tmp_path / "e" / "runs").rglob("model.safetensors")}
    assert len(weights) == 8
    assert done(*arguments, tmp_path / "e", "--backend", "sequential") == first
    assert {file: file.stat().st_mtime_ns for file in weights} == weights


def test_compare_reads_data_that_are_streamed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (300, 1, 4, 4), dtype=np.uint8))
    shown = done(
        "compare", tmp_path / "x.npy", "--set", "stream=true", "--binarize", "dynamic", "--likelihood", "bernoulli",
        "--objective", "elbo", "--objective", "stl", "--seeds", "1", "--epochs", "1", "--set", "encoder.hidden=[4]",
        "--no-compile", "--draws", "25", "--backend", "sequential", "--out", tmp_path / "e",
    )  # fmt: skip
    assert "2 done" in shown
    assert "60 data, 25 draws each" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--objective", "elbw"], "unknown objective 'elbw'; did you mean 'elbo'?"),
        (["--objective", "elbo", "--grid", "binarize=none,dynamic"], "densities of different observations"),
        (["--objective", "elbo", "--grid", "latent_dim"], "--grid must have the form key=value,value"),
        (["--objective", "elbo", "--backend", "slurm"], "slurm"),
        (["--objective", "elbo", "--baseline", "iwae"], "the baseline 'iwae' is none of the objectives elbo"),
    ],
)
def test_compare_refuses_in_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    fast = ["--epochs", "1", "--seeds", "1", "--set", "encoder.hidden=[4]", "--no-compile", "--draws", "25"]
    assert words in refused("compare", "digits", "--out", tmp_path / "e", *fast, "--limit", "20", *arguments)
