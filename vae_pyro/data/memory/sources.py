"""Data that are in memory, as the rows that files are read as."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vae_pyro.data.memory.sparse_rows import is_sparse
from vae_pyro.data.objects import tensor_of
from vae_pyro.data.readers.arrays import ArrayStore
from vae_pyro.data.readers.items import Items
from vae_pyro.data.readers.reader import Auto, described, numbers_of, share_a_unit, with_columns
from vae_pyro.data.readers.sparse_npz import SparseStore
from vae_pyro.data.readers.store import Array, Store
from vae_pyro.data.tables.inference import Kinds
from vae_pyro.data.tables.reading import frame_of, is_frame
from vae_pyro.data.tables.schema import Column, Schema

# What stands for a source that has no name and cannot be loaded again.
IN_MEMORY = "data in memory"


def store_of(
    x: Any, labels: Any = None, *, kinds: Kinds | Auto | None = None, columns: Sequence[Column] | None = None
) -> Store:
    """The rows of an object: a table, an array, a sparse matrix, a list, or a map-style torch ``Dataset``.

    Args:
        x: the data; NaN, a value that a masked array hides, and an empty cell of a table are missing.
        labels: ``(datum,)``, integers or names.
        kinds: of a table's columns, see `vae_pyro.data.readers.reader.Reader.open_columns`.
        columns: of a table, likewise.

    Raises:
        ValueError: no data, or labels of another shape.
    """
    named = None if labels is None else np.asarray(labels.cpu() if isinstance(labels, torch.Tensor) else labels)
    if isinstance(x, torch.utils.data.Dataset):
        if named is not None or kinds is not None or columns is not None:
            raise ValueError("a torch Dataset has labels of its own and no columns; leave labels and kinds out")
        return Items(x)
    if is_sparse(x):
        from scipy import sparse

        store: Store = SparseStore(IN_MEMORY, sparse.csr_array(x), named)
        return store if kinds in (None, "auto") and columns is None else with_columns(IN_MEMORY, store, kinds, columns)
    if is_frame(x):
        frame = frame_of(x)
        if columns is None and (kinds is None or (kinds == "auto" and share_a_unit(frame))):
            return numbers_of(IN_MEMORY, frame, named)
        schema = None if columns is None else Schema(columns=tuple(columns))
        return described(IN_MEMORY, frame, {} if kinds == "auto" else kinds, schema, named)
    values, observed = tensor_of(x)
    mask: Array | None = None if observed is None else observed.numpy()
    store = ArrayStore(IN_MEMORY, values.cpu().numpy(), named, mask=mask)
    return store if kinds is None and columns is None else with_columns(IN_MEMORY, store, kinds, columns)
