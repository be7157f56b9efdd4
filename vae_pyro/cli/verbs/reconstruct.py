"""``vae-pyro reconstruct``: data of a run beside their reconstructions."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.options import SplitOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAYS, PICTURE, require_ending, require_few, write_arrays_or_picture


@verb(Topic.USE, "vae-pyro reconstruct runs/m --num 16 --out reconstructions.png")
def reconstruct(
    source: SplitOptions,
    out: Annotated[Path, typer.Option(help=".png for pairs, .npz for arrays.")],
    num: Annotated[int, typer.Option(min=1, help="Number of data, from the start of the split.")] = 16,
) -> None:
    """Data beside E(x | z) for a draw of q(z | x)."""
    require_ending(out, PICTURE, ARRAYS)
    require_few(out, num)
    from analysis.plotting import plot_pairs

    _, vae, split = source.open_split()
    data = split.take(slice(num))
    x, given = data.batch(slice(None))
    again = vae.reconstruct(x, **given, seed=source.seed).cpu().numpy()
    arrays = {"x": x.numpy(), "reconstruction": again, "id": data.ids.numpy()}
    write_arrays_or_picture(out, arrays, lambda: plot_pairs(x.numpy(), again))
