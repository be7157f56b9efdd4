"""The documentation: its code compiles and runs, its commands parse, its links resolve, its listings are complete."""

import ast
import random
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import typer.main

import analysis
import vae_pyro
from analysis import DIAGNOSTICS
from vae_pyro.cli.main import app
from vae_pyro.cli.registration import VERBS
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.training.settings import CHOICES, assign, parse_assignment

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OWN = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
PAGES = [*OWN, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
RUNNABLE = re.compile(r"<!-- run(: slow)? -->\n```python\n(.*?)```", flags=re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", flags=re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def listings() -> ModuleType:
    """The extension that writes the reference pages; Sphinx is not required for it."""
    spec = spec_from_file_location("reference_pages", DOCS / "_extensions" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(listings: ModuleType) -> dict[str, str]:
    made: dict[str, str] = listings.pages()
    return made


# --- code -----------------------------------------------------------------------------------------------------------


def test_python_blocks_compile_and_import_names_that_exist() -> None:
    lines = []
    for path in PAGES:
        for block in blocks(path, "python"):
            for node in ast.walk(compile(block, name_of(path), "exec", ast.PyCF_ONLY_AST)):
                imported = isinstance(node, ast.Import | ast.ImportFrom)
                if imported and re.match(r"(from|import) (vae_pyro|analysis)\b", ast.unparse(node)):
                    lines.append(ast.unparse(node))
    assert len(lines) >= 30
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=True)


def runnable(slow: bool) -> list[Path]:
    """Pages with code that runs: those of which all blocks are quick, or those with a slow one."""
    marked = {path: [bool(mark) for mark, _ in RUNNABLE.findall(path.read_text())] for path in OWN}
    return [path for path, marks in marked.items() if marks and (any(marks) if slow else not all(marks))]


def run(path: Path, slow: bool) -> None:
    """All blocks of a page in one namespace, in their order."""
    namespace: dict[str, Any] = {"__name__": "documentation"}
    for mark, block in RUNNABLE.findall(path.read_text()):
        if slow or not mark:
            exec(compile(block, name_of(path), "exec"), namespace)


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    """Generators, parameter store and registries, which a reader's script may change, are restored."""
    before = {kind: set(registry) for kind, registry in CHOICES.items()}
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002 (`pyro.set_rng_seed` sets it)
    with torch.random.fork_rng(), pyro.get_param_store().scope():
        yield
    random.setstate(python)
    np.random.set_state(array)  # noqa: NPY002
    for kind, registry in CHOICES.items():
        for name in set(registry) - before[kind]:
            registry.unregister(name)


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize("path", runnable(slow=False), ids=name_of)
def test_code_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(path, slow=False)


@pytest.mark.slow
@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize("path", runnable(slow=True), ids=name_of)
def test_slow_code_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(path, slow=True)


# --- commands -------------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Every call of the command line on the pages, in blocks and within sentences."""
    found = set()
    for path in OWN:
        text = path.read_text()
        for block in re.findall(r"```(?:console|bash)\n(.*?)```", text, flags=re.DOTALL):
            found |= set(re.findall(r"^(?:\$ )?vae-pyro (.+?)(?: +#.*)?$", block, flags=re.MULTILINE))
        found |= set(re.findall(r"`vae-pyro ([^`]+)`", FENCED.sub("", text)))
        found |= set(re.findall(r"^    vae-pyro (.+?)(?: +#.*)?$", text, flags=re.MULTILINE))
    return sorted(one for one in found if "..." not in one and not one.startswith("VERB"))


@pytest.mark.parametrize("call", commands())
def test_commands_name_verbs_and_options_that_exist(call: str) -> None:
    verb, *words = shlex.split(call)
    if verb.startswith("--"):
        verb, words = "", [verb]
    group: Any = typer.main.get_command(app)
    command = group.commands[verb] if verb else group
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    known = {*options, "--help", "--install-completion"}
    for word, value in zip(words, [*words[1:], ""], strict=False):
        assert not word.startswith("--") or word in known, word
        if word == "--set":
            path, parsed = parse_assignment(value)
            kind = path[-1] if path[-1] in CHOICES else None
            settings: dict[str, Any] = {"model": {"likelihood": "bernoulli"}, "fit": {"optimizer": "adam"}, "data": {}}
            settings["fit"]["schedule"] = "cosine"
            assign(settings, path, parsed)
            if kind and parsed is not None:
                CHOICES[kind].resolve(parsed)
        elif word == "--objective":
            OBJECTIVES.resolve(value)
        elif word == "--likelihood":
            CHOICES["likelihood"].resolve(value)


# --- links ----------------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor of a heading, by GitHub's rule, which MyST has as well."""
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"`", "", heading).lower())
    return plain.strip().replace(" ", "-")


def anchors(path: Path) -> set[str]:
    text = FENCED.sub("", path.read_text())
    for included in re.findall(r"\{include\} (\S+)", path.read_text()):
        text += FENCED.sub("", (path.parent / included).read_text())
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_internal_links_resolve(path: Path, reference: dict[str, str]) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", path.read_text()))
    for target in (one for one in targets if not re.match(r"[a-z]+:", one)):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if file.parent.name == "generated":
            assert file.stem in reference, target
            continue
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for path in DOCS.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(), flags=re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(path.parent / f"{name}.md").resolve() for name in names}
    assert {path.resolve() for path in OWN[1:]} - listed == {DOCS / "index.md"}


# --- listings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHOICES)
def test_every_variant_is_listed_with_its_options(kind: str, reference: dict[str, str]) -> None:
    page = reference[f"variants-{kind}"]
    for name in CHOICES[kind]:
        section = page.partition(f"\n{name}\n{'-' * len(name)}\n")[2].partition("\n.. _")[0]
        assert re.search(r"Source: ``(\S+)``", section)
        assert (ROOT / re.findall(r"Source: ``(\S+)``", section)[0]).exists()
        for option in CHOICES[kind].options(name).model_fields:
            assert f"* - ``{option}``" in section, (name, option)


def test_a_new_variant_is_listed_by_itself(listings: ModuleType) -> None:
    @OBJECTIVES.register("invented")
    class Invented(vae_pyro.TraceELBO):
        """An objective that nothing else names."""

        def __init__(self, *, degree: float = 2.5) -> None:
            super().__init__()

    try:
        page = dict(listings.pages_of_variants())["variants-objective"]
    finally:
        OBJECTIVES.unregister("invented")
    assert "An objective that nothing else names." in page
    assert "* - ``degree``\n     - float\n     - ``2.5``" in page


def test_every_export_verb_and_diagnostic_is_listed(reference: dict[str, str]) -> None:
    api = "\n".join(text for name, text in reference.items() if name.startswith("api-"))
    for package in (vae_pyro, analysis):
        documented = set(re.findall(rf"^\.\. [\w:]+:: {package.__name__}\.(\w+)$", api, flags=re.MULTILINE))
        assert documented == set(package.__all__)
    for verb in VERBS:
        assert f".. _verb-{verb}:" in reference["command-line"]
    for name in DIAGNOSTICS:
        assert f":name: ``{name}``" in reference["diagnostics"]
    for name, text in reference.items():
        for sign in ("FieldInfo", "PydanticUndefined", " object at 0x", "Annotated["):
            assert sign not in text, (name, sign)


def test_sphinx_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split(r"[>=\[]", one)[0] for one in project["optional-dependencies"]["docs"]} <= pinned


# --- language -------------------------------------------------------------------------------------------------------

# Words and sentences that standard terms have replaced.
REPLACED = [
    r"\bwant(s|ed)?\b",
    r"\bfigures?\b",
    r"\bthe house\b",
    r"\brooms?\b",
    r"\bledgers?\b",
    r"\btold apart\b",
    r"\btells?\b",
    r"the truth like any other draw",
    r"balls around random points",
    r"what the world draws",
    r"what do the latents carry",
    r"how do data lie",
    r"what does the guide lose",
    r"draws enough",
    r"complete, clean, labelled or still",
    r"gone on from",
    r"is no number at",
    r"zero whose gradient",
    r"is to take steps",
    r"what it takes \(bits\)",
    r"has to bear",
]


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_the_terms_are_those_of_the_field(path: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", path.read_text()))
    found = [match.group() for word in REPLACED for match in re.finditer(word, prose, flags=re.IGNORECASE)]
    assert found == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
