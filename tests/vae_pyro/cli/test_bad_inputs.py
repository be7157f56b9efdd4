"""Bad inputs and options of all verbs: each is refused in one line, at once, and leaves nothing behind."""

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from tests.vae_pyro.cli.calls import call

HUGE = str(10**13)
FAST = ["--set", "encoder=mlp:hidden=[4]", "--latent-dim", "2", "--no-compile", "--epochs", "1"]


def header(shape: tuple[int, ...]) -> bytes:
    """Beginning of a .npy file of float32."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return made.getvalue()


def npz(file: Path, **members: bytes | np.ndarray[Any, Any]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            made = io.BytesIO()
            if isinstance(content, np.ndarray):
                np.save(made, content)
            archive.writestr(f"{name}.npy", content if isinstance(content, bytes) else made.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are no data."""
    folder = tmp_path_factory.mktemp("bad")
    x = np.random.default_rng(0).random((40, 3), dtype=np.float32)
    (folder / "huge.npy").write_bytes(header((10**15, 10**6)))
    (folder / "empty.npz").write_bytes(b"")
    npz(folder / "huge.npz", x=header((10**12, 100)))
    npz(folder / "more.npz", x=header((1000, 100)) + bytes(1000))
    npz(folder / "huge_y.npz", x=x, y=header((10**13,)))
    npz(folder / "junk.npz", x=b"hello")
    one = {"data": np.ones(1), "row": np.zeros(1, np.int32), "col": np.zeros(1, np.int32)}
    npz(folder / "rows.npz", format=np.array(b"coo"), shape=np.array([10**13, 5]), **one)
    npz(folder / "no_shape.npz", format=np.array(b"csr"), shape=np.array("abc"), **one)
    wide = sparse.coo_array((np.ones(30), (np.arange(30), np.arange(30))), shape=(30, 10**12))
    sparse.save_npz(folder / "wide.npz", wide.tocsr())
    (folder / "short.csv").write_text("a,b,c\n" + "1.5,2.5,3.5\n" * 30 + "1,2\n" + "1.5,2.5,3.5\n" * 30)
    (folder / "control.csv").write_text("a\x1b[31m,b\na\x1b[31m,1\n" * 30)
    for name in ("pipe.npy", "pipe.npz", "pipe.csv", "pipe.parquet", "pipe.zarr", "pipe.json", "pipe.vpz"):
        os.mkfifo(folder / name)
    (folder / "pictures").mkdir()
    os.mkfifo(folder / "pictures" / "a.png")
    (folder / "zero.csv").symlink_to("/dev/zero")
    settings = {
        "list": "[]",
        "number": "5",
        "model": '{"model": 5}',
        "name": '{"model": {"likelihood": {"name": []}}}',
        "null": '{"fit": null}',
        "seed": '{"seed": true}',
        "long": '{"seed": ' + "9" * 5000 + "}",
        "preset": '{"preset": {"a": 1}}',
        "nested": '{"model": ' * 100_000,
        "objectives": '{"experiment": {"objectives": "elbo"}}',
        "seeds": '{"experiment": {"seeds": [1.5]}}',
        "grid": '{"experiment": {"grid": {"latent_dim": 5}}}',
        "unknown": '{"experiment": {"seed": 5}}',
    }
    for name, text in settings.items():
        (folder / f"{name}.json").write_text(text)
    (folder / "deep.toml").write_text("a." * 50_000 + "b = 1")
    return folder


FIT = ["fit", "{folder}/{name}", *FAST, "--out", "{out}"]
CONFIG = ["fit", "moons", "--no-compile", "--config", "{folder}/{name}", "--out", "{out}"]
COMPARE = ["compare", "moons", "--backend", "sequential", *FAST, "--out", "{out}"]
STATED = [*COMPARE, "--config", "{folder}/{name}"]
CASES: list[tuple[list[str], str, str]] = [
    (FIT, "huge.npy", "it has .* bytes, and its header asks for 4000000000"),
    (FIT, "empty.npz", "cannot read"),
    (FIT, "huge.npz", "take 364 TiB of memory, and at most .* are there; save fewer rows"),
    (FIT, "more.npz", "'x.npy' has .* bytes, and its header asks for 400,000"),
    (FIT, "huge_y.npz", "take .* TiB of memory"),
    (FIT, "junk.npz", "'x' is no array"),
    (FIT, "rows.npz", "row pointers of 10,000,000,000,000 rows take 72.8 TiB"),
    (FIT, "no_shape.npz", "cannot read the sparse matrix"),
    (FIT, "wide.npz", "take .*iB of memory"),
    (FIT, "short.csv", "line 32: 2 fields under a header of 3; complete the row"),
    *((FIT, f"pipe.{end}", "is a named pipe; save what it gives") for end in ("npy", "npz", "csv", "parquet")),
    (FIT, "pipe.zarr", "is a named pipe"),
    (FIT, "pictures", "a.png' is a named pipe"),
    (FIT, "zero.csv", "is a device"),
    (["schema", "{folder}/{name}"], "pipe.csv", "is a named pipe"),
    (["encode", "{run}", "{folder}/{name}", "--out", "{out}.npz"], "huge.npz", "take 364 TiB of memory"),
    (CONFIG, "list.json", r"holds \[\]; expected is an object"),
    (CONFIG, "number.json", "holds 5; expected is an object"),
    (CONFIG, "model.json", "model: Input should be a valid dictionary, got 5"),
    (CONFIG, "name.json", "a likelihood is a name or a mapping"),
    (CONFIG, "null.json", "fit: Input should be a valid dictionary, got None"),
    (CONFIG, "seed.json", "seed: Input should be a valid integer, got True"),
    (CONFIG, "long.json", "cannot read the settings"),
    (CONFIG, "preset.json", "preset: Input should be a valid string"),
    (CONFIG, "nested.json", "they are nested too deeply"),
    (CONFIG, "deep.toml", "they are nested too deeply"),
    (CONFIG, "pipe.json", "is a named pipe"),
    (STATED, "objectives.json", "experiment.objectives: Input should be a valid list"),
    (STATED, "seeds.json", "experiment.seeds"),
    (STATED, "grid.json", "experiment.grid.latent_dim: Input should be a valid list"),
    (STATED, "unknown.json", "known keys of experiment are objectives, seeds"),
    ([*COMPARE, "--seeds", HUGE], "", "an experiment has at most 1,000,000 runs"),
    ([*COMPARE, "--draws", HUGE], "", "num_draws=10,000,000,000,000: .* take 218 TiB of memory"),
    ([*COMPARE, "--evaluation-seed", str(2**70)], "", "less than or equal to 9223372036854775807"),
    (["fit", "moons", *FAST, "--latent-dim", HUGE, "--out", "{out}"], "", "the weights of the VAE .* TiB of memory"),
    (["fit", "moons", *FAST, "--devices", "3000", "--out", "{out}"], "", "devices=3000, but this machine gives"),
    (["fit", "moons", *FAST, "--num-nodes", "4", "--out", "{out}"], "", "num_nodes=4, but nothing has started"),
    (["fit", "moons", *FAST, "--set", f"seed={2**70}", "--out", "{out}"], "", "seed has at most 64 bits"),
    (["fit", "moons", "--set", "encoder.hidden=" + "[" * 50_000, "--out", "{out}"], "", r"got '\[\[\[.*\.\.\."),
    (["evaluate", "{run}", "--draws", HUGE], "", "num_draws=10,000,000,000,000"),
    (["sample", "{run}", "--num", HUGE, "--out", "{out}.npz"], "", "draws of shape .* PiB of memory"),
    (["sample", "{run}", "--num", "100000", "--out", "{out}.png"], "", "a picture shows at most 2,500 data"),
    (["reconstruct", "{run}", "--num", "100000", "--out", "{out}.png"], "", "a picture shows at most 2,500 data"),
    (["decompress", "{run}", "{folder}/{name}", "--out", "{out}.npy"], "pipe.vpz", "is a named pipe"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "name", "words"), CASES, ids=[f"{case[0][0]} {case[1] or case[0][-1][:30]}" for case in CASES]
)
def test_one_line_at_once_and_nothing_left(
    arguments: list[str], name: str, words: str, folder: Path, digits_run: Path, tmp_path: Path
) -> None:
    places = {"folder": folder, "name": name, "run": digits_run, "out": tmp_path / "out"}
    filled = [word.format(**places) if len(word) < 100 else word for word in arguments]
    result = call(*filled)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    if "Usage:" not in result.stderr:
        assert len(lines) == 1
    joined = " ".join(" ".join(lines).replace("│", " ").split())
    assert re.search(words, joined), joined
    assert not list(tmp_path.iterdir())


def test_control_characters_of_names_are_written_out(folder: Path) -> None:
    shown = call("schema", folder / "control.csv").output
    assert "\x1b" not in shown
    assert r"a\x1b" in shown
