"""Run folders: configuration, weights, checkpoint, history and metrics of a fit, see `vae_pyro.core.files`."""

import csv
import io
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vae_pyro.core.files import FORMAT, RunError, read_json, read_tensors, write_atomically, write_json, write_tensors
from vae_pyro.core.versions import installed_versions
from vae_pyro.data.dataset import DataConfig
from vae_pyro.data.facts import DataFacts
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE

_VERSIONED = ("vae_pyro", "torch", "pyro-ppl", "torchvision", "arviz", "numpy")


def weights(vae: VAE) -> dict[str, Tensor]:
    """Parameters and buffers by name, each tensor once although model and guide share some."""
    kept = set(vae.state_dict())
    named = {**dict(vae.named_parameters()), **dict(vae.named_buffers())}
    return {name: tensor.detach() for name, tensor in named.items() if name in kept}


def set_weights(vae: VAE, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy ``tensors`` into the VAE, in place.

    Raises:
        RunError: names or shapes differ from the VAE's.
    """
    own = weights(vae)
    if set(own) != set(tensors):
        odd = sorted(set(own) ^ set(tensors))
        raise RunError(f"{origin} does not fit the model in config.json: {', '.join(odd[:4])} in one only")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise RunError(
                f"{origin} does not fit the model in config.json: {name} has shape "
                f"{tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def provenance() -> dict[str, Any]:
    """Versions of what computed a run, and the git revision of this package where it is a checkout."""
    versions = {"python": platform.python_version(), **installed_versions(_VERSIONED)}
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # not the revision of a repository around a .venv
        revision = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        revision = None
    return {"versions": versions, "git_revision": revision}


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


class RunFolder:
    """The files of one run.

    ``config.json`` (model, fit, data, seed, versions), ``model.safetensors``, ``state/checkpoint.safetensors`` (what
    resume needs), ``history.csv``, ``events.*`` (TensorBoard), ``metrics.json``, ``inference.nc``, ``report.html``.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.model_file = self.path / "model.safetensors"
        self.checkpoint_file = self.path / "state" / "checkpoint.safetensors"
        self.history_file = self.path / "history.csv"
        self.metrics_file = self.path / "metrics.json"
        self.inference_file = self.path / "inference.nc"
        self.held_out_file = self.path / "held_out.nc"
        self.report_file = self.path / "report.html"

    def begin(self, config: dict[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder and write ``config.json``.

        Raises:
            RunError: the folder holds another run and ``overwrite`` is false, or files that are not a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{str(self.path)!r} is a file; name a folder")
        held = sorted(item.name for item in self.path.iterdir()) if self.path.exists() else []
        if held and not self.config_file.exists():
            raise RunError(f"{str(self.path)!r} holds {held[0]!r} and no run; name an empty or a new folder")
        if held and not overwrite:
            raise RunError(
                f"{str(self.path)!r} holds a run; pass --resume (resume=True) or --overwrite (overwrite=True)"
            )
        made = (self.metrics_file, self.inference_file, self.held_out_file, self.report_file)
        for file in (self.checkpoint_file, self.model_file, self.history_file, *made):
            file.unlink(missing_ok=True)
        for file in self.path.glob("events.*"):
            file.unlink()
        self.checkpoint_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.config_file, {"format": FORMAT, **config, **provenance()})

    def config(self) -> dict[str, Any]:
        """``config.json``.

        Raises:
            RunError: see `read_json`; or another format.
        """
        config = read_json(self.config_file)
        if config.get("format") != FORMAT:
            raise RunError(f"{str(self.config_file)!r} has format {config.get('format')!r}, expected {FORMAT!r}")
        return config

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write ``history.csv``, one row for each epoch."""
        if not rows:
            return
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_atomically(self.history_file, text.getvalue().encode())

    def read_history(self) -> list[dict[str, float]]:
        """Rows of ``history.csv``.

        Raises:
            RunError: the file is absent or holds something that is not a number.
        """
        try:
            with self.history_file.open(newline="") as file:
                return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        except FileNotFoundError:
            raise RunError(f"no history.csv in {str(self.path)!r}: the run has not finished an epoch") from None
        except (ValueError, TypeError, csv.Error) as error:
            raise RunError(f"{str(self.history_file)!r} is damaged: {error}") from None

    def update_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics into ``metrics.json``; entries of other names are kept."""
        try:
            earlier = read_json(self.metrics_file)
        except RunError:  # absent or damaged: it holds nothing reliable, the new metrics replace it
            earlier = {}
        write_json(self.metrics_file, {**earlier, **metrics})

    def weights_digest(self) -> str | None:
        """SHA-256 of the finished weights, as the header of their file states it; ``None`` where there are none."""
        try:
            with safe_open(self.model_file, framework="pt") as file:
                header: dict[str, str] = file.metadata() or {}
        except (SafetensorError, OSError):
            return None
        return header.get("sha256") if header.get("kind") == "model" else None

    def save_model(self, vae: VAE) -> None:
        """Write ``model.safetensors``."""
        write_tensors(self.model_file, weights(vae), "model", {"model": vae.config.model_dump(mode="json")})

    def load_model(self, device: str | torch.device = "cpu") -> VAE:
        """The VAE of this run.

        Raises:
            RunError: a file is absent, truncated, foreign or changed, or the weights are of another model.
        """
        config = self.config()
        if not self.model_file.exists() and self.checkpoint_file.exists():
            raise RunError(f"the run in {str(self.path)!r} has not finished; continue it with --resume (resume=True)")
        tensors, info = read_tensors(self.model_file, "model")
        stated = VAEConfig(**config["model"])
        if VAEConfig(**info["model"]) != stated:
            raise RunError(f"{str(self.model_file)!r} is of another model than {str(self.config_file)!r}")
        vae = VAE(stated)
        dtype = next(tensor.dtype for tensor in tensors.values() if tensor.dtype.is_floating_point)
        vae.to(dtype=dtype)
        set_weights(vae, tensors, str(self.model_file))
        return vae.to(device)

    def facts(self) -> DataFacts:
        """What is known of the data that the run was fitted on.

        Raises:
            RunError: see `config`; or facts that cannot be read.
        """
        stored = self.config().get("facts", {})
        try:
            return DataFacts.from_json(stored)
        except ValueError as error:
            raise RunError(f"{str(self.config_file)!r}: {error}") from None

    def data_config(self, root: str | Path | None = None) -> DataConfig:
        """What the run was fitted on.

        Args:
            root: another folder of downloaded data than the run had.

        Raises:
            RunError: the run was fitted on arrays, not on a source that can be loaded again.
        """
        config = self.config()
        if "source" not in config["data"]:
            raise RunError(f"the run in {str(self.path)!r} was fitted on arrays; pass the data yourself")
        stored = DataConfig(**config["data"])
        return stored if root is None else stored.replace(root=str(root))
