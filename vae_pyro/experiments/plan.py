"""The plan of an experiment: what is fitted, under which names, and what is refused before anything is."""

import functools
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vae_pyro.core.config import Config
from vae_pyro.core.isolation import isolated
from vae_pyro.core.registry import Choice, parse_scalar, plain, split_commas
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.densities.measure import Measure
from vae_pyro.likelihoods.noise import likelihood_of
from vae_pyro.models.vae import VAE, VAEConfig
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.training.config import FitConfig
from vae_pyro.training.ensemble import fit_ensemble
from vae_pyro.training.fitting import checked
from vae_pyro.training.resume import FREE
from vae_pyro.training.settings import Settings, assemble, parse_assignment

_FREE = {f"{section}.{key}" for section, keys in FREE.items() for key in keys}
_LONGEST_NAME = 60
_TRIED_ROWS = 8


class ExperimentConfig(Config):
    """The plan of an experiment, as ``experiment.json`` holds it.

    Attributes:
        data: `vae_pyro.DataConfig` of every run.
        fingerprint: of the loaded data.
        model: what the `vae_pyro.VAEConfig` of all variants have in common.
        fit: likewise of the `vae_pyro.FitConfig`.
        objectives: see `vae_pyro.objectives`, each with its options.
        seeds: of weights and fit; the split has the seed of ``data``.
        grid: values for each key.
        variants: for each combination of objective and grid values its label and its whole ``model`` and ``fit``.
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
        label: both, as tables name it.
    """

    objective: str
    grid: dict[str, Any]
    label: str


def parse_grid(text: str) -> tuple[str, list[Any]]:
    """``key=v1,v2`` as the key and its values; commas in brackets part nothing: ``encoder.hidden=[8],[8,8]``.

    Raises:
        ValueError: no ``=``, or no value.
    """
    key, equals, rest = text.partition("=")
    values = [piece.strip() for piece in split_commas(rest)]
    if not equals or not key.strip() or "" in values:
        raise ValueError(f"--grid wants key=value,value, got {text!r}")
    return key.strip(), [parse_scalar(value) for value in values]


def plan(
    source: str,
    *,
    objectives: Sequence[str],
    seeds: int | Sequence[int],
    grid: Mapping[str, Sequence[Any]] | None = None,
    preset_name: str | None = None,
    file: Path | None = None,
    assignments: Sequence[tuple[Sequence[str], Any]] = (),
    ensemble: bool = False,
) -> ExperimentConfig:
    """Complete the settings of every variant and refuse what cannot be compared, before anything is fitted.

    Args: as those of `run`.

    Returns:
        The plan.

    Raises:
        ValueError: an unknown objective or key, one that its settings cannot have, data outside the support of a
            likelihood; a grid that changes the data or how they are observed; variants of which some score
            probabilities and others densities; a variant, seed or value that is there twice; settings that an ensemble
            cannot have. The message names it.
    """
    choices = [OBJECTIVES.resolve(objective) for objective in objectives]
    axes = {key: tuple(values) for key, values in (grid or {}).items()}
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    _check_request(choices, numbers, axes, assignments)
    load = functools.cache(DataConfig.load)  # once for all points, which have the data in common
    data: Dataset | None = None
    variants: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        set_ = [(parse_assignment(f"{key}=0")[0], value) for key, value in point.items()]
        fixed = [(["fit", "objective"], choices[0].model_dump()), (["fit", "checkpoint_seconds"], 0)]
        try:
            settings = assemble(
                source, preset_name=preset_name, file=file, assignments=[*assignments, *set_, *fixed], load=load
            )
        except ValueError as error:
            raise ValueError(f"{_point_text(point)}: {error}" if point else str(error)) from None
        _same_data(data, settings, point)
        data = settings.data
        for choice in choices:
            label = f"{_objective_text(choice)} {_point_text(point)}".strip()
            fitted = settings.fit.replace(objective=choice)  # the objective touches nothing else of the settings
            described = {
                "objective": _objective_text(choice),
                "grid": point,
                "label": label,
                "model": settings.model.model_dump(mode="json"),
                "fit": fitted.model_dump(mode="json"),
            }
            _distinct(described, variants)
            _require_alone(label, fitted)
            _try(label, settings, fitted)
            if ensemble:
                _try_together(label, settings, fitted)
            variants[label] = described
    assert data is not None
    listed = list(variants.values())
    _same_observations(listed)
    return ExperimentConfig(
        data=data.config.model_dump(mode="json"),
        fingerprint=data.facts["fingerprint"],
        model=_common([variant["model"] for variant in listed]),
        fit=_common([variant["fit"] for variant in listed]),
        objectives=tuple(_objective_text(choice) for choice in choices),
        seeds=numbers,
        grid=axes,
        variants=tuple(listed),
        ensemble=ensemble,
    )


def _check_request(
    choices: Sequence[Choice],
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[Any]],
    assignments: Sequence[tuple[Sequence[str], Any]],
) -> None:
    if not choices or not seeds:
        raise ValueError("an experiment wants at least one objective and one seed")
    for seed in seeds:
        if seed < 0 or seeds.count(seed) > 1:
            raise ValueError(f"seeds are different numbers from 0 on, got {seed} in {list(seeds)}")
    for path, value in assignments:
        if list(path) == ["seed"] or list(path[:2]) == ["fit", "objective"]:
            raise ValueError(f"{'.'.join(path)} = {value!r}: an experiment has seeds and objectives of its own")
    for key, values in grid.items():
        path, _ = parse_assignment(f"{key}=0")
        if path[0] == "data":
            raise ValueError(
                f"grid key {key!r} changes the data or how they are observed, and densities of different observations "
                "cannot be compared; make an experiment for each"
            )
        if path == ["seed"] or path[:2] == ["fit", "objective"]:
            raise ValueError(f"grid key {key!r}: name these as seeds or objectives")
        if ".".join(path) in _FREE:
            raise ValueError(f"grid key {key!r} does not change what is fitted")
        if not values:
            raise ValueError(f"grid key {key!r} has no values")


def _same_data(data: Dataset | None, settings: Settings, point: dict[str, Any]) -> None:
    if data is None:
        return
    old, new = data.config.model_dump(mode="json"), settings.data.config.model_dump(mode="json")
    key = difference(old, new, "data")
    if key is not None:
        raise ValueError(
            f"{_point_text(point)} changes how the data are observed ({key}), and densities of different observations "
            f"cannot be compared; set {key.partition('.')[2].partition(' ')[0]} for all, or make an experiment for each"
        )


def _same_observations(variants: Sequence[dict[str, Any]]) -> None:
    first = variants[0]
    for other in variants[1:]:
        names = [variant["model"]["likelihood"]["name"] for variant in (first, other)]
        measures = [_measure(variant["model"]) for variant in (first, other)]
        if measures[0] != measures[1]:
            kinds = [one.replace("density", "densities").replace("probability", "probabilities") for one in measures]
            raise ValueError(
                f"{first['label']!r} scores {kinds[0]} (likelihood {names[0]!r}) and {other['label']!r} scores "
                f"{kinds[1]} ({names[1]!r}); they cannot be compared: make an experiment for each"
            )


def _measure(model: Mapping[str, Any]) -> Measure:
    config = VAEConfig(**model)
    return likelihood_of(config.likelihood, config.noise, config.x_shape).measure


def _distinct(described: dict[str, Any], variants: Mapping[str, dict[str, Any]]) -> None:
    for label, other in variants.items():
        if other["model"] == described["model"] and other["fit"] == described["fit"]:
            raise ValueError(
                f"{label!r} and {described['label']!r} are the same variant; name it once, with more seeds if it is to "
                "be repeated"
            )


def _try(label: str, settings: Settings, config: FitConfig) -> None:
    """One loss on a few data, so that what cannot be fitted is refused now and not by every worker."""
    train = settings.data.train
    try:
        vae = VAE(settings.model)
        checked(vae, train)
        with isolated(0):
            x, given = train.batch(torch.arange(min(_TRIED_ROWS, len(train))), vae.dtype)
            vae.initialize(x, given.get("mask"))
            OBJECTIVES.build(config.objective).differentiable_loss(vae.model, vae.guide, x, **given)
    except Exception as error:
        raise ValueError(f"{label!r} cannot be fitted: {error}") from error


def _require_alone(label: str, config: FitConfig) -> None:
    if config.devices > 1 or config.num_nodes > 1:
        raise ValueError(
            f"{label!r}: the runs of an experiment stand side by side, each on one device; leave fit.devices and "
            "fit.num_nodes at 1"
        )


def _try_together(label: str, settings: Settings, config: FitConfig) -> None:
    """A step of two members on a few data, traced as the whole ensemble will be."""
    way_out = "or fit the seeds one by one (ensemble=False, no --ensemble)"
    if config.patience is not None:
        raise ValueError(
            f"{label!r} has fit.patience={config.patience}, and the members of an ensemble stop together; leave "
            f"patience out, {way_out}"
        )
    if not config.compile:
        raise ValueError(
            f"{label!r} has fit.compile=False, and an ensemble is a compiled program; let it compile, {way_out}"
        )
    few = settings.data.train.take(torch.arange(min(_TRIED_ROWS, len(settings.data.train))))
    vaes = [VAE(settings.model, seed=seed) for seed in (0, 1)]
    try:
        fit_ensemble(vaes, few, seeds=(0, 1), config=config.replace(epochs=1, device="cpu"), progress=False)
    except Exception as error:
        raise ValueError(f"{label!r} cannot be fitted as an ensemble: {error}; leave it out, {way_out}") from error


def _objective_text(choice: Choice) -> str:
    default = OBJECTIVES.options(choice.name).model_fields
    shown = {
        key: value
        for key, value in choice.options.items()
        if key != "num_particles" or value != 1 or default[key].default != 1
    }
    return str(Choice(name=choice.name, **shown))


def _point_text(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={plain(value)}" for key, value in point.items())


def _common(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in parts[0].items() if all(part[key] == value for part in parts)}


def difference(old: Any, new: Any, place: str) -> str | None:
    """The first key in which two settings differ, with both values; ``None`` where they agree in all that matters."""
    if old == new or place in _FREE:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = difference(old.get(key), new.get(key), f"{place}.{key}")
            if found is not None:
                return found
        return None
    return f"{place} was {old!r}, now {new!r}"


def trial_name(objective: str, grid: Mapping[str, Any], seed: int) -> str:
    """A short name for a folder, that depends on objective, grid values and seed alone."""
    choice = OBJECTIVES.resolve(objective)
    shown = _objective_text(choice).partition(":")[2]
    options = [f"{key}={plain(value)}" for key, value in choice.options.items() if f"{key}={plain(value)}" in shown]
    parts = [text.replace("num_particles=", "k") for text in options] + [
        f"{key}={plain(value)}" for key, value in grid.items()
    ]
    text = "-".join([choice.name, *parts])
    safe = re.sub(r"[^A-Za-z0-9._=+-]+", "_", text)
    if safe != text or len(safe) > _LONGEST_NAME:
        safe = f"{safe[:_LONGEST_NAME].rstrip('_')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"{safe}-s{seed}"
