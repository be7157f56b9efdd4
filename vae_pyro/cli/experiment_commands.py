"""``vae-pyro compare`` and ``vae-pyro tune``: many runs, and one page that says what they tell."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from vae_pyro.cli.console import (
    Address,
    Backend,
    BatchSize,
    Binarize,
    Data,
    DataRoot,
    DeviceChoice,
    Epochs,
    LatentDim,
    Likelihood,
    NoCompile,
    Precision,
    Preset,
    Rate,
    Set,
    SettingsFile,
    Workers,
    assignments_of,
    console,
)

_BROKEN = 1


def compare(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the experiment; the same call again continues it.")],
    objective: Annotated[list[str] | None, typer.Option(help="name or name:option=value; repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Fits of each, from other weights, noise and order.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="key=value,value: every combination; repeatable.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Objective that others are compared with; the first.")] = None,
    preset: Preset = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    latent_dim: LatentDim = None,
    likelihood: Likelihood = None,
    binarize: Binarize = None,
    device: DeviceChoice = None,
    no_compile: NoCompile = False,
    precision: Precision = None,
    data_root: DataRoot = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML or JSON with tables model, fit, data, and experiment.")
    ] = None,
    set_: Set = None,
    draws: Annotated[int, typer.Option(min=25, help="Draws for each datum of the evaluation.")] = 500,
    limit: Annotated[int | None, typer.Option(min=2, help="Evaluate the first data of the test set only.")] = None,
    gap_data: Annotated[int, typer.Option(min=0, help="Data whose inference gaps are measured; 0 for none.")] = 0,
    evaluation_seed: Annotated[int, typer.Option(min=0, help="Seed of the evaluation's draws.")] = 0,
    workers: Workers = None,
    backend: Backend = "loky",
    address: Address = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Fit all seeds of a variant at once.")] = False,
) -> None:
    """Compare objectives over seeds and settings: run folders, and comparison.html, .csv, .nc and .png."""
    from functools import partial

    from analysis.experiments.measurement import compare_experiment, measure
    from vae_pyro.experiments.plan import parse_grid
    from vae_pyro.experiments.running import run
    from vae_pyro.training.settings import read_settings_file

    stated = {} if config is None else read_settings_file(config).get("experiment", {})
    axes = dict(parse_grid(text) for text in grid) if grid else stated.get("grid", {})
    assignments = assignments_of(
        set_, epochs=epochs, batch_size=batch_size, lr=lr, latent_dim=latent_dim, likelihood=likelihood,
        binarize=binarize, device=device, no_compile=no_compile, precision=precision, data_root=data_root,
    )  # fmt: skip
    objectives = objective or stated.get("objectives", ["elbo"])
    place = _place(baseline or stated.get("baseline"), objectives)
    experiment = run(
        out,
        data,
        objectives=objectives,
        seeds=seeds if seeds is not None else stated.get("seeds", 5),
        grid=axes,
        finish=partial(measure, num_draws=draws, seed=evaluation_seed, limit=limit, num_gap_data=gap_data),
        preset_name=preset,
        file=config,
        assignments=assignments,
        backend=backend,  # type: ignore[arg-type]
        num_workers=workers,
        address=address,
        ensemble=ensemble,
    )
    console.print(escape(str(experiment)), highlight=False)
    comparison, files = compare_experiment(experiment, baseline=experiment.config.objectives[place])
    console.print(escape(str(comparison)), highlight=False)
    _wrote(files)
    if experiment.having("broken"):
        console.print("some runs broke and are left out; the same call tries them again", style="yellow")
        raise typer.Exit(_BROKEN)


def _place(baseline: str | None, objectives: list[str]) -> int:
    """Which of the objectives is the baseline; one that is none of them is refused before anything is fitted."""
    from vae_pyro.objectives import OBJECTIVES

    if baseline is None:
        return 0
    choices = [OBJECTIVES.resolve(one) for one in objectives]
    if OBJECTIVES.resolve(baseline) not in choices:
        raise ValueError(f"the baseline {baseline!r} is none of the objectives {', '.join(objectives)}")
    return choices.index(OBJECTIVES.resolve(baseline))


def tune(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the search; the same call again continues it.")],
    space: Annotated[list[str], typer.Option(help="key=low..high, key=low..high:log, or key=a,b,c; repeatable.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier calls included.")] = 30,
    preset: Preset = None,
    objective: Annotated[str | None, typer.Option(help="name or name:option=value.")] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    latent_dim: LatentDim = None,
    likelihood: Likelihood = None,
    binarize: Binarize = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Of sampler, weights and fits.")] = None,
    device: DeviceChoice = None,
    no_compile: NoCompile = False,
    data_root: DataRoot = None,
    config: SettingsFile = None,
    set_: Set = None,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Let every trial run to its end.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the search.")] = 1,
    backend: Backend = "loky",
    address: Address = None,
) -> None:
    """Search for settings by the ELBO of validation data; the test data are not looked at."""
    from analysis.experiments.search_page import write_search
    from vae_pyro.experiments.tuning.tuning import tune as search_for

    search = search_for(
        out,
        data,
        space=space,
        num_trials=trials,
        preset_name=preset,
        file=config,
        assignments=assignments_of(
            set_,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            latent_dim=latent_dim,
            likelihood=likelihood,
            binarize=binarize,
            objective=objective,
            device=device,
            no_compile=no_compile,
            data_root=data_root,
        ),
        seed=seed,
        prune=not no_prune,
        num_workers=workers,
        backend=backend,  # type: ignore[arg-type]
        address=address,
    )
    console.print(escape(str(search)), highlight=False)
    _wrote(write_search(search, out))


def _wrote(files: Any) -> None:
    names = ", ".join(str(file) for file in files) if isinstance(files, list) else str(files)
    console.print(f"wrote {escape(names)}", highlight=False)
