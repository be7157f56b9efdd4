"""The run folder of a fit: begun, or found to hold the same run, which is continued."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vae_pyro.core.files import RunError
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.facts import DataFacts
from vae_pyro.data.split import Split, fingerprint
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.config import FitConfig
from vae_pyro.training.warm_start import require_parent

# Settings that say where and how often, and not what is fitted: a run that is continued may change them.
FREE = {"fit": ("device", "devices", "num_nodes", "checkpoint_seconds"), "data": ("root",)}


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
        return {**facts, "data": data.config.model_dump(mode="json"), "facts": data.facts.to_json()}
    splits = [train] if held_out is None else [train, held_out]
    shape = [len(train), *train.x_shape]
    return {**facts, "data": {"array_shape": shape}, "facts": {"fingerprint": fingerprint(*splits)}}


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
