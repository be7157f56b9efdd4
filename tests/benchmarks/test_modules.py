"""Every benchmark module can be imported, every program of the README starts, and stored results give their tables."""

import importlib
import pkgutil
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from benchmarks import common, denoising, drift, evidence, imputation, inpainting, labels, layers, power
from benchmarks.quality.report import report as quality
from benchmarks.scale.report import report as scale
from benchmarks.sparse.__main__ import report as sparse
from benchmarks.speed.report import report as speed
from benchmarks.tables.report import report as tables

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


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("denoising-digits", denoising.report),
        ("drift", drift.tables),
        ("evidence", evidence.report),
        ("imputation", imputation.report),
        ("inpainting", inpainting.report),
        ("labels", labels.report),
        ("layers", layers.report),
        ("power", power.report),
        ("quality", quality),
        ("scale-cpu", scale),
        ("sparse", sparse),
        ("speed-cpu", speed),
        ("tables", tables),
    ],
)
def test_stored_results_give_the_tables_of_the_readme(name: str, report: Callable[[dict[str, Any]], str]) -> None:
    """Every row of numbers of the README is still made from the stored result."""
    stored = common.read_json(common.HERE / "results" / f"{name}.json")
    assert stored is not None
    made = set(report(stored).splitlines())
    block = README.read_text().partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
    rows = [line for line in block.splitlines() if line.startswith("| ") and any(letter.isdigit() for letter in line)]
    assert rows
    assert [row for row in rows if row not in made] == []
