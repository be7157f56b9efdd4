"""Files of verbs: the ending decides, folders are made, and nothing is pickled."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from vae_pyro.cli.writing import require_ending, write_array, write_arrays, write_arrays_or_picture, write_picture


def test_endings_are_required() -> None:
    require_ending(Path("a.npz"), ".png", ".npz")
    with pytest.raises(ValueError, match=r"--out 'a': the ending chooses the format, \.png or \.npz"):
        require_ending(Path("a"), ".png", ".npz")
    with pytest.raises(ValueError, match=r"\.a, \.b or \.c"):
        require_ending(Path("x.npz"), ".a", ".b", ".c")


def test_arrays_come_back_and_absent_ones_are_left_out(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(2, 3)
    write_arrays(tmp_path / "new" / "a.npz", {"x": x, "y": None})
    with np.load(tmp_path / "new" / "a.npz", allow_pickle=False) as stored:
        assert list(stored) == ["x"]
        np.testing.assert_array_equal(stored["x"], x)
    write_array(tmp_path / "other" / "a.npy", x)
    np.testing.assert_array_equal(np.load(tmp_path / "other" / "a.npy", allow_pickle=False), x)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_array(tmp_path / "b.npy", np.array([{}]))
    assert not (tmp_path / "b.npy").exists()


def test_pictures_are_drawn_only_where_one_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "new" / "p.png", Figure())
    drawn: list[Figure] = []

    def draw() -> Figure:
        drawn.append(Figure())
        return drawn[-1]

    write_arrays_or_picture(tmp_path / "a.npz", {"x": np.zeros(2)}, draw)
    assert drawn == []
    write_arrays_or_picture(tmp_path / "a.png", {"x": np.zeros(2)}, draw)
    assert len(drawn) == 1
    for file in (tmp_path / "new" / "p.png", tmp_path / "a.png"):
        assert file.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.split() == ["wrote", f"{tmp_path}/a.npz", "wrote", f"{tmp_path}/a.png"]
