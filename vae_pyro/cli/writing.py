"""Files that verbs write, whole or not at all: arrays and pictures, by the ending of ``--out``."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_pyro.cli.console import print_written

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

PICTURE, ARRAYS, ARRAY = ".png", ".npz", ".npy"
_MOST_PICTURED = 2500
TABLES = (".csv", ".parquet")


def require_ending(out: Path, *endings: str) -> None:
    """Refuse a file of another format before anything is computed.

    Raises:
        ValueError: ``out`` has none of the endings.
    """
    if out.suffix not in endings:
        *most, last = endings
        raise ValueError(f"--out {str(out)!r}: the ending chooses the format, {', '.join(most)} or {last}")


def require_few(out: Path, num: int) -> None:
    """Refuse a picture of more data than one can be seen in.

    Raises:
        ValueError: ``out`` is a picture, and ``num`` too large.
    """
    if out.suffix == PICTURE and num > _MOST_PICTURED:
        raise ValueError(f"--num {num}: a picture shows at most {_MOST_PICTURED:,} data; write {ARRAYS} for more")


def write_bytes(out: Path, content: bytes) -> None:
    """Write a file, and the folders that it is in."""
    from vae_pyro.core.files import write_atomically

    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)


def write_arrays(out: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays to a ``.npz``; those that are ``None`` are left out."""
    import numpy as np

    content = BytesIO()
    np.savez_compressed(content, **{key: value for key, value in arrays.items() if value is not None})
    write_bytes(out, content.getvalue())


def write_array(out: Path, array: Any) -> None:
    """Write one array to a ``.npy``."""
    import numpy as np

    content = BytesIO()
    np.save(content, array, allow_pickle=False)
    write_bytes(out, content.getvalue())


def write_frame(out: Path, frame: "DataFrame") -> None:
    """Write a table to a ``.csv`` or a ``.parquet``."""
    content = BytesIO()
    if out.suffix == ".csv":
        frame.to_csv(content, index=False)
    else:
        frame.to_parquet(content, index=False)
    write_bytes(out, content.getvalue())


def write_picture(out: Path, figure: "Figure") -> None:
    """Write a figure to a ``.png``."""
    from analysis.plotting import save

    out.parent.mkdir(parents=True, exist_ok=True)
    save(figure, out)


def write_arrays_or_picture(out: Path, arrays: Mapping[str, Any], draw: Callable[[], "Figure"]) -> None:
    """Write arrays to a ``.npz``, or the figure that ``draw`` makes to a ``.png``, and print its path."""
    if out.suffix == PICTURE:
        write_picture(out, draw())
    else:
        write_arrays(out, arrays)
    print_written(out)
