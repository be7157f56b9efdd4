"""`compress` and `decompress`: lossless coding of a data set as an archive."""

import hashlib
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_pyro.applications.compression.ans import constriction
from vae_pyro.applications.compression.archive import Archive, ArchiveError, Header, listed
from vae_pyro.applications.compression.bits_back import Channel, block_size, decode, encode
from vae_pyro.applications.compression.elements import Alphabet, alphabet_of
from vae_pyro.applications.compression.grid import Grid
from vae_pyro.applications.compression.networks import Networks, exact, model_digest
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.versions import installed_versions
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]

_VERSIONED = ("vae_pyro", "torch", "numpy", "scipy", "constriction")
_OBSERVED_STREAM, _INITIAL_STREAM = 0, 1
# Integers below are exact in float64; the next integer above rounds to this one.
_LIMIT = 1 << 53
# Dtypes of data that can be restored, by their name in the header.
_TYPES = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")


@dataclass(frozen=True)
class _Symbols:
    """The data as integers, read block by block."""

    split: Split

    def __call__(self, rows: slice) -> Array:
        x, given = self.split.batch(rows, torch.float64)
        if "mask" in given and not given["mask"].all():
            raise ValueError(
                "compression requires complete data, and some elements are missing; impute them (vae-pyro impute), or "
                "leave incomplete rows out"
            )
        return np.asarray(x.cpu().numpy())

    def integers(self, rows: slice) -> Array:
        """The block as int64."""
        return np.rint(self(rows)).astype(np.int64)


def compress(vae: VAE, x: Split | Tensor | Array, *, seed: int = 0, bits: int = 16) -> Archive:
    """Code discrete data losslessly, by bits-back coding with asymmetric numeral systems.

    The expected code length is minus the ELBO, up to the cost of the grid of the latents and of rounding probabilities
    to 2^-20; see `Archive.length`. Networks run on the CPU, in float64 and on one thread, whatever the dtype and device
    of the VAE, so that encoder and decoder compute the same probabilities.

    Args:
        vae: with a mean-field posterior, a standard normal prior and a discrete likelihood of independent elements.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        seed: seed of the initial bits and of random observations.
        bits: bits of the grid of each latent, an even number. A finer grid takes time and more initial bits; a coarser
            one costs bits for every datum whose posterior is not much wider than a bucket.

    Raises:
        ValueError: another VAE; data with missing values, outside the support, of at least 2^53 or of a dtype that
            NumPy lacks; or the library `constriction` is not installed.
    """
    constriction()
    grid = Grid(bits)
    split = as_split(x).fixed(derive_seed(seed, _OBSERVED_STREAM))
    with exact():
        trial = Networks(vae, 1)  # refuses a VAE that cannot code, before the data are read
        summary = split.summary()
        vae.check(split.head, summary)
        dtype = _dtype(x, split, summary.low, summary.high)
        if summary.high >= _LIMIT:
            raise ValueError(f"x must have values below {_LIMIT}, got {summary.high:.17g}; scale or clip the counts")
        alphabet = alphabet_of(trial.elements(np.zeros((1, vae.config.latent_dim))), round(summary.high))
        networks = Networks(vae, block_size(int(np.prod(vae.config.x_shape)), alphabet.size))
        symbols = _Symbols(split)
        words, initial = encode(
            Channel(networks, grid, alphabet), symbols.integers, len(split), derive_seed(seed, _INITIAL_STREAM)
        )
        probabilities = networks.digest(grid, alphabet)
    ids = split.ids.cpu().numpy().astype(np.int64)
    consecutive = bool((np.diff(ids) == 1).all())
    header = Header(
        likelihood=vae.config.likelihood.name,
        x_shape=vae.config.x_shape,
        num_data=len(split),
        dtype=dtype,
        first_id=int(ids[0]) if consecutive else None,
        id_bytes=0 if consecutive else len(listed(ids)),
        words=len(words),
        initial_words=initial,
        bits=bits,
        block=networks.block,
        low=alphabet.low,
        symbols=alphabet.size,
        escape=alphabet.escape,
        model=model_digest(vae),
        probabilities=probabilities,
        data=data_digest(symbols.integers, len(split), networks.block),
        versions=_versions(),
    )
    return Archive(header, words, ids)


def decompress(vae: VAE, archive: Archive) -> Array:
    """The data of an archive, ``(datum, *x_shape)``, in their original dtype.

    Observations that differ from the stored values (scaled or drawn ones), and those of streamed or sparse data, are
    returned in the smallest integer dtype that holds them.

    Args:
        vae: the VAE that the archive was written with, on any device.
        archive: see `vae_pyro.applications.compression.archive.read_archive`.

    Raises:
        ArchiveError: the archive was written with another VAE, or on a machine that computes other probabilities.
        ValueError: the library `constriction` is not installed.
    """
    constriction()
    header = archive.header
    if header.model != model_digest(vae):
        raise ArchiveError(
            f"the archive was written with other weights (SHA-256 {header.model[:12]}...) than this VAE's "
            f"({model_digest(vae)[:12]}...); name the run that wrote it"
        )
    with exact():
        networks, grid = Networks(vae, header.block), Grid(header.bits)
        alphabet = Alphabet(header.low, header.symbols, header.escape)
        try:
            probabilities = networks.digest(grid, alphabet)
        except (ValueError, RuntimeError) as error:  # values that the likelihood does not have
            raise ArchiveError(
                f"the archive's header is not that of this VAE's data, or was changed: {error}"
            ) from None
        if header.x_shape != networks.x_shape or header.probabilities != probabilities:
            raise ArchiveError(_other_machine(header, "at fixed points"))
        try:
            integers, _ = decode(Channel(networks, grid, alphabet), archive.words, header.num_data)
        except (OverflowError, ValueError, IndexError, RuntimeError):
            # Bits read with other probabilities are arbitrary: integers beyond 64 bits, or too large for the networks.
            raise ArchiveError(_other_machine(header, "somewhere in the data, which cannot be decoded")) from None
    if header.data != data_digest(integers.__getitem__, len(integers), header.block):
        raise ArchiveError(_other_machine(header, "somewhere in the data, whose checksum does not match"))
    values = integers.astype(header.dtype)
    if not np.array_equal(values, integers):
        raise ArchiveError(f"the archive's header has the dtype {header.dtype!r}, which does not hold its data")
    return values


def _other_machine(header: Header, where: str) -> str:
    here = _versions()
    differ = [
        f"{key} {header.versions.get(key, 'absent')} there, {here.get(key, 'absent')} here"
        for key in sorted({*here, *header.versions})
        if here.get(key) != header.versions.get(key)
    ]
    return (
        f"this machine computes other probabilities than the one that wrote the archive, {where}, and would decode "
        f"other data; decompress it where it was written, or with the same versions ("
        f"{'; '.join(differ) or 'versions are the same: the processors or system libraries differ'})"
    )


def _versions() -> dict[str, str]:
    machine = {"processor": platform.machine(), "python": platform.python_version()}
    return machine | installed_versions(_VERSIONED)


def _dtype(x: Any, split: Split, low: float, high: float) -> str:
    """The dtype of the data where the observations are the stored values, else the smallest that holds them.

    Raises:
        ValueError: data of a dtype that NumPy lacks, such as bfloat16.
    """
    if split.top is None and split.resident:
        given = x if isinstance(x, np.ndarray | Tensor) else split.head
        name = str(given.dtype).removeprefix("torch.")
        try:
            stored = np.dtype(name)
        except TypeError:
            stored = None
        if stored is None or f"{stored.kind}{stored.itemsize}" not in _TYPES:
            raise ValueError(
                f"data of dtype {name} cannot be restored; convert them to booleans, integers of 8, 16, 32 or 64 bits, "
                "or floating-point numbers of 16, 32 or 64 bits"
            )
        return f"{stored.kind}{stored.itemsize}"
    smallest = np.promote_types(np.min_scalar_type(int(low)), np.min_scalar_type(int(high)))
    return f"{smallest.kind}{smallest.itemsize}"


def data_digest(rows: Any, num_data: int, block: int) -> str:
    """SHA-256 of the integers that ``rows`` returns for slices, as in the header."""
    found = hashlib.sha256()
    for start in range(0, num_data, block):
        found.update(np.ascontiguousarray(rows(slice(start, min(start + block, num_data)))).astype("<i8").tobytes())
    return found.hexdigest()
