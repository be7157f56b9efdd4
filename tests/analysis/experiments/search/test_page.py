"""The page of a search: contents, verdicts, no requests."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.experiments.search.page import search_page, write_search
from analysis.results.page import Page
from tests.browser import browser, chromium, faults
from tests.vae_pyro.experiments.tuning.quick_search import QUICK, quick
from vae_pyro.experiments.tuning.search import Search
from vae_pyro.experiments.tuning.space import parse_space

NASTY = "</script><script>alert('x')</script> & <b>"


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


def test_metrics_of_the_page_are_json(page: Page) -> None:
    json.dumps(page.metrics(), allow_nan=False)
