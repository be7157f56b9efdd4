"""``vae-pyro classify``: classes of data by a run, and how good they are where the true ones are known."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vae_pyro.cli.console import DataRoot, Device, Run, Seed, SplitName, console

_FEWEST = 2  # data whose scores have a standard error


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
    from analysis.tasks.class_scores import class_scores
    from vae_pyro.applications.classification import classify as classes_of
    from vae_pyro.applications.classification import write
    from vae_pyro.cli.opening import chosen_data
    from vae_pyro.data.streams.split import StreamedSplit

    if out.suffix not in (".csv", ".npz"):
        raise ValueError(f"probabilities are written as .csv or .npz, got {str(out)!r}")
    _, vae, chosen = chosen_data(run, data, split, data_root, device, classes=False)
    # Unlike take(), between() leaves sparse data sparse; streamed ones are read, since every class is tried on them.
    chosen = chosen if limit is None else chosen.between(0, min(limit, len(chosen)))
    if isinstance(chosen, StreamedSplit):
        chosen = chosen.take(slice(None))
    made = classes_of(vae, chosen, num_draws=draws, seed=seed)
    labels = made.labels
    scored = []  # before the file is written: what cannot be scored leaves none behind
    for which, title in (("guide", "guide, q(y | x)"), ("model", "model, p(y | x)")):
        if getattr(made, which) is None or labels is None or len(labels) < _FEWEST:
            continue
        scores = class_scores(
            made.of(which), labels, log_probabilities=made.log_of(which), num_bins=min(15, len(labels)), seed=seed
        )
        scored.append((title, scores))
    write(made, out)
    for title, scores in scored:
        console.print(escape(f"{title}: {scores}"), highlight=False)
        for verdict in scores.verdicts:
            console.print(escape(f"  {verdict}"), highlight=False)
    if labels is not None and len(labels) < _FEWEST:
        console.print(
            f"scores with their errors want at least {_FEWEST} data, here {len(labels)}",
            style="yellow",
            highlight=False,
        )
    console.print(f"wrote {escape(str(out))}", highlight=False)
