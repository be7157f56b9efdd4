"""A variant is one file: every module of a folder of variants is found, and what it registers is known by name."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vae_pyro.core.discovery import import_siblings

FOLDERS = [
    "vae_pyro.data.readers",
    "vae_pyro.likelihoods",
    "vae_pyro.likelihoods.noise",
    "vae_pyro.models.posteriors",
    "vae_pyro.models.priors",
    "vae_pyro.models.structures",
    "vae_pyro.nn",
    "vae_pyro.objectives",
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of two modules and a subpackage that note when they are imported; ``beta`` imports ``alpha``."""
    folder = tmp_path / "found_by_listing"
    (folder / "nested").mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from vae_pyro.core.discovery import import_siblings\nimported: list[str] = []\nimport_siblings(__name__)\n"
    )
    note = "import found_by_listing\nfound_by_listing.imported.append(__name__.rpartition('.')[2])\n"
    (folder / "beta.py").write_text("import found_by_listing.alpha\n" + note)
    for name in ("alpha.py", "nested/__init__.py"):
        (folder / name).write_text(note)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_modules_are_imported_once_in_alphabetical_order(package: str) -> None:
    assert importlib.import_module(package).imported == ["alpha", "beta", "nested"]
    import_siblings(package)
    assert importlib.import_module(package).imported == ["alpha", "beta", "nested"]


def test_a_new_file_is_found_and_a_broken_one_is_not_passed_over(package: str, tmp_path: Path) -> None:
    folder = tmp_path / package
    (folder / "gamma.py").write_text((folder / "alpha.py").read_text())
    assert importlib.import_module(package).imported == ["alpha", "beta", "gamma", "nested"]
    (folder / "omega.py").write_text("import nothing_of_that_name\n")
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match="nothing_of_that_name"):
        import_siblings(package)


def test_every_module_of_a_folder_of_variants_is_imported_with_it() -> None:
    code = f"""
import importlib, pkgutil, sys
for folder in {FOLDERS}:
    package = importlib.import_module(folder)
    names = [folder + "." + module.name for module in pkgutil.iter_modules(package.__path__)]
    print(len(names) > 3, *[name for name in names if name not in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["True"] * len(FOLDERS)
