"""``vae-pyro impute``: missing elements of data, estimated by a run, with their uncertainty."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from vae_pyro.cli.console import DataRoot, Device, Run, Seed, SplitName, console

if TYPE_CHECKING:
    import numpy as np

    from vae_pyro.applications.imputation import Imputation
    from vae_pyro.models.vae import VAE

_SEVERAL, _ARRAY, _TABLES = ".npz", ".npy", (".csv", ".parquet")


def impute(
    run: Run,
    data: Annotated[
        str | None,
        typer.Argument(help="Other data than the run's, with NaN or empty cells: a name or path, all of it."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help=".npz for mean, sd, mean_se, lower, upper, imputations, mask, effective_sample_size and ids; .npy, "
            ".csv or .parquet for one complete data set, with the mean where something was missing (the more probable "
            "value of a category), with the names of columns, and of the run's own data with their ids."
        ),
    ] = ...,  # type: ignore[assignment]
    num_imputations: Annotated[
        int, typer.Option(min=0, help="Complete data sets drawn at random, for .npz (5 or more for Rubin's rules).")
    ] = 0,
    draws: Annotated[int, typer.Option(min=2, help="Draws of z for each datum.")] = 1000,
    level: Annotated[float, typer.Option(help="What the intervals from lower to upper hold.")] = 0.9,
    split: SplitName = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="The first data only.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Impute missing elements given the observed ones: means, standard deviations, intervals, and draws."""
    from vae_pyro.applications.imputation import impute as estimate
    from vae_pyro.cli.opening import chosen_data
    from vae_pyro.runs.folder import RunFolder

    if not 0 < level < 1:
        raise ValueError(f"--level lies between 0 and 1, got {level}")
    known = (_SEVERAL, _ARRAY, *_TABLES)
    if out.suffix not in known:
        raise ValueError(f"--out {str(out)!r}: the ending chooses the format, {', '.join(known[:-1])} or {known[-1]}")
    if num_imputations and out.suffix != _SEVERAL:
        raise ValueError(f"--out {str(out)!r} holds one data set; --num-imputations {num_imputations} wants .npz")
    _, vae, chosen = chosen_data(run, data, split, data_root, device)
    what = f"the {split} data of {str(run)!r}" if data is None else repr(data)
    if limit is not None:
        chosen, what = chosen.take(slice(limit)), f"the first {limit} of {what}"
    if chosen.mask is None or bool(chosen.mask.all()):
        raise ValueError(f"nothing is missing in {what}: there is nothing to impute; a missing value is NaN or empty")
    if out.suffix in _TABLES and len(chosen.x_shape) != 1:
        raise ValueError(f"data of shape {chosen.x_shape} are no rows of a table; write .npy or .npz")
    columns = RunFolder(run).config()["facts"].get("columns")
    names = [str(name) for name in columns] if columns and len(columns) == chosen.x_shape[0] else None
    made = estimate(
        vae,
        chosen,
        num_draws=draws,
        num_imputations=num_imputations,
        level=level if out.suffix == _SEVERAL else None,
        seed=seed,
    )
    write(out, made, vae, names, with_ids=data is None)
    console.print(escape(str(made)), highlight=False)
    console.print(f"wrote {escape(str(out))}", highlight=False)


def write(out: Path, made: "Imputation", vae: "VAE", names: list[str] | None, *, with_ids: bool = False) -> None:
    """Write an imputation in the format that the ending of ``out`` names, whole or not at all.

    Args:
        out: ``.npz``, ``.npy``, ``.csv`` or ``.parquet``.
        made: what is written.
        vae: whose likelihood may hold the schema of a table.
        names: of the columns; ``None`` where there are none.
        with_ids: a table begins with a column ``id`` (``row`` where there is one of that name): rows of the source.
    """
    import io

    import numpy as np

    from vae_pyro.core.files import write_atomically

    out.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    if out.suffix == _SEVERAL:
        arrays = {
            name: getattr(made, name)
            for name in (
                "mean",
                "sd",
                "mean_se",
                "lower",
                "upper",
                "imputations",
                "mask",
                "effective_sample_size",
                "ids",
            )
        }
        if names is not None:
            arrays["columns"] = np.array(names)
        np.savez_compressed(content, **arrays)
    elif out.suffix == _ARRAY:
        np.save(content, made.mean)
    else:
        frame = _frame(made.mean, vae, names)
        if with_ids:
            frame.insert(0, "row" if "id" in frame.columns else "id", made.ids)
        if out.suffix == ".csv":
            content.write(frame.to_csv(index=False).encode())
        else:
            frame.to_parquet(content, index=False)
    write_atomically(out, content.getvalue())


def _frame(mean: "np.ndarray[Any, Any]", vae: "VAE", names: list[str] | None) -> Any:
    """A complete table in its own terms: categories where it has them, whole numbers where it has those."""
    import numpy as np
    import pandas as pd

    from vae_pyro.data.tables.schema import CODED

    schema = getattr(vae.model.likelihood, "schema", None)
    if schema is None:
        return pd.DataFrame(mean, columns=names if names is not None else [f"x{k}" for k in range(mean.shape[1])])
    whole = mean.copy()
    for place, column in enumerate(schema.columns):
        if column.kind in CODED:
            whole[:, place] = np.round(whole[:, place])
    return schema.decode(whole)
