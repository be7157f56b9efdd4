"""Figures for every shape of data, drawn without pyplot and written whole."""

import re
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

from analysis import plotting as plots
from analysis.density.plot import plot_khat
from analysis.latent.information.plot import plot_aggregate, plot_kl
from analysis.latent.structure.plot import plot_interpolation, plot_traversal
from analysis.posterior.calibration.plot import plot_coverage, plot_tarp
from analysis.predictive.plot import plot_predictive, plot_reconstruction
from analysis.samples.generated.plot import plot_samples
from analysis.stats.ecdf_bands import ecdf_band
from analysis.tasks.classification.plot import plot_reliability


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


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    loaded = load_digits()
    return loaded.images / 16, loaded.target


GRID = np.linspace(0.02, 0.98, 49)
LOW, HIGH = np.maximum(GRID - 0.1, 0), np.minimum(GRID + 0.1, 1)


def images(*lead: int) -> np.ndarray:
    return digits()[0][: int(np.prod(lead))].reshape(*lead, 8, 8)


FIGURES: dict[str, Callable[[], Figure]] = {
    "ecdf": lambda: plots.plot_ecdf_difference(GRID, np.stack([GRID, GRID**2], 1), LOW, HIGH),
    "ecdf of one": lambda: plots.plot_ecdf_difference(GRID, GRID, LOW, HIGH, ["energy"]),
    "ecdf of many": lambda: plots.plot_ecdf_difference(GRID, GRID[:, None] ** np.linspace(0.5, 2, 40), LOW, HIGH),
    "ecdf of many, none outside": lambda: plots.plot_ecdf_difference(GRID, GRID[:, None] * np.ones(20), LOW, HIGH),
    "coverage": lambda: plot_coverage(GRID, np.stack([GRID, GRID**2], 1), LOW, HIGH),
    "coverage of many": lambda: plot_coverage(GRID, GRID[:, None] ** np.linspace(0.5, 2, 40), LOW, HIGH),
    "tarp": lambda: plot_tarp(GRID, GRID, LOW, HIGH),
    "pit": lambda: plots.plot_pit(random(8, 8) % 1, grid=GRID, lower=LOW, upper=HIGH),
    "pit of one": lambda: plots.plot_pit(np.array([0.5])),
    "k-hat": lambda: plot_khat(np.array([0.1, 0.65, 1.4, np.inf, -np.inf]), 0.6),
    "k-hat of ties": lambda: plot_khat(np.array([np.nan, 0.3, np.nan]), 0.6),
    "k-hat of one": lambda: plot_khat(np.array([-np.inf]), 0.6),
    "predictive": lambda: plot_predictive([0, 5, 2], [*random(2, 100), np.full(100, 2)], ["a", "b", "c"]),
    "predictive of one": lambda: plot_predictive([0.0], random(1, 1), ["a"], [0.5]),
    "bars": lambda: plots.plot_bars(["approximation", "amortization"], [1.43, 1.34], [0.05, 0.04]),
    "bar": lambda: plots.plot_bars(["approximation"], [-0.1]),
    "kl": lambda: plot_kl(np.array([0.001, 2, 1]), np.array([0.001, 0.1, 0.1]), activity=np.array([0, 0.9, 0.7])),
    "kl of one": lambda: plot_kl(np.array([1.2])),
    "kl of none active": lambda: plot_kl(np.zeros(200)),
    "aggregate": lambda: plot_aggregate(random(500, 3), random(400, 3)),
    "aggregate of many": lambda: plot_aggregate(random(50, 30), random(40, 30)),
    "aggregate of one": lambda: plot_aggregate(random(2, 1), random(2, 1)),
    "latent": lambda: plots.plot_latent(random(90, 4), np.arange(90) % 3, clusters=np.arange(90) % 4 - 1),
    "latent, clusters alone": lambda: plots.plot_latent(random(90, 4), clusters=np.arange(90) % 4),
    "latent of one": lambda: plots.plot_latent(random(1, 1)),
    "latent of one datum in many": lambda: plots.plot_latent(random(1, 5), np.array(["a"])),
    "latent of two equal data": lambda: plots.plot_latent(np.ones((2, 5))),
    "latent of one, names": lambda: plots.plot_latent(random(20, 1), np.array(["a", "b"] * 10)),
    "latent, many names": lambda: plots.plot_latent(random(20, 2), np.array([f"n{i}" for i in range(20)])),
    "traversal": lambda: plot_traversal(images(4, 7), np.linspace(-2, 2, 7), bounds=(0, 1)),
    "traversal of one": lambda: plot_traversal(images(1, 1), np.zeros(1)),
    "traversal of many": lambda: plot_traversal(images(30, 3), np.arange(3)),
    "traversal in colour": lambda: plot_traversal(random(2, 3, 3, 4, 4), np.arange(3)),
    "traversal of a vector": lambda: plot_traversal(random(2, 5, 9), np.arange(5)),
    "traversal of a point": lambda: plot_traversal(random(5, 5, 2), np.arange(5)),
    "traversal of a number": lambda: plot_traversal(random(1, 5, 1), np.arange(5)),
    "interpolation": lambda: plot_interpolation(images(3, 5), ["3 to 8", "1 to 7", "0 to 6"]),
    "reconstruction": lambda: plot_reconstruction(images(9), images(9), images(9)),
    "reconstruction of one": lambda: plot_reconstruction(images(1), images(1), 0 * images(1)),
    "reconstruction in colour": lambda: plot_reconstruction(*(np.abs(random(2, 3, 5, 5)),) * 3),
    "reconstruction of a vector": lambda: plot_reconstruction(random(8, 13), random(8, 13), np.ones((8, 13))),
    "reconstruction of a series": lambda: plot_reconstruction(random(1, 99), random(1, 99), np.ones((1, 99))),
    "reconstruction of a number": lambda: plot_reconstruction(random(2, 1), random(2, 1), np.ones((2, 1))),
    "samples": lambda: plot_samples(images(100), images(49)),
    "samples of one": lambda: plot_samples(images(1), images(2)),
    "samples of a point": lambda: plot_samples(random(9, 2), random(5, 2)),
    "samples of a vector": lambda: plot_samples(random(9, 5), random(5, 5)),
    "samples of a series": lambda: plot_samples(random(9, 50), random(5, 50)),
    "samples of a number": lambda: plot_samples(random(1, 1), random(1, 1)),
    "scores": lambda: plots.plot_scores(random(100), 9 + random(50), threshold=2.0),
    "score": lambda: plots.plot_scores(np.array([3.0])),
    "roc": lambda: plots.plot_roc(np.array([0, 0.1, 1]), np.array([0, 0.8, 1]), auroc=0.9, error=0.01),
    "matrix": lambda: plots.plot_matrix(
        np.array([[1.0, np.nan], [0.2, 0.5], [0, 1]]), ["a", "b", "c"], ["x", "y"], label="n"
    ),
    "matrix of one": lambda: plots.plot_matrix(np.ones((1, 1)), ["a"], ["x"], label="n"),
    "matrix of many": lambda: plots.plot_matrix(
        random(30, 20), [str(i) for i in range(30)], [*"abcdefghijklmnopqrst"], label="n"
    ),
    "reliability": lambda: plot_reliability(
        np.linspace(0.5, 0.9, 5), np.linspace(0.4, 0.95, 5), np.full(5, 0.45), np.full(5, 0.9)
    ),
    "one image": lambda: plots.plot_data(images(1), "one"),
    "pairs, some hidden": lambda: plots.plot_pairs(np.where(random(9, 8, 8) > 1, np.nan, images(9)), images(9)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_ink_and_fits_a_page(name: str) -> None:
    figure = FIGURES[name]()
    width, height = figure.get_size_inches()
    assert width <= 8.45
    assert height <= 16
    media_type, content = plots.encode(figure)
    assert content.startswith(b"\x89PNG" if media_type == "image/png" else b"<?xml")
    assert len(content) < 500_000
    assert (media_type == "image/png") == any(axes.images for axes in figure.axes)
    figure.set_layout_engine("none")  # it is laid out already
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=50)
    assert np.asarray(Image.open(drawn).convert("L")).std() > 5


def test_a_figure_is_the_same_bytes_in_any_style_of_the_caller() -> None:
    first = [plots.encode(FIGURES[name]()) for name in ("ecdf", "latent", "reconstruction")]
    with mpl.rc_context({"figure.facecolor": "black", "font.size": 30, "axes.grid": True, "svg.hashsalt": "other"}):
        again = [plots.encode(FIGURES[name]()) for name in ("ecdf", "latent", "reconstruction")]
        assert mpl.rcParams["font.size"] == 30
    assert again == first


def test_a_picture_with_too_many_marks_is_raster() -> None:
    assert plots.encode(plots.plot_latent(random(300, 2)))[0] == "image/svg+xml"
    assert plots.encode(plots.plot_latent(random(20_000, 2)))[0] == "image/png"


def test_curves_outside_their_band_are_told_apart_by_words_and_dashes() -> None:
    axes = FIGURES["ecdf"]().axes
    assert [panel.get_title() for panel in axes] == ["z[0]", "z[1]: outside"]
    assert [panel.lines[1].get_linestyle() for panel in axes] == ["-", "--"]
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), GRID**2 - GRID)
    many = FIGURES["ecdf of many"]().axes[0]
    exponents = np.linspace(0.5, 2, 40)
    outside = int((np.abs(GRID[:, None] ** exponents - GRID[:, None]).max(0) > 0.1).sum())
    assert many.get_title() == f"{outside} of 40 leave the band"
    np.testing.assert_allclose(many.lines[-1].get_ydata(), GRID**2 - GRID)
    assert len(many.get_legend().get_texts()) == min(outside, 12)
    texts = [text.get_text() for text in FIGURES["coverage"]().axes[0].get_legend().get_texts()]
    assert texts == ["band if calibrated", "z[0]", "z[1], outside"]


def test_a_curve_on_the_edge_of_its_band_is_inside() -> None:
    counts = np.arange(1, 50) / 49
    inside = plots.plot_ecdf_difference(GRID, counts, counts - 1e-12 + 1e-17, counts * (1 + 1e-15))
    assert inside.axes[0].get_title() == "z[0]"


def test_a_band_of_this_project_fits() -> None:
    band = ecdf_band(200, num_ranks=100)
    ranks = np.random.default_rng(0).integers(0, 100, (200, 3))
    ranks[:, 2] //= 2
    figure = plots.plot_ecdf_difference(band.grid, band.ecdf(ranks), band.lower, band.upper)
    assert [": outside" in axes.get_title() for axes in figure.axes] == list(band.outside(ranks))
    assert plots.plot_pit(ranks[:, 2] / 50, grid=band.grid, lower=band.lower, upper=band.upper)


def test_uniform_values_stay_in_their_interval_and_others_are_marked() -> None:
    """The interval holds 99 % of bins: of 240 bins of uniform values more than 10 outside has probability 1e-4."""
    draw = np.random.default_rng(1)

    def marked(values: np.ndarray) -> int:
        return sum(len(plots.plot_pit(column).axes[0].lines[1].get_xdata()) for column in values.T)

    assert marked(draw.random((400, 12))) <= 10
    assert marked(np.clip(draw.normal(0.5, 0.15, (400, 12)), 0, 1)) > 100


def test_k_hat_is_counted_by_its_limits_and_infinities_are_drawn_at_the_edges() -> None:
    k = np.array([0.1, 0.65, 0.99, 1.4, np.inf, -np.inf, 0.6])
    figure = plot_khat(k, 0.6)
    axes = figure.axes[0]
    drawn = {collection.get_label(): collection.get_offsets() for collection in axes.collections}
    assert [label.rpartition(": ")[2] for label in drawn] == ["3", "2", "2"]
    low, high = axes.get_ylim()
    assert all((low < points[:, 1]).all() and (points[:, 1] < high).all() for points in drawn.values())
    assert sorted(line.get_ydata()[0] for line in axes.lines) == [0.6, 1.0]
    assert figure.axes[1].patches[0].get_data().values.sum() == len(k)


def test_predictive_panels_show_the_observed_value_where_it_is() -> None:
    replicated = random(2, 400)
    figure = plot_predictive([0.0, 8.0], replicated, ["mean", "max"], [0.51, 0.0])
    for axes, value, title in zip(figure.axes, (0.0, 8.0), ("mean  p = 0.510", "max  p = 0.000"), strict=True):
        assert axes.lines[0].get_xdata()[0] == value
        assert axes.get_xlim()[0] < value < axes.get_xlim()[1]
        assert axes.get_title() == title
        data = axes.patches[0].get_data()
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1)


def test_latents_are_active_by_activity_where_it_is_given() -> None:
    kl = np.array([0.002, 2.0, 0.5])
    assert plot_kl(kl).axes[0].get_title().startswith("2 of 3 active")
    figure = plot_kl(kl, activity=np.array([0.2, 0.9, 0.001]), threshold=0.01)
    assert figure.axes[0].get_title().startswith("2 of 3 active")
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["1", "2", "0"]
    hatched = [bar.get_x() for bar in figure.axes[0].patches if bar.get_hatch()]
    assert len(hatched) == 1
    assert hatched[0] == pytest.approx(0.6)  # the second in falling order of KL


def test_scores_far_beyond_are_counted_in_the_last_bin_and_the_label_says_so() -> None:
    inside = random(1000)
    plain = plots.plot_scores(inside).axes[0]
    assert "beyond" not in plain.get_xlabel() or plain.get_xlim()[1] < inside.max() + 1
    axes = plots.plot_scores(inside, np.concatenate([random(499), [1e6]]), threshold=2.0).axes[0]
    assert axes.get_xlim()[1] < 10
    assert "beyond are in the last bin" in axes.get_xlabel()
    for patch in axes.patches:
        data = patch.get_data()
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "held-out data, n = 1,000",
        "other data, n = 500",
        "threshold 2",
    ]


def test_the_latent_plane_by_label_and_by_cluster() -> None:
    loc, labels, clusters = random(90, 4), np.arange(90) % 3, np.arange(90) % 4 - 1
    left, right = plots.plot_latent(loc, labels, clusters=clusters).axes
    assert [axes.get_legend().get_title().get_text() for axes in (left, right)] == ["label", "cluster"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["noise", "0", "1", "2"]
    assert [text.get_text() for text in left.texts] == ["0", "1", "2"]
    np.testing.assert_allclose(
        left.texts[1].get_position(), np.median(np.asarray(left.collections[1].get_offsets()), axis=0)
    )
    assert left.collections[0].get_facecolor()[0].tolist() != left.collections[1].get_facecolor()[0].tolist()


def test_one_latent_is_drawn_along_a_line_by_label() -> None:
    loc, labels = random(60, 1), np.array(["cat", "dog", "elk"] * 20)
    axes = plots.plot_latent(loc, labels).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat", "dog", "elk"]
    for row, collection in enumerate(axes.collections):
        points = collection.get_offsets()
        np.testing.assert_allclose(points[:, 0], loc[row::3, 0])
        assert np.abs(points[:, 1] - row).max() <= 0.3


def test_tiles_show_each_image_in_its_place_and_what_is_hidden() -> None:
    x = images(4).copy()
    x[2, :4] = np.nan
    picture = np.asarray(plots.plot_data(x, "four").axes[0].images[0].get_array())
    pitch = (len(picture) - 2) // 2
    middle = pitch // 16 + 1

    def pixel(place: tuple[int, int], row: int, column: int) -> np.ndarray:
        step = (pitch - 2) / 8
        return picture[
            int(place[0] * pitch + 2 + (row + 0.5) * step), int(place[1] * pitch + 2 + (column + 0.5) * step)
        ]

    assert middle > 1
    for index, place in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        for row, column in ((5, 2), (7, 4), (4, 6)):
            assert pixel(place, row, column)[0] == pytest.approx(1 - x[index, row, column], abs=0.01)
    colour = pixel((1, 0), 1, 1)
    assert colour[0] > colour[2] + 0.1  # neither grey nor white


def test_a_place_without_a_datum_is_white() -> None:
    picture = np.asarray(plots.plot_data(images(3), "three").axes[0].images[0].get_array())
    corner = picture[-len(picture) // 3 : -6, -len(picture) // 3 : -6]
    assert (corner == 1).all()


def test_white_and_black_of_a_traversal_are_what_is_asked() -> None:
    decoded = images(1, 3) * 0.5 - 0.1
    own = np.asarray(plot_traversal(decoded, np.arange(3)).axes[0].images[0].get_array())
    asked = np.asarray(plot_traversal(decoded, np.arange(3), bounds=(0, 1)).axes[0].images[0].get_array())
    assert own.min() < 0.02
    assert asked.min() > 0.3


def test_colour_images_keep_their_channels() -> None:
    x = np.zeros((1, 3, 4, 4))
    x[0, 1] = 1.0
    picture = np.asarray(plots.plot_data(x, "green").axes[0].images[0].get_array())
    assert picture[len(picture) // 2, len(picture) // 2].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.plot_data(np.zeros((0, 8, 8)), "t"), "x of shape (datum, *x_shape) with at least one datum"),
        (lambda: plots.plot_data(np.full((2, 8, 8), np.nan), "t"), "nothing but NaN"),
        (lambda: plots.plot_data(np.full((2, 8, 8), np.inf), "t"), "infinite"),
        (lambda: plots.plot_pairs(images(3), images(2)), "reconstruction of the shape of x, (3, 8, 8), required"),
        (lambda: plot_reconstruction(images(3), images(3), -images(3)), "a negative standard deviation, -1"),
        (lambda: plot_reconstruction(images(3), images(2), images(3)), "mean of the shape of x"),
        (lambda: plot_samples(images(3), random(3, 64)), "samples of event shape (8, 8) required"),
        (lambda: plots.plot_ecdf_difference(GRID, GRID[:3], LOW, HIGH), "ecdf has 3 entries, grid has 49"),
        (lambda: plots.plot_ecdf_difference(GRID, GRID, HIGH, LOW), "lower is above upper at grid = 0.02"),
        (lambda: plots.plot_ecdf_difference(GRID, GRID, LOW, HIGH, ["a", "b"]), "2 names for 1 curves"),
        (lambda: plot_coverage(GRID, np.full(49, np.nan), LOW, HIGH), "coverage holds 49 values that are not"),
        (lambda: plot_tarp(GRID, GRID, LOW[:4], HIGH), "lower has 4 entries, level has 49"),
        (lambda: plots.plot_pit(np.array([1.2])), "pit in [0, 1] required, got [1.2, 1.2]"),
        (lambda: plots.plot_pit(np.array([0.2]), grid=GRID), "the band requires grid, lower and upper"),
        (lambda: plot_khat(np.zeros(0), 0.7), "pareto_k of shape (datum), none of them 0"),
        (lambda: plot_predictive([1.0], random(2, 5), ["a", "b"]), "observed has 1 entries, replicated has 2"),
        (lambda: plot_predictive([1.0], random(1, 5), ["a"], [0.1, 0.2]), "p_values has 2 entries"),
        (lambda: plots.plot_bars(["a"], [np.inf]), "values holds 1 values that are not finite"),
        (lambda: plots.plot_bars(["a", "b"], [1.0, 2.0], [1.0]), "errors has 1 entries, values has 2"),
        (lambda: plot_kl(np.ones(3), np.ones(2)), "error has 2 entries, kl has 3"),
        (lambda: plot_kl(np.ones(3), activity=np.ones(4)), "activity has 4 entries, kl has 3"),
        (lambda: plot_aggregate(random(5, 2), random(5, 3)), "prior has 3 entries, aggregate has 2"),
        (lambda: plots.plot_latent(random(5, 2), np.zeros(4)), "labels has 4 entries, loc has 5"),
        (lambda: plots.plot_latent(random(5, 2), clusters=np.zeros(4)), "clusters has 4 entries, loc has 5"),
        (lambda: plots.plot_latent(random(5)), "loc of shape (datum, latent_dim)"),
        (lambda: plot_traversal(images(2, 3), np.zeros(4)), "values has 4 entries, decoded has 3"),
        (lambda: plot_interpolation(random(3, 4)), "decoded of shape (row, step, *x_shape)"),
        (lambda: plots.plot_scores(np.array([np.nan])), "inside holds 1 values that are not finite"),
        (lambda: plots.plot_roc(np.array([0, 1]), np.array([0, 1.5])), "hit in [0, 1] required, got [0, 1.5]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], Figure], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        draw()
