"""``.npz`` files of dense arrays."""

import zipfile
from pathlib import Path

import numpy as np

from vae_pyro.data.readers import READERS
from vae_pyro.data.readers.arrays import ArrayStore
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Store


@READERS.register("npz")
class NpzReader(Reader):
    """Arrays ``x``, and perhaps ``y`` (labels) and ``mask`` (boolean, true where x is observed)."""

    expects = "a .npz file"
    suffixes = (".npz",)
    general = True  # that of scipy's sparse matrices has the same ending

    def open(self, source: Path) -> Store:
        name = repr(str(source))
        try:
            # Pickled objects in an array file could execute; numpy refuses them with allow_pickle off.
            with source.open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
                several = isinstance(loaded, np.lib.npyio.NpzFile)
                arrays = {key: loaded[key] for key in loaded} if several else {"x": loaded}
        except FileNotFoundError:
            raise FileNotFoundError(f"no file {name}") from None
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"cannot read {name}: {error}") from None
        key = "x" if "x" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
        if key is None:
            raise ValueError(f"{name} holds the arrays {', '.join(arrays) or 'none'}; name the data 'x'")
        return ArrayStore(name, arrays[key], arrays.get("y"), mask=arrays.get("mask"))
