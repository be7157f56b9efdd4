"""A statistical report as one HTML file: verdicts first, then sections of prose, pictures and tables, methods, figures.

Each diagnostic contributes one `Section`: what it found, in blocks; the `Verdict`s it gives; how it was done, and the
papers that it rests on. A `Page` gathers them: all verdicts into the table at the top, each with a link to its section;
all methods and references at the end; and every figure shown into one JSON object inside the page. Nothing is fetched
from anywhere, nothing runs, and the same page gives the same bytes.

    >>> fit = Section("Does it fit?", ["A sentence with `code`.", Table("Averages", ["figure", "nats"],
    ...     [["log p(x)", Estimate(-17.2348, 0.031)]])])
    >>> page = Page("digits, 8 latents", facts={"data": "digits, 360 held out"}, sections=[fit])
    >>> page.figures()["sections"]["does-it-fit"]["averages"][0]["nats"]
    {'value': -17.2348, 'error': 0.031}
    >>> "−17.235 ± 0.031" in page.render()
    True
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from analysis.results.estimate import DASH, Estimate, plus_minus
from analysis.results.verdict import Verdict, worst

if TYPE_CHECKING:
    from matplotlib.figure import Figure

type Cell = "str | float | int | bool | Estimate | None"
type Block = "str | Heading | Picture | Table | Listing"

_TEMPLATES = Path(__file__).parent / "templates"
_DOTS_AN_INCH = 96
# In this order: code is left alone by what follows it.
_MARKUP = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|(?P<url>https?://[^\s<>\"]*[^\s<>\".,;:)])"
    r"|arXiv:(?P<arxiv>\d{4}\.\d{4,5}(?:v\d+)?)"
    r"|doi:(?P<doi>10\.\d{4,9}/[^\s<>\"]*[^\s<>\".,;:)])"
)


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Listing:
    """Text that keeps its lines and widths, such as a result as it prints."""

    kind: ClassVar[str] = "listing"
    text: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with what a reader who cannot see it is told.

    Attributes:
        content: the file's bytes.
        media_type: ``image/svg+xml`` or ``image/png``.
        width: in CSS pixels; likewise ``height``.
        alt: what the picture shows and what it says, in a sentence or two.
        caption: under the picture; how to read it.
        figures: numbers that the picture shows, JSON-able or arrays, for `Page.figures`.
        name: key in `Page.figures`; made of the caption if not given.
    """

    kind: ClassVar[str] = "picture"
    content: bytes
    media_type: str
    width: int
    height: int
    alt: str
    caption: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError(
                f"the picture {self.caption!r} has no alt text; say what it shows to one who cannot see it"
            )
        if self.media_type not in ("image/svg+xml", "image/png"):
            raise ValueError(f"media_type is image/svg+xml or image/png, got {self.media_type!r}")

    @classmethod
    def of(
        cls, figure: "Figure", *, alt: str, caption: str, figures: Mapping[str, Any] | None = None, name: str = ""
    ) -> "Picture":
        """Draw a figure of `analysis.plotting`; the figure itself is not kept."""
        from analysis.plotting import encode

        media_type, content = encode(figure)
        width, height = (round(float(inches) * _DOTS_AN_INCH) for inches in figure.get_size_inches())
        return cls(content, media_type, width, height, alt, caption, figures or {}, name)

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address."""
        return f"data:{self.media_type};base64,{b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Table:
    """Rows of figures under a caption; the first cell of a row is its name.

    Attributes:
        caption: above the table.
        columns: headings, the first over the names of the rows.
        rows: each as long as ``columns``. Numbers are printed by `plus_minus`, ``None`` as a dash.
        note: below the table, in small print.
        name: key in `Page.figures`; made of the caption if not given.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"the table {self.caption!r} has no rows; write a sentence that says why instead")
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {index} of the table {self.caption!r} has {len(row)} cells for {len(self.columns)} columns"
                )

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers, which stand to the right."""
        columns = list(zip(*self.rows, strict=True))
        return [all(_is_number(cell) for cell in column) and any(c is not None for c in column) for column in columns]


def _is_number(cell: Any) -> bool:
    return cell is None or isinstance(cell, Estimate) or (not isinstance(cell, str | bool | np.bool_) and _scalar(cell))


def _scalar(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def show(cell: Cell) -> str:
    """A cell as it is printed."""
    if cell is None:
        return DASH
    if isinstance(cell, bool | np.bool_):
        return "yes" if cell else "no"
    if isinstance(cell, str | Estimate):
        return str(cell)
    return plus_minus(float(cell))


@dataclass(frozen=True)
class Section:
    """What one diagnostic has to say.

    Attributes:
        title: a question or a noun; numbered by the page.
        blocks: in order. A string is prose: blank lines part paragraphs, backticks make code, ``arXiv:`` and ``doi:``
            become links; everything else is shown as it is written.
        verdicts: rows for the table at the top, with a link back here.
        methods: prose for the chapter on methods: how the figures were made, with what settings.
        references: papers for the list at the end; the same line from two sections stands there once.
        figures: further numbers, such as those inside the prose, for `Page.figures`.
        name: anchor and key in `Page.figures`; made of the title if not given.
    """

    title: str
    blocks: Sequence[Block]
    verdicts: Sequence[Verdict] = ()
    methods: str = ""
    references: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError(f"the section {self.title!r} is empty; say in a sentence why there is nothing to show")
        for block in self.blocks:
            if not isinstance(block, str | Heading | Picture | Table | Listing):
                raise ValueError(
                    f"a block is prose, Heading, Picture, Table or Listing; the section {self.title!r} has a "
                    f"{type(block).__name__}"
                )

    @property
    def key(self) -> str:
        """``name``, or the title as a word for addresses."""
        return self.name or slug(self.title)

    @property
    def outcome(self) -> str:
        """The worst of the verdicts."""
        return worst(*(verdict.outcome for verdict in self.verdicts))


def slug(text: str) -> str:
    """Words of a title, lower case, joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "part"


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: what was fitted, in a few words.
        facts: what was fitted on what, by name, shown under the title.
        sections: in reading order.
        lead: prose between the facts and the verdicts.
        provenance: versions, seeds, settings and fingerprints, shown at the end.
        subtitle: above the title.
    """

    title: str
    sections: Sequence[Section]
    facts: Mapping[str, Cell] = field(default_factory=dict)
    lead: str = ""
    provenance: Mapping[str, Cell] = field(default_factory=dict)
    subtitle: str = "Report on a variational autoencoder"

    def __post_init__(self) -> None:
        keys = [section.key for section in self.sections]
        twice = sorted({key for key in keys if keys.count(key) > 1} | (set(keys) & _RESERVED))
        if twice:
            raise ValueError(f"the name of a section is taken: {', '.join(twice)}; give the section another name=")

    @property
    def verdicts(self) -> list[tuple[Section, Verdict]]:
        """Every verdict, with the section that it comes from."""
        return [(section, verdict) for section in self.sections for verdict in section.verdicts]

    @property
    def methods(self) -> list[tuple[str, str]]:
        """Title and methods of each section that tells them."""
        return [(section.title, section.methods) for section in self.sections if section.methods]

    @property
    def closing(self) -> str:
        """Title of the last part."""
        return "Versions, seeds and data" if self.provenance else "Data"

    @property
    def references(self) -> list[str]:
        """Every reference once, in order of appearance."""
        return list(dict.fromkeys(line for section in self.sections for line in section.references))

    def summary(self) -> str:
        """How many checks were passed, in a sentence."""
        outcomes = [verdict.outcome for _, verdict in self.verdicts]
        if not outcomes:
            return "No check was made."
        passed, warned, failed = (outcomes.count(outcome) for outcome in ("pass", "warn", "fail"))
        if passed == len(outcomes):
            return "The one check passes." if passed == 1 else f"All {passed} checks pass."
        parts = [f"{count} {word}" for count, word in ((failed, "failed"), (warned, "with a warning")) if count]
        return f"{passed} of {len(outcomes)} checks passed, {', '.join(parts)}."

    def figures(self) -> dict[str, Any]:
        """Every figure shown, as JSON can hold it; infinities and NaN are the strings that ``float`` reads."""
        sections: dict[str, dict[str, Any]] = {}
        for section in self.sections:
            shown: dict[str, Any] = dict(section.figures)
            for block in section.blocks:
                if isinstance(block, Table):
                    _put(shown, block.name or slug(block.caption), _records(block))
                elif isinstance(block, Picture) and block.figures:
                    _put(shown, block.name or slug(block.caption), dict(block.figures))
            sections[section.key] = shown
        verdicts = [
            {"section": section.key, **{key: getattr(verdict, key) for key in _VERDICT_KEYS}}
            for section, verdict in self.verdicts
        ]
        whole: dict[str, Any] = _jsonable(
            {
                "title": self.title,
                "facts": self.facts,
                "verdicts": verdicts,
                "sections": sections,
                "provenance": self.provenance,
            }
        )
        return whole

    def render(self) -> str:
        """The page as HTML."""
        from jinja2.utils import htmlsafe_json_dumps

        data = htmlsafe_json_dumps(self.figures(), dumps=json.dumps, allow_nan=False, ensure_ascii=False)
        html: str = _environment().get_template("report.html.j2").render(page=self, sections=_numbered(self), data=data)
        return html

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        from vae_pyro.core.files import write_atomically

        write_atomically(path, self.render().encode())


_RESERVED = {"verdicts", "contents", "methods", "references", "provenance", "figures", "top"}
_VERDICT_KEYS = ("name", "question", "figure", "error", "unit", "threshold", "source", "outcome", "advice")


def _put(shown: dict[str, Any], key: str, value: Any) -> None:
    if key in shown:
        raise ValueError(f"two tables or pictures of a section are both called {key!r}; give one another name=")
    shown[key] = value


def _records(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _jsonable(value: Any) -> Any:
    if isinstance(value, Estimate):
        shown = {"value": value.value, "error": value.error} | ({"unit": value.unit} if value.unit else {})
        return _jsonable(shown)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):  # NumPy's and torch's, numbers and arrays
        return _jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a figure of the page is a {type(value).__name__}, which JSON does not hold: {value!r}")


def _numbered(page: Page) -> list[tuple[Section, list[tuple[Block, int]]]]:
    """Blocks with their numbers: pictures and tables are counted apart, through the whole page; 0 for what has none."""
    counts = {Picture.kind: 0, Table.kind: 0}

    def number(block: Block) -> int:
        if isinstance(block, str) or block.kind not in counts:
            return 0
        counts[block.kind] += 1
        return counts[block.kind]

    return [(section, [(block, number(block)) for block in section.blocks]) for section in page.sections]


def inline(text: str) -> Any:
    """Prose as HTML: code in backticks, links to arXiv, DOIs and addresses; all else escaped."""
    from markupsafe import Markup, escape

    def parts() -> Iterator[str]:
        done = 0
        for match in _MARKUP.finditer(text):
            yield escape(text[done : match.start()])
            done = match.end()
            if match["code"]:
                yield Markup("<code>{}</code>").format(match["code"])
            else:
                url, arxiv, doi = match["url"], match["arxiv"], match["doi"]
                address = url or (f"https://arxiv.org/abs/{arxiv}" if arxiv else f"https://doi.org/{doi}")
                yield Markup('<a href="{}">{}</a>').format(address, match[0])
        yield escape(text[done:])

    return Markup("").join(parts())


def prose(text: str) -> Any:
    """Paragraphs of prose as HTML."""
    from markupsafe import Markup

    paragraphs = (part for part in re.split(r"\n\s*\n", text.strip()) if part)
    return Markup("\n").join(Markup("<p>{}</p>").format(inline(part)) for part in paragraphs)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"prose": prose, "inline": inline, "show": show}
    environment.globals["plus_minus"] = plus_minus
    environment.tests |= {"text": lambda block: isinstance(block, str)}
    return environment
