"""What a report is made of: prose, headings, pictures, tables and listings, gathered in sections."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from analysis.results.estimate import DASH, Estimate, plus_minus
from analysis.results.text import slug
from analysis.results.verdict import Verdict, worst
from vae_pyro.core.renamed import Former

if TYPE_CHECKING:
    from matplotlib.figure import Figure

type Cell = "str | float | int | bool | Estimate | None"
type Block = "str | Heading | Picture | Table | Listing"

_DOTS_AN_INCH = 96


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
    """A picture with a description for readers who cannot see it.

    Attributes:
        content: the file's bytes.
        media_type: ``image/svg+xml`` or ``image/png``.
        width: in CSS pixels; likewise ``height``.
        alt: what the picture shows, in a sentence or two.
        caption: under the picture; how to read it.
        metrics: numbers that the picture shows, JSON-able or arrays, for `analysis.results.page.Page.metrics`.
        name: key there; made of the caption if not given.
    """

    kind: ClassVar[str] = "picture"
    content: bytes
    media_type: str
    width: int
    height: int
    alt: str
    caption: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    figures = Former("metrics")

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError(f"the picture {self.caption!r} has no alt text; describe what it shows")
        if self.media_type not in ("image/svg+xml", "image/png"):
            raise ValueError(f"media_type is image/svg+xml or image/png, got {self.media_type!r}")

    @classmethod
    def of(
        cls, figure: "Figure", *, alt: str, caption: str, metrics: Mapping[str, Any] | None = None, name: str = ""
    ) -> "Picture":
        """Draw a figure of `analysis.plotting`; the figure itself is not kept."""
        from analysis.plotting import encode

        media_type, content = encode(figure)
        width, height = (round(float(inches) * _DOTS_AN_INCH) for inches in figure.get_size_inches())
        return cls(content, media_type, width, height, alt, caption, metrics or {}, name)

    @property
    def uri(self) -> str:
        """The picture as a ``data:`` address."""
        return f"data:{self.media_type};base64,{b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Table:
    """Rows of values under a caption; the first cell of a row is its name.

    Attributes:
        caption: above the table.
        columns: headings, the first over the names of the rows.
        rows: each as long as ``columns``. Numbers are printed by `plus_minus`, ``None`` as a dash.
        note: below the table, in small print.
        name: key in `analysis.results.page.Page.metrics`; made of the caption if not given.
        keys: names of the columns there; ``columns`` if not given.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    name: str = ""
    keys: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.keys and len(self.keys) != len(self.columns):
            raise ValueError(f"the table {self.caption!r} has {len(self.keys)} keys for {len(self.columns)} columns")
        if not self.rows:
            raise ValueError(f"the table {self.caption!r} has no rows; write a sentence that gives the reason instead")
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {index} of the table {self.caption!r} has {len(row)} cells for {len(self.columns)} columns"
                )

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers, which are right-aligned."""
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
    """The part of a report that one diagnostic contributes.

    Attributes:
        title: a noun phrase; numbered by the page.
        blocks: in order. A string is prose: blank lines separate paragraphs, backticks are code, ``arXiv:`` and
            ``doi:`` become links; everything else is shown as it is written.
        verdicts: rows for the table at the top, with a link back here.
        methods: prose for the chapter on methods: how the estimates were made, with which settings.
        references: papers for the list at the end; the same line from two sections is listed once.
        metrics: further numbers, such as those inside the prose, for `analysis.results.page.Page.metrics`.
        name: anchor, and key there; made of the title if not given.
    """

    title: str
    blocks: Sequence[Block]
    verdicts: Sequence[Verdict] = ()
    methods: str = ""
    references: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    figures = Former("metrics")

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError(
                f"the section {self.title!r} is empty; give in a sentence the reason why there is nothing to show"
            )
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
