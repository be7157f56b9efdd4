"""``vae-pyro sample``: draws from the prior predictive distribution of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_pyro.cli.console import print_line, print_written
from vae_pyro.cli.options import RunOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import (
    ARRAYS,
    PICTURE,
    TABLES,
    require_ending,
    require_few,
    write_arrays_or_picture,
    write_frame,
)

if TYPE_CHECKING:
    from vae_pyro.models.vae import VAE


@verb(Topic.USE, "vae-pyro sample runs/m --num 64 --out samples.png")
def sample(
    source: RunOptions,
    out: Annotated[
        Path,
        typer.Option(
            help=".png for pictures of E(x | z), .npz for draws and expectations; .csv or .parquet for draws of a "
            "table, with its names, categories, types, rounding and range."
        ),
    ],
    num: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
    where: Annotated[
        str | None, typer.Option(help="Conditions on the columns of a table, such as 'cut=Ideal, price>5000'.")
    ] = None,
) -> None:
    """Draw from the prior predictive: z ~ p(z), x ~ p(x | z); of a table also given conditions."""
    require_ending(out, PICTURE, ARRAYS, *TABLES)
    if where is not None and out.suffix not in TABLES:
        raise ValueError(f"--where chooses rows of a table; write {' or '.join(TABLES)}, not {out.suffix}")
    require_few(out, num)
    folder, vae = source.open_model()
    if out.suffix in TABLES:
        columns = folder.facts().columns
        _write_table(out, vae, num, where, source.seed, None if columns is None else [*map(str, columns)])
        return
    from analysis.plotting import plot_data

    drawn = vae.sample(num, seed=source.seed).cpu().numpy()
    expected = vae.sample(num, seed=source.seed, expectation=True).cpu().numpy()
    arrays = {"x": drawn, "expectation": expected}
    write_arrays_or_picture(out, arrays, lambda: plot_data(expected, "E[x | z], z from the prior"))


def _write_table(out: Path, vae: "VAE", num: int, where: str | None, seed: int, names: list[str] | None) -> None:
    from vae_pyro.applications.table_draws import sample_frame

    if vae.columns is None and where is None and len(vae.config.x_shape) == 1:
        import pandas as pd

        drawn = vae.sample(num, seed=seed).cpu().numpy()
        fitting = names is not None and len(names) == drawn.shape[1]
        write_frame(out, pd.DataFrame(drawn, columns=names if fitting else [f"x{k}" for k in range(drawn.shape[1])]))
    else:
        frame = sample_frame(vae, num, where=where, seed=seed)
        write_frame(out, frame)
        if where is not None:
            size, share = frame.attrs["effective_sample_size"], frame.attrs["acceptance"]
            print_line(f"effective sample size of the latents {size:,.0f}; {share:.1%} of the draws met the conditions")
    print_written(out)
