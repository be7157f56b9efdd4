"""The run folder of a fit: begun, or found to hold the same run, which is continued."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vae_pyro.core.files import RunError
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.facts import DataFacts
from vae_pyro.data.memory.sources import IN_MEMORY
from vae_pyro.data.split import Split, fingerprint
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.warm_start import require_parent

# Settings that say where and how often, and not what is fitted: a run that is continued may change them.
FREE = {"fit": ("device", "devices", "num_nodes", "checkpoint_seconds"), "data": ("root",)}
# What a fit whose loss was not finite goes on with: these settings may change as well, and are recorded.
STEPS = ("lr", "clip_norm")


def open_run(
    run: RunFolder | None, facts: dict[str, Any], stack: ExitStack, *, resume: bool, overwrite: bool, write: bool = True
) -> bool:
    """Begin a run folder, or check that the run in it is this one; whether there is a checkpoint to go on from.

    Args:
        run: ``None`` keeps nothing.
        facts: see `described`.
        stack: until it is closed, no other process writes to the folder.
        resume: see `vae_pyro.fit`; likewise ``overwrite``.
        write: whether this process is the one that writes.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: continue the run, or replace it")
    if run is None:
        if resume:
            raise ValueError("resume=True requires the run folder: pass out=")
        return False
    if resume:
        run.config()  # before a lock is left in what is no run
        if write:
            stack.enter_context(run.writing())
        if _same_run(run, facts) and write:
            run.amend("fit", facts["fit"])
        return run.has_checkpoint
    if write:
        stack.enter_context(run.claimed(overwrite=overwrite))
        run.begin(facts, overwrite=overwrite)
    return False


def described(
    vae: VAE, config: FitConfig, seed: int, data: Dataset | None, train: Split, held_out: Split | None
) -> dict[str, Any]:
    """What a run folder says of a run, and of its data: how to load them again, or at least how to know them again."""
    facts: dict[str, Any] = {
        "model": vae.config.model_dump(mode="json"),
        "fit": config.model_dump(mode="json"),
        "seed": seed,
    }
    splits = [train] if held_out is None else [train, held_out]
    shape = [len(train), *train.x_shape]
    if data is not None and data.config.source == IN_MEMORY:  # what is known of it stays known
        return {**facts, "data": {"array_shape": shape}, "facts": data.facts.to_json()}
    if data is not None:
        return {**facts, "data": data.config.model_dump(mode="json"), "facts": data.facts.to_json()}
    return {**facts, "data": {"array_shape": shape}, "facts": {"fingerprint": fingerprint(*splits)}}


def _same_run(run: RunFolder, facts: dict[str, Any]) -> bool:
    """Whether steps are taken in another way from here on; all else has to be what it was."""
    stored = run.config()
    other_steps = False
    for section in ("model", "fit", "data", "seed"):
        old, new = stored[section], facts[section]
        if section == "model":  # fields that are younger than the run have their defaults
            old = VAEConfig(**old).model_dump(mode="json")
        if section == "fit":
            old, changed = _with_steps_of(old, new)
            other_steps = changed
        if old == new:
            continue
        keys = [key for key in new if old.get(key) != new[key]] if isinstance(new, dict) else [section]
        keys = [key for key in keys if key not in FREE.get(section, ())]
        if section == "data" and _same_file(run, facts):
            keys = [key for key in keys if key != "source"]
        if keys:
            was = old.get(keys[0]) if isinstance(old, dict) else old
            now = new.get(keys[0]) if isinstance(new, dict) else new
            raise RunError(
                f"the run in {str(run.path)!r} has {section} {keys[0]} = {was!r}, this call has {now!r}; resume with "
                "the run's own settings, or start another run"
            )
    if "parent" in facts or not run.has_checkpoint:  # a checkpoint knows what it came from
        require_parent(stored.get("parent"), facts.get("parent"), run.path)
    began, asked = run.facts(), DataFacts.from_json(facts["facts"])
    if began.fingerprint != asked.fingerprint:
        raise RunError(
            f"the data have changed since the run in {str(run.path)!r} began; its fingerprint was {began.fingerprint}"
        )
    was, now = (0.0 if one.replay is None else one.replay.share for one in (began, asked))
    if was != now:
        raise RunError(
            f"the run in {str(run.path)!r} replays a share of {was:g}, this call {now:g}; resume with --replay "
            f"{was:g}, or start another run"
        )
    if began.replay != asked.replay:
        raise RunError(
            f"the draws that are replayed have changed since the run in {str(run.path)!r} began; its replay was "
            f"{began.replay}"
        )
    return other_steps


def _same_file(run: RunFolder, facts: dict[str, Any]) -> bool:
    """Whether a source that is called otherwise, from another working directory, is the file that it was."""
    began, asked = run.facts().path, DataFacts.from_json(facts["facts"]).path
    return began is not None and asked is not None and Path(began).resolve() == Path(asked).resolve()


def _with_steps_of(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The settings of a fit with learning rate and clipping of others; whether these differ."""
    rate, clip = STEPS
    taken = {**old, clip: new.get(clip)}
    ours, theirs = (settings.get("optimizer") for settings in (old, new))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        taken["optimizer"] = {**ours, rate: theirs.get(rate)} if rate in ours else ours
    return taken, taken != old


class _Events:
    """TensorBoard's writer; where the disk refuses an event, the fit goes on without them."""

    def __init__(self, run: RunFolder, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = None
        with self._surviving():
            self._writer = SummaryWriter(str(run.path), purge_step=epoch + 1 if epoch else None)

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        with self._surviving():
            if self._writer is not None:
                self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        with self._surviving():
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._writer = None
            warnings.warn(f"TensorBoard's events are not written any more: {error}", stacklevel=4)


@contextmanager
def events_of(run: RunFolder | None, epoch: int) -> Iterator[Any]:
    """TensorBoard's writer of a run folder, from an epoch on; ``None`` without one."""
    if run is None:
        yield None
        return
    writer = _Events(run, epoch)
    try:
        yield writer
    finally:
        writer.close()
