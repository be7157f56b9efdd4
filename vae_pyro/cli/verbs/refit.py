"""``vae-pyro refit``: train the guide of a run alone, on draws of its model; the model stays as it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vae_pyro.cli.console import console, print_line
from vae_pyro.cli.options import DataRoot, RunOptions
from vae_pyro.cli.registration import Topic, verb

if TYPE_CHECKING:
    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE
    from vae_pyro.training.refit.result import RefitResult

# For k-hat: data and draws; for coverage: simulations.
_DATA, _DRAWS, _SIMULATIONS = 500, 500, 300


@verb(Topic.FIT, "vae-pyro refit runs/m --out runs/m2")
def refit(
    source: RunOptions,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    method: Annotated[
        str,
        typer.Option(
            help="half_asleep (ELBO of draws of the model), sleep (log q(z | x) of them; better coverage), wake (ELBO "
            "of the training data), or shares of a batch: half_asleep=0.5,wake=0.5."
        ),
    ] = "half_asleep",
    objective: Annotated[str, typer.Option(help="Of half_asleep and wake: stl (the ELBO), dreg, iwae.")] = "stl",
    posterior: Annotated[str | None, typer.Option(help="Another family of the guide: full_rank, flow.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Another body of the guide: mlp:hidden=[512,512].")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of Adam, at most.")] = 3000,
    batch_size: Annotated[int, typer.Option(min=1, help="Data in a step.")] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 3e-3,
    data_root: DataRoot = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
) -> None:
    """Train the guide of a run alone and write another run folder, whose model has the same bits.

    The trained guide is kept where it is better on validation data or on draws of the model, and worse on neither.
    """
    from vae_pyro.cli.opening import open_all
    from vae_pyro.runs.folder import RunFolder
    from vae_pyro.training.refit.refitting import refit_guide
    from vae_pyro.training.warm_start import parent_of

    if out.resolve() == source.run.resolve():
        raise ValueError(f"--out {str(out)!r} is the run itself, which a refit leaves as it is; name another folder")
    folder, vae, data = open_all(source.run, data_root, source.device)
    if not len(data.validation):
        raise ValueError(
            f"the run in {str(source.run)!r} has no validation data, which decide whether the trained guide is better; "
            "fit it with --set validation_fraction=0.1, or use vae_pyro.refit_guide(..., validation=)"
        )
    target, stored, history = RunFolder(out), folder.config(), folder.read_history()
    former = folder.load_model(vae.device)
    identity = parent_of(folder)
    options: dict[str, Any] = {
        "objective": objective,
        "posterior": posterior,
        "encoder": encoder,
        "num_steps": steps,
        "batch_size": batch_size,
    }
    options |= {"learning_rate": lr, "seed": source.seed}
    with target.claimed(overwrite=overwrite):
        with console.status("refitting the guide"):
            result = refit_guide(vae, data.train, validation=data.validation, method=method, **options)
        kept: dict[str, Any] = {key: stored[key] for key in ("model", "fit", "data", "facts", "seed") if key in stored}
        kept["model"] = result.pair.decodable.config.model_dump(mode="json")
        target.begin({**kept, "parent": identity, "refit": {"method": method, **options}}, overwrite=True)
        target.save_model(result.pair.decodable, history)
        target.update_metrics({"refit": result.summary()})
    guides = [former, result.pair.decodable] if result.replaced else [former]
    print_table(result, [_diagnosed(guide, data.validation, source.seed) for guide in guides])
    print_line(f"{result.reason}.", style=None if result.replaced else "yellow")
    print_line(
        f"{result.seconds:.1f} s; run folder {out}, whose model is that of {source.run}. Next: vae-pyro report {out}"
    )


def print_table(result: "RefitResult", diagnosed: list[dict[str, str]]) -> None:
    """Both guides side by side."""
    table = Table("validation and simulated data", "before", "after", "gain", title="refit of the guide")
    before, after = result.before.summary(), result.after.summary()
    for key, name in (("elbo", "validation ELBO, nats"), ("symmetric_kl", "symmetric KL of simulated data, nats")):
        if key in result.gains:
            cells = [f"{values[key]:.3f} ± {values[f'{key}_se']:.2g}" for values in (before, after)]
            table.add_row(name, *cells, str(result.gains[key]))
    for name in diagnosed[0]:
        table.add_row(name, *(values[name] for values in diagnosed))
    console.print(table)


def _diagnosed(vae: "VAE", validation: "Split", seed: int) -> dict[str, str]:
    """Share of validation data with unreliable weights, and coverage on simulated data where it can be had."""
    import numpy as np

    from analysis import calibrate
    from analysis.draws.weights import weigh
    from analysis.stats.importance import effective_sample_size, estimates, unreliable

    some = validation.sample(_DATA, seed)
    weights = np.concatenate(weigh(vae, some, lambda block: block.log_weight, num_draws=_DRAWS, seed=seed), 1)
    bad = unreliable(estimates(weights).pareto_k, effective_sample_size(weights), _DRAWS)
    found: dict[str, Any] = {"validation data whose k-hat is too large": f"{bad.mean():.1%}"}
    y = None if validation.y is None else validation.y.to(vae.device)
    try:
        made = calibrate(vae, num_simulations=_SIMULATIONS, seed=seed, y=y)
    except (ValueError, ArithmeticError):
        return found
    level, cover, _ = made.coverage_at(0.9)
    found[f"coverage of {level:.0%} intervals"] = f"{np.mean(cover):.1%}"
    level, joint, _ = made.joint_coverage_at(0.9)
    found[f"coverage of {level:.0%} regions"] = f"{joint:.1%}"
    return found
