"""The file format of archives."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from vae_pyro import VAE
from vae_pyro.applications.compression.archive import Archive, ArchiveError, read_archive
from vae_pyro.applications.compression.codec import decompress


def test_truncated_changed_and_foreign_files_are_refused(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    path = tmp_path / "damaged.vpz"
    random = np.random.default_rng(0)
    for length in (0, 1, 10, 19, 22, 25, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ArchiveError, match="truncated|foreign|header"):
            read_archive(path)
    for place in [*random.integers(0, len(content), 60), len(content) - 1, 20, 23]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ArchiveError):
            read_archive(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ArchiveError, match="was extended"):
        read_archive(path)
    path.write_bytes(b"PK" + content)
    with pytest.raises(ArchiveError, match="foreign"):
        read_archive(path)
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_archive(tmp_path / "absent.vpz")


def test_an_archive_says_what_it_is(archive: Archive, fitted: VAE) -> None:
    content = archive.to_bytes()
    begin = content.index(b"{")
    header = json.loads(content[begin : content.index(b"}}") + 2])
    assert header["likelihood"] == "discretized_logistic"
    assert header["x_shape"] == [1, 8, 8]
    assert header["dtype"] == "u1"
    assert header["num_data"] == len(archive.ids)
    assert set(header["versions"]) >= {"torch", "constriction", "numpy", "vae_pyro"}
    assert header["bits"] == 16
    assert fitted.config.latent_dim == 6


@pytest.mark.parametrize(
    "change",
    [
        {"num_data": 10**14},
        {"num_data": 10**30},
        {"num_data": 1},
        {"bits": 1000},
        {"bits": 14},
        {"block": 10**14},
        {"symbols": 10**13},
        {"symbols": 3},
        {"low": -(10**17)},
        {"low": 5},
        {"x_shape": [10**9, 10**9]},
        {"x_shape": [64]},
        {"first_id": 2**63},
        {"escape": True},
        {"dtype": "b1"},
        {"versions": None},
        {"words": 1},
    ],
    ids=str,
)
def test_a_right_checksum_over_a_wrong_header_is_an_archive_error(
    change: dict[str, object], file: Path, tmp_path: Path, fitted: VAE
) -> None:
    content = file.read_bytes()
    begin = content.index(b"{")
    end = begin + int.from_bytes(content[begin - 4 : begin], "little")
    header = json.dumps({**json.loads(content[begin:end]), **change}).encode()
    body = content[: begin - 4] + len(header).to_bytes(4, "little") + header + content[end:-32]
    (tmp_path / "changed.vpz").write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(ArchiveError) as caught:
        decompress(fitted, read_archive(tmp_path / "changed.vpz"))
    assert "\n" not in str(caught.value)
