"""Text of reports and of results in a terminal: whole sentences, wrapped lines, addresses, prose as HTML."""

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

_WIDTH = 120
# In this order: code is left alone by what follows it.
_MARKUP = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|(?P<url>https?://[^\s<>\"]*[^\s<>\".,;:)])"
    r"|arXiv:(?P<arxiv>\d{4}\.\d{4,5}(?:v\d+)?)"
    r"|doi:(?P<doi>10\.\d{4,9}/[^\s<>\"]*[^\s<>\".,;:)])"
)


def flow(text: str) -> str:
    r"""Prose that was written over several indented lines, as paragraphs of one line each.

    >>> flow("A sentence that\n    goes on.\n\n    A second paragraph.")
    'A sentence that goes on.\n\nA second paragraph.'
    """
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def screen(lines: Iterable[str], *, width: int = _WIDTH) -> str:
    """Lines for a terminal; what is longer than ``width`` is continued on further lines, indented by four more."""
    wrapped: list[str] = []
    for line in lines:
        for piece in line.splitlines() or [""]:
            indent = " " * (len(piece) - len(piece.lstrip()))
            wrapped += textwrap.wrap(piece, width, subsequent_indent=f"{indent}    ", break_on_hyphens=False) or [""]
    return "\n".join(wrapped)


def slug(text: str) -> str:
    """Words of a title, lower case, joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "part"


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
