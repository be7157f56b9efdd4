"""``vae-pyro compare``: objectives over seeds and settings, and one page that ranks them."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.console import print_line, print_written
from vae_pyro.cli.options import LARGEST_SEED, BackendOptions, Data, FitOptions
from vae_pyro.cli.registration import Topic, verb

_BROKEN = 1


@verb(Topic.FIT, "vae-pyro compare digits --objective elbo --objective iwae:num_particles=5 --seeds 3 --out e")
def compare(
    data: Data,
    settings: FitOptions,
    processes: BackendOptions,
    out: Annotated[Path, typer.Option(help="Folder of the experiment; the same call again continues it.")],
    objective: Annotated[list[str] | None, typer.Option(help="name or name:option=value; repeatable.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Fits of each, from other weights, noise and order.")] = None,
    grid: Annotated[list[str] | None, typer.Option(help="key=value,value: every combination; repeatable.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Objective that others are compared with; the first if not given.")
    ] = None,
    draws: Annotated[int, typer.Option(min=25, help="Draws of z for each datum of the evaluation.")] = 500,
    limit: Annotated[int | None, typer.Option(min=2, help="Evaluate the first data of the test set only.")] = None,
    gap_data: Annotated[int, typer.Option(min=0, help="Data whose inference gaps are estimated; 0 for none.")] = 0,
    evaluation_seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the evaluation's draws.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; as many as cores or GPUs if not given.")
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Fit all seeds of a variant at once.")] = False,
) -> None:
    """Compare objectives over seeds and settings: run folders, and comparison.html, .csv, .nc and .png."""
    from functools import partial

    from analysis import compare_experiment, measure
    from vae_pyro.densities.walk import require_draws
    from vae_pyro.experiments.plan import parse_grid
    from vae_pyro.experiments.running import run_experiment
    from vae_pyro.training.settings import read_settings_file

    require_draws(draws)  # before anything is fitted
    stated = {} if settings.config is None else read_settings_file(settings.config).get("experiment", {})
    objectives = objective or stated.get("objectives", ["elbo"])
    place = _place(baseline or stated.get("baseline"), objectives)
    experiment = run_experiment(
        out,
        data,
        objectives=objectives,
        seeds=seeds if seeds is not None else stated.get("seeds", 5),
        grid=dict(parse_grid(text) for text in grid) if grid else stated.get("grid", {}),
        finish=partial(measure, num_draws=draws, seed=evaluation_seed, limit=limit, num_gap_data=gap_data),
        preset_name=settings.preset,
        file=settings.config,
        assignments=settings.assignments(),
        backend=processes.backend,  # type: ignore[arg-type]  # an unknown name is refused there
        num_workers=workers,
        address=processes.address,
        ensemble=ensemble,
    )
    print_line(str(experiment))
    comparison, files = compare_experiment(experiment, baseline=experiment.config.objectives[place])
    print_line(str(comparison))
    print_written(*files)
    if experiment.having("broken"):
        print_line("some runs failed and are left out; the same call tries them again", style="yellow")
        raise typer.Exit(_BROKEN)


def _place(baseline: str | None, objectives: list[str]) -> int:
    """Position of the baseline among the objectives; one that is none of them is refused before anything is fitted."""
    from vae_pyro.objectives import OBJECTIVES

    if baseline is None:
        return 0
    choices = [OBJECTIVES.resolve(one) for one in objectives]
    if OBJECTIVES.resolve(baseline) not in choices:
        raise ValueError(f"the baseline {baseline!r} is none of the objectives {', '.join(map(str, choices))}")
    return choices.index(OBJECTIVES.resolve(baseline))
