"""Figures for every shape of data, drawn without pyplot and written whole."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from analysis import plots


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (8, 8), (2,), (30,), (2, 5, 5)])
def test_data_and_pairs_of_any_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = random(10, *shape)
    for index, figure in enumerate((plots.plot_data(x, "title"), plots.plot_pairs(x, 0.9 * x))):
        assert isinstance(figure, Figure)
        plots.save(figure, tmp_path / f"{index}.png")
        assert np.asarray(Image.open(tmp_path / f"{index}.png").convert("L")).std() > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


@pytest.mark.parametrize("latent_dim", [1, 2, 7])
@pytest.mark.parametrize("classes", [None, 3, 40])
def test_the_latent_plane_of_any_dimension(latent_dim: int, classes: int | None) -> None:
    labels = None if classes is None else np.arange(200) % classes
    axes = plots.plot_latent(random(200, latent_dim), labels).axes[0]
    drawn = sum(len(collection.get_offsets()) for collection in axes.collections)
    assert drawn == 200
    assert (axes.get_legend() is not None) == (classes == 3)
    if latent_dim > 2:
        assert "principal component 1" in axes.get_xlabel()


def test_principal_components_are_the_axes_of_most_variance() -> None:
    loc = random(500, 5) * np.array([0.1, 3.0, 0.1, 1.0, 0.1])
    offsets = plots.plot_latent(loc).axes[0].collections[0].get_offsets()
    assert np.abs(np.corrcoef(offsets[:, 0], loc[:, 1])[0, 1]) > 0.99
    assert np.abs(np.corrcoef(offsets[:, 1], loc[:, 3])[0, 1]) > 0.99


def test_curves_show_what_the_history_holds() -> None:
    rows = [{"epoch": e, "elbo": -10.0 + e, "reconstruction": -8.0 + e, "kl": 2.0} for e in range(1, 30)]
    figure = plots.plot_history(rows)
    assert [line.get_ydata()[-1] for line in (axes.lines[0] for axes in figure.axes)] == [19.0, 21.0, 2.0]
    with_validation = [{**row, "validation_elbo": row["elbo"] - 1} for row in rows]
    assert len(plots.plot_history(with_validation).axes[0].lines) == 2
    with pytest.raises(ValueError, match="the history is empty"):
        plots.plot_history([])
