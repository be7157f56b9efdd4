"""Run folders: configuration, weights, checkpoint, history and metrics of a fit, see `vae_pyro.core.files`."""

import csv
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_pyro.core.files import (
    FORMAT,
    RunError,
    digest_of,
    interpreted,
    read_bound,
    read_json,
    read_tensors,
    tensors_digest,
    write_atomically,
    write_json,
    write_tensors,
)
from vae_pyro.data.dataset import DataConfig
from vae_pyro.data.facts import DataFacts
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.runs.exclusive import ExclusiveFolder
from vae_pyro.runs.provenance import provenance
from vae_pyro.runs.weights import set_weights, weights


class RunFolder(ExclusiveFolder):
    """The files of one run.

    ``config.json`` (model, fit, data, seed, versions), ``model.safetensors``, ``state/checkpoint.safetensors`` and the
    one before it, ``state/previous.safetensors`` (what resume needs), ``history.csv``, ``events.*`` (TensorBoard),
    ``metrics.json``, ``inference.nc``, ``report.html``.

    Weights and checkpoints carry the digest of the configuration that they are of, and finished weights that of the
    history: files that are exchanged between runs are refused.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "config.json")
        self.model_file = self.path / "model.safetensors"
        self.checkpoint_file = self.path / "state" / "checkpoint.safetensors"
        self.previous_file = self.path / "state" / "previous.safetensors"
        self.history_file = self.path / "history.csv"
        self.metrics_file = self.path / "metrics.json"
        self.inference_file = self.path / "inference.nc"
        self.held_out_file = self.path / "held_out.nc"
        self.report_file = self.path / "report.html"
        self._loaded: str | None = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one writer of the folder, see `ExclusiveFolder.writing`.

        Raises:
            RunError: or the folder no longer has the weights that `load_model` gave, whose results were to be stored.
        """
        with super().writing():
            if self._loaded is not None and self.weights_digest() != self._loaded:
                raise RunError(
                    f"the run in {str(self.path)!r} was replaced while its results were computed; compute them again"
                )
            yield

    def begin(self, config: dict[str, Any], *, overwrite: bool = False) -> None:
        """Make the folder and write ``config.json``.

        Raises:
            RunError: the folder holds another run and ``overwrite`` is false, or files that are not a run; see
                `writing`.
        """
        with self.claimed(overwrite=overwrite):
            self._loaded = None
            for file in self.files:
                if file != self.config_file:
                    file.unlink(missing_ok=True)
            for file in self.path.glob("events.*"):
                file.unlink()
            write_json(self.config_file, {"format": FORMAT, **config, **provenance()})

    def amend(self, section: str, values: dict[str, Any]) -> None:
        """Change settings of the run, which its checkpoints stay bound to.

        Args:
            section: of ``config.json``.
            values: that replace it.
        """
        with self.writing():
            config = self.config()
            config["earlier"] = [*config.get("earlier", []), digest_of(config)]
            write_json(self.config_file, {**config, section: values})

    # --- configuration --------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """``config.json``.

        Raises:
            RunError: see `read_json`; another format; or sections that are missing or no objects.
        """
        config = read_json(self.config_file)
        if config.get("format") != FORMAT:
            raise RunError(f"{str(self.config_file)!r} has format {config.get('format')!r}, expected {FORMAT!r}")
        with interpreted(self.config_file):
            for section in ("model", "fit", "data"):
                if not isinstance(config[section], dict):
                    raise TypeError(f"{section} is {config[section]!r:.40}, expected an object")
            if not isinstance(config["seed"], int):
                raise TypeError(f"seed is {config['seed']!r:.40}, expected an integer")
        return config

    def _require_own(self, file: Path, kind: str) -> dict[str, str]:
        """What a file of tensors is bound to, which has to be this run."""
        bound = read_bound(file, kind)
        config = self.config()
        if "config" in bound and bound["config"] not in (digest_of(config), *config.get("earlier", [])):
            raise RunError(f"{str(file)!r} is of another run than {str(self.config_file)!r}")
        return bound

    @property
    def _identity(self) -> dict[str, str]:
        return {"config": digest_of(read_json(self.config_file))} if self.config_file.exists() else {}

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
        """What the run was fitted on; the columns of a table as the run has them.

        Args:
            root: another folder of downloaded data than the run had.

        Raises:
            RunError: the run was fitted on arrays, not on a source that can be loaded again.
        """
        config = self.config()
        if "source" not in config["data"]:
            raise RunError(f"the run in {str(self.path)!r} was fitted on arrays; pass the data yourself")
        with interpreted(self.config_file):
            stored, facts = DataConfig(**config["data"]), self.facts()
        if facts.path is not None and Path(facts.path).exists():  # a relative source is one of the directory of the fit
            stored = stored.replace(source=facts.path)
        if facts.schema is not None:  # rules of inference may be others by now
            stored = stored.replace(kinds=None, columns=facts.schema.columns)
        return stored if root is None else stored.replace(root=str(root))

    # --- history and metrics --------------------------------------------------------------------------------------

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
            RunError: the file is absent, holds something that is not a number, or is not the history of the finished
                weights beside it.
        """
        try:
            content = self.history_file.read_bytes()
            table = csv.DictReader(io.StringIO(content.decode()))
            rows = [{key: float(value) for key, value in row.items()} for row in table]
        except FileNotFoundError:
            raise RunError(f"no history.csv in {str(self.path)!r}: the run has not finished an epoch") from None
        except (ValueError, TypeError, csv.Error) as error:
            raise RunError(f"{str(self.history_file)!r} is damaged: {error}") from None
        # While a fit goes on, nothing states what the history is to be.
        stated = self._require_own(self.model_file, "model").get("history") if self.model_file.exists() else None
        if stated not in (None, hashlib.sha256(content).hexdigest()):
            raise RunError(f"{str(self.history_file)!r} was changed after it was written, or is of another run")
        return rows

    def update_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics into ``metrics.json``; entries of other names are kept.

        Raises:
            RunError: see `writing`.
        """
        with self.writing():
            try:
                earlier = read_json(self.metrics_file)
            except RunError:  # absent or damaged: it holds nothing reliable, the new metrics replace it
                earlier = {}
            write_json(self.metrics_file, {**earlier, **metrics})

    # --- weights --------------------------------------------------------------------------------------------------

    def weights_digest(self) -> str | None:
        """SHA-256 of the finished weights, as the header of their file states it; ``None`` where there are none."""
        return tensors_digest(self.model_file, "model")

    def save_model(self, vae: VAE, history: list[dict[str, float]] | None = None) -> None:
        """Write ``model.safetensors``, and ``history.csv`` before it, unless it is there."""
        self._loaded = None
        with self.writing():
            if history is not None:
                self.write_history(history)
            bound = self._identity
            if self.history_file.exists():
                bound["history"] = hashlib.sha256(self.history_file.read_bytes()).hexdigest()
            info = {"model": vae.config.model_dump(mode="json")}
            write_tensors(self.model_file, weights(vae), "model", info, bound)

    def load_model(self, device: str | torch.device = "cpu") -> VAE:
        """The VAE of this run.

        Raises:
            RunError: a file is absent, truncated, foreign or changed, or the weights are of another model or run.
        """
        config = self.config()
        if not self.model_file.exists() and self.has_checkpoint:
            raise RunError(f"the run in {str(self.path)!r} has not finished; continue it with --resume (resume=True)")
        tensors, info = read_tensors(self.model_file, "model")
        vae = self._build(config, tensors)
        with interpreted(self.model_file):
            own = VAEConfig(**info["model"]) == vae.config
        if not own:
            raise RunError(f"{str(self.model_file)!r} is of another model than {str(self.config_file)!r}")
        set_weights(vae, tensors, str(self.model_file), convert=False)
        self._require_own(self.model_file, "model")
        self._loaded = self.weights_digest()
        return vae.to(device).eval()

    def _build(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> VAE:
        """The model of ``config.json``, in the type of the weights that it is to have."""
        with interpreted(self.config_file):
            vae = VAE(VAEConfig(**config["model"]))
        floating = (tensor.dtype for tensor in tensors.values() if tensor.dtype.is_floating_point)
        return vae.to(dtype=next(floating, torch.float32))

    # --- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to go on from."""
        return self.checkpoint_file.exists() or self.previous_file.exists()

    def write_checkpoint(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint; the one before it is kept, in case that this one is damaged."""
        with self.writing():
            if self.checkpoint_file.exists():
                self.previous_file.unlink(missing_ok=True)
                try:
                    self.previous_file.hardlink_to(self.checkpoint_file)
                except OSError:  # a file system without links
                    self.checkpoint_file.replace(self.previous_file)
            write_tensors(self.checkpoint_file, tensors, "checkpoint", {"state": state}, self._identity)

    def read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
        """Tensors, ``{"state": ...}`` and file of the last checkpoint that is whole.

        Raises:
            RunError: there is none; the message is that of the last one.
        """
        failed: RunError | None = None
        for file in (self.checkpoint_file, self.previous_file):
            if not file.exists():
                continue
            try:
                tensors, info = read_tensors(file, "checkpoint")
                self._require_own(file, "checkpoint")
            except RunError as error:
                failed = failed or error
                continue
            if failed is not None:
                warnings.warn(f"{failed}; going on from the checkpoint before it", stacklevel=2)
            return tensors, info, file
        raise failed or RunError(f"no {self.checkpoint_file.name} in {str(self.checkpoint_file.parent)!r}")

    def discard_damaged(self, sound: Path) -> None:
        """Make the checkpoint before the last one the last, where that is the one that can be read."""
        if sound == self.previous_file:
            sound.replace(self.checkpoint_file)

    def checkpoint_digest(self) -> str | None:
        """SHA-256 of the checkpoint that `read_checkpoint` gives; ``None`` where there is none."""
        try:
            file = self.read_checkpoint()[2]
        except RunError:
            return None
        return tensors_digest(file, "checkpoint")

    def load_checkpoint(self, device: str | torch.device = "cpu") -> VAE:
        """The VAE of a run that has not finished, with the weights of its last checkpoint.

        Raises:
            RunError: see `load_model`.
        """
        tensors, _, file = self.read_checkpoint()
        own = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        vae = self._build(self.config(), own)
        set_weights(vae, own, str(file), convert=False)
        return vae.to(device).eval()
