"""Warm starts: fits initialized with the weights of an earlier one, their parent, optionally with replayed draws."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import derive_seed
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.facts import DataFacts, Replay
from vae_pyro.data.split import fingerprint
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder
from vae_pyro.runs.weights import set_weights, weights
from vae_pyro.training.rehearsal import TRAIN_STREAM, VALIDATION_STREAM, rehearsal

type Fitted = VAE | RunFolder | str | Path

# Fields of the initialization, which a warm start replaces.
_FREE = ("init",)


@dataclass(frozen=True)
class Continuation:
    """Initial VAE and data of a warm-started fit.

    Attributes:
        vae: with the weights of the parent.
        data: the new data; training and validation data joined with draws of the parent where replay was asked for.
        parent: identity of the parent, for ``config.json``, see `parent_of`.
    """

    vae: VAE
    data: Dataset
    parent: dict[str, Any]


def parent_of(fitted: Fitted) -> dict[str, Any]:
    """Identity of the parent of a fit: ``run``, the name of the folder, and ``weights``, a SHA-256.

    Of a run it is the one in the header of its weights, or of its last checkpoint where it has not finished; of a VAE
    in memory, whose ``run`` is ``None``, that of its tensors.

    Raises:
        RunError: the run has no weights.
    """
    return _parent(fitted).identity()


def require_parent(stored: Mapping[str, Any] | None, now: Mapping[str, Any] | None, path: Path) -> None:
    """Refuse to resume a run whose parent is another one than this call names.

    The name of a folder may have changed; the weights may not.

    Args:
        stored: ``parent`` in the run's ``config.json``, if any.
        now: `parent_of` the parent that this call names, if it names one.
        path: of the run.

    Raises:
        RunError: the weights differ, or only one of the two has a parent.
    """
    if (stored or {}).get("weights") == (now or {}).get("weights"):
        return
    was, says = (_words(parent) for parent in (stored, now))
    raise RunError(
        f"the run in {str(path)!r} began from {was}, but this call names {says}; name the run that it began from"
    )


def _words(parent: Mapping[str, Any] | None) -> str:
    if parent is None:
        return "new weights"
    return f"{parent['run'] or 'a VAE in memory'!r} with weights {parent['weights'][:12]}"


def base_settings(run: RunFolder | str | Path) -> dict[str, Any]:
    """Settings of a run with which a fit that continues from it starts, for `assemble`: all of the run's.

    Model, fit and seed, and how the data are observed; not which data these are, nor whether they are streamed.

    Raises:
        RunError: see `RunFolder.config`.
    """
    config = _folder(run).config()
    data = {key: value for key, value in config["data"].items() if key not in ("source", "stream", "array_shape")}
    return {"model": config["model"], "fit": config["fit"], "data": data, "seed": config["seed"]}


def initialize_from(vae: VAE, fitted: Fitted) -> dict[str, Any]:
    """Copy the weights of a fitted VAE into another one of the same configuration, in place.

    All of them are copied, buffers as well: statistics by which inputs are standardised, scales and pseudo-inputs stay
    those of the first data, and `VAE.initialize` leaves them alone. The state of the optimizer is not copied: its
    moments and its schedule start anew.

    Args:
        vae: changed; it keeps its device and floating-point type.
        fitted: a VAE, a run folder, or its path.

    Returns:
        `parent_of` the fitted one.

    Raises:
        RunError: the run has no weights yet, or is damaged.
        ValueError: the configurations differ (the message names what), or the other VAE was never fitted.
    """
    parent = _parent(fitted)
    identity, other = parent.identity(), parent.load()
    require_same_model(vae.config, other.config)
    if not other.initialized:
        raise ValueError("the VAE to continue from was never fitted; fit it first, or leave init_from out")
    set_weights(vae, weights(other), "the parent of this fit")
    return identity


def require_same_model(new: VAEConfig, old: VAEConfig) -> None:
    """Refuse a configuration whose weights would be others.

    Raises:
        ValueError: the message names the first field that differs, with both values.
    """
    mine, others = new.model_dump(mode="json"), old.model_dump(mode="json")
    odd = [key for key in mine if key not in _FREE and mine[key] != others.get(key)]
    if odd:
        way = (
            "bring the new data to the old shape"
            if odd == ["x_shape"]
            else "leave it out, so that the model is the run's, or fit a new one without --init-from (init_from)"
        )
        raise ValueError(
            f"a warm-started fit has the model of its parent: {odd[0]} is {mine[odd[0]]!r} here and "
            f"{others.get(odd[0])!r} there{f', and {len(odd) - 1} more differ' if len(odd) > 1 else ''}; {way}"
        )


def continue_from(
    fitted: Fitted,
    data: Dataset,
    *,
    model: VAEConfig | None = None,
    replay: float = 0.0,
    seed: int = 0,
) -> Continuation:
    """Data and VAE for a warm-started fit.

    Args:
        fitted: a VAE, a run folder, or its path.
        data: the new data.
        model: what the new VAE is to be; ``None`` takes the old one's. It has to be the same, see `initialize_from`.
        replay: share of the old model's draws in what is fitted and validated, see `rehearsal`; 0 replays nothing.
        seed: of the draws, and of nothing else.

    Returns:
        VAE, data and parent, for `vae_pyro.fit`. Sizes, test data and fingerprint in ``data.facts`` are those of the
        new data; ``replay`` holds share, numbers of draws, and the fingerprint of what is fitted.

    Raises:
        RunError: the run has no weights yet, or is damaged.
        ValueError: another model, columns of other names, or replay that is no share, of streamed data, or of data that
            are observed in another way than the old ones were.
    """
    if not 0 <= replay < 1:
        raise ValueError(f"replay is a share of the fitted data, from 0 to below 1, got {replay:g}")
    parent = _parent(fitted)
    old, known = parent.load(), parent.facts()
    vae = VAE(old.config if model is None else model, seed=seed).to(dtype=old.dtype)
    identity = parent.identity()
    initialize_from(vae, old)
    if data.x_shape != vae.config.x_shape:
        raise ValueError(
            f"the data have the shape {data.x_shape}, the model {vae.config.x_shape}; bring them to its shape"
        )
    columns, names = known.columns, data.facts.columns
    if columns and names and columns != names:
        odd = next((pair for pair in zip(columns, names, strict=False) if pair[0] != pair[1]), (columns, names))
        raise ValueError(f"the run was fitted on the column {odd[0]!r} where the new data have {odd[1]!r}")
    if replay == 0:
        return Continuation(vae, data, identity)
    if known.space is not None and known.space != data.facts.space:
        raise ValueError(
            f"the run's data were {known.space!r} and the new ones are {data.facts.space!r}: draws of its model "
            "cannot join them; prepare both alike (binarize, scale, dequantize), or leave replay out"
        )
    train = rehearsal(old, data.train, share=replay, seed=derive_seed(seed, TRAIN_STREAM))
    validation = data.validation
    if len(validation):
        validation = rehearsal(old, validation, share=replay, seed=derive_seed(seed, VALIDATION_STREAM))
    draws = {"train": len(train) - len(data.train), "validation": len(validation) - len(data.validation)}
    replayed = Replay(replay, draws, fingerprint(train, validation))
    facts = replace(data.facts, replay=replayed)
    return Continuation(vae, replace(data, train=train, validation=validation, facts=facts), identity)


class _Run:
    """A parent that is a run."""

    def __init__(self, run: RunFolder | str | Path) -> None:
        self._folder = _folder(run)

    def load(self) -> VAE:
        return self._folder.load_checkpoint() if self._unfinished else self._folder.load_model()

    @property
    def _unfinished(self) -> bool:
        return not self._folder.model_file.exists() and self._folder.has_checkpoint

    def facts(self) -> DataFacts:
        return self._folder.facts()

    def identity(self) -> dict[str, Any]:
        path, folder = self._folder.path, self._folder
        digest = folder.checkpoint_digest() if self._unfinished else folder.weights_digest()
        if digest is None:
            raise RunError(f"the run in {str(path)!r} has no finished weights and no checkpoint to continue from")
        return {"run": path.resolve().name, "weights": digest}


class _InMemory:
    """A parent that is a VAE in memory, of whose data nothing is known."""

    def __init__(self, vae: VAE) -> None:
        self._vae = vae

    def load(self) -> VAE:
        return self._vae

    def facts(self) -> DataFacts:
        return DataFacts()

    def identity(self) -> dict[str, Any]:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in sorted(weights(self._vae).items())}
        return {"run": None, "weights": hashlib.sha256(save(tensors)).hexdigest()}


def _parent(fitted: Fitted) -> _Run | _InMemory:
    return _Run(fitted) if isinstance(fitted, RunFolder | str | Path) else _InMemory(fitted)


def _folder(run: RunFolder | str | Path) -> RunFolder:
    return run if isinstance(run, RunFolder) else RunFolder(run)
