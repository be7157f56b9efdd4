"""``vae-pyro sample``: draws from the prior predictive distribution of a run."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.options import RunOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAYS, PICTURE, require_ending, require_few, write_arrays_or_picture


@verb(Topic.USE, "vae-pyro sample runs/m --num 64 --out samples.png")
def sample(
    source: RunOptions,
    out: Annotated[Path, typer.Option(help=".png for pictures of E(x | z), .npz for draws and expectations.")],
    num: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
) -> None:
    """Draw from the prior predictive: z ~ p(z), x ~ p(x | z)."""
    require_ending(out, PICTURE, ARRAYS)
    require_few(out, num)
    from analysis.plotting import plot_data

    _, vae = source.open_model()
    drawn = vae.sample(num, seed=source.seed).cpu().numpy()
    expected = vae.sample(num, seed=source.seed, expectation=True).cpu().numpy()
    arrays = {"x": drawn, "expectation": expected}
    write_arrays_or_picture(out, arrays, lambda: plot_data(expected, "E[x | z], z from the prior"))
