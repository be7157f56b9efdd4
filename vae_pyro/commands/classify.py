"""``vae-pyro classify``: classes of data by a run, and how good they are where the true ones are known."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vae_pyro.console import DataRoot, Device, Run, Seed, SplitName, console


def classify(
    run: Run,
    data: Annotated[str | None, typer.Argument(help="Other data than the run's: a name or a path.")] = None,
    out: Annotated[Path, typer.Option(help=".csv or .npz of the probabilities.")] = ...,  # type: ignore[assignment]
    split: SplitName = "test",
    draws: Annotated[
        int, typer.Option(min=0, help="Draws of z for each datum and class; 0 asks the guide alone.")
    ] = 100,
    limit: Annotated[int | None, typer.Option(min=1, help="The first data only.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Classes of data: q(y | x) of the guide and p(y | x) of the model; error and calibration where they are known."""
    from analysis.classification import class_scores
    from vae_pyro.classification import classify as classes_of
    from vae_pyro.classification import write
    from vae_pyro.commands.opening import chosen_data

    if out.suffix not in (".csv", ".npz"):
        raise ValueError(f"probabilities are written as .csv or .npz, got {str(out)!r}")
    _, vae, chosen = chosen_data(run, data, split, data_root, device)
    made = classes_of(vae, chosen.take(slice(limit)), num_draws=draws, seed=seed)
    write(made, out)
    for which, title in (("guide", "guide, q(y | x)"), ("model", "model, p(y | x)")):
        if getattr(made, which) is None or made.labels is None:
            continue
        scores = class_scores(made.of(which), made.labels, num_bins=min(15, len(made.labels)), seed=seed)
        console.print(f"{title}: {scores}", highlight=False)
        for verdict in scores.verdicts:
            console.print(escape(f"  {verdict}"), highlight=False)
    console.print(f"wrote {escape(str(out))}", highlight=False)
