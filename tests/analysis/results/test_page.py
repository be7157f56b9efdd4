"""The page of a report: what it holds, what it escapes, and how Chromium shows it."""

import json
import math
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import analysis
from analysis import plotting as plots
from analysis.results.blocks import Heading, Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.page import Page
from analysis.results.text import slug
from analysis.results.verdict import Outcome, Verdict
from tests.browser import Browser, browser, chromium, faults

NASTY = "</script><script>alert('x')</script> & <b>"


def verdict(outcome: Outcome = "pass", **changes: Any) -> Verdict:
    given: dict[str, Any] = {
        "question": "Is the mean right?",
        "value": 0.4884,
        "error": 0.0021,
        "unit": "of full intensity",
        "threshold": "at most 0.5",
        "source": "Burda et al. 2016, arXiv:1509.00519",
        "outcome": outcome,
        "advice": "look at `mean`",
        "name": "mean",
    }
    return Verdict(**(given | changes))


def test_a_remedy_is_the_advice_of_a_verdict_that_does_not_pass() -> None:
    remedies = [verdict(outcome, remedy="draw more").advice for outcome in ("pass", "warn", "fail")]
    assert remedies == ["look at `mean`", "draw more", "draw more"]
    assert "remedy" not in verdict("fail", remedy="draw more").to_dict()
    assert "draw more" in str(verdict("fail", remedy="draw more"))


@cache
def digits_page() -> Page:
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    mean = images.mean((1, 2))
    plane = np.linalg.svd(images.reshape(len(images), -1) - images.reshape(len(images), -1).mean(0))[0][:, :2]
    by_label = [
        [str(label), int((labels == label).sum()), Estimate(mean[labels == label].mean(), mean[labels == label].std())]
        for label in range(10)
    ]
    first = Section(
        "Are the digits grey?",
        [
            "Their mean intensity, in `numpy`.\n\nA second paragraph; see doi:10.1038/nature14539.",
            Picture.of(plots.plot_data(images[:36], "digits"), alt="A grid of 36 small digits.", caption="The data."),
            Table("Mean intensity", ["digit", "n", "mean"], by_label, note="± is the standard deviation."),
            Heading("By label"),
            Listing("a  b\nc  d", "As it prints."),
        ],
        verdicts=[verdict(), verdict("warn", question="Is it less right?", error=None)],
        methods="Arithmetic means.",
        references=["Burda et al. 2016. arXiv:1509.00519"],
    )
    second = Section(
        "Where do they lie?",
        [
            Picture.of(
                plots.plot_latent(plane, labels, clusters=labels % 3),
                alt="Two scatters.",
                caption="The plane.",
                metrics={"first": plane[:3, 0]},
            )
        ],
        verdicts=[verdict("fail", value=math.nan, advice="")],
        references=["Burda et al. 2016. arXiv:1509.00519", "Another paper."],
        metrics={"k": math.inf},
    )
    return Page(
        "digits, two components",
        [first, second],
        facts={"Data": "digits, images of 8 \u00d7 8", "n": len(images)},
        lead="What is seen.",
        provenance={"numpy": "2", "Seed": 0, "Fingerprint": "3f" * 32},
    )


class Outline(HTMLParser):
    """Tags of a page with their attributes, and which were left open."""

    VOID = ("meta", "img", "circle", "path", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def embedded(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_is_well_formed_and_every_link_inside_it_has_its_end() -> None:
    outline = Outline(digits_page().render())
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [str(link["href"])[1:] for link in outline.every("a") if str(link["href"]).startswith("#")]
    assert targets
    assert set(targets) <= set(ids)
    assert all(image["alt"] and str(image["src"]).startswith("data:image/") for image in outline.every("img"))
    assert {header.get("scope") for header in outline.every("th")} == {"col", "row"}
    assert outline.every("html") == [{"lang": "en"}]


def test_verdicts_stand_first_and_say_their_outcome_in_words() -> None:
    html = digits_page().render()
    assert html.index('id="verdicts"') < html.index('id="contents"') < html.index('id="are-the-digits-grey"')
    rows = re.findall(r'<tr role="row" class="(\w+)">(.*?)</tr>', html, re.DOTALL)
    assert [outcome for outcome, _ in rows] == ["pass", "warn", "fail"]
    for outcome, row in rows:
        assert re.search(rf"</svg>\s*{outcome}</span>", row)
        assert "at most 0.5" in row
        assert 'href="https://arxiv.org/abs/1509.00519"' in row
    assert "0.4884 ± 0.0021" in rows[0][1]
    assert "<code>mean</code>" in rows[0][1]
    assert "±" not in rows[1][1]
    assert "\u2013" in rows[2][1]
    assert "1 of 3 checks passed, 1 failed, 1 with a warning." in html


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [
        ((), "No check was made."),
        (("pass",), "The one check passes."),
        (("pass", "pass"), "All 2 checks pass."),
        (("warn", "pass"), "1 of 2 checks passed, 1 with a warning."),
        (("fail", "fail"), "0 of 2 checks passed, 2 failed."),
    ],
)
def test_the_summary_counts(outcomes: tuple[Outcome, ...], sentence: str) -> None:
    page = Page("title", [Section("A", ["text"], verdicts=[verdict(outcome) for outcome in outcomes])])
    assert page.summary() == sentence
    Outline(page.render())


def test_figures_of_the_page_are_json_and_lose_nothing() -> None:
    page = digits_page()
    figures = embedded(page.render())
    assert figures == page.metrics()
    grey, plane = figures["sections"]["are-the-digits-grey"], figures["sections"]["where-do-they-lie"]
    assert grey["mean-intensity"][3]["n"] == int((load_digits().target == 3).sum())
    assert set(grey["mean-intensity"][0]["mean"]) == {"value", "error"}
    assert len(plane["the-plane"]["first"]) == 3
    assert float(plane["k"]) == math.inf
    assert [row["section"] for row in figures["verdicts"]] == ["are-the-digits-grey"] * 2 + ["where-do-they-lie"]
    assert figures["verdicts"][0]["figure"] == 0.4884
    assert math.isnan(float(figures["verdicts"][2]["figure"]))
    assert figures["facts"]["n"] == 1797


def test_nothing_that_is_shown_becomes_markup() -> None:
    section = Section(
        NASTY,
        [
            NASTY + f" `{NASTY}`",
            Heading(NASTY),
            Listing(NASTY, NASTY),
            Table(NASTY, [NASTY, "b"], [[NASTY, 1]], note=NASTY),
            Picture.of(plots.plot_bars(["a"], [1.0]), alt=NASTY + '"', caption=NASTY, metrics={NASTY: NASTY}, name="p"),
        ],
        verdicts=[verdict(question=NASTY, source=NASTY, threshold=NASTY, advice=NASTY, unit=NASTY)],
        methods=NASTY,
        references=[NASTY],
        name="nasty",
    )
    page = Page(NASTY, [section], facts={NASTY: NASTY}, lead=NASTY, provenance={NASTY: NASTY}, subtitle=NASTY)
    html = page.render()
    assert html.count("<script") == html.count("</script>") == 1
    assert "<b>Figure" in html
    assert not re.search(r"<b>(?!Figure|Table)", html)
    assert Outline(html).open == []
    assert embedded(html)["title"] == NASTY


def test_links_and_code_in_prose() -> None:
    text = "See arXiv:1509.00519, doi:10.1561/2200000056. Or (https://example.org/a_b). `x < arXiv:1111.2222` * 2"
    html = Page("t", [Section("A", [text])]).render()
    for address in ("arxiv.org/abs/1509.00519", "doi.org/10.1561/2200000056", "example.org/a_b"):
        assert f'<a href="https://{address}">' in html
    assert "<code>x &lt; arXiv:1111.2222</code> * 2</p>" in html


def test_pictures_and_tables_are_counted_through_the_page_and_references_stand_once() -> None:
    html = digits_page().render()
    assert re.findall(r"<b>(Figure \d|Table \d)\.</b>", html) == ["Figure 1", "Table 1", "Figure 2"]
    assert html.count("Burda et al. 2016. <a") == 1
    assert '<span class="count">2</span>Where do they lie?' in html


def test_columns_of_numbers_stand_to_the_right() -> None:
    rows = [
        ["a", 1, "x", True, None],
        ["b", Estimate(2.0, 0.1), 3, False, None],
        ["c", np.float32(0.5), "", True, None],
    ]
    table = Table("t", ["name", "n", "mixed", "yes", "none"], rows)
    assert table.numeric == [False, True, False, False, False]
    html = Page("t", [Section("A", [table])]).render()
    assert html.count('<td class="number">') == 3
    assert "<td>yes</td>" in html
    assert "<td>\u2013</td>" in html


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Section("A", []), "the section 'A' is empty"),
        (lambda: Section("A", [3]), "the section 'A' has a int"),
        (lambda: Table("T", ["a"], []), "the table 'T' has no rows"),
        (lambda: Table("T", ["a", "b"], [[1, 2], [1]]), "row 1 of the table 'T' has 1 cells for 2 columns"),
        (lambda: Picture(b"", "image/png", 1, 1, " ", "C"), "the picture 'C' has no alt text"),
        (lambda: Picture(b"", "image/gif", 1, 1, "a", "C"), "got 'image/gif'"),
        (lambda: Page("t", [Section("A", ["x"]), Section("a", ["x"])]), "the name of a section is taken: a"),
        (lambda: Page("t", [Section("Methods", ["x"])]), "the name of a section is taken: methods"),
        (
            lambda: Page("t", [Section("A", [Table("T", ["a"], [[1]]), Table("T", ["a"], [[1]])])]).metrics(),
            "are both called 't'",
        ),
        (lambda: Page("t", [Section("A", ["x"], metrics={"a": object()})]).metrics(), "a object, which JSON"),
    ],
)
def test_what_a_page_cannot_show_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_the_same_page_gives_the_same_bytes_in_one_file(tmp_path: Path) -> None:
    digits_page.cache_clear()
    digits_page().write(tmp_path / "report.html")
    first = (tmp_path / "report.html").read_bytes()
    digits_page.cache_clear()
    digits_page().write(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    text = first.decode()
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#|data:|https://(arxiv|doi)\.org)|url\(|@import""", text)


def test_the_templates_lie_within_the_package() -> None:
    templates = Path(analysis.__file__).parent / "results" / "templates"
    assert {path.name for path in templates.iterdir()} == {"report.html.j2", "report.css"}


def test_names_for_addresses() -> None:
    assert slug("Can log p(x) be trusted?") == "can-log-p-x-be-trusted"
    assert slug("…") == "part"


needs_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium on the path (or VAE_PYRO_CHROMIUM)")


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    binary = chromium()
    assert binary is not None
    with browser(binary) as started:
        yield started


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1440, 900, 375])
def test_chromium_shows_the_page(tab: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    digits_page().write(tmp_path / "report.html")
    tab.look(width=width, height=900, dark=dark)
    tab.open((tmp_path / "report.html").as_uri())
    assert faults(tab) == []
    assert tab.evaluate("document.images.length") == 2
    seen = tab.evaluate(
        "[...document.querySelectorAll('#verdicts tbody tr')].map(r => r.getBoundingClientRect().height)"
    )
    assert len(seen) == 3
    assert min(seen) > 20
    heading = tab.evaluate("getComputedStyle(document.querySelector('#verdicts thead')).position")
    assert heading == ("absolute" if width == 375 else "static")
    assert tab.evaluate("JSON.parse(document.getElementById('figures').textContent).title") == "digits, two components"
    picture = np.asarray(Image.open(tab.screenshot(tmp_path / "shot.png")).convert("L"), dtype=float)
    assert picture.shape == (900, width)
    assert picture.std() > 10
    assert (np.median(picture) < 60) if dark else (np.median(picture) > 240)


@needs_chromium
def test_contrast_of_all_text_is_readable_in_light_and_dark(tab: Browser, tmp_path: Path) -> None:
    """WCAG 2.2, sec. 1.4.3: at least 4.5 between text and what lies behind it."""
    digits_page().write(tmp_path / "report.html")
    for dark in (False, True):
        tab.look(dark=dark)
        tab.open((tmp_path / "report.html").as_uri())
        weak = tab.evaluate(
            """(() => {
              const rgb = text => text.match(/[\\d.]+/g).map(Number);
              const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
              const light = c => [.2126, .7152, .0722].reduce((sum, share, i) => sum + share * linear(c[i] / 255), 0);
              const behind = e => {
                for (; e; e = e.parentElement) {
                  const colour = rgb(getComputedStyle(e).backgroundColor);
                  if (colour.length < 4 || colour[3] > 0) return colour;
                }
                return [255, 255, 255];
              };
              const contrast = e => {
                const both = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
                return (Math.max(...both) + .05) / (Math.min(...both) + .05);
              };
              const says = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
              return [...document.querySelectorAll('body *:not(script)')].filter(e => says(e) && contrast(e) < 4.5)
                .map(e => e.tagName + '.' + e.className);
            })()"""
        )
        assert weak == []


@needs_chromium
def test_the_page_prints_on_paper(tab: Browser, tmp_path: Path) -> None:
    digits_page().write(tmp_path / "report.html")
    tab.look(dark=True)
    tab.open((tmp_path / "report.html").as_uri())
    printed = tab.pdf(tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 6
    tab.look(dark=True, media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@needs_chromium
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<script>undefinedThing()</script>", "the console says"),
        ('<img alt="gone" src="data:image/png;base64,AAAA">', "a picture did not load: gone"),
        ('<img alt="" src="data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22/>">', "no alt text"),
        ('<link rel="stylesheet" href="http://127.0.0.1:9/x.css">', "the page asks for http://127.0.0.1:9/x.css"),
        ('<div style="width:5000px">wide</div>', "the page is 5"),
    ],
)
def test_the_browser_finds_the_fault_of_a_bad_page(tab: Browser, tmp_path: Path, body: str, fault: str) -> None:
    (tmp_path / "bad.html").write_text(f"<!DOCTYPE html><title>bad</title><body>{body}")
    tab.look()
    tab.open((tmp_path / "bad.html").as_uri())
    assert any(fault in wrong for wrong in faults(tab)), faults(tab)
