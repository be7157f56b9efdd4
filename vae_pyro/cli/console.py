"""What the commands share: the console, refusals in one line, and the options that several of them have."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

_REFUSED, _LOST = 2, 70

console = Console(soft_wrap=True)

# Plain aliases: typer does not look into those of the `type` statement.
Run = Annotated[Path, typer.Argument(help="Run folder, as fit wrote it.")]
SplitName = Annotated[str, typer.Option("--split", help="train, validation or test.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of downloaded data sets (or VAE_PYRO_DATA).")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the draws.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Data = Annotated[str, typer.Argument(help="Name (see datasets), .npy, .npz, .csv, .parquet, .zarr, or a folder.")]
Preset = Annotated[str | None, typer.Option(help="Reference configuration (see presets).")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training data.")]
BatchSize = Annotated[int | None, typer.Option(help="Data in a step.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
LatentDim = Annotated[int | None, typer.Option(help="Dimension of z.")]
Likelihood = Annotated[str | None, typer.Option(help="p(x | z): name or name:option=value.")]
Binarize = Annotated[str | None, typer.Option(help="none, dynamic, static or threshold.")]
DeviceChoice = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
NoCompile = Annotated[bool, typer.Option("--no-compile", help="Take Pyro's stock steps.")]
Precision = Annotated[str | None, typer.Option(help="float32, or bfloat16 for the networks' products.")]
Kind = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=KIND of a column where the inferred one is not wanted: age=real, id=drop, size=small<medium<large; "
        "repeatable."
    ),
]
SettingsFile = Annotated[Path | None, typer.Option(help="TOML or JSON with tables model, fit, data.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, such as latent_dim=8 or optimizer.lr=1e-3; repeatable.")
]
Backend = Annotated[str, typer.Option(help="Who distributes runs: loky, sequential, dask or ray.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Runs at once; as many as cores or GPUs if not given.")]
Address = Annotated[str | None, typer.Option(help="Of a dask or ray cluster that is running.")]


class Group(TyperGroup):
    """Turns a refusal into one line and exit code 2, and an interruption into its signal's exit code."""

    def invoke(self, ctx: Any) -> Any:
        from vae_pyro.parallel.ranks import RankLostError, launched
        from vae_pyro.parallel.signals import FitInterruptedError

        try:
            return super().invoke(ctx)
        except FitInterruptedError as stopped:
            if launched().first:
                _errors().print(f"[yellow]stopped:[/] {escape(str(stopped))}")
            raise typer.Exit(128 + stopped.signum) from None
        except RankLostError as lost:  # whoever is left says so
            _errors().print(f"[red]error:[/] {escape(str(lost))}")
            raise typer.Exit(_LOST) from None
        except (ValueError, ArithmeticError, OSError) as error:
            if launched().first:
                _errors().print(f"[red]error:[/] {escape(str(error))}")
            raise typer.Exit(_REFUSED) from None


def _errors() -> Console:
    return Console(stderr=True, soft_wrap=True)


def example(text: str) -> str:
    """The last line of a command's help."""
    return f"[dim]Example:[/] [bold]{escape(text)}[/]"


def assignments_of(
    set_: list[str] | None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    latent_dim: int | None = None,
    likelihood: str | None = None,
    binarize: str | None = None,
    objective: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    no_compile: bool = False,
    precision: str | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    data_root: Path | None = None,
    kind: list[str] | None = None,
) -> list[tuple[list[str], Any]]:
    """What the flags of a command set, as `assemble` takes it; ``--set`` comes last and wins."""
    from vae_pyro.data.tables.inference import parse_kind
    from vae_pyro.training.settings import parse_assignment

    flags: list[tuple[list[str], Any]] = [
        (["model", "likelihood"], likelihood),
        (["model", "latent_dim"], latent_dim),
        (["fit", "objective"], objective),
        (["fit", "epochs"], epochs),
        (["fit", "batch_size"], batch_size),
        (["fit", "optimizer", "lr"], lr),
        (["fit", "device"], device),
        (["fit", "compile"], False if no_compile else None),
        (["fit", "precision"], precision),
        (["fit", "devices"], devices),
        (["fit", "num_nodes"], num_nodes),
        (["data", "binarize"], binarize),
        (["data", "root"], None if data_root is None else str(data_root)),
        (["data", "kinds"], dict(parse_kind(text) for text in kind) if kind else None),
        (["seed"], seed),
    ]
    return [(path, value) for path, value in flags if value is not None] + [
        parse_assignment(text) for text in set_ or []
    ]
