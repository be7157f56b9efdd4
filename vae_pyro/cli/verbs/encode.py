"""``vae-pyro encode``: moments of q(z | x) for each datum."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.options import DataOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAYS, PICTURE, require_ending, write_arrays_or_picture


@verb(Topic.USE, "vae-pyro encode runs/m new.npy --out codes.npz")
def encode(
    source: DataOptions,
    out: Annotated[Path, typer.Option(help=".npz for moments of q(z | x), .png for a picture of the latent plane.")],
) -> None:
    """Mean and standard deviation of q(z | x) for each datum."""
    require_ending(out, PICTURE, ARRAYS)
    from analysis.plotting import plot_latent
    from vae_pyro.cli.moments import posterior_moments

    _, vae, chosen = source.open_data()
    if source.limit is not None:
        chosen = chosen.take(slice(source.limit))
    loc, scale = posterior_moments(vae, chosen, source.seed)
    labels = None if chosen.labels is None else chosen.labels.numpy()
    arrays = {"loc": loc, "scale": scale, "id": chosen.ids.numpy(), "label": labels}
    write_arrays_or_picture(out, arrays, lambda: plot_latent(loc, labels))
