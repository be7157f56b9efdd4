"""``vae-pyro tune``: a search for settings by the ELBO of validation data."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.console import print_line, print_written
from vae_pyro.cli.options import BackendOptions, Data, FitOptions, FitSeed, Objective
from vae_pyro.cli.registration import Topic, verb


@verb(Topic.FIT, 'vae-pyro tune digits --space "latent_dim=2..32:log" --space "optimizer.lr=1e-4..1e-2:log" --out s')
def tune(
    data: Data,
    settings: FitOptions,
    processes: BackendOptions,
    out: Annotated[Path, typer.Option(help="Folder of the search; the same call again continues it.")],
    space: Annotated[list[str], typer.Option(help="key=low..high, key=low..high:log, or key=a,b,c; repeatable.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier calls included.")] = 30,
    objective: Objective = None,
    seed: FitSeed = None,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Let every trial run to its end.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the search.")] = 1,
) -> None:
    """Search for settings by the ELBO of validation data; the test data are not used."""
    from analysis.experiments.search.page import write_search
    from vae_pyro.experiments.tuning.tuning import tune as search_for

    search = search_for(
        out,
        data,
        space=space,
        num_trials=trials,
        preset_name=settings.preset,
        file=settings.config,
        assignments=settings.assignments(objective=objective),
        seed=seed,
        prune=not no_prune,
        num_workers=workers,
        backend=processes.backend,  # type: ignore[arg-type]  # an unknown name is refused there
        address=processes.address,
    )
    print_line(str(search))
    print_written(write_search(search, out))
