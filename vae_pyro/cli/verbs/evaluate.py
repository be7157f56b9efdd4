"""``vae-pyro evaluate``: the held-out densities of a run, each with its errors."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vae_pyro.cli.console import console, print_line, print_warning
from vae_pyro.cli.options import Limit, SplitOptions
from vae_pyro.cli.registration import Topic, verb

if TYPE_CHECKING:
    from vae_pyro.evaluation.evaluation import Evaluation

# Key in metrics.json: name, unit, decimals.
_ROWS = {
    "elbo": ("ELBO", "nats", 3),
    "log_px": ("log p(x)", "nats", 3),
    "kl": ("KL(q(z|x) || p(z))", "nats", 3),
    "reconstruction": ("E log p(x|z)", "nats", 3),
    "bits_per_dim": ("bits per dimension", "bits", 4),
}


@verb(Topic.CHECK, "vae-pyro evaluate runs/m --draws 5000 --json", renamed={"--samples": "--draws"})
def evaluate(
    source: SplitOptions,
    draws: Annotated[int, typer.Option(min=2, help="Draws of z for each datum.")] = 1000,
    limit: Limit = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """ELBO, log p(x), KL, reconstruction, bits per dimension and active units, each with its Monte Carlo error."""
    from vae_pyro.core.files import RunError
    from vae_pyro.evaluation.evaluation import evaluate as estimate

    folder, vae, data = source.open_split()
    if limit is not None:
        data = data.take(slice(limit))
    result = estimate(vae, data, num_draws=draws, seed=source.seed)
    observation = folder.facts().evaluation
    metrics = {
        **result.summary(),
        "split": source.split,
        "seed": source.seed,
        "units": "nats per datum" + ("" if result.discrete else " (log density in the units of x)"),
        "observed": data.space,
        "evaluation": observation,
    }
    try:
        folder.update_metrics(metrics)
    except (OSError, RunError) as error:  # a folder of others, a full disk, a live fit: the estimates are there anyway
        reason = error.strerror if isinstance(error, OSError) else error
        print_warning(f"the estimates are not stored: {folder.metrics_file} cannot be written ({reason})")
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
        return
    title = f"{source.run}: {source.split} data, n = {metrics['n']:,}, {draws:,} draws each"
    console.print(_table(title, metrics, result))
    if len(result.activity) and metrics["active_units"] == 0 and metrics["n"] > 1:
        print_line(
            "no latent is active: the guide is the prior for every x (posterior collapse). Remedies: a KL warm-up "
            "(--set kl_warmup=20), smaller batches, more epochs.",
            style="yellow",
        )
    if not result.discrete:
        print_line(
            "x is continuous: log p(x) is a log density; it and the bits per dimension depend on the units of x.",
            style="dim",
        )
    print_line(
        "log p(x) is an importance-sampling estimate, biased downwards. Standard errors: Monte Carlo, over draws of z; "
        f"sampling, over test sets. Observed: {data.space}; {observation}.",
        style="dim",
    )


def _table(title: str, metrics: dict[str, Any], result: "Evaluation") -> Table:
    table = Table(title=escape(title))
    for column in ("quantity", "estimate", "± Monte Carlo", "± sampling", "unit"):
        table.add_column(column, justify="left" if column in ("quantity", "unit") else "right")
    for key, (name, unit, decimals) in _ROWS.items():
        sampling = metrics["sampling_se"][key]
        table.add_row(
            name,
            f"{metrics[key]:.{decimals}f}",
            f"{metrics[f'{key}_se']:.{decimals}f}",
            "" if sampling is None else f"{sampling:.{decimals}f}",
            unit,
        )
    active, error = metrics["active_units"], metrics["active_units_se"]
    table.add_row("active units", str(active), f"{error:.3f}", "", f"of {len(result.activity)} latents")
    return table
