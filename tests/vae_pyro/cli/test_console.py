"""Output of verbs: lines as they are, verdicts as a table, refusals with their exit codes."""

from collections.abc import Callable
from typing import Any

import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from analysis.results.verdict import Verdict
from vae_pyro import FitInterruptedError, RunError
from vae_pyro.cli.console import Group, console, print_line, print_verdicts, print_written
from vae_pyro.parallel import ranks
from vae_pyro.parallel.ranks import RankLostError, Ranks


def app_of(verb: Callable[[], None]) -> typer.Typer:
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.command("verb")(verb)
    app.command("other")(lambda: None)  # a second one, so that the first keeps its name
    return app


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("no [such] thing"), 2, "error: no [such] thing"),
        (RunError("no run"), 2, "error: no run"),
        (FileNotFoundError("no file"), 2, "error: no file"),
        (ArithmeticError("not finite"), 2, "error: not finite"),
        (FitInterruptedError(15, None), 143, "stopped: stopped by SIGTERM"),
        (RankLostError("rank 1 is gone"), 70, "error: rank 1 is gone"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_errors_are_one_line_of_one_process(
    error: BaseException, code: int, text: str, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "launched", lambda: Ranks(0 if first else 1, 2))

    def fails() -> None:
        raise error

    result = CliRunner().invoke(app_of(fails), ["verb"])
    assert result.exit_code == code
    assert result.stdout == ""
    speaks = first or isinstance(error, RankLostError)
    assert result.stderr.strip().startswith(text) if speaks else result.stderr == ""


@pytest.mark.parametrize("error", [RuntimeError("a bug"), TypeError("a bug")])
def test_unforeseen_errors_keep_their_traceback(error: Exception) -> None:
    def fails() -> None:
        raise error

    result = CliRunner().invoke(app_of(fails), ["verb"])
    assert result.exit_code == 1
    assert result.exception is error


def test_lines_and_tables_show_brackets(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    print_line("x[bold] is 3")
    print_written(tmp_path / "a[", tmp_path / "b")
    verdict = Verdict(
        question="Is [this] so?", value=1.25, error=0.5, unit="nats", threshold="below 1", source="", outcome="warn",
        advice="", name="trial",
    )  # fmt: skip
    print_verdicts("of [/b]", [verdict])
    shown = capsys.readouterr().out
    assert shown.startswith(f"x[bold] is 3\nwrote {tmp_path}/a[, {tmp_path}/b\n")
    for words in ("of [/b]", "question", "estimate", "threshold", "warn", "Is [this] so?", "nats", "below 1"):
        assert words in shown


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "stopped: stopped by SIGINT"),
        (MemoryError("Unable to allocate 3 TiB"), 2, "error: not enough memory: Unable to allocate 3 TiB; take fewer"),
        (MemoryError(), 2, "error: not enough memory: an allocation failed; take fewer"),
        (
            RuntimeError(
                "[enforce fail at a.cpp:1] err == 0. DefaultCPUAllocator: can't allocate memory: you tried\nb"
            ),
            2,
            "error: not enough memory: can't allocate memory: you tried; take fewer",
        ),
        (RecursionError("maximum"), 2, "error: the input is nested too deeply"),
        (EOFError("no data left"), 2, "error: no data left"),
        (ValueError("column 'a\x1b[2J\u202e'"), 2, r"error: column 'a\x1b[2J\u202e'"),
    ],
)
def test_interruptions_and_lack_of_memory_are_one_line(error: BaseException, code: int, text: str) -> None:
    def fails() -> None:
        raise error

    result = CliRunner().invoke(app_of(fails), ["verb"])
    assert result.exit_code == code
    assert result.stderr.startswith(text)
    assert len(result.stderr.strip().splitlines()) == 1


def test_control_characters_are_written_out_in_lines_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\x07\u202eb\ud800"
    print_line(name)
    console.print(Table("x", title=name))
    table = Table("x")
    table.add_row(name)
    console.print(table)
    shown = capsys.readouterr().out
    assert shown.count(r"a\x1b[31m\x07\u202eb\ud800") == 3
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
