"""The analysis of a search and its page: importance of settings, verdicts, contents, no requests."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure

from analysis.experiments.search.page import search_page, write_search
from analysis.experiments.search.plot import (
    Axis,
    plot_importance,
    plot_learning_curves,
    plot_search_history,
    plot_slices,
    plot_two_settings,
)
from analysis.experiments.search.result import importances
from analysis.plotting import encode
from analysis.results.page import Page
from tests.browser import browser, chromium, faults
from tests.vae_pyro.experiments.test_tuning import QUICK, quick
from vae_pyro.experiments.tuning.search import Search, TuningTrial
from vae_pyro.experiments.tuning.space import parse_space
from vae_pyro.runs.folder import RunFolder

NASTY = "</script><script>alert('x')</script> & <b>"


# --- searches made by hand --------------------------------------------------------------------------------------------


def by_hand(value: Callable[..., float | None], space: list[str], number: int = 40) -> Search:
    """A search whose trials were drawn at random and whose values are a function of the parameters."""
    dimensions = tuple(parse_space(text) for text in space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = []
    for index in range(number):
        asked = study.ask({dimension.name: dimension.distribution() for dimension in dimensions})
        found = value(**{name.rpartition(".")[2]: param for name, param in asked.params.items()})
        state = "failed" if found is None else "complete"
        curve = {} if found is None else {1: found - 1, 2: found}
        trials.append(
            TuningTrial(index, state, asked.params, found, curve, 1.0, "why" if found is None else None, (),
                        RunFolder("nowhere"))
        )  # fmt: skip
    return Search(Path("nowhere"), dimensions, tuple(trials), {})


def test_importance_is_that_of_what_matters_and_sums_to_one() -> None:
    """Value 4 a + b over the unit square: a explains 16 / 17 of the variance, c, a choice, nothing."""
    level = optuna.logging.get_verbosity()
    search = by_hand(lambda latent_dim, lr, beta: 4 * lr + beta, SPACE_BY_HAND)
    shares = importances(search, seed=0)
    assert list(shares) == ["optimizer.lr", "objective.beta", "latent_dim"]
    assert sum(share.value for share in shares.values()) == pytest.approx(1)
    assert shares["optimizer.lr"].value > 0.8
    assert shares["latent_dim"].value < 0.05
    assert optuna.logging.get_verbosity() == level
    other = importances(by_hand(lambda latent_dim, lr, beta: lr + 4 * beta, SPACE_BY_HAND, 20))
    assert next(iter(other)) == "objective.beta"


SPACE_BY_HAND = ["latent_dim=2..6", "optimizer.lr=0.0..1.0", "objective=beta:beta=0.0..1.0"]


def test_importance_is_not_made_up_from_too_little() -> None:
    assert importances(by_hand(lambda lr: lr, ["optimizer.lr=0.1..1"], 5)) == {}
    assert importances(by_hand(lambda lr: 1.0, ["optimizer.lr=0.1..1"], 20)) == {}


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Complete, pruned and failed trials over numbers and words."""
    return quick(
        tmp_path_factory.mktemp("search") / "s", num_trials=12, num_unpruned=3, num_random=12, seed=1,
        space=["latent_dim=2..8:log", "optimizer.lr=1e-3,1e-2,3e-7,1e30", "objective=beta:beta=0.5..2.0"],
        assignments=[*QUICK, (["fit", "epochs"], 3)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(searched: Search) -> Page:
    return search_page(searched)


def test_the_page_says_what_was_searched_chosen_and_how_sure_that_is(searched: Search, page: Page) -> None:
    assert {trial.state for trial in searched.trials} == {"complete", "pruned", "failed"}
    figures = page.metrics()["sections"]
    assert [row["setting"] for row in figures["searched"]["space"]] == ["latent_dim", "optimizer.lr", "objective.beta"]
    assert {row["setting"]: row["value"] for row in figures["choice"]["best"]} == {
        name: str(param) if not isinstance(param, float) else f"{param:.4g}"
        for name, param in searched.best.params.items()
    }
    elbo = figures["choice"]["elbo"]
    assert elbo[0]["estimate ± Monte Carlo"]["value"] == pytest.approx(searched.best.value, rel=1e-6)
    assert elbo[0]["estimate ± Monte Carlo"]["error"] > 0
    values = np.stack([kept.elbo for trial in searched.trials if (kept := trial.validation()) is not None])
    assert len(values) == len(searched.of_state("complete"))
    assert figures["choice"]["optimism"] == elbo[1]["estimate ± Monte Carlo"]["value"]
    assert figures["choice"]["corrected"] == pytest.approx(values.mean(1).max() - figures["choice"]["optimism"])
    assert len(figures["course"]["trials"]) == len(searched.trials)
    assert len(figures["course"]["failures"]) == len(searched.of_state("failed"))
    assert [row["validation ELBO"] for row in figures["course"]["trials"]] == [t.value for t in searched.trials]
    html = page.render()
    assert "The test data were not used" in html
    assert "The validation ELBO of the best trial is optimistic" in html
    assert f"best.json --seed {searched.plan['seed'] + 1}" in html
    assert "whichever objective a trial was trained with" in html
    assert page.render() == search_page(searched).render()


def test_what_is_not_set_is_none_and_only_the_decoder_follows_the_encoder(page: Page) -> None:
    shared = next(
        block
        for section in page.sections
        for block in section.blocks
        if getattr(block, "caption", "").startswith("Settings that all")
    )
    shown = {str(row[0]): str(row[1]) for row in shared.rows}  # type: ignore[union-attr]
    assert shown["decoder"] == "as the encoder"
    assert shown["kl_cycle"] == shown["clip_norm"] == "none"
    assert "device" not in shown


def test_verdicts_turn_where_there_is_something_to_do(searched: Search, page: Page) -> None:
    found = {verdict.name: verdict for _, verdict in page.verdicts}
    assert found["failures"].outcome == "warn"
    assert found["failures"].value == len(searched.of_state("failed"))
    kept = [trial for trial in searched.trials if trial.state == "complete"]
    params = {**searched.best.params, "latent_dim": 8, "objective.beta": 1.0}
    edge = replace(searched, trials=tuple(replace(t, params=params) if t is searched.best else t for t in kept))
    verdicts = {verdict.name: verdict for _, verdict in search_page(edge).verdicts}
    assert (verdicts["edges"].outcome, verdicts["edges"].value) == ("warn", 1)
    assert "extend latent_dim upwards" in verdicts["edges"].advice
    assert verdicts["failures"].outcome == "pass"
    inside = replace(edge, trials=tuple(replace(t, params={**params, "latent_dim": 4}) for t in edge.trials))
    assert {v.name: v.outcome for _, v in search_page(inside).verdicts}["edges"] == "pass"


def test_the_page_is_written_whole_and_asks_for_nothing(searched: Search, tmp_path: Path) -> None:
    assert write_search(searched, tmp_path / "p.html") == tmp_path / "p.html"
    html = (tmp_path / "p.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!#|data:|https://(?:arxiv|doi)\.org)", html)
    assert html.count("<script") == 1
    assert write_search(searched) == searched.path / "search.html"
    assert (searched.path / "search.html").read_text() == html


def test_what_users_wrote_becomes_no_markup(searched: Search) -> None:
    """Words of a choice, reasons of failures and paths are shown as they are."""
    choice = parse_space(f"objective=elbo,{NASTY.replace(',', '')}")
    assert NASTY in choice.choices
    trials = tuple(
        replace(trial, params={**trial.params, "objective": NASTY}, failure=trial.failure and NASTY)
        for trial in searched.trials
    )
    nasty = replace(searched, path=Path(NASTY), space=(*searched.space, choice), trials=trials)
    html = search_page(nasty).render()
    assert html.count("<script") == html.count("</script>") == 1
    assert "alert(&#39;x&#39;)" in html
    assert not re.search(r"<b>(?!Figure|Table)", html)


def test_a_search_without_a_complete_trial_has_no_page(searched: Search, tmp_path: Path) -> None:
    failed = replace(searched, trials=tuple(searched.of_state("failed")))
    with pytest.raises(ValueError, match="no trial of .* was completed"):
        write_search(failed, tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_a_browser_finds_no_fault_in_it(searched: Search, tmp_path: Path) -> None:
    write_search(searched, tmp_path / "p.html")
    binary = chromium()
    assert binary is not None
    with browser(binary) as tab:
        for width in (1280, 390):
            tab.look(width=width)
            tab.open((tmp_path / "p.html").as_uri())
            assert faults(tab) == []
            assert tab.complaints == []
            assert tab.requests == [(tmp_path / "p.html").as_uri()]


# --- pictures ---------------------------------------------------------------------------------------------------------

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


def test_figures_on_the_page_are_json(page: Page) -> None:
    json.dumps(page.metrics(), allow_nan=False)
