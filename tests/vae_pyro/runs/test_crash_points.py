"""A fit that is killed, or finds the disk full, at any of its file calls leaves a folder that can be used again."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.vae_pyro.runs.file_calls import KilledError, file_calls
from vae_pyro import VAE, FitConfig, RunError, RunFolder, VAEConfig, fit
from vae_pyro.runs.weights import weights

X = torch.arange(12.0).view(4, 3) / 12
CONFIG = FitConfig(epochs=2, batch_size=2, checkpoint_seconds=0, compile=False)
type How = Literal["full", "once", "killed"]


def fitted(out: Path, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    model = VAEConfig(
        x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[]", decoder="mlp:hidden=[]"
    )
    return weights(fit(VAE(model, seed=seed), X, config=CONFIG, seed=seed, out=out, **options).vae)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return fitted(tmp_path_factory.mktemp("whole") / "run")


def test_an_undisturbed_fit_is_counted(tmp_path: Path) -> None:
    with file_calls(tmp_path / "run") as calls:
        fitted(tmp_path / "run")
    assert len(calls.seen) > 20
    assert any(call.startswith("os.link checkpoint") for call in calls.seen)


def survives(out: Path, expected: dict[str, Tensor], point: int, how: How, *, overwrite: bool) -> bool:
    """Whether call number ``point`` was reached; the folder is as good as new afterwards, by the way that is named."""
    if overwrite:
        fitted(out, seed=1)
    with file_calls(out, point, how) as calls:
        expected_error: type[BaseException] = KilledError if how == "killed" else OSError
        try:
            fitted(out, overwrite=overwrite)
        except expected_error:
            pass
        except Warning as warning:
            if "TensorBoard" not in str(warning):  # its events are not worth a fit
                raise
    reached = len(calls.seen) > point
    folder = RunFolder(out)
    try:
        found = weights(folder.load_model())
    except RunError:
        pass
    else:  # one run or the other, and never a mixture
        assert overwrite or all(torch.equal(found[name], expected[name]) for name in expected)
    again = resumed(out, folder, overwrite)
    assert all(torch.equal(again[name], expected[name]) for name in expected), f"{point} {how} {calls.seen[point:]}"
    assert not list(out.rglob(".*.tmp")), f"{point} {how}"
    assert len(folder.read_history()) == CONFIG.epochs
    return reached


def resumed(out: Path, folder: RunFolder, overwrite: bool) -> dict[str, Tensor]:
    """The run, finished as its folder says that it can be."""
    try:
        if not folder.config_file.exists():
            return fitted(out)
        if overwrite and folder.config()["seed"] == 1:  # killed before the old run was replaced
            return fitted(out, overwrite=True)
        return fitted(out, resume=True)
    except RunError as error:
        pytest.fail(f"the folder cannot be used again: {error}")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("how", ["killed", "full", "once"])
def test_some_file_calls(tmp_path: Path, whole: dict[str, Tensor], how: How, overwrite: bool) -> None:
    for point in range(3, 60, 13):
        survives(tmp_path / str(point), whole, point, how, overwrite=overwrite)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TensorBoard")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("how", ["killed", "full", "once"])
def test_every_file_call(tmp_path: Path, whole: dict[str, Tensor], how: How, overwrite: bool) -> None:
    point = 0
    while survives(tmp_path / str(point), whole, point, how, overwrite=overwrite):
        point += 1
    assert point > 20
