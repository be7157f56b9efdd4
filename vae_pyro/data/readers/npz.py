"""``.npz`` files of dense arrays."""

import zipfile
import zlib
from math import prod
from pathlib import Path

import numpy as np

from vae_pyro.core.memory import require_memory
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
                require_members_within_memory(source)
                loaded = np.load(file, allow_pickle=False)
                several = isinstance(loaded, np.lib.npyio.NpzFile)
                arrays = {key: loaded[key] for key in loaded} if several else {"x": loaded}
        except FileNotFoundError:
            raise FileNotFoundError(f"no file {name}") from None
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"cannot read {name}: {error}") from None
        key = "x" if "x" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
        if key is None:
            raise ValueError(f"{name} holds the arrays {', '.join(arrays) or 'none'}; name the data 'x'")
        for found, values in arrays.items():
            if not isinstance(values, np.ndarray):
                raise ValueError(f"{name}: {found!r} is no array; save it with numpy.savez")
        return ArrayStore(name, arrays[key], arrays.get("y"), mask=arrays.get("mask"))


def require_members_within_memory(source: Path) -> None:
    """Refuse arrays whose headers ask for more memory than there is, or for more bytes than the file holds.

    Raises:
        ValueError: the message names the array and its size.
        zipfile.BadZipFile: no archive.
    """
    if not zipfile.is_zipfile(source):  # a single array has its own checks
        return
    total = 0
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                    continue
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            size = prod(shape) * dtype.itemsize
            total += size
            name = f"{str(source)!r}: the arrays up to {member.filename!r} {shape}"
            require_memory(total, name, "save fewer rows, or .npy, which can be streamed")
            if not dtype.hasobject and size > member.file_size:
                raise ValueError(
                    f"{member.filename!r} has {member.file_size:,} bytes, and its header asks for {size:,}"
                )
