"""``vae-pyro compress``: discrete data as an archive, coded losslessly with the model of a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vae_pyro.cli.console import console, print_line
from vae_pyro.cli.options import DataOptions
from vae_pyro.cli.registration import Topic, verb


@verb(Topic.USE, "vae-pyro compress runs/m --limit 1000 --out m.vpz")
def compress(
    source: DataOptions,
    out: Annotated[Path, typer.Option(help="Archive to write, such as digits.vpz.")],
    bits: Annotated[int, typer.Option(min=4, max=20, help="Even; bits of the grid of each latent.")] = 16,
    draws: Annotated[int, typer.Option(min=2, help="Draws of z for each datum, for the ELBO beside it.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rates as JSON.")] = False,
) -> None:
    """Compress discrete data losslessly with a run's model; rates beside the ELBO, gzip, bz2, lzma and PNG."""
    if out.is_dir():  # before hours of coding
        raise ValueError(f"--out {str(out)!r} is a directory; name the archive to write, such as digits.vpz")
    import json
    from time import perf_counter

    from vae_pyro.applications.compression.codec import compress as encode
    from vae_pyro.applications.compression.rates import compression_rates
    from vae_pyro.core.isolation import derive_seed

    _, vae, chosen = source.open_data()
    chosen = chosen if source.limit is None else chosen.between(0, min(source.limit, len(chosen)))
    chosen = chosen.fixed(derive_seed(source.seed, 0))
    start = perf_counter()
    archive = encode(vae, chosen, seed=source.seed, bits=bits)
    seconds = perf_counter() - start
    out.parent.mkdir(parents=True, exist_ok=True)
    archive.write(out)
    found = compression_rates(vae, chosen, archive, num_draws=draws, seed=source.seed)
    if as_json:
        typer.echo(json.dumps({**found.summary(), "seconds": seconds}, indent=1))
        return
    length = found.length
    table = Table("code", "bits per dimension", title=f"{length.num_data:,} data of {length.num_elements:,} elements")
    for name, rate in found.rows():
        table.add_row(name, f"{rate:.4f}")
    console.print(table)
    print_line(
        f"wrote {out}: {length.file // 8:,} bytes in {seconds:.1f} s; net {found.excess:+.2%} from minus the ELBO, "
        f"around which other draws of the latents move it by {found.draw_se / found.elbo:.2%}"
    )
