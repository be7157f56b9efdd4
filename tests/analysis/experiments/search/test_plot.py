"""Plots of a search."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.experiments.search.plot import (
    Axis,
    plot_importance,
    plot_learning_curves,
    plot_search_history,
    plot_slices,
    plot_two_settings,
)
from analysis.plotting import encode

STATES = ["complete", "pruned", "failed", "complete", "complete"]


VALUE = np.array([-9.0, -20.0, np.nan, -1e6, -8.0])


LATENT = Axis("latent_dim", np.array([2.0, 4, 8, 16, 3]), log=True)


WORDS = Axis("encoder.hidden", np.array([0.0, 1, 1, 0, 1]), labels=("[8]", "[400,400,400,400]"))


def drawn(axes: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(points.get_offsets()) for points in axes.collections])


def test_the_history_shows_each_trial_and_the_best_so_far() -> None:
    axes = plot_search_history(VALUE, STATES).axes[0]
    (line,) = axes.lines
    assert list(line.get_ydata()) == [-9.0, -9.0, -9.0, -9.0, -8.0]  # a pruned trial never counts
    points = drawn(axes)
    assert sorted(points[:, 0]) == [0, 1, 2, 3, 4]
    low, high = axes.get_ylim()
    assert low > -100  # the hopeless one is on the edge and does not flatten the others
    assert ((points[:, 1] >= low) & (points[:, 1] <= high)).all()


def test_learning_curves_mark_the_pruned_and_the_best() -> None:
    curves: list[dict[int, float]] = [{1: -12.0, 2: -9.0}, {1: -20.0}, {}, {1: -30.0, 2: -15.0}, {1: -10.0, 2: -8.0}]
    axes = plot_learning_curves(curves, STATES, best=4).axes[0]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(1, -20.0)]
    (best,) = [line for line in axes.lines if line.get_linewidth() > 2]
    assert list(best.get_ydata()) == [-10.0, -8.0]


def test_slices_circle_the_best_in_every_panel() -> None:
    axes = plot_slices([LATENT, WORDS], VALUE, STATES, best=4).axes
    assert [panel.get_xlabel() for panel in axes] == ["latent_dim", "encoder.hidden"]
    assert axes[0].get_xscale() == "log"
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["[8]", "[400,400,400,…"]
    for panel, axis in zip(axes, (LATENT, WORDS), strict=True):
        assert tuple(np.asarray(panel.collections[-1].get_offsets())[0]) == (axis.values[4], -8.0)
        assert len(drawn(panel)) == 6


def test_pictures_are_the_same_bytes_and_refuse_what_does_not_belong_together() -> None:
    makers: list[Callable[[], Figure]] = [
        lambda: plot_search_history(VALUE, STATES),
        lambda: plot_slices([LATENT, WORDS], VALUE, STATES, best=4),
        lambda: plot_importance(["a", "b"], np.array([0.7, 0.3]), np.array([0.1, 0.1])),
        lambda: plot_two_settings(LATENT, WORDS, VALUE, STATES, best=4),
    ]
    for make in makers:
        media_type, content = encode(make())
        assert (media_type, content) == encode(make())
        assert media_type == "image/svg+xml"
    with pytest.raises(ValueError, match="they belong together"):
        plot_search_history(VALUE, STATES[:2])
    with pytest.raises(ValueError, match="unknown state 'lost'"):
        plot_search_history(VALUE, [*STATES[:4], "lost"])
    with pytest.raises(ValueError, match="at least one finite entry"):
        plot_search_history(VALUE * np.nan, STATES)
    with pytest.raises(ValueError, match="no trial has a learning curve"):
        plot_learning_curves([{}], ["failed"], best=0)
    with pytest.raises(ValueError, match="they belong together"):
        plot_two_settings(Axis("a", np.zeros(2)), WORDS, VALUE, STATES, best=4)
