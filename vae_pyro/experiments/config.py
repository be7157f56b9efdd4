"""The plan of an experiment as ``experiment.json`` stores it, and the names of its variants and runs."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vae_pyro.core.config import Config
from vae_pyro.core.registry import Choice, plain
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.training.resume import FREE

# Settings that do not change what is fitted.
NOT_FITTED = {f"{section}.{key}" for section, keys in FREE.items() for key in keys}
_MAX_NAME = 60


class ExperimentConfig(Config):
    """The plan of an experiment, as ``experiment.json`` stores it.

    Attributes:
        data: `vae_pyro.DataConfig` of every run.
        fingerprint: of the loaded data.
        model: the settings that the `vae_pyro.VAEConfig` of all variants have in common.
        fit: likewise of the `vae_pyro.FitConfig`.
        objectives: see `vae_pyro.objectives`, each with its options.
        seeds: of weights and fit; the split has the seed of ``data``.
        grid: values of each key.
        variants: for each combination of objective and grid values its label and its complete ``model`` and ``fit``.
        ensemble: whether the seeds of a variant are fitted at once.
    """

    format: Literal["vae_pyro experiment 1"] = "vae_pyro experiment 1"
    data: dict[str, Any]
    fingerprint: str
    model: dict[str, Any]
    fit: dict[str, Any]
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: dict[str, tuple[Any, ...]]
    variants: tuple[dict[str, Any], ...]
    ensemble: bool = False


@dataclass(frozen=True)
class Variant:
    """One objective at one point of the grid.

    Attributes:
        objective: name and options.
        grid: value of each key of the grid.
        label: both, as tables show it.
    """

    objective: str
    grid: dict[str, Any]
    label: str


def objective_text(choice: Choice) -> str:
    """Name and options of an objective; ``num_particles=1`` is left out where it is the default."""
    default = OBJECTIVES.options(choice.name).model_fields
    shown = {
        key: value
        for key, value in choice.options.items()
        if key != "num_particles" or value != 1 or default[key].default != 1
    }
    return str(Choice(name=choice.name, **shown))


def point_text(point: Mapping[str, Any]) -> str:
    """A grid point: ``latent_dim=2 optimizer.lr=0.01``."""
    return " ".join(f"{key}={plain(value)}" for key, value in point.items())


def first_difference(old: Any, new: Any, place: str) -> str | None:
    """The first key at which two settings differ, with both values; ``None`` where they fit the same.

    Args:
        old: settings, nested dicts of JSON values.
        new: settings that they are compared with.
        place: name of the settings, the start of the key in the answer.
    """
    if old == new or place in NOT_FITTED:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = first_difference(old.get(key), new.get(key), f"{place}.{key}")
            if found is not None:
                return found
        return None
    return f"{place} was {old!r}, now {new!r}"


def trial_name(objective: str, grid: Mapping[str, Any], seed: int) -> str:
    """A short name for a folder that depends on objective, grid values and seed alone."""
    choice = OBJECTIVES.resolve(objective)
    shown = objective_text(choice).partition(":")[2]
    options = [f"{key}={plain(value)}" for key, value in choice.options.items() if f"{key}={plain(value)}" in shown]
    parts = [text.replace("num_particles=", "k") for text in options] + [
        f"{key}={plain(value)}" for key, value in grid.items()
    ]
    text = "-".join([choice.name, *parts])
    safe = re.sub(r"[^A-Za-z0-9._=+-]+", "_", text)
    if safe != text or len(safe) > _MAX_NAME:
        safe = f"{safe[:_MAX_NAME].rstrip('_')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"{safe}-s{seed}"
