"""``vae-pyro impute``: missing elements of data, estimated by a run, with their uncertainty."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_pyro.cli.console import print_line, print_written
from vae_pyro.cli.options import DataOptions
from vae_pyro.cli.registration import Topic, verb
from vae_pyro.cli.writing import ARRAY, ARRAYS, TABLES, require_ending, write_array, write_arrays, write_frame

if TYPE_CHECKING:
    import numpy as np

    from vae_pyro.applications.imputation_result import Imputation
    from vae_pyro.models.vae import VAE

_WRITTEN = ("mean", "sd", "mean_se", "lower", "upper", "imputations", "mask", "effective_sample_size", "ids")


@verb(Topic.USE, "vae-pyro impute runs/m table.csv --out filled.npz --num-imputations 5")
def impute(
    source: DataOptions,
    out: Annotated[
        Path,
        typer.Option(
            help=".npz for mean, sd, mean_se, lower, upper, imputations, mask, effective_sample_size and ids; .npy, "
            ".csv or .parquet for one complete data set, with the mean where an element was missing (of a category the "
            "most probable value), with the names of columns, and of the run's own data with their ids."
        ),
    ],
    num_imputations: Annotated[
        int, typer.Option(min=0, help="Complete data sets drawn at random, for .npz (5 or more for Rubin's rules).")
    ] = 0,
    draws: Annotated[int, typer.Option(min=2, help="Draws of z for each datum.")] = 1000,
    level: Annotated[float, typer.Option(help="Probability of the intervals from lower to upper.")] = 0.9,
) -> None:
    """Impute missing elements given the observed ones: means, standard deviations, intervals, and draws."""
    if not 0 < level < 1:
        raise ValueError(f"--level lies between 0 and 1, got {level}")
    require_ending(out, ARRAYS, ARRAY, *TABLES)
    if num_imputations and out.suffix != ARRAYS:
        raise ValueError(
            f"--out {str(out)!r} holds one data set; --num-imputations {num_imputations} requires an --out in .npz"
        )
    from vae_pyro.applications.imputation import impute as estimate

    folder, vae, chosen = source.open_data()
    if source.limit is not None:
        chosen = chosen.take(slice(source.limit))
    if chosen.mask is None or bool(chosen.mask.all()):
        raise ValueError(
            f"nothing is missing in {source.described}: there is nothing to impute; a missing value is NaN or empty"
        )
    if out.suffix in TABLES and len(chosen.x_shape) != 1:
        raise ValueError(f"data of shape {chosen.x_shape} are no rows of a table; write .npy or .npz")
    columns = folder.facts().columns
    names = [str(name) for name in columns] if columns and len(columns) == chosen.x_shape[0] else None
    made = estimate(
        vae,
        chosen,
        num_draws=draws,
        num_imputations=num_imputations,
        level=level if out.suffix == ARRAYS else None,
        seed=source.seed,
    )
    write(out, made, vae, names, with_ids=source.data is None)
    print_line(str(made))
    print_written(out)


def write(out: Path, made: "Imputation", vae: "VAE", names: list[str] | None, *, with_ids: bool = False) -> None:
    """Write an imputation in the format that the ending of ``out`` names, whole or not at all.

    Args:
        out: ``.npz``, ``.npy``, ``.csv`` or ``.parquet``.
        made: what is written.
        vae: whose likelihood may hold the schema of a table.
        names: of the columns; ``None`` where there are none.
        with_ids: a table begins with a column ``id`` (``row`` where there is one of that name): rows of the source.
    """
    import numpy as np

    if out.suffix == ARRAYS:
        arrays = {name: getattr(made, name) for name in _WRITTEN}
        write_arrays(out, {**arrays, "columns": None if names is None else np.array(names)})
    elif out.suffix == ARRAY:
        write_array(out, made.mean)
    else:
        frame = _frame(made.mean, vae, names)
        if with_ids:
            frame.insert(0, "row" if "id" in frame.columns else "id", made.ids)
        write_frame(out, frame)


def _frame(mean: "np.ndarray[Any, Any]", vae: "VAE", names: list[str] | None) -> Any:
    """A complete table in its own terms: categories and whole numbers where it has them."""
    import numpy as np
    import pandas as pd

    from vae_pyro.data.tables.schema import CODED

    schema = vae.model.likelihood.schema
    if schema is None:
        return pd.DataFrame(mean, columns=names if names is not None else [f"x{k}" for k in range(mean.shape[1])])
    whole = mean.copy()
    for place, column in enumerate(schema.columns):
        if column.kind in CODED:
            whole[:, place] = np.round(whole[:, place])
    return schema.decode(whole)
