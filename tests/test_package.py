"""What a user meets first: importing changes nothing and is quick, the README's script runs, the layout is true."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vae_pyro
from vae_pyro.models.presets import PRESETS
from vae_pyro.training.settings import CHOICES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LAYOUT = (ROOT / "docs" / "reference" / "package-layout.md").read_text()
SETTINGS = (ROOT / "docs" / "howto" / "settings.md").read_text()

_WATCH = """
import json, random, sys, time, warnings
import numpy, torch, pyro, typer, rich.table, rich.progress  # what these do is theirs
def state():
    return {
        "dtype": str(torch.get_default_dtype()), "generator": torch.get_rng_state().sum().item(),
        "grad": torch.is_grad_enabled(), "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(), "numpy": str(numpy.random.get_state()),
        "python": hash(random.getstate()), "settings": {k: str(v) for k, v in pyro.settings.get().items()},
        "store": list(pyro.get_param_store().keys()), "filters": [str(f) for f in warnings.filters],
        "printing": str(numpy.get_printoptions()),
    }
before = state()
import PACKAGE
after = state()
ours = [f for f in after.pop("filters") if f not in before["filters"] and "vae_pyro" in f]
before.pop("filters")
print(json.dumps({"same": before == after, "filters": ours, "pyplot": "matplotlib.pyplot" in sys.modules}))
"""


@pytest.mark.parametrize("package", ["vae_pyro", "analysis", "vae_pyro.cli.main"])
def test_importing_changes_no_global_state(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WATCH.replace("PACKAGE", package)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"same": True, "filters": [], "pyplot": False}
    assert done.stderr == ""


def test_imports_leave_heavy_libraries_for_later() -> None:
    """What makes an import slow is what it pulls in; seconds are for the benchmarks."""
    heavy = ["torchvision", "sklearn", "tensorboard", "pandas", "arviz", "matplotlib", "xarray", "jinja2", "joblib"]
    heavy += ["lightning_fabric", "dask", "ray", "optuna", "zarr", "pyarrow", "constriction", "skimage"]
    of_all = ["torch", "pyro", "numpy", "scipy", "pydantic"]
    code = f"""
import sys, vae_pyro
print([name for name in {heavy + of_all} if name in sys.modules])
from vae_pyro import VAE, VAEConfig, FitConfig, fit, load_data, evaluate, RunFolder, CompiledSVI
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_every_exported_name_is_imported_when_it_is_used() -> None:
    """Each from its module, by all ways of importing it; the stub is what type checkers read."""
    code = "from vae_pyro import *\nimport vae_pyro\nassert set(vae_pyro.__all__) <= set(dir(vae_pyro)) & set(dir())"
    subprocess.run([sys.executable, "-c", code], check=True)
    typed = {
        name.name: f"vae_pyro.{node.module}"
        for node in ast.parse((ROOT / "vae_pyro" / "__init__.pyi").read_text()).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.name == name.asname  # which marks an export
    }
    assert sorted(typed) == vae_pyro.__all__
    for name in vae_pyro.__all__:
        value = getattr(vae_pyro, name)
        assert value is getattr(importlib.import_module(typed[name]), name)
        assert name not in {path.stem for path in (ROOT / "vae_pyro").iterdir()}  # no module is hidden by it


def script() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    return next(block for block in blocks if "to_datatree" in block)


def test_the_newcomers_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(script(), "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "elpd" in shown
    assert "held-out data" in shown
    assert "predictive check of 'mean'" in shown


def modules(package: str) -> list[str]:
    """Every module and folder of a package, dotted."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def test_the_documentation_names_every_folder_and_preset() -> None:
    for package in ("vae_pyro", "analysis"):
        for path in (ROOT / package).iterdir():
            if (path / "__init__.py").exists():
                assert f"| `{path.name}` |" in LAYOUT, path
    for name in PRESETS:
        assert f"`{name}`" in SETTINGS, name


@pytest.mark.parametrize("kind", CHOICES)
def test_the_variants_that_the_documentation_names_are_registered(kind: str) -> None:
    """A variant is one file and its test; the list of all of them is the message that refuses an unknown name."""
    section = SETTINGS.partition("## Choices")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| [^|]*`{kind}`[^|]* \| (.*) \|$", section, flags=re.MULTILINE)
    while (without := re.sub(r"\([^()]*\)", "", row)) != row:
        row = without
    named = re.findall(r"`(\w+)`", row.partition("each with")[0])
    assert named
    assert set(named) <= set(CHOICES[kind])
    with pytest.raises(ValueError, match=", ".join(CHOICES[kind])):
        CHOICES[kind].resolve("nothing")


def test_every_module_is_imported_under_its_own_name() -> None:
    """``import a.b.c as m`` gives a module, whatever the packages export: no function stands in a module's way."""
    names = [name for package in ("vae_pyro", "analysis") for name in modules(package) if not name.endswith("__main__")]
    lines = [f"import {name} as m\nassert type(m) is type(sys) and m.__name__ == {name!r}, {name!r}" for name in names]
    subprocess.run([sys.executable, "-c", "import sys\n" + "\n".join(lines)], cwd=ROOT, check=True)
    assert len(names) > 200


def test_tests_mirror_the_folders() -> None:
    for package in ("vae_pyro", "analysis"):
        folders = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}
        below = (
            path.relative_to(ROOT / "tests" / package).parts for path in (ROOT / "tests" / package).rglob("test_*.py")
        )
        mirrored = {parts[0] for parts in below if len(parts) > 1}
        assert folders == mirrored


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"## {vae_pyro.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = project["project"]["optional-dependencies"]
    wanted = ("scale", "compression", "imaging")
    assert f"vae_pyro[{','.join(wanted)}]" in extras["dev"]  # so that what wants them is tested
    of_extras = [requirement for name in wanted for requirement in extras[name]]
    for requirement in [*project["project"]["dependencies"], *of_extras, *extras["dev"][1:]]:
        name = re.split(r"[>=\[]", requirement)[0].lower()
        assert name in pinned, name
