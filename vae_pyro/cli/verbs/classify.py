"""``vae-pyro classify``: classes of data by a run, and their scores where the true ones are known."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.console import print_line, print_written
from vae_pyro.cli.options import DataOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAYS, require_ending

_FEWEST = 2  # data whose scores have a standard error
_MOST_BINS = 15


@verb(Topic.USE, "vae-pyro classify runs/s --out classes.csv")
def classify(
    source: DataOptions,
    out: Annotated[Path, typer.Option(help=".csv or .npz of the probabilities.")],
    draws: Annotated[
        int, typer.Option(min=0, help="Draws of z for each datum and class; 0 for the guide alone.")
    ] = 100,
) -> None:
    """Classes of data: q(y | x) of the guide and p(y | x) of the model; error and calibration where they are known."""
    require_ending(out, ".csv", ARRAYS)
    from analysis import class_scores
    from vae_pyro.applications import classification

    _, vae, chosen = source.open_data(classes=False)
    # Unlike take(), between() leaves sparse data sparse; streamed ones are read, since every class is tried on them.
    chosen = chosen if source.limit is None else chosen.between(0, min(source.limit, len(chosen)))
    if chosen.streamed:
        chosen = chosen.take(slice(None))
    made = classification.classify(vae, chosen, num_draws=draws, seed=source.seed)
    labels = made.labels
    scored = []  # before the file is written: data that cannot be scored leave none behind
    for which, title in (("guide", "guide, q(y | x)"), ("model", "model, p(y | x)")):
        if getattr(made, which) is None or labels is None or len(labels) < _FEWEST:
            continue
        scores = class_scores(
            made.of(which),
            labels,
            log_probabilities=made.log_of(which),
            num_bins=min(_MOST_BINS, len(labels)),
            seed=source.seed,
        )
        scored.append((title, scores))
    classification.write(made, out)
    for title, scores in scored:
        print_line(f"{title}: {scores}")
        for verdict in scores.verdicts:
            print_line(f"  {verdict}")
    if labels is not None and len(labels) < _FEWEST:
        print_line(f"scores with standard errors require at least {_FEWEST} data, got {len(labels)}", style="yellow")
    print_written(out)
