"""``vae-pyro``: fit, evaluate, report, sample, reconstruct, encode and plot from the command line."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vae_pyro.cli.classify import classify
from vae_pyro.cli.compress import compress, decompress
from vae_pyro.cli.console import (
    BatchSize,
    Binarize,
    Data,
    DataRoot,
    Device,
    DeviceChoice,
    Epochs,
    Group,
    Kind,
    LatentDim,
    Likelihood,
    NoCompile,
    Precision,
    Preset,
    Rate,
    Run,
    Seed,
    Set,
    SettingsFile,
    SplitName,
    assignments_of,
    console,
    example,
)
from vae_pyro.cli.denoise import denoise
from vae_pyro.cli.drift import drift
from vae_pyro.cli.experiment_commands import compare, tune
from vae_pyro.cli.impute import impute
from vae_pyro.cli.opening import chosen_data, open_all, open_run
from vae_pyro.cli.schema import schema

if TYPE_CHECKING:
    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE

_ENCODE_BLOCK = 4096

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Variational autoencoders as Bayesian models in Pyro: fit one, and see how far to trust it.",
)


@app.command(
    epilog=example("vae-pyro fit digits --likelihood gaussian --latent-dim 8 --set optimizer.lr=3e-3 --out runs/d")
)
def fit(
    data: Data,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    preset: Preset = None,
    objective: Annotated[str | None, typer.Option(help="name or name:option=value.")] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    latent_dim: LatentDim = None,
    likelihood: Likelihood = None,
    binarize: Binarize = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Seed of weights and fit.")] = None,
    device: DeviceChoice = None,
    no_compile: NoCompile = False,
    precision: Precision = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs, or CPU processes, that fit together.")] = None,
    num_nodes: Annotated[int | None, typer.Option(min=1, help="Machines that do so.")] = None,
    data_root: DataRoot = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Run whose model and settings this fit goes on from.")] = None,
    replay: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of draws of that run's model, so that it keeps what it knew.")
    ] = 0.0,
    config: SettingsFile = None,
    kind: Kind = None,
    set_: Set = None,
) -> None:
    """Fit a VAE by stochastic variational inference and write a run folder."""
    from vae_pyro.data.tables.schema import Schema
    from vae_pyro.models.vae import VAE
    from vae_pyro.runs.folder import RunFolder
    from vae_pyro.training.fitting import fit as run_fit
    from vae_pyro.training.settings import assemble
    from vae_pyro.training.warm_start import base_settings, continue_from

    assignments = assignments_of(
        set_, epochs=epochs, batch_size=batch_size, lr=lr, latent_dim=latent_dim, likelihood=likelihood,
        binarize=binarize, objective=objective, seed=seed, device=device, no_compile=no_compile, precision=precision,
        devices=devices, num_nodes=num_nodes, data_root=data_root, kind=kind,
    )  # fmt: skip
    # A resumed run starts from its own settings, so that a flag need not be said twice; one that differs is refused.
    stored = RunFolder(out).config() if resume else {}
    base: dict[str, Any] = {key: stored[key] for key in ("model", "fit", "data", "seed") if key in stored}
    replayed = stored.get("facts", {}).get("replay")
    if init_from is None and (replay or replayed):
        raise ValueError("draws to replay come from the run that is gone on from; name it with --init-from")
    if init_from is not None and not resume:
        base = base_settings(init_from)
    settings = assemble(data, base=base, preset_name=preset, file=config, assignments=assignments)
    vae, loaded = VAE(settings.model, seed=settings.seed), settings.data
    if init_from is not None:
        share = replayed["share"] if replayed and not replay else replay
        begun = continue_from(init_from, loaded, model=settings.model, replay=share, seed=settings.seed)
        vae, loaded = begun.vae, begun.data
    ranks, _ = settings.fit.together()  # the other processes start here, and run this command from its beginning
    console.quiet = not ranks.first
    facts = loaded.facts
    sizes = ", ".join(f"{size:,} {name}" for name, size in facts["sizes"].items())
    console.print(f"[bold]{escape(data)}[/] {facts['x_shape']}: {sizes}; observed: {facts['space']}", highlight=False)
    if "schema" in facts:
        console.print(str(Schema(**facts["schema"])), highlight=False, markup=False)
    elif facts.get("columns_left_out"):
        console.print(f"columns left out, not numeric: {escape(', '.join(facts['columns_left_out']))}", style="yellow")
    if facts.get("missing"):
        console.print(f"missing: {facts['missing']:.1%} of the training elements; the others are fitted")
    if facts.get("replay"):
        console.print(f"and {facts['replay']['draws']['train']:,} draws of {escape(str(init_from))}", highlight=False)
    result = run_fit(
        vae,
        loaded.train,
        validation=loaded.validation,
        config=settings.fit,
        seed=settings.seed,
        out=out,
        resume=resume,
        overwrite=overwrite,
        data=loaded,
        init_from=init_from,
    )
    last = result.history[-1]
    validated = f", validation ELBO {last['validation_elbo']:.2f}" if "validation_elbo" in last else ""
    best = f"; weights of epoch {result.best_epoch}, the best" if result.restored_best else ""
    console.print(
        f"{result.epochs} epochs: training ELBO {last['elbo']:.2f}{validated} nats/datum{best}; run folder "
        f"{escape(str(out))}",
        highlight=False,
    )


app.command(
    epilog=example("vae-pyro compare digits --objective elbo --objective iwae:num_particles=5 --seeds 3 --out e")
)(compare)
app.command(
    epilog=example('vae-pyro tune digits --space "latent_dim=2..32:log" --space "optimizer.lr=1e-4..1e-2:log" --out s')
)(tune)


app.command(epilog=example("vae-pyro schema people.csv --kind age=real"))(schema)
app.command(epilog=example("vae-pyro classify runs/s --out classes.csv"))(classify)
app.command(epilog=example("vae-pyro drift runs/m new.npy --out drift.html"))(drift)
app.command(epilog=example("vae-pyro impute runs/m table.csv --out filled.npz --num-imputations 5"))(impute)
app.command(epilog=example("vae-pyro denoise runs/n noisy.npy --out clean.npz"))(denoise)
app.command(epilog=example("vae-pyro compress runs/m --limit 1000 --out m.vpz"))(compress)
app.command(epilog=example("vae-pyro decompress runs/m m.vpz --out x.npy"))(decompress)


@app.command(epilog=example("vae-pyro evaluate runs/m --samples 5000 --json"))
def evaluate(
    run: Run,
    split: SplitName = "test",
    samples: Annotated[int, typer.Option(help="Draws for each datum.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first data of the split only.")] = None,
) -> None:
    """ELBO, log p(x), KL, reconstruction, bits per dimension and active units, each with its Monte Carlo error."""
    from vae_pyro.evaluation.evaluation import evaluate as estimate

    folder, vae, data, facts = open_run(run, split, data_root, device)
    if limit is not None:
        data = data.take(slice(limit))
    result = estimate(vae, data, num_draws=samples, seed=seed)
    figures = result.summary()
    figures |= {
        "split": split,
        "seed": seed,
        "units": "nats per datum" + ("" if result.discrete else " (log density in the units of x)"),
        "observed": data.space,
        "evaluation": facts["evaluation"],
    }
    folder.update_metrics(figures)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    table = Table(title=escape(f"{run}: {split} data, n = {figures['n']:,}, {samples:,} draws each"))
    for column in ("figure", "estimate", "± Monte Carlo", "± sampling", "unit"):
        table.add_column(column, justify="left" if column in ("figure", "unit") else "right")
    names = {
        "elbo": "ELBO",
        "log_px": "log p(x)",
        "kl": "KL(q(z|x) || p(z))",
        "reconstruction": "E log p(x|z)",
        "bits_per_dim": "bits per dimension",
    }
    for key, name in names.items():
        unit = "bits" if key == "bits_per_dim" else "nats"
        digits = 4 if key == "bits_per_dim" else 3
        table.add_row(
            name,
            f"{figures[key]:.{digits}f}",
            f"{figures[f'{key}_se']:.{digits}f}",
            "" if figures["sampling_se"][key] is None else f"{figures['sampling_se'][key]:.{digits}f}",
            unit,
        )
    of = f"of {len(result.activity)} latents"
    table.add_row("active units", str(figures["active_units"]), f"{figures['active_units_se']:.3f}", "", of)
    console.print(table)
    if len(result.activity) and figures["active_units"] == 0 and figures["n"] > 1:
        console.print(
            "no latent is active: the guide is the prior for every x (posterior collapse). A KL warm-up (--set "
            "kl_warmup=20), smaller batches or more epochs are the usual ways out.",
            style="yellow",
        )
    if not result.discrete:
        console.print(
            "x is continuous: log p(x) is a log density; it and the bits per dimension shift with the units of x.",
            style="dim",
        )
    console.print(
        "log p(x) is an importance-sampling estimate, on average below the truth. Monte Carlo: with other draws; "
        f"sampling: with another test set. Observed: {data.space}; {facts['evaluation']}.",
        style="dim",
        highlight=False,
    )


@app.command(epilog=example("vae-pyro report runs/m"))
def report(
    run: Run,
    split: SplitName = "test",
    draws: Annotated[int, typer.Option(min=100, help="Draws of the guide for each datum.")] = 500,
    simulations: Annotated[int, typer.Option(min=20, help="Simulations of the calibration.")] = 500,
    gap_data: Annotated[int, typer.Option(min=2, help="Data whose inference gaps are measured.")] = 30,
    only: Annotated[list[str] | None, typer.Option(help="Make this section only; repeatable.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first data of the split only.")] = None,
) -> None:
    """Every diagnostic with its verdict: report.html, inference.nc and metrics.json in the run folder."""
    from analysis.report.report import ReportConfig, report_run
    from analysis.results.estimate import plus_minus

    config = ReportConfig(num_draws=draws, num_simulations=simulations, num_gap_data=gap_data, only=tuple(only or ()))  # type: ignore[arg-type]
    folder, vae, data = open_all(run, data_root, device)
    with console.status("") as status:
        made = report_run(
            folder,
            vae,
            data,
            split=split,
            limit=limit,
            config=config,
            seed=seed,
            progress=status.update,
        )
        status.update("writing")
        made.write(folder)
    table = Table("", "question", "figure", "wanted", title=escape(f"{run}: {made.page.summary()}"))
    colours = {"pass": "green", "warn": "yellow", "fail": "red"}
    for _, verdict in made.page.verdicts:
        figure = plus_minus(verdict.figure, verdict.error, verdict.unit)
        table.add_row(
            f"[{colours[verdict.outcome]}]{verdict.outcome}[/]", escape(verdict.question), escape(figure),
            escape(verdict.threshold),
        )  # fmt: skip
    console.print(table)
    for title, reason in made.absent:
        console.print(f"{escape(title)} {escape(reason)}", style="yellow", highlight=False)
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in made.seconds.items())
    console.print(f"time: {spent}", style="dim", highlight=False)
    console.print(
        f"wrote {escape(str(folder.report_file))}, its figures in metrics.json, draws in inference.nc", highlight=False
    )


def _write(out: Path, arrays: dict[str, Any], draw: Any) -> None:
    import io

    import numpy as np

    from vae_pyro.core.files import write_atomically

    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out {str(out)!r}: the ending chooses the format, .png or .npz")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        from analysis.plotting import save

        save(draw(), out)
    else:
        content = io.BytesIO()
        np.savez_compressed(content, **{key: value for key, value in arrays.items() if value is not None})
        write_atomically(out, content.getvalue())
    console.print(f"wrote {escape(str(out))}", highlight=False)


@app.command(epilog=example("vae-pyro sample runs/m --num 64 --out samples.png"))
def sample(
    run: Run,
    out: Annotated[Path, typer.Option(help=".png for pictures of E(x | z), .npz for draws and expectations.")],
    num: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw from the prior predictive: z ~ p(z), x ~ p(x | z)."""
    from analysis import plotting as plots
    from vae_pyro.runs.folder import RunFolder
    from vae_pyro.training.config import FitConfig

    vae = RunFolder(run).load_model(FitConfig(device=device).torch_device())
    drawn = vae.sample(num, seed=seed).cpu().numpy()
    expected = vae.sample(num, seed=seed, expectation=True).cpu().numpy()
    _write(out, {"x": drawn, "expectation": expected}, lambda: plots.plot_data(expected, "E[x | z], z from the prior"))


@app.command(epilog=example("vae-pyro reconstruct runs/m --num 16 --out reconstructions.png"))
def reconstruct(
    run: Run,
    out: Annotated[Path, typer.Option(help=".png for pairs, .npz for arrays.")],
    split: SplitName = "test",
    num: Annotated[int, typer.Option(min=1, help="How many data, from the start of the split.")] = 16,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Data beside E(x | z) for a draw of q(z | x)."""
    from analysis import plotting as plots

    _, vae, data, _ = open_run(run, split, data_root, device)
    data = data.take(slice(num))
    x, given = data.batch(slice(None))
    again = vae.reconstruct(x, **given, seed=seed).cpu().numpy()
    arrays = {"x": x.numpy(), "reconstruction": again, "id": data.ids.numpy()}
    _write(out, arrays, lambda: plots.plot_pairs(x.numpy(), again))


@app.command(epilog=example("vae-pyro encode runs/m new.npy --out codes.npz"))
def encode(
    run: Run,
    data: Annotated[str | None, typer.Argument(help="Other data than the run's: a name or path, all of it.")] = None,
    out: Annotated[Path, typer.Option(help=".npz for moments of q(z | x), .png for a picture of the plane.")] = ...,  # type: ignore[assignment]
    split: SplitName = "test",
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Mean and standard deviation of q(z | x) for each datum."""
    from analysis import plotting as plots

    _, vae, chosen = chosen_data(run, data, split, data_root, device)
    loc, scale = _moments(vae, chosen, seed)
    labels = None if chosen.labels is None else chosen.labels.numpy()
    arrays = {"loc": loc, "scale": scale, "id": chosen.ids.numpy(), "label": labels}
    _write(out, arrays, lambda: plots.plot_latent(loc, labels))


def _moments(vae: "VAE", split: "Split", seed: int) -> tuple[Any, Any]:
    import numpy as np

    parts = []
    for start in range(0, len(split), _ENCODE_BLOCK):
        x, given = split.batch(slice(start, start + _ENCODE_BLOCK))
        loc, scale = vae.posterior_moments(x, **given, seed=seed)
        parts.append((loc.cpu().numpy(), scale.cpu().numpy()))
    return np.concatenate([loc for loc, _ in parts]), np.concatenate([scale for _, scale in parts])


@app.command(epilog=example("vae-pyro plot runs/m"))
def plot(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; the run folder if not given.")] = None,
    split: SplitName = "test",
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Pictures of a run: training curves, samples, reconstructions and the latent plane."""
    from analysis import plotting as plots

    folder, vae, data, _ = open_run(run, split, data_root, device)
    loc, _ = _moments(vae, data, seed)
    some = data.take(slice(16))
    x, given = some.batch(slice(None))
    labels = None if data.labels is None else data.labels.numpy()
    figures = {
        "curves": plots.plot_history(folder.read_history()),
        "samples": plots.plot_data(
            vae.sample(64, seed=seed, expectation=True).cpu().numpy(), "E[x | z], z from the prior"
        ),
        "reconstructions": plots.plot_pairs(x.numpy(), vae.reconstruct(x, **given, seed=seed).cpu().numpy()),
        "latent": plots.plot_latent(loc, labels),
    }
    folder_out = out or run
    folder_out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        plots.save(figure, folder_out / f"{name}.png")
        console.print(f"wrote {escape(str(folder_out / f'{name}.png'))}", highlight=False)


@app.command(epilog=example("vae-pyro presets"))
def presets() -> None:
    """Reference configurations, and where each comes from."""
    from vae_pyro.models.presets import PRESETS

    table = Table("preset", "fit", "source", title="fit DATA --preset NAME")
    for name, chosen in PRESETS.items():
        optimizer, batch, length = (chosen.fit[key] for key in ("optimizer", "batch_size", "epochs"))
        table.add_row(name, f"{optimizer}; batch {batch}; {length} epochs", chosen.source)
    console.print(table)


@app.command(epilog=example("vae-pyro datasets"))
def datasets() -> None:
    """Named data sets. A path to .npy, .npz, .csv, .parquet or a folder of images does as well."""
    from vae_pyro.data.sources import DATASETS

    table = Table("name", "what it is", title="fit NAME or fit PATH")
    for name in DATASETS:
        table.add_row(name, DATASETS.summary(name))
    console.print(table)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
