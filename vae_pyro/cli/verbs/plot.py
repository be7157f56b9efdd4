"""``vae-pyro plot``: pictures of a run."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.console import print_written
from vae_pyro.cli.options import SplitOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import write_picture

_PAIRS, _SAMPLES = 16, 64


@verb(Topic.CHECK, "vae-pyro plot runs/m")
def plot(
    source: SplitOptions,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; the run folder if not given.")] = None,
) -> None:
    """Pictures of a run: training curves, samples, reconstructions and the latent plane."""
    from analysis import plotting
    from vae_pyro.cli.moments import posterior_moments

    folder, vae, data = source.open_split()
    loc, _ = posterior_moments(vae, data, source.seed)
    x, given = data.take(slice(_PAIRS)).batch(slice(None))
    labels = None if data.labels is None else data.labels.numpy()
    samples = vae.sample(_SAMPLES, seed=source.seed, expectation=True).cpu().numpy()
    reconstructions = vae.reconstruct(x, **given, seed=source.seed).cpu().numpy()
    figures = {
        "curves": plotting.plot_history(folder.read_history()),
        "samples": plotting.plot_data(samples, "E[x | z], z from the prior"),
        "reconstructions": plotting.plot_pairs(x.numpy(), reconstructions),
        "latent": plotting.plot_latent(loc, labels),
    }
    for name, figure in figures.items():
        file = (out or source.run) / f"{name}.png"
        write_picture(file, figure)
        print_written(file)
