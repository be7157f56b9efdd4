"""The command line as a whole: what it lists, what it imports, and how it starts."""

import os
import pkgutil
import subprocess
import sys

import pytest

from tests.vae_pyro.cli.calls import call, done, refused
from vae_pyro import __version__
from vae_pyro.cli import verbs
from vae_pyro.cli.registration import VERBS, Topic

NAMES = [module.name for module in pkgutil.iter_modules(verbs.__path__)]
HEAVY = ["torch", "pyro", "numpy", "scipy", "pandas", "arviz", "matplotlib", "sklearn", "analysis"]


def test_every_file_of_the_folder_is_a_verb_of_its_name_and_the_help_lists_it() -> None:
    assert sorted(VERBS) == NAMES
    shown = done("--help")
    for name in NAMES:
        assert f" {name} " in shown
    for topic in Topic:
        assert topic.value in shown


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_verb_has_its_first_sentence_and_an_example(name: str) -> None:
    shown = done(name, "--help")
    assert f"Example: vae-pyro {name}" in shown
    assert " ".join((VERBS[name].function.__doc__ or "").split()) in shown


def test_unknown_verbs_and_missing_arguments_are_refused() -> None:
    assert "Did you mean 'evaluate'" in refused("evalute")
    assert "Missing argument" in refused("fit")
    assert call().exit_code == 2


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    code = f"""
import sys
from vae_pyro.cli.main import app
for words in (["--help"], ["--version"], ["evalute"], *([name, "--help"] for name in {NAMES})):
    try:
        app(words)
    except SystemExit:
        pass
    found = [name for name in {HEAVY} if name in sys.modules]
    assert not found, (words, found)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_it_runs_as_a_module_and_names_its_version() -> None:
    command = [sys.executable, "-m", "vae_pyro", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"vae-pyro {__version__}\n"


def test_shells_complete_verbs_without_importing_anything_heavy() -> None:
    code = f"""
import sys
from vae_pyro.cli.main import app
try:
    app(prog_name="vae-pyro")
finally:
    assert not [name for name in {HEAVY} if name in sys.modules]
"""
    asked = {"_VAE_PYRO_COMPLETE": "complete_bash", "COMP_WORDS": "vae-pyro de", "COMP_CWORD": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert sorted(finished.stdout.split()) == ["decompress", "denoise"]
    assert finished.stderr == ""
