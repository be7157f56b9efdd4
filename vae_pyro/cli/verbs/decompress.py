"""``vae-pyro decompress``: the data of an archive that ``vae-pyro compress`` wrote, bit for bit."""

from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.console import print_line
from vae_pyro.cli.options import Run
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAY, ARRAYS, require_ending, write_array, write_arrays


@verb(Topic.USE, "vae-pyro decompress runs/m m.vpz --out x.npy")
def decompress(
    run: Run,
    file: Annotated[Path, typer.Argument(help="Archive, as compress wrote it with this run.")],
    out: Annotated[Path, typer.Option(help=".npy for the data, .npz for x and id.")],
) -> None:
    """Restore the data of an archive bit for bit; other weights or another machine's arithmetic are refused."""
    require_ending(out, ARRAY, ARRAYS)
    from vae_pyro.applications.compression.archive import read_archive
    from vae_pyro.applications.compression.codec import decompress as decode
    from vae_pyro.cli.opening import open_model

    archive = read_archive(file)
    _, vae = open_model(run, "cpu")
    x = decode(vae, archive)
    if out.suffix == ARRAY:
        write_array(out, x)
    else:
        write_arrays(out, {"x": x, "id": archive.ids})
    print_line(f"wrote {out}: {len(x):,} data of shape {x.shape[1:]}, {x.dtype}")
