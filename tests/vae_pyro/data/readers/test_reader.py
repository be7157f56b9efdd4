"""One reader a format: a format is one class, and is read whole and block by block from then on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vae_pyro import load_data, stream
from vae_pyro.data.readers import READERS, expected, open_source, reader_of
from vae_pyro.data.readers.reader import Reader
from vae_pyro.data.readers.store import Array, Store
from vae_pyro.training.settings import assemble


class Lines(Store):
    """Rows of numbers, one a line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name, self._lines = repr(str(path)), path.read_text().splitlines()
        self.x_shape, self.dtype = (len(self._lines[0].split()),), np.dtype(np.float64)

    def __len__(self) -> int:
        return len(self._lines)

    def read(self, start: int, stop: int) -> Array:
        """See `Store.read`."""
        return np.array([line.split() for line in self._lines[start:stop]], np.float64).reshape(-1, *self.x_shape)


@pytest.fixture
def trial() -> Iterator[None]:
    """A format that is not one of ours."""

    @READERS.register("trial")
    class LineReader(Reader):
        """Numbers in text."""

        expects = "a .lines file"
        suffixes = (".lines",)
        streams = True

        def open(self, source: Path) -> Store:
            return Lines(source)

    yield
    READERS.unregister("trial")


@pytest.mark.usefixtures("trial")
def test_a_format_is_one_class(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "x.lines", x, fmt="%.17g")
    whole = load_data(tmp_path / "x.lines")
    for split in (whole.train, whole.validation, whole.test):
        np.testing.assert_array_equal(split.stored(slice(None)), x[split.ids])
    streamed = load_data(tmp_path / "x.lines", stream=True)
    assert (streamed.train.streamed, streamed.facts.sizes) == (True, whole.facts.sizes)
    np.testing.assert_array_equal(streamed.train.stored(slice(None)), x[streamed.train.ids])
    np.testing.assert_array_equal(stream(tmp_path / "x.lines").stored(torch.tensor([5, 1])), x[[5, 1]])
    assert "a .lines file" in expected(streams=True)


def test_what_nothing_reads_is_refused_with_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.xls").write_text("")
    with pytest.raises(ValueError, match=r"cannot read .*x\.xls': expected a \.csv file, .*, or a zarr folder"):
        open_source(tmp_path / "x.xls")
    with pytest.raises(ValueError, match=r"cannot read .*x\.xls' as a table: expected \.csv or \.parquet"):
        reader_of(tmp_path).frame(tmp_path / "x.xls")
    with pytest.raises(ValueError, match="require a table"):
        open_source(tmp_path, kinds={})
    for name in READERS:
        assert READERS[name]().expects
        assert READERS.summary(name).endswith(".")


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_parsed_once(suffix: str, mixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"a": np.linspace(0, 1, 30), "b": ["x", "y", "z"] * 10 if mixed else np.arange(30) / 7})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    calls: list[str] = []

    def counted(name: str) -> None:
        real = getattr(pd, name)
        monkeypatch.setattr(pd, name, lambda *args, **options: (calls.append(name), real(*args, **options))[1])

    counted("read_csv")
    counted("read_parquet")
    settings = assemble(str(tmp_path / f"t.{suffix}"))
    assert settings.model.likelihood.name == ("table" if mixed else "gaussian")
    assert settings.data.config.kinds == ({} if mixed else None)
    # Numbers of a parquet file are read by row groups.
    assert calls == ([f"read_{suffix}"] if mixed or suffix == "csv" else [])


def test_objects_are_read_by_their_own_readers() -> None:
    assert type(reader_of([np.zeros(3)])).__name__ == "ItemReader"
    with pytest.raises(ValueError, match="has no __getitem__ and __len__"):
        open_source({1, 2})
    found: Any = open_source([(np.full(3, i, np.float32), i) for i in range(4)], stream=True)
    np.testing.assert_array_equal(found.labels(np.arange(4)), np.arange(4))
