"""Former names: an error states the present one, which is there."""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

import vae_pyro
from vae_pyro.core.renamed import MODULES, NAMES, Former, renamed


@pytest.mark.parametrize("name", MODULES)
def test_a_former_module_is_named_with_its_present_place(name: str) -> None:
    sentence = f"vae_pyro.{name} is now vae_pyro.{MODULES[name]}"
    with pytest.raises(ImportError, match=sentence):
        getattr(vae_pyro, name)
    with pytest.raises(ImportError, match=sentence):
        exec(f"from vae_pyro import {name}")
    assert find_spec(f"vae_pyro.{MODULES[name]}") is not None


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("training", "fit"),
        ("data", "load_data"),
        ("densities", "Pair"),
        ("evaluation", "evaluate"),
    ],
)
def test_names_of_a_former_module_are_named_where_its_folder_stands(folder: str, name: str) -> None:
    with pytest.raises(ImportError, match=f"vae_pyro.{folder}.{name} is now vae_pyro.{name}"):
        exec(f"from vae_pyro.{folder} import {name}")
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec(f"from vae_pyro.{folder} import nonsense")


def test_a_module_of_a_folder_is_imported_although_a_function_of_its_name_is_exported() -> None:
    code = "from vae_pyro.densities import walk; print(walk.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "vae_pyro.densities.walk"


@pytest.mark.parametrize("name", NAMES)
def test_a_former_name_is_refused_with_the_present_one(name: str) -> None:
    for package in ("vae_pyro", "vae_pyro.densities"):
        with pytest.raises(ImportError, match=f"{package}.{name} is now vae_pyro.{NAMES[name]}"):
            exec(f"from {package} import {name}")
    place, _, found = f"vae_pyro.{NAMES[name]}".rpartition(".")
    assert callable(getattr(importlib.import_module(place), found))


@renamed(num_samples="num_draws")
def estimate(x: int, *, num_draws: int = 3) -> int:
    """An estimate."""
    return x * num_draws


def test_new_names_work_and_former_ones_say_what_to_write() -> None:
    assert estimate(2, num_draws=5) == 10
    assert estimate(2) == 6
    assert estimate.__doc__ == "An estimate."
    with pytest.raises(TypeError, match=r"estimate\(\) takes 'num_draws', which was called 'num_samples' before 0.2"):
        estimate(2, num_samples=5)  # type: ignore[call-arg]


def test_other_names_are_absent_as_usual() -> None:
    assert not hasattr(vae_pyro, "nonsense")
    with pytest.raises(AttributeError, match="module 'vae_pyro' has no attribute 'nonsense'"):
        getattr(vae_pyro, "nonsense")  # noqa: B009 (mypy knows that it is absent)
    done = subprocess.run(
        [sys.executable, "-c", "import vae_pyro.imputation"], capture_output=True, text=True, check=False
    )
    assert "No module named 'vae_pyro.imputation'" in done.stderr


def test_modules_of_such_a_folder_are_imported_as_ever() -> None:
    """Also one whose name `vae_pyro` exports for something else, and where nothing has imported it before."""
    code = "from vae_pyro.densities import walk; import types; assert isinstance(walk, types.ModuleType)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Thing:
    size = Former("Thing.length")


def test_former_attributes_can_be_neither_read_nor_set() -> None:
    thing = Thing()
    with pytest.raises(AttributeError, match="Thing.size of before 0.2 is now Thing.length"):
        thing.size = 3
    with pytest.raises(AttributeError, match=r"now Thing\.length"):
        print(thing.size)
    assert isinstance(Thing.size, Former)
