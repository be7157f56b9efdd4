"""``vae-pyro evaluate``: the held-out densities of a run, each with its errors."""

import json
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vae_pyro.cli.console import console, print_line, print_warning, time_left
from vae_pyro.cli.options import Rows, SplitOptions
from vae_pyro.cli.registration import Topic, verb

if TYPE_CHECKING:
    from analysis.posterior.calibration.evidence import EvidenceBounds
    from vae_pyro.data.split import Split
    from vae_pyro.evaluation.evaluation import Evaluation
    from vae_pyro.models.vae import VAE

# Data that are simulated for the evidence from both sides, and draws of the guide at each.
_SIMULATIONS, _DRAWS = 300, 19

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
    limit: Rows = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """ELBO, log p(x), KL, reconstruction, bits per dimension and active units, each with its Monte Carlo error.

    On data simulated from the model, the evidence at the latents that made them is compared with that at draws of the
    guide: the difference sees what importance sampling from the guide cannot.
    """
    from vae_pyro.core.files import RunError
    from vae_pyro.evaluation.evaluation import evaluate as estimate
    from vae_pyro.evaluation.rows import choose_rows

    folder, vae, data = source.open_split()
    rows = choose_rows(vae, data, num_draws=draws, limit=limit, seed=source.seed)
    if rows.random and not as_json:
        print_line(f"{rows} {source.split} data are evaluated; --limit all takes all", style="yellow")
    data = rows.split
    with time_left(f"{len(data):,} data") as tell:
        result = estimate(vae, data, num_draws=draws, seed=source.seed, progress=tell)
    bounds, refusal = _simulated(vae, data, source.seed)
    observation = folder.facts().evaluation
    metrics = {
        **result.summary(),
        "simulated": None if bounds is None else bounds.summary(),
        "split": source.split,
        "rows": str(rows),
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
    console.print(_table(title, metrics, result, bounds))
    if bounds is None:
        print_line(f"The guide was not compared with the posterior on simulated data: {refusal}.", style="dim")
    elif bounds.outcome != "pass":
        (verdict,) = bounds.verdicts
        print_line(
            f"symmetric KL, of guide and posterior on {_SIMULATIONS:,} data of the model: {verdict.advice}.",
            style="yellow",
        )
    if len(result.activity) and metrics["active_units"] == 0 and metrics["n"] > 1:
        print_line(
            "no latent is active: the guide is the prior for every x (posterior collapse). Remedies: a KL warm-up "
            "(--set kl_warmup=20), smaller batches, more epochs.",
            style="yellow",
        )
    if rows.random:
        added = {key: rows.added_error(metrics["sampling_se"][key]) for key in ("elbo", "log_px")}
        print_line(
            f"Estimates are of {rows} {source.split} data: against all of them, the sample adds a standard error of "
            f"{added['elbo']:.3f} nats to the ELBO and of {added['log_px']:.3f} nats to log p(x).",
            style="dim",
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


def _simulated(vae: "VAE", data: "Split", seed: int) -> "tuple[EvidenceBounds | None, str]":
    """Evidence from both sides on data of the model; where it cannot be had, why."""
    from analysis import calibrate
    from analysis.diagnostics.diagnostic import sentence

    y = None if data.y is None else data.y.to(vae.place(data)[0])
    try:
        found = calibrate(
            vae, num_simulations=_SIMULATIONS, num_draws=_DRAWS, seed=seed, y=y, quantities=("log_weight",)
        )
    except (ValueError, ArithmeticError) as error:
        return None, sentence(error).rstrip(".")
    return found.evidence, ""


def _table(title: str, metrics: dict[str, Any], result: "Evaluation", bounds: "EvidenceBounds | None") -> Table:
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
    if bounds is not None:
        table.add_row(
            "symmetric KL",
            f"{bounds.symmetric_kl:.3f}",
            "",
            f"{bounds.symmetric_kl_se:.3f}" if isfinite(bounds.symmetric_kl_se) else "",
            "nats",
        )
    active, error = metrics["active_units"], metrics["active_units_se"]
    table.add_row("active units", str(active), f"{error:.3f}", "", f"of {len(result.activity)} latents")
    return table
