"""A statistical report as one HTML file: verdicts first, then sections of prose, pictures and tables, then methods.

Each diagnostic contributes one `Section`: its results, in blocks; the `Verdict`s that it gives; its methods, and the
papers that it rests on. A `Page` gathers them: all verdicts into the table at the top, each with a link to its section;
all methods and references at the end; and every number shown into one JSON object inside the page. Nothing is fetched
from anywhere, nothing runs, and the same page gives the same bytes.

    >>> fit = Section("Goodness of fit", ["A sentence with `code`.", Table("Averages", ["quantity", "nats"],
    ...     [["log p(x)", Estimate(-17.2348, 0.031)]])])
    >>> page = Page("digits, 8 latents", facts={"data": "digits, 360 held out"}, sections=[fit])
    >>> page.metrics()["sections"]["goodness-of-fit"]["averages"][0]["nats"]
    {'value': -17.2348, 'error': 0.031}
    >>> "−17.235 ± 0.031" in page.render()
    True
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from analysis.results.blocks import Block, Cell, Heading, Listing, Picture, Section, Table, show
from analysis.results.estimate import Estimate, plus_minus
from analysis.results.text import inline, prose, slug
from analysis.results.verdict import Verdict
from vae_pyro.core.renamed import Former

__all__ = ["Block", "Cell", "Heading", "Listing", "Page", "Picture", "Section", "Table"]

_TEMPLATES = Path(__file__).parent / "templates"


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
        absent: title of each section that could not be made, and why.
    """

    title: str
    sections: Sequence[Section]
    facts: Mapping[str, Cell] = field(default_factory=dict)
    lead: str = ""
    provenance: Mapping[str, Cell] = field(default_factory=dict)
    subtitle: str = "Report on a variational autoencoder"
    absent: Sequence[tuple[str, str]] = ()
    figures = Former("metrics()")

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
        """Title and methods of each section that describes them."""
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
        """How many checks were passed, in a sentence; first the sections that are missing, which is no pass."""
        if self.absent:
            titles = ", ".join(title for title, _ in self.absent)
            missing = f"Incomplete: {len(self.absent)} of {len(self.sections)} sections could not be made ({titles})."
            return f"{missing} {self._of_checks('of the other sections ')}"
        return self._of_checks()

    def _of_checks(self, of: str = "") -> str:
        outcomes = [verdict.outcome for _, verdict in self.verdicts]
        if not outcomes:
            return "No check was made."
        passed, warned, failed = (outcomes.count(outcome) for outcome in ("pass", "warn", "fail"))
        if passed == len(outcomes):
            if of:
                return f"{passed} {'check' if passed == 1 else 'checks'} {of}passed."
            return "The one check passes." if passed == 1 else f"All {passed} checks pass."
        parts = [f"{count} {word}" for count, word in ((failed, "failed"), (warned, "with a warning")) if count]
        return f"{passed} of {len(outcomes)} checks {of}passed, {', '.join(parts)}."

    def metrics(self) -> dict[str, Any]:
        """Every number shown, as JSON can hold it; infinities and NaN are the strings that ``float`` reads."""
        sections: dict[str, dict[str, Any]] = {}
        for section in self.sections:
            shown: dict[str, Any] = dict(section.metrics)
            for block in section.blocks:
                if isinstance(block, Table):
                    _put(shown, block.name or slug(block.caption), _records(block))
                elif isinstance(block, Picture) and block.metrics:
                    _put(shown, block.name or slug(block.caption), dict(block.metrics))
            sections[section.key] = shown
        verdicts = [{"section": section.key, **verdict.to_dict()} for section, verdict in self.verdicts]
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

        data = htmlsafe_json_dumps(self.metrics(), dumps=json.dumps, allow_nan=False, ensure_ascii=False)
        html: str = _environment().get_template("report.html.j2").render(page=self, sections=_numbered(self), data=data)
        return html

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        from vae_pyro.core.files import write_atomically

        write_atomically(path, self.render().encode())


_RESERVED = {"verdicts", "contents", "methods", "references", "provenance", "figures", "top"}


def _put(shown: dict[str, Any], key: str, value: Any) -> None:
    if key in shown:
        raise ValueError(f"two tables or pictures of a section are both called {key!r}; give one another name=")
    shown[key] = value


def _records(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.keys or table.columns, row, strict=True)) for row in table.rows]


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
    raise ValueError(f"a number of the page is a {type(value).__name__}, which JSON does not hold: {value!r}")


def _numbered(page: Page) -> list[tuple[Section, list[tuple[Block, int]]]]:
    """Blocks with their numbers: pictures and tables are counted apart, through the whole page; 0 for what has none."""
    counts = {Picture.kind: 0, Table.kind: 0}

    def number(block: Block) -> int:
        if isinstance(block, str) or block.kind not in counts:
            return 0
        counts[block.kind] += 1
        return counts[block.kind]

    return [(section, [(block, number(block)) for block in section.blocks]) for section in page.sections]


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
