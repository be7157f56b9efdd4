"""``vae-pyro report``: every diagnostic of a run on one page."""

from typing import Annotated

import typer

from vae_pyro.cli.console import console, print_line, print_verdicts
from vae_pyro.cli.options import Rows, SplitOptions
from vae_pyro.cli.registration import Topic, verb


@verb(Topic.CHECK, "vae-pyro report runs/m")
def report(
    source: SplitOptions,
    draws: Annotated[int, typer.Option(min=100, help="Draws of the guide for each datum.")] = 500,
    simulations: Annotated[int, typer.Option(min=20, max=1_000_000, help="Simulations for the calibration.")] = 500,
    gap_data: Annotated[int, typer.Option(min=2, help="Data whose inference gaps are estimated.")] = 30,
    only: Annotated[list[str] | None, typer.Option(help="Make this section only; repeatable.")] = None,
    limit: Rows = None,
) -> None:
    """Every diagnostic with its verdict: report.html, inference.nc and metrics.json in the run folder."""
    from analysis import ReportConfig, report_run

    config = ReportConfig(
        num_draws=draws,
        num_simulations=simulations,
        num_gap_data=gap_data,
        only=tuple(only or ()),
    )
    folder, vae, data = source.open_all()
    with console.status("") as status:
        made = report_run(
            folder,
            vae,
            data,
            split=source.split,
            limit=limit,
            config=config,
            seed=source.seed,
            progress=status.update,
        )
    print_line(f"held-out data: {made.page.facts['held-out data']}")
    if made.saved_size:
        print_line(f"writing {folder.inference_file}: {made.saved_size}")
    made.write(folder)
    print_verdicts(f"{source.run}: {made.page.summary()}", [verdict for _, verdict in made.page.verdicts])
    for title, reason in made.absent:
        print_line(f"{title} {reason}", style="yellow")
    print_line(f"time: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in made.seconds.items())}", style="dim")
    print_line(f"wrote {folder.report_file}, its estimates in metrics.json, draws in inference.nc")
