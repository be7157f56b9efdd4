"""The public names of `analysis`: quick to import, all of them there, and typed as they are exported."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import analysis

ROOT = Path(analysis.__file__).parent


def test_every_name_resolves() -> None:
    assert analysis.__all__ == sorted(set(analysis.__all__))
    for name in analysis.__all__:
        found = getattr(analysis, name)
        assert getattr(analysis, name) is found
        assert not inspect.ismodule(found), name
    assert set(analysis.__all__) <= set(dir(analysis))


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'elpd_off'; it exports .*elpd_of"):
        analysis.elpd_off  # type: ignore[attr-defined]  # noqa: B018


def test_every_name_stands_in_the_module_that_the_stub_names() -> None:
    for node in ast.parse((ROOT / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.name == alias.asname  # which marks an export
                home = importlib.import_module(f"analysis.{node.module}")
                assert getattr(analysis, alias.name) is getattr(home, alias.name)


def test_importing_loads_nothing_heavy() -> None:
    heavy = ["numpy", "torch", "pyro", "pandas", "xarray", "scipy", "matplotlib", "pydantic"]
    code = f"import sys, analysis; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_the_documentation_names_is_exported() -> None:
    page = (ROOT.parent / "docs" / "howto" / "check-a-posterior.md").read_text()
    table = page.split("| question | function |")[1].split("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert named >= {"elpd", "calibrate", "describe_layers", "drift_test", "check_denoising"}
    assert named <= set(analysis.__all__)


MAY_DRAW = re.compile(r"(^|/)(plot|(\w+_)?sections?|page)\.py$|^(plotting|report)/")
PAGES = {"analysis.results.page", "analysis.results.blocks"}


def modules() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.rglob("*.py"))]


def imported_at_the_top(path: Path) -> set[str]:
    """Modules that are imported as the file is; those inside of functions and for type checkers are not."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("name", [name for name in modules() if not MAY_DRAW.search(name)])
def test_estimates_neither_draw_nor_make_pages(name: str) -> None:
    """Only ``plot.py``, ``section.py`` and ``page.py``, beside the estimate, import matplotlib and pages."""
    used = imported_at_the_top(ROOT / name)
    assert not any(module.split(".")[0] == "matplotlib" for module in used)
    assert not any(module.startswith("analysis.plotting") or module.endswith((".plot", ".section")) for module in used)
    if not name.startswith(("results/", "diagnostics/")):
        assert not used & PAGES
