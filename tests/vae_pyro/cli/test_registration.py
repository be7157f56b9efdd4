"""Verbs: a group of options is spread over the signature and comes back whole; names are there once."""

from dataclasses import dataclass
from inspect import signature
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from vae_pyro.cli.registration import VERBS, Topic, verb


@dataclass(frozen=True)
class Group:
    """Two parameters of a verb."""

    panel: ClassVar[str] = "Group of its own"

    name: Annotated[str, typer.Argument()]
    many: Annotated[list[int] | None, typer.Option(help="Numbers.")] = None


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("trial", "twice"):
        monkeypatch.setitem(VERBS, name, None)  # so that it is as before afterwards
        del VERBS[name]


def test_a_group_is_spread_and_comes_back_whole() -> None:
    seen: list[object] = []

    @verb(Topic.USE, "vae-pyro trial a")
    def trial(group: Group, size: Annotated[int, typer.Option()], fast: bool = False) -> None:
        """A verb."""
        seen.extend([group, size, fast])

    assert list(signature(trial).parameters) == ["name", "many", "size", "fast"]
    assert VERBS["trial"].function is trial
    app = typer.Typer()
    app.command()(trial)
    done = CliRunner().invoke(app, ["a", "--many", "3", "--many", "4", "--size", "2"])
    assert done.exit_code == 0, done.output
    assert seen == [Group("a", [3, 4]), 2, False]
    assert CliRunner().invoke(app, ["a", "--size", "x"]).exit_code == 2
    assert CliRunner().invoke(app, ["a"]).exit_code == 2
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "A verb." in shown
    assert shown.index("--size") < shown.index("Group of its own") < shown.index("--many")


def test_names_are_there_once() -> None:
    def twice(group: Group, name: Annotated[str, typer.Option()] = "") -> None:
        """A verb."""

    with pytest.raises(ValueError, match="twice has the option 'name' twice"):
        verb(Topic.USE, "")(twice)
    assert "twice" not in VERBS

    def trial() -> None:
        """A verb."""

    verb(Topic.USE, "")(trial)
    with pytest.raises(ValueError, match="'trial' is registered already"):
        verb(Topic.USE, "")(trial)
