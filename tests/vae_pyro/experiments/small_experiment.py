"""A small experiment that is fitted in seconds, and functions that note, fail or interrupt after a run."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from vae_pyro import VAE, RunFolder
from vae_pyro.core.files import read_tensors
from vae_pyro.data.dataset import Dataset
from vae_pyro.experiments.folder import Experiment
from vae_pyro.experiments.running import run_experiment

SMALL: list[tuple[list[str], Any]] = [
    (["model", "encoder", "hidden"], [8]),
    (["model", "latent_dim"], 2),
    (["fit", "epochs"], 3),
    (["fit", "batch_size"], 20),
]


EAGER = [*SMALL, (["fit", "compile"], False)]


def go(out: Path, source: str, **options: Any) -> Experiment:
    given = {"objectives": ["elbo"], "seeds": 1, "assignments": EAGER, "backend": "sequential", **options}
    return run_experiment(out, source, **given)


def tensors(experiment: Experiment) -> dict[str, dict[str, torch.Tensor]]:
    read = {trial.name: read_tensors(trial.folder.model_file, "model")[0] for trial in experiment.trials}
    return {name: {key: value.clone() for key, value in found.items()} for name, found in read.items()}


def assert_same_bits(first: Experiment, second: Experiment) -> None:
    expected = tensors(first)
    for name, found in tensors(second).items():
        assert found.keys() == expected[name].keys()
        for key, value in found.items():
            assert torch.equal(value, expected[name][key]), (name, key)


def note_visit(folder: RunFolder, vae: VAE, data: Dataset, *, log: Path, figure: int = 1) -> None:
    """What `analysis` leaves, in small: a file made from the weights, and here a trace of every call."""
    with log.open("a") as file:
        file.write(folder.path.name + "\n")
    total = sum(float(value.double().sum()) for value in vae.state_dict().values())
    (folder.path / "measured.json").write_text(json.dumps({"total": total * figure, "n": len(data.test)}))


def fail_until(folder: RunFolder, vae: VAE, data: Dataset, *, marker: Path, name: str) -> None:
    if folder.path.name == name and not marker.exists():
        raise OSError("the disk\nis full")


def interrupt(folder: RunFolder, vae: VAE, data: Dataset) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
