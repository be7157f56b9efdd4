"""The file of a compressed data set: a header in JSON, the coded words, and a checksum of both; nothing executable.

``vae_pyro archive 1``, a line feed; the header's length in 4 bytes; the header; words of 4 bytes; row numbers, where
they are not consecutive, as differences in 8 bytes, deflated; SHA-256 of all of this. All numbers are little-endian.
"""

import hashlib
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from vae_pyro.applications.compression.ans import WORD_BITS
from vae_pyro.core.config import Config
from vae_pyro.core.files import write_atomically
from vae_pyro.core.memory import require_memory
from vae_pyro.core.registry import describe_errors
from vae_pyro.core.regular import require_regular

type Array = np.ndarray[Any, Any]
type Count = Annotated[int, Field(ge=0)]
type Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

_MAGIC = b"vae_pyro archive 1\n"
_LENGTH, _CHECKSUM, _WORD, _ID = 4, 32, 4, 8
# A longer header is a sign of damage.
_MAX_HEADER = 1 << 16
# Larger numbers no archive has; arrays of their size would be made before anything is decoded.
_LARGEST, _MAX_BLOCK, _MAX_SYMBOLS = 1 << 53, 1 << 12, 1 << 20


class ArchiveError(ValueError):
    """An archive cannot be used; the message names the file and the reason."""


class Header(Config):
    """Header of an archive.

    Attributes:
        likelihood: its name, for readers.
        x_shape: event shape of one datum.
        num_data: number of data.
        dtype: NumPy's name of the dtype of the values.
        first_id: row of the first datum in its source where the rows are consecutive; ``None`` where they are listed.
        id_bytes: size of the list of rows.
        words: number of coded words.
        initial_words: number of them that are initial bits, which decoding restores.
        bits: bits of the grid of each latent.
        block: rows of every evaluation of a network.
        low: least value, with ``symbols`` and ``escape`` an alphabet, see
            `vae_pyro.applications.compression.elements.Alphabet`.
        model: SHA-256 of the weights.
        probabilities: SHA-256 of probabilities at fixed points, as the encoding machine computed them.
        data: SHA-256 of the values.
        versions: of the encoding software and machine.
    """

    likelihood: str
    x_shape: tuple[Annotated[int, Field(gt=0, le=_LARGEST)], ...]
    num_data: Annotated[int, Field(gt=0, le=_LARGEST)]
    dtype: Annotated[str, Field(pattern="^(b1|[iu][1248]|f[248])$")]
    first_id: Annotated[int, Field(ge=0, le=_LARGEST)] | None
    id_bytes: Count
    words: Count
    initial_words: Count
    bits: Annotated[int, Field(ge=4, le=20, multiple_of=2)]
    block: Annotated[int, Field(gt=0, le=_MAX_BLOCK)]
    low: Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]
    symbols: Annotated[int, Field(gt=1, le=_MAX_SYMBOLS)]
    escape: bool
    model: Digest
    probabilities: Digest
    data: Digest
    versions: dict[str, str]


@dataclass(frozen=True)
class CodeLength:
    """Code length of an archive in bits.

    Attributes:
        num_data: number of data.
        num_elements: number of elements of each.
        payload: coded words.
        initial: the part of them that are initial bits, which are not part of the data.
        file: the whole file.
    """

    num_data: int
    num_elements: int
    payload: int
    initial: int
    file: int

    def per_dimension(self, bits: float) -> float:
        """Bits divided by the number of elements of all data."""
        return bits / (self.num_data * self.num_elements)

    @property
    def net(self) -> float:
        """Bits per dimension without the initial bits: the cost of a datum in a long chain."""
        return self.per_dimension(self.payload - self.initial)

    @property
    def gross(self) -> float:
        """Bits per dimension with the initial bits."""
        return self.per_dimension(self.payload)

    @property
    def whole(self) -> float:
        """Bits per dimension of the file, header and checksum included."""
        return self.per_dimension(self.file)


@dataclass(frozen=True)
class Archive:
    """Compressed data.

    Attributes:
        header: description of the data.
        words: coded words, uint32.
        ids: row of each datum in its source, ``(datum,)``, int64.
    """

    header: Header
    words: Array
    ids: Array

    def to_bytes(self) -> bytes:
        """The content of the file."""
        header = self.header.model_dump_json().encode()
        words, ids = self.words.astype("<u4").tobytes(), listed(self.ids) if self.header.id_bytes else b""
        content = _MAGIC + len(header).to_bytes(_LENGTH, "little") + header + words + ids
        return content + hashlib.sha256(content).digest()

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        write_atomically(Path(path), self.to_bytes())

    @property
    def length(self) -> CodeLength:
        """Its code length."""
        header = self.header
        return CodeLength(
            num_data=header.num_data,
            num_elements=prod(header.x_shape),
            payload=WORD_BITS * header.words,
            initial=WORD_BITS * header.initial_words,
            file=8 * len(self.to_bytes()),
        )


def listed(ids: Array) -> bytes:
    """Row numbers as the file stores them."""
    return zlib.compress(np.diff(ids.astype("<i8"), prepend=0).astype("<i8").tobytes(), 9)


def _read_list(content: bytes, count: int) -> Array:
    # Inflate no more than the list can hold, whatever the file contains.
    inflated = zlib.decompressobj().decompress(content, _ID * count)
    return np.cumsum(np.frombuffer(inflated, "<i8"))


def _in_words(error: Exception) -> str:
    """An error of reading a header, on one line."""
    return describe_errors(error) if isinstance(error, ValidationError) else str(error)


def read_archive(path: str | Path) -> Archive:
    """Read an archive that `Archive.write` wrote.

    Raises:
        ArchiveError: the file is absent, foreign, truncated, or changed after it was written.
    """
    path = Path(path)
    try:
        require_regular(path)
    except ValueError as error:
        raise ArchiveError(str(error)) from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if not content.startswith(_MAGIC[: len(content)]) or not content:
        raise ArchiveError(f"{str(path)!r} is foreign: it does not begin like an archive of vae-pyro compress")
    body, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    begin = len(_MAGIC) + _LENGTH
    length = int.from_bytes(content[len(_MAGIC) : begin], "little")
    if length > _MAX_HEADER or len(content) < begin + length + _CHECKSUM:
        raise ArchiveError(f"{str(path)!r} is truncated, or its beginning was changed: {len(content):,} bytes")
    try:
        header = Header.model_validate_json(content[begin : begin + length])
    except (ValueError, RecursionError) as error:
        raise ArchiveError(
            f"{str(path)!r} has a header of another format, or was changed: {_in_words(error)}"
        ) from None
    expected = begin + length + _WORD * header.words + header.id_bytes + _CHECKSUM
    if len(content) != expected:
        raise ArchiveError(f"{str(path)!r} is truncated or was extended: {len(content):,} bytes, expected {expected:,}")
    if hashlib.sha256(body).digest() != checksum:
        raise ArchiveError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    middle = begin + length + _WORD * header.words
    words = np.frombuffer(body[begin + length : middle], "<u4").astype(np.uint32)
    try:
        what = f"{header.num_data:,} data of shape {header.x_shape}"
        require_memory(_ID * header.num_data * (1 + prod(header.x_shape)), what)
        if header.first_id is not None:
            return Archive(header, words, header.first_id + np.arange(header.num_data))
        ids = _read_list(body[middle:], header.num_data)
    except (ValueError, zlib.error) as error:
        raise ArchiveError(f"{str(path)!r} has a header that does not describe it, or was changed: {error}") from None
    if len(ids) != header.num_data:
        raise ArchiveError(f"{str(path)!r} lists {len(ids):,} rows, and its header says {header.num_data:,}")
    return Archive(header, words, ids)
