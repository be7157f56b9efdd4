"""`fit`: stochastic variational inference over epochs, that can be watched, stopped, resumed and trusted."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.data.dataset import Dataset, as_split
from vae_pyro.data.sparse import is_sparse
from vae_pyro.data.split import Split, fingerprint
from vae_pyro.models.vae import VAE, VAEConfig
from vae_pyro.parallel.ranks import CONTINUE, together
from vae_pyro.parallel.signals import FitInterruptedError, watched_signals
from vae_pyro.runs.folder import RunFolder, set_weights, weights
from vae_pyro.training.config import FitConfig
from vae_pyro.training.failure import NonFiniteLossError
from vae_pyro.training.loop import INITIAL_STREAM, NOISE_STREAM, VALIDATION_STREAM, Loop, OnEpoch
from vae_pyro.training.progress import FitProgress
from vae_pyro.training.warm_start import Fitted, initialize_from, require_parent

__all__ = ["FitConfig", "FitInterruptedError", "FitResult", "NonFiniteLossError", "fit"]

# Settings that say where and how often, and not what is fitted: a run that is continued may change them.
FREE = {"fit": ("device", "devices", "num_nodes", "checkpoint_seconds"), "data": ("root",)}
_INITIAL_NUMBERS = 1 << 26
_INITIAL_ROWS = 20_000


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves.

    Attributes:
        vae: the fitted VAE (the one that was passed in).
        history: one row for each epoch: running means over the epoch of ``elbo``, ``reconstruction`` and ``kl`` in nats
            per datum (of the ELBO itself, whatever the objective and the weight of the KL), ``bound``, what the
            objective maximised, ``validation_*`` likewise at the end of it, ``kl_weight``, ``lr`` and ``seconds``.
        best_epoch: epoch whose validation ELBO was best, counted from 1; ``None`` without validation data.
        stopped_early: whether patience ran out.
        restored_best: whether the weights are those of `best_epoch`; if not, they are the last.
        out: the run folder, or ``None``.
    """

    vae: VAE
    history: list[dict[str, float]]
    best_epoch: int | None
    stopped_early: bool
    restored_best: bool
    out: Path | None

    @property
    def epochs(self) -> int:
        """Epochs that were run."""
        return len(self.history)


def fit(
    vae: VAE,
    x: Split | Tensor | np.ndarray[Any, Any],
    *,
    validation: Split | Tensor | np.ndarray[Any, Any] | None = None,
    config: FitConfig | None = None,
    seed: int = 0,
    mask: Tensor | None = None,
    validation_mask: Tensor | None = None,
    y: Any = None,
    validation_y: Any = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data: Dataset | None = None,
    init_from: Fitted | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> FitResult:
    """Fit a VAE by stochastic variational inference.

    Each step is that of `pyro.infer.SVI`: the objective's ``differentiable_loss`` over model and guide, and one torch
    optimizer for all parameters. Data stay on the device. Noise, order and validation draws depend on ``seed`` alone;
    no random state, signal handler or parameter-store entry is changed behind the call.

    Args:
        vae: changed in place; it ends on the device of the fit. Statistics, output bias and pseudo-inputs start from
            20,000 random training data, unless it was fitted before.
        x: training data ``(datum, *x_shape)``. A `Split` with random observations draws them anew at every step.
        validation: likewise; random observations are fixed once. An empty split is none.
        config: `FitConfig`.
        seed: of this fit.
        mask: boolean, shape of ``x``, true where observed; an element that is NaN is not.
        validation_mask: likewise for ``validation``.
        y: classes ``(datum,)`` that the programs are given, -1 where one is unknown.
        validation_y: likewise for ``validation``.
        out: run folder; ``None`` keeps nothing on disk.
        resume: continue the run in ``out`` from its last checkpoint, to the bits of an uninterrupted run.
        overwrite: replace a run in ``out``.
        data: where ``x`` came from, for the run folder; ``vae-pyro evaluate`` loads it again.
        init_from: a VAE of the same configuration, or the folder of a run, whose weights and statistics this fit starts
            from, see `vae_pyro.training.warm_start.initialize_from`; the optimizer starts anew. ``config.json`` names
            it.
        progress: show the live line; ``None`` does where standard error is a terminal.
        on_epoch: called after each epoch, and its checkpoint, with the row of `FitResult.history`; the fit ends there
            where it returns true, and stays resumable where it raises.

    Returns:
        The fitted VAE and its history.

    Raises:
        ValueError: data outside the support of the likelihood, wrong shapes, a device that is not there.
        RunError: ``out`` holds another run, or what resume or ``init_from`` needs is missing or damaged.
        NonFiniteLossError: the loss became NaN or infinite.
        FitInterruptedError: SIGINT or SIGTERM, after a checkpoint.
    """
    config = FitConfig() if config is None else config
    ranks, device = config.together()
    train = checked(vae, as_split(x, mask, y))
    validation = as_split(validation) if is_sparse(validation) else validation  # which has a length then
    held_out = None
    if validation is not None and len(validation) > 0:
        held_out = checked(vae, as_split(validation, validation_mask, validation_y)).fixed(
            derive_seed(seed, VALIDATION_STREAM)
        )
    if device.type == "cuda":  # an absent device is refused before a folder is made
        torch.cuda.init()  # so that the caller's CUDA generator is there to be put back
    if config.patience is not None and held_out is None:
        raise ValueError(f"patience={config.patience} requires validation data; pass validation=, or patience=None")
    fewest = min(len(train), config.batch_size)
    if fewest < ranks.of:
        raise ValueError(
            f"{ranks.of} processes cannot share a batch of {fewest}; raise batch_size or use fewer devices"
        )
    run = None if out is None else RunFolder(out)
    facts = described(vae, config, seed, data, train, held_out)
    if init_from is not None:
        facts["parent"] = initialize_from(vae, init_from)
    with ranks.first_succeeds(device):
        continues = open_run(run, facts, resume=resume, overwrite=overwrite, write=ranks.first)

    own = () if ranks.first else (ranks.rank,)
    with (
        isolated(derive_seed(seed, NOISE_STREAM, *own)),
        pyro.get_param_store().scope(),
        together(ranks, device, "no run folder, nothing was kept" if run is None else CONTINUE),
    ):
        if not continues:
            initialize(vae, train, seed)
        job = Loop(vae, train, held_out, config, seed, run, device, ranks)
        if continues:
            job.restore()
        for tensor in weights(vae).values():
            ranks.copy_from_first(tensor)
        with (
            events_of(run if ranks.first else None, job.state.epoch) as events,
            watched_signals() as caught,
            FitProgress(config.epochs, job.steps_per_epoch, show=progress if ranks.first else False) as shown,
            warnings.catch_warnings(),
        ):
            # Pyro warns of a NaN loss; here it is an error, raised with its cause.
            warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
            job.go(shown, caught, events, on_epoch)
    best = job.stopping.best
    if best is not None:
        set_weights(vae, best, "the best weights")
    if run is not None:
        with ranks.first_succeeds(device):
            if ranks.first:
                run.save_model(vae)
                run.write_history(job.state.history)
    return FitResult(
        vae=vae,
        history=job.state.history,
        best_epoch=job.state.best_epoch,
        stopped_early=job.state.epoch < config.epochs,
        restored_best=best is not None,
        out=None if run is None else run.path,
    )


def open_run(
    run: RunFolder | None, facts: dict[str, Any], *, resume: bool, overwrite: bool, write: bool = True
) -> bool:
    """Begin a run folder, or check that the run in it is this one; whether there is a checkpoint to go on from."""
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: continue the run, or replace it")
    if run is None:
        if resume:
            raise ValueError("resume=True requires the run folder: pass out=")
        return False
    if resume:
        _same_run(run, facts)
        return run.checkpoint_file.exists()
    if write:
        run.begin(facts, overwrite=overwrite)
    return False


def checked(vae: VAE, split: Split) -> Split:
    """The split, once its shape, range and classes have passed the VAE's guards."""
    vae.check_data(split)
    return split


def described(
    vae: VAE, config: FitConfig, seed: int, data: Dataset | None, train: Split, held_out: Split | None
) -> dict[str, Any]:
    """What a run folder says of a run, and of its data: how to load them again, or at least how to know them again."""
    facts: dict[str, Any] = {
        "model": vae.config.model_dump(mode="json"),
        "fit": config.model_dump(mode="json"),
        "seed": seed,
    }
    if data is not None:
        return {**facts, "data": data.config.model_dump(mode="json"), "facts": data.facts}
    splits = [train] if held_out is None else [train, held_out]
    shape = [len(train), *train.x_shape]
    return {**facts, "data": {"array_shape": shape}, "facts": {"fingerprint": fingerprint(*splits)}}


def initialize(vae: VAE, train: Split, seed: int) -> None:
    """Start what starts from data, on rows that the seed chooses."""
    rows = min(_INITIAL_ROWS, max(_INITIAL_NUMBERS // prod(train.x_shape), 1000))
    some = train.sample(rows, derive_seed(seed, INITIAL_STREAM))
    x, given = some.batch(slice(None), vae.dtype)
    vae.initialize(x, given.get("mask"), step=train.summary().step)


def _same_run(run: RunFolder, facts: dict[str, Any]) -> None:
    stored = run.config()
    for section in ("model", "fit", "data", "seed"):
        old, new = stored[section], facts[section]
        if section == "model":  # fields that are younger than the run have their defaults
            old = VAEConfig(**old).model_dump(mode="json")
        if old == new:
            continue
        keys = [key for key in new if old.get(key) != new[key]] if isinstance(new, dict) else [section]
        keys = [key for key in keys if key not in FREE.get(section, ())]
        if keys:
            was = old.get(keys[0]) if isinstance(old, dict) else old
            now = new.get(keys[0]) if isinstance(new, dict) else new
            raise RunError(
                f"the run in {str(run.path)!r} has {section} {keys[0]} = {was!r}, this call has {now!r}; resume with "
                "the run's own settings, or start another run"
            )
    if "parent" in facts or not run.checkpoint_file.exists():  # a checkpoint knows what it came from
        require_parent(stored.get("parent"), facts.get("parent"), run.path)
    for what, key in (("data", "fingerprint"), ("draws that are replayed", "replay")):
        old, new = stored["facts"].get(key), facts["facts"].get(key)
        if key == "replay" and (was := (old or {}).get("share", 0)) != (now := (new or {}).get("share", 0)):
            raise RunError(
                f"the run in {str(run.path)!r} replays a share of {was:g}, this call {now:g}; resume with --replay "
                f"{was:g}, or start another run"
            )
        if old != new:
            raise RunError(f"the {what} have changed since the run in {str(run.path)!r} began; its {key} was {old}")


@contextmanager
def events_of(run: RunFolder | None, epoch: int) -> Iterator[Any]:
    """TensorBoard's writer of a run folder, from an epoch on; ``None`` without one."""
    if run is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run.path), purge_step=epoch + 1 if epoch else None)
    try:
        yield writer
    finally:
        writer.close()
