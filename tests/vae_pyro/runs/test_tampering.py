"""Files that were damaged, exchanged or made up, with right checksums or without, end in one error that names them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vae_pyro import VAE, FitConfig, RunError, RunFolder, VAEConfig, fit
from vae_pyro.core.files import read_bound, read_json, read_tensors, write_json, write_tensors
from vae_pyro.runs.weights import weights

X = torch.linspace(-1, 1, 24).view(8, 3)
MODEL = VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]", decoder="mlp:hidden=[4]")
FIT = FitConfig(epochs=2, batch_size=4, compile=False, patience=5)

type Tamper = Callable[[RunFolder], None]


def _run(out: Path, seed: int = 0, **options: Any) -> RunFolder:
    fit(VAE(MODEL, seed=seed), X, validation=X, config=FIT, seed=seed, out=out, **options)
    return RunFolder(out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, ``a`` and ``b``."""
    path = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate("ab"):
        _run(path / name, seed)
    return path


@pytest.fixture
def folder(runs: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(runs / "a", tmp_path / "a")
    shutil.copytree(runs / "b", tmp_path / "b")
    return RunFolder(tmp_path / "a")


def config(**changes: Any) -> Tamper:
    """Change or remove (``None``) sections of config.json, with a right checksum."""

    def tamper(folder: RunFolder) -> None:
        stored = {**folder.config(), **changes}
        write_json(folder.config_file, {key: value for key, value in stored.items() if value is not None})

    return tamper


def section(name: str, **changes: Any) -> Tamper:
    def tamper(folder: RunFolder) -> None:
        config(**{name: {**folder.config()[name], **changes}})(folder)

    return tamper


def tensors(file: str, kind: str, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Tamper:
    """Change tensors or info of a file, with a right checksum."""

    def tamper(folder: RunFolder) -> None:
        path = folder.path / file
        (held, info), bound = read_tensors(path, kind), read_bound(path, kind)
        change(held, info)
        write_tensors(path, held, kind, info, bound)

    return tamper


def model(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Tamper:
    return tensors("model.safetensors", "model", change)


def checkpoint(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Tamper:
    """Change the checkpoint; there is none before it, and the run has not finished."""

    def tamper(folder: RunFolder) -> None:
        folder.model_file.unlink()
        folder.previous_file.unlink(missing_ok=True)
        tensors("state/checkpoint.safetensors", "checkpoint", change)(folder)

    return tamper


def state(**changes: Any) -> Tamper:
    return checkpoint(lambda held, info: info["state"].update(changes))


def drop(prefix: str) -> Callable[[dict[str, Any], dict[str, Any]], Any]:
    def change(held: dict[str, Any], info: dict[str, Any]) -> None:
        for name in [name for name in held if name.startswith(prefix)]:
            del held[name]

    return change


def every(prefix: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any], Any], Any]:
    def change(held: dict[str, Any], info: dict[str, Any]) -> None:
        held.update({name: function(value) for name, value in held.items() if name.startswith(prefix)})

    return change


def exchange(*names: str) -> Tamper:
    def tamper(folder: RunFolder) -> None:
        for name in names:
            shutil.copy(folder.path.parent / "b" / name, folder.path / name)

    return tamper


def text(name: str, change: Callable[[bytes], bytes]) -> Tamper:
    def tamper(folder: RunFolder) -> None:
        path = folder.path / name
        path.write_bytes(change(path.read_bytes()))

    return tamper


def nested(folder: RunFolder) -> None:
    folder.config_file.write_text("[" * 200_000 + "]" * 200_000)


def pipe(name: str) -> Tamper:
    def tamper(folder: RunFolder) -> None:
        (folder.path / name).unlink()
        os.mkfifo(folder.path / name)

    return tamper


def unfinished(tamper: Tamper) -> Tamper:
    def both(folder: RunFolder) -> None:
        folder.model_file.unlink()
        tamper(folder)

    return both


REFUSED = {
    "no model": config(model=None),
    "no fit": config(fit=None),
    "no data": config(data=None),
    "no seed": config(seed=None),
    "a list as model": config(model=[1]),
    "a text as seed": config(seed="one"),
    "a list of data": config(data=[["source", "digits"]]),
    "another format": config(format="vae_pyro run 9"),
    "another seed": config(seed=7),
    "an unknown key": section("model", colour="red"),
    "a negative latent dimension": section("model", latent_dim=-3),
    "another latent dimension": section("model", latent_dim=2),
    "a shape of text": section("model", x_shape="three"),
    "an unknown likelihood": section("model", likelihood={"name": "magic", "options": {}}),
    "a likelihood of a number": section("model", likelihood=7),
    "facts of a list": config(facts=[1, 2]),
    "nested json": nested,
    "a pipe as config": pipe("config.json"),
    "a pipe as model": pipe("model.safetensors"),
    "config of another run": exchange("config.json"),
    "model of another run": exchange("model.safetensors"),
    "model and history of another run": exchange("model.safetensors", "history.csv"),
    "history of another run": exchange("history.csv"),
    "a changed history": text("history.csv", lambda content: content.replace(b"1", b"2")),
    "a cut history": text("history.csv", lambda content: content[:-40]),
    "a shorter history": text("history.csv", lambda content: b"\n".join(content.splitlines()[:-1]) + b"\n"),
    "a history that is no text": text("history.csv", lambda content: b"\xff\xfe" + content),
    "a model without weights": model(lambda held, info: held.clear()),
    "a model without a tensor": model(lambda held, info: held.popitem()),
    "a model with another tensor": model(lambda held, info: held.update(more=torch.zeros(1))),
    "weights of another type": model(every("model.decoder", lambda value: value.double())),
    "weights that are integers": model(every("", lambda value: value.long())),
    "weights of another shape": model(every("", lambda value: value.reshape(-1))),
    "a model of nothing": model(lambda held, info: info.clear()),
    "a model of a list": model(lambda held, info: info.update(model=[1])),
    "a model of another dimension": model(lambda held, info: info["model"].update(latent_dim=9)),
    "checkpoint of another run": unfinished(exchange("state/checkpoint.safetensors")),
    "a checkpoint without a state": checkpoint(lambda held, info: info.clear()),
    "a checkpoint without weights": checkpoint(drop("model/")),
    "a checkpoint without its optimizer": checkpoint(drop("optimizer/")),
    "a checkpoint without its generator": checkpoint(drop("random/")),
    "a checkpoint without its best weights": checkpoint(drop("best/")),
    "an optimizer of another shape": checkpoint(every("optimizer/", lambda value: value.reshape(-1))),
    "a generator of another type": checkpoint(every("random/", lambda value: value.double())),
    "a cut generator": checkpoint(every("random/", lambda value: value[:7])),
    "a section that is not known": checkpoint(lambda held, info: held.update({"other/x": torch.zeros(1)})),
    "an optimizer of many parameters": checkpoint(lambda held, info: held.update({"optimizer/99/m": torch.zeros(2)})),
    "an optimizer of a name": checkpoint(lambda held, info: held.update({"optimizer/one/m": torch.zeros(2)})),
    "a negative epoch": state(epoch=-1),
    "an epoch of text": state(epoch="two"),
    "an epoch beyond the last": state(epoch=50, history=[{}] * 50),
    "a batch beyond the last": state(epoch=1, batch=99, history=[{}]),
    "a batch without its sums": state(epoch=1, batch=1, history=[{}], sums={}),
    "sums of text": state(sums={"count": "four"}),
    "a history that is too short": state(history=[]),
    "a history of numbers": state(history=[1, 2]),
    "a field that is not known": state(mood="good"),
    "a state of a list": checkpoint(lambda held, info: info.update(state=[1])),
}


def read_all(folder: RunFolder) -> None:
    """What reads every file: the model and its history, or the checkpoint, which is continued."""
    folder.facts()
    if folder.model_file.exists():
        folder.load_model()
        folder.read_history()
    else:
        _run(folder.path, resume=True)


@pytest.mark.parametrize("name", REFUSED)
def test_tampering_is_refused(folder: RunFolder, name: str) -> None:
    REFUSED[name](folder)
    with pytest.raises(RunError) as refused:
        read_all(folder)
    said = str(refused.value)
    assert "\n" not in said
    assert str(folder.path) in said, said
    assert len(said) < 500, said


def test_what_is_refused_is_not_changed(folder: RunFolder) -> None:
    state(epoch=-1)(folder)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(RunError):
        _run(folder.path, resume=True)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_damaged_checkpoint_has_a_predecessor(runs: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise StopError

    longer = FIT.replace(epochs=4, checkpoint_seconds=0)

    def go(out: Path, **options: Any) -> VAE:
        return fit(VAE(MODEL), X, validation=X, config=longer, out=out, **options).vae

    expected = weights(go(tmp_path / "whole"))
    with pytest.raises(StopError):
        go(tmp_path / "r", on_epoch=stop)
    folder = RunFolder(tmp_path / "r")
    assert read_tensors(folder.previous_file, "checkpoint")[1]["state"]["epoch"] == 2
    folder.checkpoint_file.write_bytes(folder.checkpoint_file.read_bytes()[:-9])
    with pytest.warns(
        UserWarning, match=r"checkpoint\.safetensors' is truncated .* going on from the checkpoint before"
    ):
        found = weights(go(tmp_path / "r", resume=True))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_goes_on_with_another_learning_rate_and_records_it(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        raise StopError

    config = FIT.replace(checkpoint_seconds=0)
    with pytest.raises(StopError):
        fit(VAE(MODEL), X, validation=X, config=config, out=tmp_path / "r", on_epoch=stop)
    slower = config.replace(optimizer="adam:lr=1e-4", clip_norm=1.0)
    with pytest.raises(RunError, match="has fit optimizer = "):
        fit(VAE(MODEL), X, validation=X, config=config.replace(optimizer="sgd"), out=tmp_path / "r", resume=True)
    result = fit(VAE(MODEL), X, validation=X, config=slower, out=tmp_path / "r", resume=True)
    assert [row["lr"] for row in result.history] == [1e-3, 1e-4]
    folder = RunFolder(tmp_path / "r")
    stored = read_json(folder.config_file)
    assert stored["fit"]["optimizer"]["lr" if "lr" in stored["fit"]["optimizer"] else "options"] in (1e-4, {"lr": 1e-4})
    assert len(stored["earlier"]) == 1
    folder.load_model()
    with pytest.raises(RunError, match="has fit epochs = 2"):
        fit(VAE(MODEL), X, validation=X, config=slower.replace(epochs=9), out=tmp_path / "r", resume=True)


def test_a_fit_starts_from_a_checkpoint(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        raise StopError

    with pytest.raises(StopError):
        fit(VAE(MODEL), X, config=FitConfig(epochs=3, checkpoint_seconds=0), out=tmp_path / "r", on_epoch=stop)
    parent = RunFolder(tmp_path / "r")
    own = weights(parent.load_checkpoint())
    child = fit(
        VAE(MODEL), X, config=FitConfig(epochs=1, optimizer="sgd:lr=1e-30"), init_from=parent, out=tmp_path / "c"
    )
    found = weights(child.vae)
    assert all(torch.allclose(found[name], own[name]) for name in own)
    stored = json.loads((tmp_path / "c" / "config.json").read_text())
    assert stored["parent"] == {"run": "r", "weights": parent.checkpoint_digest()}


def test_checkpoints_are_written_within_an_epoch_and_continued_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FIT.replace(epochs=1, batch_size=1, checkpoint_seconds=1e-9)
    expected = weights(fit(VAE(MODEL), X, validation=X, config=config).vae)
    write, places = RunFolder.write_checkpoint, []

    class KilledError(BaseException):
        pass

    def killed(self: RunFolder, tensors: Any, state: dict[str, Any]) -> None:
        write(self, tensors, state)
        places.append((state["epoch"], state["batch"]))
        if len(places) == 3:
            raise KilledError

    monkeypatch.setattr(RunFolder, "write_checkpoint", killed)
    with pytest.raises(KilledError):
        fit(VAE(MODEL), X, validation=X, config=config, out=tmp_path / "r")
    monkeypatch.undo()
    assert places == [(0, 1), (0, 2), (0, 3)]
    found = weights(fit(VAE(MODEL), X, validation=X, config=config, out=tmp_path / "r", resume=True).vae)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
