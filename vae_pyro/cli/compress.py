"""``vae-pyro compress`` and ``vae-pyro decompress``: discrete data as an archive, and back, bit for bit."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vae_pyro.cli.console import DataRoot, Device, Run, Seed, SplitName, console


def compress(
    run: Run,
    data: Annotated[str | None, typer.Argument(help="Other data than the run's: a name or path, all of it.")] = None,
    out: Annotated[Path, typer.Option(help="Archive to write, such as digits.vpz.")] = ...,  # type: ignore[assignment]
    split: SplitName = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Compress the first data only.")] = None,
    bits: Annotated[int, typer.Option(min=4, max=20, help="Even; grid of each latent.")] = 16,
    draws: Annotated[int, typer.Option(min=2, help="Draws for each datum of the ELBO beside it.")] = 100,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rates as JSON.")] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Compress discrete data losslessly with a run's model; rates beside the ELBO, gzip, bz2, lzma and PNG."""
    import json
    from time import perf_counter

    from vae_pyro.applications.compression.codec import compress as code
    from vae_pyro.applications.compression.rates import rates
    from vae_pyro.cli.opening import chosen_data
    from vae_pyro.core.isolation import derive_seed

    if out.is_dir():  # said now, and not after hours of coding
        raise ValueError(f"--out {str(out)!r} is a directory; name the archive to write, such as digits.vpz")
    _, vae, chosen = chosen_data(run, data, split, data_root, device)
    chosen = (chosen if limit is None else chosen.between(0, min(limit, len(chosen)))).fixed(derive_seed(seed, 0))
    start = perf_counter()
    archive = code(vae, chosen, seed=seed, bits=bits)
    seconds = perf_counter() - start
    out.parent.mkdir(parents=True, exist_ok=True)
    archive.write(out)
    found = rates(vae, chosen, archive, num_draws=draws, seed=seed)
    if as_json:
        typer.echo(json.dumps({**found.summary(), "seconds": seconds}, indent=1))
        return
    length = found.length
    table = Table("code", "bits per dimension", title=f"{length.num_data:,} data of {length.num_elements:,} elements")
    for name, rate in found.rows():
        table.add_row(name, f"{rate:.4f}")
    console.print(table)
    console.print(
        f"wrote {escape(str(out))}: {length.file // 8:,} bytes in {seconds:.1f} s; net {found.excess:+.2%} from minus "
        f"the ELBO, around which other draws of the latents move it by {found.draw_se / found.elbo:.2%}",
        highlight=False,
    )


def decompress(
    run: Run,
    file: Annotated[Path, typer.Argument(help="Archive, as compress wrote it with this run.")],
    out: Annotated[Path, typer.Option(help=".npy for the data, .npz for x and id.")],
) -> None:
    """Give the data of an archive back, bit for bit; other weights or another machine's arithmetic are refused."""
    from io import BytesIO

    import numpy as np

    from vae_pyro.applications.compression.archive import read_archive
    from vae_pyro.applications.compression.codec import decompress as decode
    from vae_pyro.core.files import write_atomically
    from vae_pyro.runs.folder import RunFolder

    if out.suffix not in (".npy", ".npz"):
        raise ValueError(f"--out {str(out)!r}: the ending chooses the format, .npy or .npz")
    archive = read_archive(file)
    x = decode(RunFolder(run).load_model("cpu"), archive)
    content = BytesIO()
    if out.suffix == ".npy":
        np.save(content, x, allow_pickle=False)
    else:
        np.savez_compressed(content, x=x, id=archive.ids)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content.getvalue())
    console.print(f"wrote {escape(str(out))}: {len(x):,} data of shape {x.shape[1:]}, {x.dtype}", highlight=False)
