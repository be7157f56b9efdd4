"""Files that are whole or absent, checked when read, and unable to execute anything: JSON and safetensors.

A file carries the SHA-256 of its own contents, so that one that was cut off or changed is refused by name. Every file
is written under a temporary name, flushed to the disk and renamed.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = "vae_pyro run 1"


class RunError(ValueError):
    """A run folder or one of its files cannot be used; the message names it and the reason."""


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A name to write a file under: readers of ``path``, and crashes, find the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, see `atomically`."""
    with atomically(path) as temporary:
        temporary.write_bytes(content)


def _canonical(payload: Any) -> bytes:
    return json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()


def write_json(path: Path, payload: dict[str, Any]) -> None:
    """Write ``payload`` with its checksum."""
    checked = {**payload, "sha256": hashlib.sha256(_canonical(payload)).hexdigest()}
    write_atomically(path, (json.dumps(checked, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        RunError: the file is absent, not JSON, or not what was written.
    """
    try:
        payload = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"no {path.name} in {str(path.parent)!r}: not a run folder, or a run that never began") from None
    except NotADirectoryError:
        raise RunError(f"{str(path.parent)!r} is a file and no run folder; name the folder of the run") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{str(path)!r} is truncated or not JSON: {error}") from None
    digest = payload.pop("sha256", None) if isinstance(payload, dict) else None
    if digest is None:
        raise RunError(f"{str(path)!r} was not written by vae_pyro: it has no checksum")
    if digest != hashlib.sha256(_canonical(payload)).hexdigest():
        raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    return dict(payload)


def _digest(tensors: dict[str, Tensor], info: str) -> str:
    digest = hashlib.sha256(info.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], kind: str, info: dict[str, Any]) -> None:
    """Write tensors and a JSON object as one safetensors file, so that one rename makes both current.

    Args:
        path: where.
        tensors: by name, on any device.
        kind: ``model`` or ``checkpoint``; a file of one kind is refused as the other.
        info: JSON object kept in the header.
    """
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    text = _canonical(info).decode()
    header = {"format": FORMAT, "kind": kind, "info": text, "sha256": _digest(on_cpu, text)}
    write_atomically(path, save(on_cpu, header))


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        RunError: the file is absent, truncated, foreign, of another kind, or changed after it was written.
    """
    if not path.exists():
        raise RunError(f"no {path.name} in {str(path.parent)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{str(path)!r} is truncated or not a safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        raise RunError(f"{str(path)!r} is foreign: its format is {header.get('format')!r}, expected {FORMAT!r}")
    if header.get("kind") != kind:
        raise RunError(f"{str(path)!r} holds a {header.get('kind')}, expected a {kind}")
    text = header.get("info", "")
    if header.get("sha256") != _digest(tensors, text):
        raise RunError(f"{str(path)!r} was changed after it was written: its checksum does not match")
    return tensors, json.loads(text)
