"""`compress` and `decompress`: a data set as an archive, and back, bit for bit."""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
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
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.models.vae import VAE

type Array = np.ndarray[Any, Any]

_VERSIONED = ("vae_pyro", "torch", "numpy", "scipy", "constriction")
_BLOCK = 1 << 16  # numbers hashed at once
_OBSERVED_STREAM, _INITIAL_STREAM = 0, 1
# Integers below are exact in float64; the next one above rounds to it, so that it cannot be told from it.
_LIMIT = 1 << 53
# Types that data can have and come back in, by the name that the header gives them.
_TYPES = ("b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8")


@dataclass(frozen=True)
class _Symbols:
    """The data as integers, read block by block."""

    split: Split

    def __call__(self, rows: slice) -> Array:
        x, given = self.split.batch(rows, torch.float64)
        if "mask" in given and not given["mask"].all():
            raise ValueError(
                "compression wants complete data, and some elements are missing; impute them (vae-pyro impute), or "
                "leave incomplete rows out"
            )
        return np.asarray(x.cpu().numpy())

    def integers(self, rows: slice) -> Array:
        """The same as int64."""
        return np.rint(self(rows)).astype(np.int64)


def compress(vae: VAE, x: Split | Tensor | Array, *, seed: int = 0, bits: int = 16) -> Archive:
    """Code discrete data losslessly, by bits-back coding with asymmetric numeral systems.

    The code length is minus the ELBO on average, within what the grid of the latents and the rounding of probabilities
    to 2^-20 cost; see `Archive.length`. Networks run on the CPU, in float64 and on one thread, whatever the VAE's own
    type and device, so that reader and writer compute the same probabilities.

    Args:
        vae: with a mean-field posterior, a standard normal prior and a discrete likelihood of independent elements.
        x: ``(datum, *x_shape)``. A split whose observations are random is fixed with ``seed`` first.
        seed: of the bits that the first latents are drawn from, and of random observations.
        bits: even, of each latent's grid. Finer costs time and a longer first datum; coarser costs bits in all of them,
            where a posterior is not much wider than a bucket.

    Raises:
        ValueError: another VAE, data with missing values, outside the support, from 2^53 up or of a type that NumPy has
            not, or no library `constriction`.
    """
    constriction()
    grid = Grid(bits)
    split = as_split(x).fixed(derive_seed(seed, _OBSERVED_STREAM))
    with exact():
        trial = Networks(vae, 1)  # which refuses what cannot be coded, before the data are looked at
        summary = split.summary()
        vae.check(split.head, summary)
        dtype = _dtype(x, split, summary.low, summary.high)
        if summary.high >= _LIMIT:
            raise ValueError(f"values below {_LIMIT} can be coded, the data have {summary.high:.17g}")
        alphabet = alphabet_of(trial.elements(np.zeros((1, vae.config.latent_dim))), round(summary.high))
        networks = Networks(vae, block_size(int(np.prod(vae.config.x_shape)), alphabet.size))
        symbols = _Symbols(split)
        words, lent = encode(
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
        initial_words=lent,
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
    """The data of an archive, ``(datum, *x_shape)``, in the type that they had.

    Observations that are not what is stored (scaled or drawn ones), and those of streamed or sparse data, come in the
    smallest integer type that holds them.

    Args:
        vae: that wrote it, on any device.
        archive: see `vae_pyro.applications.compression.archive.read_archive`.

    Raises:
        ArchiveError: the archive was written with another VAE, or on a machine that computes other probabilities.
        ValueError: no library `constriction`.
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
        if header.x_shape != networks.x_shape or header.probabilities != networks.digest(grid, alphabet):
            raise ArchiveError(_other_machine(header, "at fixed places"))
        try:
            integers, _ = decode(Channel(networks, grid, alphabet), archive.words, header.num_data)
        except (OverflowError, ValueError):
            # Bits read with other probabilities are any bits: integers too large for 64, or for the networks.
            raise ArchiveError(_other_machine(header, "somewhere in the data, which cannot be decoded")) from None
    if header.data != data_digest(integers.__getitem__, len(integers), header.block):
        raise ArchiveError(_other_machine(header, "somewhere in the data, which did not come out as they went in"))
    return integers.astype(header.dtype)


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
        f"{'; '.join(differ) or 'versions are the same: the processors differ, or a library behind them'})"
    )


def _versions() -> dict[str, str]:
    found = {"processor": platform.machine(), "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _dtype(x: Any, split: Split, low: float, high: float) -> str:
    """The type that the data have where the observations are what is stored, else the smallest that holds them.

    Raises:
        ValueError: data of a type that NumPy has not, such as bfloat16.
    """
    if split.top is None and split.resident:
        name = str(x.dtype if isinstance(x, np.ndarray) else split.head.dtype).removeprefix("torch.")
        try:
            stored = np.dtype(name)
        except TypeError:
            stored = None
        if stored is None or f"{stored.kind}{stored.itemsize}" not in _TYPES:
            raise ValueError(
                f"data of type {name} cannot be given back in it; convert them to booleans, integers of 8, 16, 32 or "
                "64 bits, or floating-point numbers of 16, 32 or 64 bits"
            )
        return f"{stored.kind}{stored.itemsize}"
    smallest = np.promote_types(np.min_scalar_type(int(low)), np.min_scalar_type(int(high)))
    return f"{smallest.kind}{smallest.itemsize}"


def data_digest(rows: Any, num_data: int, block: int) -> str:
    """SHA-256 of integers that ``rows`` gives by slices, as the header has it."""
    found = hashlib.sha256()
    for start in range(0, num_data, block):
        found.update(np.ascontiguousarray(rows(slice(start, min(start + block, num_data)))).astype("<i8").tobytes())
    return found.hexdigest()
