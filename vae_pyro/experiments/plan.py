"""The plan of an experiment: every variant with its complete settings, checked before anything is fitted."""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from vae_pyro.core.isolation import isolated
from vae_pyro.core.registry import Choice, parse_scalar, split_commas
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.densities.measure import Measure
from vae_pyro.experiments.config import NOT_FITTED, ExperimentConfig, first_difference, objective_text, point_text
from vae_pyro.likelihoods.noise import likelihood_of
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.vae import VAE
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.training.config import FitConfig
from vae_pyro.training.ensemble import fit_ensemble
from vae_pyro.training.fitting import checked
from vae_pyro.training.settings import Settings, assemble, parse_assignment

_TRIAL_ROWS = 8
# Runs of an experiment; each is a folder, and the plan of all of them is written into one file.
_MOST_RUNS = 1_000_000


def parse_grid(text: str) -> tuple[str, list[Any]]:
    """``key=v1,v2`` as the key and its values; commas in brackets do not separate: ``encoder.hidden=[8],[8,8]``.

    Raises:
        ValueError: no ``=``, or no value.
    """
    key, equals, rest = text.partition("=")
    values = [piece.strip() for piece in split_commas(rest)]
    if not equals or not key.strip() or "" in values:
        raise ValueError(f"--grid must have the form key=value,value, got {text!r}")
    return key.strip(), [parse_scalar(value) for value in values]


def plan_experiment(
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
    """Complete the settings of every variant and refuse what cannot be fitted or compared, before anything is fitted.

    Args: as those of `vae_pyro.experiments.running.run_experiment`.

    Returns:
        The plan.

    Raises:
        ValueError: an unknown objective or key, an impossible value, data outside the support of a likelihood; a grid
            that changes the data or their observation; variants of which some score probabilities and others densities;
            a variant, seed or value that is named twice; settings that an ensemble cannot have. The message names it.
    """
    choices = [OBJECTIVES.resolve(objective) for objective in objectives]
    axes = {key: tuple(values) for key, values in (grid or {}).items()}
    if isinstance(seeds, int):
        most = _MOST_RUNS // max(len(choices) * prod(len(values) for values in axes.values()), 1)
        if seeds > most:
            raise ValueError(
                f"seeds={seeds:,}: an experiment has at most {_MOST_RUNS:,} runs; at most {most:,} seeds here"
            )
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
            raise ValueError(f"{point_text(point)}: {error}" if point else str(error)) from None
        _require_same_data(data, settings, point)
        data = settings.data
        for choice in choices:
            label = f"{objective_text(choice)} {point_text(point)}".strip()
            fitted = settings.fit.planned(len(data.train)).replace(
                objective=choice
            )  # the objective affects no other setting
            described = {
                "objective": objective_text(choice),
                "grid": point,
                "label": label,
                "model": settings.model.model_dump(mode="json"),
                "fit": fitted.model_dump(mode="json"),
            }
            _require_distinct(described, variants)
            _require_one_device(label, fitted)
            _try_fit(label, settings, fitted)
            if ensemble:
                _try_ensemble(label, settings, fitted)
            variants[label] = described
    assert data is not None
    listed = list(variants.values())
    _require_same_measure(listed)
    return ExperimentConfig(
        data=data.config.model_dump(mode="json"),
        fingerprint=data.facts.fingerprint,
        model=_common([variant["model"] for variant in listed]),
        fit=_common([variant["fit"] for variant in listed]),
        objectives=tuple(objective_text(choice) for choice in choices),
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
        raise ValueError("objectives and seeds must name at least one objective and one seed")
    for seed in seeds:
        if seed < 0 or seeds.count(seed) > 1:
            raise ValueError(f"seeds must be different numbers of at least 0, got {seed} in {list(seeds)}")
    for path, value in assignments:
        if list(path) == ["seed"] or list(path[:2]) == ["fit", "objective"]:
            raise ValueError(
                f"{'.'.join(path)} = {value!r} sets what varies in an experiment; pass it as one of seeds or objectives"
            )
    for key, values in grid.items():
        path, _ = parse_assignment(f"{key}=0")
        if path[0] == "data":
            raise ValueError(
                f"grid key {key!r} changes the data or their observation, and densities of different observations "
                "cannot be compared; run an experiment for each value"
            )
        if path == ["seed"] or path[:2] == ["fit", "objective"]:
            raise ValueError(f"grid key {key!r} must be passed as seeds or objectives")
        if ".".join(path) in NOT_FITTED:
            raise ValueError(f"grid key {key!r} does not change what is fitted; leave it out of the grid")
        if not values:
            raise ValueError(f"grid key {key!r} has no values; give it at least one")


def _require_same_data(data: Dataset | None, settings: Settings, point: dict[str, Any]) -> None:
    if data is None:
        return
    old, new = data.config.model_dump(mode="json"), settings.data.config.model_dump(mode="json")
    key = first_difference(old, new, "data")
    if key is not None:
        raise ValueError(
            f"{point_text(point)} changes the observation of the data ({key}), and densities of different observations "
            f"cannot be compared; set {key.partition('.')[2].partition(' ')[0]} for all, or run an experiment for each"
        )


def _require_same_measure(variants: Sequence[dict[str, Any]]) -> None:
    models = [(variant["label"], VAEConfig(**variant["model"])) for variant in variants]
    clash = mixed_measures((f"{label!r} (likelihood {model.likelihood.name!r})", model) for label, model in models)
    if clash is not None:
        raise ValueError(f"{clash}; run an experiment for each")


def mixed_measures(models: Iterable[tuple[str, VAEConfig]]) -> str | None:
    """Which models have log densities over different measures, so that they cannot be compared, as a sentence.

    Args:
        models: each with the label by which the sentence names it.

    Returns:
        ``None`` where all have the same measure.
    """
    first: dict[Measure, str] = {}
    for label, model in models:
        measure = likelihood_of(model.likelihood, model.noise, model.x_shape).measure
        first.setdefault(measure, label)
    if len(first) < 2:
        return None
    (one, label), (other, other_label) = list(first.items())[:2]
    return f"p(x) is a {one} under {label} and a {other} under {other_label}, which cannot be compared"


def _require_distinct(described: dict[str, Any], variants: Mapping[str, dict[str, Any]]) -> None:
    for label, other in variants.items():
        if other["model"] == described["model"] and other["fit"] == described["fit"]:
            raise ValueError(
                f"{label!r} and {described['label']!r} are the same variant; name it once, with more seeds to repeat it"
            )


def _require_one_device(label: str, config: FitConfig) -> None:
    if config.devices > 1 or config.num_nodes > 1:
        raise ValueError(
            f"{label!r}: the runs of an experiment are fitted side by side, each on one device; leave fit.devices and "
            "fit.num_nodes at 1"
        )


def _try_fit(label: str, settings: Settings, config: FitConfig) -> None:
    """One loss on a few data, so that what cannot be fitted is refused here and not by every worker."""
    train = settings.data.train
    try:
        vae = VAE(settings.model)
        checked(vae, train)
        with isolated(0):
            x, given = train.batch(torch.arange(min(_TRIAL_ROWS, len(train))), vae.dtype)
            vae.initialize(x, given.get("mask"))
            OBJECTIVES.build(config.objective).differentiable_loss(vae.model, vae.guide, x, **given)
    except Exception as error:
        raise ValueError(f"{label!r} cannot be fitted: {error}") from error


def _try_ensemble(label: str, settings: Settings, config: FitConfig) -> None:
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
    few = settings.data.train.take(torch.arange(min(_TRIAL_ROWS, len(settings.data.train))))
    vaes = [VAE(settings.model, seed=seed) for seed in (0, 1)]
    try:
        fit_ensemble(vaes, few, seeds=(0, 1), config=config.replace(epochs=1, device="cpu"), progress=False)
    except Exception as error:
        raise ValueError(f"{label!r} cannot be fitted as an ensemble: {error}; leave it out, {way_out}") from error


def _common(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in parts[0].items() if all(part[key] == value for part in parts)}
