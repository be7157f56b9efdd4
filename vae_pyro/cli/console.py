"""Output of verbs: the console, tables of verdicts, errors in one line and their exit codes."""

import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

if TYPE_CHECKING:
    from analysis.results.verdict import Verdict

_REFUSED, _LOST = 2, 70
_SMALLER = "take fewer data, draws or latents, a smaller network, or a machine with more"
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}

# Characters that a terminal obeys, or that reorder what it shows; line ends and tabs are layout.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """A text whose control characters are written out, so that names from files cannot command the terminal.

    >>> visible("a\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


class VisibleConsole(Console):
    """A console that writes out the control characters of every text, see `visible`."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich's, of the visible text."""
        return super().render_str(visible(text), **options)


console = VisibleConsole(soft_wrap=True)


def print_line(text: str, *, style: str | None = None) -> None:
    """Print a line as it is: brackets are no markup, and numbers have no colours."""
    console.print(escape(text), style=style, highlight=False)


def print_warning(text: str) -> None:
    """Print a line to standard error, where it does not mix with results."""
    _print_error(f"[yellow]warning:[/] {escape(text)}")


def print_written(*files: Path) -> None:
    """Print the paths of files that were written."""
    print_line(f"wrote {', '.join(str(file) for file in files)}")


@contextmanager
def time_left(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on standard error, where that is a terminal; gives what is told done and total."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
        except KeyboardInterrupt:  # in an import, or where nothing has to be finished
            _print_error("[yellow]stopped:[/] stopped by SIGINT")
            raise typer.Exit(128 + signal.SIGINT) from None
        except (ValueError, ArithmeticError, OSError, EOFError) as error:
            _print_error(f"[red]error:[/] {escape(str(error) or type(error).__name__)}")
            raise typer.Exit(_REFUSED) from None
        except RecursionError:
            _print_error("[red]error:[/] the input is nested too deeply")
            raise typer.Exit(_REFUSED) from None
        except (MemoryError, RuntimeError) as error:
            if _out_of_memory(error):
                _print_error(f"[red]error:[/] not enough memory: {escape(_first_line(error))}; {_SMALLER}")
                raise typer.Exit(_REFUSED) from None
            ranks = _ranks()
            if ranks is None or not isinstance(error, ranks.RankLostError):
                raise
            _print_error(f"[red]error:[/] {escape(str(error))}", everywhere=True)  # the others may be gone
            raise typer.Exit(_LOST) from None


def _print_error(text: str, *, everywhere: bool = False) -> None:
    ranks = _ranks()
    if everywhere or ranks is None or ranks.launched().first:  # one of the processes of a fit speaks for all
        VisibleConsole(stderr=True, soft_wrap=True).print(text, highlight=False)


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether an allocation failed; torch's errors are known once torch is imported."""
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from vae_pyro.core.memory import is_out_of_memory

    return is_out_of_memory(error)


def _first_line(error: BaseException) -> str:
    """What an error says of itself, without the place in a library that torch begins with."""
    line = next(iter(str(error).strip().splitlines()), "") or "an allocation failed"
    return line.partition("DefaultCPUAllocator: ")[2] or line


def _ranks() -> Any:
    """The module of the processes of a fit, where a verb has imported it; importing it takes seconds."""
    return sys.modules.get("vae_pyro.parallel.ranks")
