"""Output of verbs: the console, tables of verdicts, errors in one line and their exit codes."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

if TYPE_CHECKING:
    from analysis.results.verdict import Verdict

_REFUSED, _LOST = 2, 70
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}

console = Console(soft_wrap=True)


def print_line(text: str, *, style: str | None = None) -> None:
    """Print a line as it is: brackets are no markup, and numbers have no colours."""
    console.print(escape(text), style=style, highlight=False)


def print_written(*files: Path) -> None:
    """Print the paths of files that were written."""
    print_line(f"wrote {', '.join(str(file) for file in files)}")


def print_verdicts(title: str, verdicts: Iterable["Verdict"]) -> None:
    """A table of questions, estimates and thresholds."""
    from analysis import plus_minus

    table = Table("", "question", "estimate", "threshold", title=escape(title))
    for verdict in verdicts:
        estimate = plus_minus(verdict.value, verdict.error, verdict.unit)
        table.add_row(
            f"[{_COLOURS[verdict.outcome]}]{verdict.outcome}[/]",
            escape(verdict.question),
            escape(estimate),
            escape(verdict.threshold),
        )
    console.print(table)


class Group(TyperGroup):
    """Prints errors of the user in one line with exit code 2; an interruption has the exit code of its signal."""

    def invoke(self, ctx: Any) -> Any:
        from vae_pyro.parallel.signals import FitInterruptedError

        try:
            return super().invoke(ctx)
        except FitInterruptedError as stopped:
            _print_error(f"[yellow]stopped:[/] {escape(str(stopped))}")
            raise typer.Exit(128 + stopped.signum) from None
        except (ValueError, ArithmeticError, OSError) as error:
            _print_error(f"[red]error:[/] {escape(str(error))}")
            raise typer.Exit(_REFUSED) from None
        except RuntimeError as error:
            ranks = _ranks()
            if ranks is None or not isinstance(error, ranks.RankLostError):
                raise
            _print_error(f"[red]error:[/] {escape(str(error))}", everywhere=True)  # the others may be gone
            raise typer.Exit(_LOST) from None


def _print_error(text: str, *, everywhere: bool = False) -> None:
    ranks = _ranks()
    if everywhere or ranks is None or ranks.launched().first:  # one of the processes of a fit speaks for all
        Console(stderr=True, soft_wrap=True).print(text)


def _ranks() -> Any:
    """The module of the processes of a fit, where a verb has imported it; importing it takes seconds."""
    return sys.modules.get("vae_pyro.parallel.ranks")
