"""``vae-pyro fit``: a VAE fitted by stochastic variational inference, as a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_pyro.cli.console import console, print_line
from vae_pyro.cli.options import Data, FitOptions, FitSeed, Objective
from vae_pyro.cli.registration import Topic, verb

if TYPE_CHECKING:
    from vae_pyro.data.dataset import Dataset
    from vae_pyro.training.fitting import FitResult


@verb(Topic.FIT, "vae-pyro fit digits --likelihood gaussian --latent-dim 8 --set optimizer.lr=3e-3 --out runs/d")
def fit(
    data: Data,
    settings: FitOptions,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    objective: Objective = None,
    seed: FitSeed = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs, or CPU processes, that fit together.")] = None,
    num_nodes: Annotated[int | None, typer.Option(min=1, help="Machines that fit together.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Parent run, whose model and settings this fit starts from.")
    ] = None,
    replay: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of draws of the parent run's model among the training data.")
    ] = 0.0,
) -> None:
    """Fit a VAE by stochastic variational inference and write a run folder."""
    from vae_pyro.models.vae import VAE
    from vae_pyro.runs.folder import RunFolder
    from vae_pyro.training.fitting import fit as run_fit
    from vae_pyro.training.settings import assemble
    from vae_pyro.training.warm_start import base_settings, continue_from

    assignments = settings.assignments(objective=objective, seed=seed, devices=devices, num_nodes=num_nodes)
    # A resumed run starts from its own settings, so that no flag has to be repeated; one that differs is refused.
    stored = RunFolder(out).config() if resume else {}
    base: dict[str, Any] = {key: stored[key] for key in ("model", "fit", "data", "seed") if key in stored}
    known = RunFolder(out).facts() if resume else None
    replayed = None if known is None else known.replay
    schema = None if known is None else known.schema
    if init_from is None and (replay or replayed):
        raise ValueError("draws to replay come from the parent run; name it with --init-from")
    if init_from is not None and not resume:
        base = base_settings(init_from)
    chosen = assemble(
        data,
        base=base,
        preset_name=settings.preset,
        file=settings.config,
        assignments=assignments,
        load=lambda config: config.load(None if schema is None else schema.columns),
    )
    vae, loaded = VAE(chosen.model, seed=chosen.seed), chosen.data
    if init_from is not None:
        share = replayed.share if replayed and not replay else replay
        begun = continue_from(init_from, loaded, model=chosen.model, replay=share, seed=chosen.seed)
        vae, loaded = begun.vae, begun.data
    ranks, _ = chosen.fit.together()  # the other processes start here, and run this verb from its beginning
    console.quiet = not ranks.first
    _describe(data, loaded, init_from)
    print_line(f"length: {chosen.fit.length(len(loaded.train), len(loaded.validation))}")
    result = run_fit(
        vae,
        loaded.train,
        validation=loaded.validation,
        config=chosen.fit,
        seed=chosen.seed,
        out=out,
        resume=resume,
        overwrite=overwrite,
        data=loaded,
        init_from=init_from,
    )
    _conclude(result, out)


def _describe(name: str, data: "Dataset", init_from: Path | None) -> None:
    facts = data.facts
    sizes = ", ".join(f"{size:,} {split}" for split, size in facts.sizes.items())
    print_line(f"{name} {[*data.x_shape]}: {sizes}; observed: {facts.space}")
    if facts.schema is not None:
        print_line(str(facts.schema))
    elif facts.columns_left_out:
        print_line(f"columns left out, not numeric or row numbers: {', '.join(facts.columns_left_out)}", style="yellow")
    if facts.missing:
        print_line(f"missing: {facts.missing:.1%} of the training elements; the others are fitted")
    if facts.replay is not None:
        print_line(f"and {facts.replay.draws['train']:,} draws of {init_from}")


def _conclude(result: "FitResult", out: Path) -> None:
    last = result.history[-1]
    validated = f", validation ELBO {last['validation_elbo']:.2f}" if "validation_elbo" in last else ""
    best = f"; weights of epoch {result.best_epoch}, the best" if result.restored_best else ""
    print_line(
        f"{result.epochs:,} epochs: training ELBO {last['elbo']:.2f}{validated} nats/datum{best}; run folder {out}",
    )
    if result.ending:
        print_line(result.ending)
