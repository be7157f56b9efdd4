"""The settings of one run, put together from a preset, a file, and single values; the later wins."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vae_pyro.core.isolation import checked_seed
from vae_pyro.core.registry import Registry, describe_errors, parse_choice, parse_scalar, shown
from vae_pyro.core.regular import require_small
from vae_pyro.data.dataset import DataConfig, Dataset
from vae_pyro.likelihoods import LIKELIHOODS, DataForm, Likelihood
from vae_pyro.likelihoods.noise import NOISES
from vae_pyro.models.config import VAEConfig
from vae_pyro.models.posteriors import POSTERIORS
from vae_pyro.models.presets import preset
from vae_pyro.models.priors import PRIORS
from vae_pyro.models.structures import STRUCTURES
from vae_pyro.nn import DECODERS, ENCODERS
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.training.config import FitConfig
from vae_pyro.training.optimizers import OPTIMIZERS
from vae_pyro.training.schedules import SCHEDULES

_SECTIONS: dict[str, type[VAEConfig] | type[FitConfig] | type[DataConfig]] = {
    "model": VAEConfig,
    "fit": FitConfig,
    "data": DataConfig,
}
# A longer file is none of settings: a table's columns are inferred, and not written by hand.
_MOST_BYTES = 1 << 24
# Keys of TOML with so many parts, which are parsed in quadratic time.
_DEEP_KEY = re.compile(r"(?:[\w-]+\s*\.\s*){100}")
CHOICES: dict[str, Registry[Any]] = {
    "likelihood": LIKELIHOODS,
    "prior": PRIORS,
    "posterior": POSTERIORS,
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "structure": STRUCTURES,
    "noise": NOISES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "objective": OBJECTIVES,
}


class _Experiment(BaseModel):
    """The table ``experiment`` of a file of settings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    objectives: list[str | dict[str, Any]] = []
    seeds: Annotated[int, Field(ge=1)] | list[int] = 1
    grid: dict[str, list[Any]] = {}
    baseline: str | dict[str, Any] = ""


class _File(BaseModel):
    """The form of a file of settings; what its tables hold is checked where it is used."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    data: dict[str, Any] = {}
    seed: int = 0
    preset: str = ""
    experiment: _Experiment = _Experiment()


@dataclass(frozen=True)
class Settings:
    """The complete settings of a run.

    Attributes:
        data: loaded, with its configuration.
        model: `VAEConfig`.
        fit: `FitConfig`.
        seed: of weights and fit.
    """

    data: Dataset
    model: VAEConfig
    fit: FitConfig
    seed: int


def read_settings_file(path: Path) -> dict[str, Any]:
    """A TOML or JSON file with the tables ``model``, ``fit`` and ``data`` and perhaps ``seed`` and ``preset``.

    A table ``experiment`` (objectives, seeds, grid, baseline) is for ``vae-pyro compare``; other commands ignore it.

    Raises:
        ValueError: it cannot be read, or has another key.
    """
    require_small(path, _MOST_BYTES, "a file of settings")
    try:
        text = path.read_text()
        if path.suffix != ".json" and _DEEP_KEY.search(text):
            raise RecursionError
        settings = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the settings in {str(path)!r}: {error!s:.200}") from None
    except RecursionError:
        raise ValueError(f"cannot read the settings in {str(path)!r}: they are nested too deeply") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{str(path)!r} holds {shown(settings)}; expected is an object with model, fit and data")
    unknown = sorted(set(settings) - {*_SECTIONS, "seed", "preset", "experiment"})
    if unknown:
        raise ValueError(
            f"{str(path)!r}: unknown key {unknown[0]!r}; known are model, fit, data, seed, preset, experiment"
        )
    _require_form(settings, repr(str(path)))
    return settings


def _require_form(settings: Mapping[str, Any], name: str) -> None:
    """Refuse sections that are no tables, and others of the wrong type.

    Raises:
        ValueError: the message names each key with its value.
    """
    try:
        _File.model_validate(settings)
    except ValidationError as error:
        known = "; known keys of experiment are " + ", ".join(_Experiment.model_fields)
        hint = known if any(item["type"] == "extra_forbidden" for item in error.errors()) else ""
        raise ValueError(f"{name}: {describe_errors(error)}{hint}") from None


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """``key=value`` or ``section.key=value`` or ``choice.option=value`` as a path and a value.

    Raises:
        ValueError: no ``=``, or a key of no section.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set expects key=value, got {text!r}")
    path = key.strip().split(".")
    if path[0] in _SECTIONS and len(path) == 1:
        raise ValueError(
            f"--set {path[0]}: name a key of it, such as {path[0]}.{next(iter(_SECTIONS[path[0]].model_fields))}"
        )
    if path[0] not in _SECTIONS and path != ["seed"]:
        section = next((name for name, config in _SECTIONS.items() if path[0] in config.model_fields), None)
        if section is None:
            known = ", ".join(field for config in _SECTIONS.values() for field in config.model_fields)
            raise ValueError(f"--set: unknown key {path[0]!r}; known are {known}")
        path = [section, *path]
    return path, parse_scalar(value.strip())


def assign(settings: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set one value; a choice given by name becomes a mapping, so that an option of it can be set.

    Raises:
        ValueError: the path goes into a value without parts.
    """
    place = settings
    for key in path[:-1]:
        inner = place.get(key)
        if inner is None and key in CHOICES:
            raise ValueError(f"--set {'.'.join(path[1:])}: choose the {key} as well, with {key}=NAME")
        if isinstance(inner, str) and key in CHOICES:
            inner = parse_choice(inner)
        if not isinstance(inner, dict | type(None)):
            raise ValueError(f"--set {'.'.join(path)}: {key} has no parts")
        place[key] = {} if inner is None else dict(inner)
        place = place[key]
    place[path[-1]] = value


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Join settings section by section; a later value replaces an earlier one."""
    joined: dict[str, Any] = {"model": {}, "fit": {}, "data": {}, "seed": 0}
    for part in parts:
        for key, value in part.items():
            if key in _SECTIONS:
                joined[key] = {**joined[key], **value}
            elif key not in ("preset", "experiment"):
                joined[key] = value
    return joined


def assemble(
    source: str,
    *,
    base: Mapping[str, Any] | None = None,
    preset_name: str | None = None,
    file: Path | None = None,
    assignments: Sequence[tuple[Sequence[str], Any]] = (),
    load: Callable[[DataConfig], Dataset] = DataConfig.load,
) -> Settings:
    """Load the data and complete the configurations.

    Args:
        source: name or path of the data.
        base: settings to start from (those of a run that is resumed).
        preset_name: see `vae_pyro.models.presets`.
        file: see `read_settings_file`.
        assignments: paths and values, applied in order.
        load: from the configuration of the data to the data.

    Raises:
        ValueError: an unknown key or an impossible value.
        FileNotFoundError: the data are not there.
    """
    if base is not None:
        _require_form(base, "the settings of the run")
    from_file = read_settings_file(file) if file is not None else {}
    preset_name = preset_name or from_file.get("preset")
    chosen = preset(preset_name) if preset_name else None
    named = {"model": chosen.model, "fit": chosen.fit} if chosen else {}
    settings = merge(base or {}, named, from_file, {"data": {"source": source}})
    loaded = _choose_defaults(settings, assignments, load)
    for path, value in assignments:
        assign(settings, path, value)

    likelihood = LIKELIHOODS.resolve(settings["model"]["likelihood"])
    kind = LIKELIHOODS[likelihood.name]
    if chosen and likelihood.name == LIKELIHOODS.resolve(chosen.model["likelihood"]).name:
        settings["data"].setdefault("binarize", chosen.binarize)
    scale = _scale_of_data(kind, settings["model"].get("noise"))
    if scale is not None:
        settings["data"].setdefault("scale", scale)
    if kind.needs_schema:
        settings["data"].setdefault("kinds", {})
    elif settings["data"].get("kinds") is not None:
        tables = " or ".join(repr(name) for name in LIKELIHOODS if LIKELIHOODS[name].needs_schema)
        raise ValueError(f"kinds of columns are for the likelihood {tables}, not {likelihood.name!r}; leave one out")
    requested = DataConfig(**settings["data"])
    data = loaded if loaded is not None and loaded.config == requested else load(requested)
    if kind.needs_schema:
        assert data.facts.schema is not None
        columns = data.facts.schema.model_dump(mode="json")["columns"]
        settings["model"]["likelihood"] = {**likelihood.model_dump(), "columns": columns}
    settings["model"].setdefault("latent_dim", min(8, max(1, prod(data.x_shape) // 2)))
    settings["model"]["x_shape"] = data.x_shape
    if data.facts.missing:
        settings["model"].setdefault("encode_mask", True)
    if not isinstance(settings["seed"], int) or isinstance(settings["seed"], bool):
        raise ValueError(f"seed is an integer, got {shown(settings['seed'])}")
    checked_seed(settings["seed"])
    return Settings(data, VAEConfig(**settings["model"]), FitConfig(**settings["fit"]), settings["seed"])


def _choose_defaults(
    settings: dict[str, Any],
    assignments: Sequence[tuple[Sequence[str], Any]],
    load: Callable[[DataConfig], Dataset],
) -> Dataset | None:
    """Fill in the variants that are not chosen, so that their options can be set; the likelihood follows the data.

    Returns:
        The data, where these had to be read for it.
    """
    data, model, loaded = settings["data"], settings["model"], None
    assigned = {tuple(path): value for path, value in assignments}
    if "likelihood" not in model and ("model", "likelihood") not in assigned:
        form = DataForm.BINARIZED
        if (assigned.get(("data", "binarize")) or data.get("binarize", "none")) == "none":
            loaded = _with_their_columns(settings, assignments, load)
            form = DataForm.NUMBERS if loaded.facts.schema is None else DataForm.MIXED
        name = next(name for name in LIKELIHOODS if LIKELIHOODS[name].default_for is form)
        if loaded is not None:
            columns, rows = prod(loaded.x_shape), len(loaded.train)
            suited = LIKELIHOODS[name].settings(columns, rows, 1)
            lasting = {key: value for key, value in suited.get("fit", {}).items() if key in ("schedule", "batch_size")}
            for key in ("schedule", "batch_size", "epochs"):
                given = assigned.get(("fit", key), settings["fit"].get(key))
                lasting |= {} if given is None else {key: given}
            epochs = FitConfig(**lasting).length(rows, len(loaded.validation)).epochs
            suited = LIKELIHOODS[name].settings(columns, rows, epochs)
            model_of = dict(suited.get("model", {}))
            if "structure" in model or ("model", "structure") in assigned:  # which may require a prior of its own
                model_of.pop("prior", None)
            settings["model"] = model = {**model_of, **model}
            settings["fit"] = {**suited.get("fit", {}), **settings["fit"]}
        model.setdefault("likelihood", name)
    for section, config in _SECTIONS.items():
        for key in CHOICES.keys() & config.model_fields.keys():
            default = config.model_fields[key].default
            if default is not None:
                settings[section].setdefault(key, default)
    return loaded


def _with_their_columns(
    settings: dict[str, Any],
    assignments: Sequence[tuple[Sequence[str], Any]],
    load: Callable[[DataConfig], Dataset],
) -> Dataset:
    """The data, where some columns of a table are no numbers with their kinds; the settings have them then."""
    for path, value in assignments:
        if path[0] == "data":
            assign(settings, path, value)
    data = settings["data"]
    noisy = settings["model"].get("noise") or any(list(path) == ["model", "noise"] for path, _ in assignments)
    if data.get("kinds") is None and data.get("columns") is None and not noisy:  # noise is on numbers of one kind
        data["kinds"] = "auto"
    loaded = load(DataConfig(**data))
    data["kinds"] = loaded.config.kinds
    return loaded


def _scale_of_data(likelihood: type[Likelihood], noise: Any) -> str | None:
    """The scale that the likelihood, or the noise on it, requires of the data; ``None`` where it requires none."""
    if noise is not None:
        scale = NOISES[NOISES.resolve(noise).name].scale_of_data
        if scale is not None:
            return scale
    return likelihood.scale_of_data
