"""Arguments and options that several verbs have: alone, and as groups that a verb takes whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

if TYPE_CHECKING:
    from vae_pyro.data.dataset import Dataset
    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE
    from vae_pyro.runs.folder import RunFolder

LARGEST_SEED = 2**63 - 1


def _rows(text: str) -> Any:
    """A number of data, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number of at least 1 nor 'all'")
    return int(text)


# Plain aliases: typer does not look into those of the `type` statement.
Run = Annotated[Path, typer.Argument(help="Run folder, as fit wrote it.")]
Data = Annotated[str, typer.Argument(help="Name (see datasets), .npy, .npz, .csv, .parquet, .zarr, or a folder.")]
Objective = Annotated[str | None, typer.Option(help="name or name:option=value.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the draws.")]
FitSeed = Annotated[int | None, typer.Option(min=0, max=LARGEST_SEED, help="Seed of weights and fit.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take the first data only.")]
Rows = Annotated[
    Any,
    typer.Option(
        parser=_rows,
        metavar="N|all",
        help="Take the first data only, or all. By default all, or a random sample of a stated size where all would "
        "take more than about two minutes.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of downloaded data sets (or VAE_PYRO_DATA).")]
Kind = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=KIND of a column, instead of the inferred kind: age=real, id=drop, size=small<medium<large; "
        "repeatable."
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """A run, and the seed of its draws."""

    panel: ClassVar[str] = "Run and data"

    run: Run
    seed: Seed = 0
    device: Device = "auto"

    def open_model(self) -> "tuple[RunFolder, VAE]":
        """The run and its model; see `vae_pyro.cli.opening.open_model`."""
        from vae_pyro.cli.opening import open_model

        return open_model(self.run, self.device)


@dataclass(frozen=True)
class SplitOptions(RunOptions):
    """A run and a split of its data."""

    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test"
    data_root: DataRoot = None

    def open_all(self) -> "tuple[RunFolder, VAE, Dataset]":
        """The run, its model and all its data; see `vae_pyro.cli.opening.open_all`."""
        from vae_pyro.cli.opening import open_all

        return open_all(self.run, self.data_root, self.device)

    def open_split(self) -> "tuple[RunFolder, VAE, Split]":
        """The run, its model and the split; see `vae_pyro.cli.opening.open_split`."""
        from vae_pyro.cli.opening import open_split

        return open_split(self.run, self.split, self.data_root, self.device)


@dataclass(frozen=True)
class DataOptions(SplitOptions):
    """A run and data: a split of its own, or all of other data."""

    data: Annotated[str | None, typer.Argument(help="Other data than the run's: a name or path, all of it.")] = None
    limit: Limit = None

    @property
    def described(self) -> str:
        """The data in words."""
        what = f"the {self.split} data of {str(self.run)!r}" if self.data is None else repr(self.data)
        return what if self.limit is None else f"the first {self.limit} of {what}"

    def open_data(self, *, classes: bool = True) -> "tuple[RunFolder, VAE, Split]":
        """The run, its model and the data, all of them; see `open_split` and `vae_pyro.cli.opening.other_data`."""
        from vae_pyro.cli.opening import other_data

        if self.data is None:
            return self.open_split()
        return other_data(self.run, self.data, self.data_root, self.device, classes=classes)


@dataclass(frozen=True)
class FitOptions:
    """Settings of fits; those that are not given are the file's, the preset's, or the defaults."""

    panel: ClassVar[str] = "Settings of the fit"

    preset: Annotated[str | None, typer.Option(help="Reference configuration (see presets).")] = None
    config: Annotated[
        Path | None, typer.Option(help="TOML or JSON with tables model, fit and data; compare also reads experiment.")
    ] = None
    likelihood: Annotated[str | None, typer.Option(help="p(x | z): name or name:option=value.")] = None
    latent_dim: Annotated[int | None, typer.Option(help="Dimension of z.")] = None
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data; by default the data decide.")] = (
        None
    )
    batch_size: Annotated[int | None, typer.Option(help="Data in a step.")] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None
    binarize: Annotated[str | None, typer.Option(help="none, dynamic, static or threshold.")] = None
    kind: Kind = None
    data_root: DataRoot = None
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None
    precision: Annotated[
        str | None, typer.Option(help="float32, or bfloat16 for the matrix products of the networks.")
    ] = None
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Take Pyro's stock steps.")] = False
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as latent_dim=8 or optimizer.lr=1e-3; repeatable."),
    ] = None

    def assignments(self, **others: Any) -> list[tuple[list[str], Any]]:
        """The given settings as `vae_pyro.training.settings.assemble` takes them; ``--set`` comes last and overrides.

        Args:
            others: values of further options of the verb by their keys of ``fit``, and ``seed``; ``None`` is not set.
        """
        from vae_pyro.data.tables.inference import parse_kind
        from vae_pyro.training.settings import parse_assignment

        given = {
            "model.likelihood": self.likelihood,
            "model.latent_dim": self.latent_dim,
            "fit.epochs": self.epochs,
            "fit.batch_size": self.batch_size,
            "fit.optimizer.lr": self.lr,
            "fit.device": self.device,
            "fit.compile": False if self.no_compile else None,
            "fit.precision": self.precision,
            "data.binarize": self.binarize,
            "data.root": None if self.data_root is None else str(self.data_root),
            "data.kinds": dict(parse_kind(text) for text in self.kind) if self.kind else None,
            **{key if key == "seed" else f"fit.{key}": value for key, value in others.items()},
        }
        flags = [(key.split("."), value) for key, value in given.items() if value is not None]
        return flags + [parse_assignment(text) for text in self.set_ or []]


@dataclass(frozen=True)
class BackendOptions:
    """Where runs are fitted side by side."""

    panel: ClassVar[str] = "Processes"

    backend: Annotated[str, typer.Option(help="What distributes the runs: loky, sequential, dask or ray.")] = "loky"
    address: Annotated[str | None, typer.Option(help="Address of a running dask or ray cluster.")] = None
