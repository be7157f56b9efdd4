"""The page of a comparison and its files."""

from pathlib import Path
from typing import Any

import pytest

from analysis.experiments.comparison import page as page_module
from analysis.experiments.comparison.compare import compare_variants
from analysis.experiments.comparison.page import experiment_page, write_comparison
from tests.analysis.experiments.examples import histories, odd, three, variant
from tests.browser import browser, chromium, faults


def test_files_are_whole_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = odd()
    made = write_comparison(comparison, tmp_path / "one", histories=histories(comparison), facts={"data": "digits"})
    assert sorted(path.name for path in made) == [f"comparison.{kind}" for kind in ("csv", "html", "nc", "png")]
    again = write_comparison(odd(), tmp_path / "two", histories=histories(comparison), facts={"data": "digits"})
    for one, two in zip(made, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(path.name for path in made)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no figure")

    monkeypatch.setattr(page_module, "variants_figure", fail)
    with pytest.raises(RuntimeError):
        write_comparison(comparison, tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_the_page_says_who_wins_escapes_names_and_asks_for_nothing() -> None:
    comparison = odd()
    html = experiment_page(comparison, histories=histories(comparison)).render()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert 'src="http' not in html
    assert "<link" not in html
    assert "Comparison of objectives" in html
    clear = experiment_page(three(), facts={"data": "digits"}, provenance={"torch": "2.15"})
    html = clear.render()
    assert "dreg has the highest mean log p(x)" in html
    for words in (
        "Pairwise differences",
        "Statistical power",
        "Holm 1979",
        "Banerjee 1960",
        "2.15",
        "digits",
    ):
        assert words in html
    figures = clear.metrics()["sections"]
    assert figures["means" if "means" in figures else "winner"]
    assert len(figures["differences"]["pairs"]) == 3
    assert len(clear.verdicts) == len(three().verdicts)
    settled = experiment_page(compare_variants([*variant("a", -90), *variant("b", -80)])).render()
    assert "b is significantly better than every other variant." in settled


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_the_page_opens_without_a_fault(tmp_path: Path) -> None:
    binary = chromium()
    assert binary is not None
    write_comparison(odd(), tmp_path, histories=histories(odd()))
    with browser(binary) as tab:
        for width in (1280, 390):
            tab.look(width=width)
            tab.open((tmp_path / "comparison.html").as_uri())
            assert faults(tab) == []
