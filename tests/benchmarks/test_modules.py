"""Every benchmark module can be imported, and every program that the README names starts."""

import importlib
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import benchmarks

MODULES = sorted(module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."))
README = Path(benchmarks.__path__[0]) / "README.md"
PROGRAMS = sorted(set(re.findall(r"python -m (benchmarks(?:\.\w+)+)", README.read_text())))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_is_imported(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_of_the_readme_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    for loaded in [module for module in (name, f"{name}.__main__") if module in sys.modules]:
        monkeypatch.delitem(sys.modules, loaded)  # runpy warns about a module that it runs a second time
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_every_program_is_in_the_readme() -> None:
    folder = Path(benchmarks.__path__[0])
    files = [*folder.glob("*.py"), *folder.glob("*/*.py")]
    programs = {file for file in files if "parse_args(" in file.read_text()}
    named = {
        folder.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if folder.joinpath(*name.split(".")[1:]).with_suffix(".py").exists()
        else folder.joinpath(*name.split(".")[1:]) / "__main__.py"
        for name in PROGRAMS
    }
    assert programs == named
