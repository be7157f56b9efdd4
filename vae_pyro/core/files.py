"""Files that are whole or absent, checked when read, and unable to execute anything: JSON and safetensors.

A file carries the SHA-256 of its own contents, so that one that was cut off or changed is refused by name. Every file
is written under a temporary name, flushed to the disk and renamed.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vae_pyro.core.regular import require_regular

FORMAT = "vae_pyro run 1"


class RunError(ValueError):
    """A run folder or one of its files cannot be used; the message names it and the reason."""


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A name to write a file under: readers of ``path``, and crashes, find the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")  # hosts may share the folder
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        _flush(path.parent)
    except OSError as error:  # file systems that have no such thing for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(path: Path) -> list[Path]:
    """Temporary files that `atomically` left for ``path``: those of processes that were killed."""
    return sorted(path.parent.glob(f".{path.name}.*.tmp"))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, see `atomically`."""
    with atomically(path) as temporary:
        temporary.write_bytes(content)


def _canonical(payload: Any) -> bytes:
    return json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()


def digest_of(payload: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(_canonical(payload)).hexdigest()


@contextmanager
def interpreted(path: Path) -> Iterator[None]:
    """Use what a file holds: its checksum may be right and its content still not what the program reads.

    Raises:
        RunError: what is inside failed on the content.
    """
    try:
        yield
    except RunError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else f"{error}".partition("\n")[0] or repr(error)
        raise RunError(f"the content of {str(path)!r} cannot be used: {reason}; its checksum is right") from None


def write_json(path: Path, payload: dict[str, Any]) -> None:
    """Write ``payload`` with its checksum."""
    checked = {**payload, "sha256": digest_of(payload)}
    write_atomically(path, (json.dumps(checked, indent=2) + "\n").encode())


def _require_regular(path: Path) -> None:
    try:
        require_regular(path)
    except ValueError as error:
        raise RunError(str(error)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        RunError: the file is absent, not JSON, or not what was written.
    """
    _require_regular(path)
    try:
        payload = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"no {path.name} in {str(path.parent)!r}: not a run folder, or a run that never began") from None
    except NotADirectoryError:
        raise RunError(f"{str(path.parent)!r} is a file and no run folder; name the folder of the run") from None
    except (ValueError, OSError, RecursionError) as error:
        raise RunError(f"{str(path)!r} is truncated or not JSON: {error}") from None
    digest = payload.pop("sha256", None) if isinstance(payload, dict) else None
    if digest is None:
        raise RunError(f"{str(path)!r} was not written by vae_pyro: it has no checksum")
    if digest != digest_of(payload):
        raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    return dict(payload)


def _digest(tensors: dict[str, Tensor], info: str) -> str:
    digest = hashlib.sha256(info.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(
    path: Path, tensors: dict[str, Tensor], kind: str, info: dict[str, Any], bound: dict[str, str] | None = None
) -> None:
    """Write tensors and a JSON object as one safetensors file, so that one rename makes both current.

    Args:
        path: where.
        tensors: by name, on any device.
        kind: ``model`` or ``checkpoint``; a file of one kind is refused as the other.
        info: JSON object kept in the header.
        bound: digests of the files that it belongs to, see `read_bound`.
    """
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    text = _canonical(info).decode()
    header = {"format": FORMAT, "kind": kind, "info": text, "sha256": _digest(on_cpu, text)}
    if bound is not None:
        header["bound"] = _canonical(bound).decode()
        header["bound_sha256"] = _bound_digest(header)
    write_atomically(path, save(on_cpu, header))


def _bound_digest(header: dict[str, str]) -> str:
    return digest_of([header.get("sha256"), header.get("bound")])


def _header(path: Path, header: dict[str, str] | None, kind: str) -> dict[str, str]:
    """The header of a file, once its format, its kind and what it is bound to have passed."""
    header = header or {}
    if header.get("format") != FORMAT:
        raise RunError(f"{str(path)!r} is foreign: its format is {header.get('format')!r}, expected {FORMAT!r}")
    if header.get("kind") != kind:
        raise RunError(f"{str(path)!r} holds a {header.get('kind')}, expected a {kind}")
    if ("bound" in header or "bound_sha256" in header) and header.get("bound_sha256") != _bound_digest(header):
        raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    return header


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise RunError(f"no {path.name} in {str(path.parent)!r}")
    _require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise RunError(f"{str(path)!r} is truncated or not a safetensors file: {error}") from None


def read_bound(path: Path, kind: str) -> dict[str, str]:
    """Digests of the files that a file of tensors belongs to; none in files of earlier versions.

    Raises:
        RunError: see `read_tensors`; the tensors are not read.
    """
    with _opened(path) as file:
        header = _header(path, file.metadata(), kind)
    with interpreted(path):
        return dict(json.loads(header.get("bound", "{}")))


def tensors_digest(path: Path, kind: str) -> str | None:
    """SHA-256 of the content of a file of tensors, as its header states it; ``None`` where there is no such file."""
    try:
        with _opened(path) as file:
            return _header(path, file.metadata(), kind).get("sha256")
    except RunError:
        return None


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        RunError: the file is absent, truncated, foreign, of another kind, or changed after it was written.
    """
    with _opened(path) as file:
        header = _header(path, file.metadata(), kind)
        with interpreted(path):
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            text = header.get("info", "")
            if header.get("sha256") != _digest(tensors, text):
                raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
            return tensors, dict(json.loads(text))
