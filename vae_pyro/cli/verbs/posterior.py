"""``vae-pyro posterior``: draws of the posteriors of single data, with their diagnostics."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from vae_pyro.cli.console import console, print_line, print_written
from vae_pyro.cli.options import DataOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import require_ending


@verb(Topic.USE, "vae-pyro posterior runs/m data.npy --limit 20 --method annealed --out draws.nc")
def posterior(
    source: DataOptions,
    out: Annotated[Path, typer.Option(help=".nc: an ArviZ DataTree in netCDF.")],
    method: Annotated[
        str,
        typer.Option(
            help="guide, importance (resampled by weight), local (a Gaussian optimised for each datum), or annealed "
            "(Hamiltonian Monte Carlo); the cost rises in this order."
        ),
    ] = "importance",
    draws: Annotated[int, typer.Option(min=1, help="Draws of each posterior.")] = 1000,
) -> None:
    """Draw latents of each datum, with k-hat or R-hat, effective sample size and log p(x), as netCDF."""
    require_ending(out, ".nc")
    from analysis import posterior_draws, write_netcdf

    _, vae, chosen = source.open_data()
    if source.limit is not None:
        chosen = chosen.take(slice(source.limit))
    with console.status(f"drawing by {method}"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = posterior_draws(vae, chosen, method=method, num_draws=draws, seed=source.seed)  # type: ignore[arg-type]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_netcdf(tree, out)
    found = tree["posterior_diagnostics"]
    share = float(found["effective_sample_size"].median())
    print_line(
        f"{draws:,} draws by {method} for each of {source.described} ({len(chosen):,}): median effective sample size "
        f"{share:,.0f}, log p(x) {float(found['log_px'].mean()):.3f} nats per datum on average"
    )
    for warning in caught:
        if "are not reliable" in str(warning.message):
            print_line(f"{warning.message}.", style="yellow")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    print_written(out)
