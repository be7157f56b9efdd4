"""Reference pages that are written from the package itself: exports, variants, settings, diagnostics, commands.

The pages are written into ``docs/reference/generated`` before Sphinx reads its sources, and a file is written only
where its text has changed. Nothing is listed by hand: an export, a variant or a verb that is added is on its page at
the next build.
"""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import analysis
import vae_pyro
from analysis import DIAGNOSTICS, ReportConfig
from vae_pyro import DATASETS, PRESETS, READERS, Choice, DataConfig, FitConfig, Registry, VAEConfig
from vae_pyro.cli.main import app as command_line
from vae_pyro.cli.registration import VERBS, Topic
from vae_pyro.training.settings import CHOICES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(vae_pyro.__file__).parent.parent
CONFIGS: dict[str, type[BaseModel]] = {"model": VAEConfig, "fit": FitConfig, "data": DataConfig, "report": ReportConfig}


def title(text: str, line: str = "=") -> str:
    """A heading of reStructuredText."""
    return f"{text}\n{line * len(text)}\n"


def escaped(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\*`|_<>])", r"\\\1", " ".join(text.split()))


def literal(text: str) -> str:
    """Text as code; nothing where it is empty."""
    return f"``{text}``" if text else ""


def table(header: Iterable[str], rows: Iterable[Iterable[str]], widths: str = "auto") -> str:
    """A table; its cells are reStructuredText on one line each."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in (header, *rows):
        lines += [f"   {'* -' if column == 0 else '  -'} {cell}" for column, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def type_of(annotation: Any) -> str:
    """A type as a reader would write it: aliases resolved, constraints as inequalities, no modules."""
    if isinstance(annotation, TypeAliasType):
        return type_of(annotation.__value__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [bound for one in arguments[1:] for bound in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return " ".join(filter(None, [type_of(arguments[0]), bounds_of(bounds)]))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(type_of, arguments)))
    if origin is Literal:
        return ", ".join(map(repr, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if one is ... else type_of(one) for one in arguments)}]"
    return {type(None): "None", Choice: "choice"}.get(annotation, getattr(annotation, "__name__", "None"))


def bounds_of(metadata: Iterable[Any]) -> str:
    """Constraints of a number, as inequalities."""
    signs = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
    return ", ".join(f"{sign} {getattr(one, key):g}" for one in metadata for key, sign in signs if hasattr(one, key))


def options_of(model: type[BaseModel]) -> list[list[str]]:
    """Name, type and default of each field; rows of a table."""
    rows = []
    for name, field in model.model_fields.items():
        kind = " ".join(filter(None, [type_of(field.annotation), bounds_of(field.metadata)]))
        default = "required" if field.default is PydanticUndefined else literal(shown(field.default))
        rows.append([literal(name), escaped(kind), default])
    return rows


def shown(value: Any) -> str:
    """A default value; a choice as it is written on the command line."""
    return repr(value) if isinstance(value, str) else str(value)


def source_of(value: Any) -> str:
    """File of a class or function, relative to the repository."""
    return str(Path(inspect.getfile(value)).resolve().relative_to(ROOT))


# --- exports --------------------------------------------------------------------------------------------------------


def exports(package: Any) -> dict[str, list[tuple[str, str]]]:
    """Exported names and their modules, by folder of the package, as the stub lists them."""
    folders: dict[str, list[tuple[str, str]]] = {}
    stub = Path(package.__file__).with_suffix(".pyi")
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                folders.setdefault(node.module.partition(".")[0], []).append((alias.name, node.module))
    return folders


def entry(package: str, name: str) -> str:
    """The directive that documents one exported name."""
    value = getattr(import_module(package), name)
    full = f"{package}.{name}"
    if inspect.isclass(value):
        return f".. autoclass:: {full}\n   :members:\n   :exclude-members: model_config\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {full}\n"
    if isinstance(value, Registry):
        kind = next((kind for kind, known in CHOICES.items() if known is value), None)
        more = f"See :doc:`variants-{kind}`." if kind and kind != "decoder" else "See :doc:`the listings <index>`."
        return f".. py:data:: {full}\n\n   The registry of {value.kind}s, a `vae_pyro.Registry`. {more}\n"
    described = inspect.getdoc(value) if not isinstance(value, dict | tuple) else None
    if described and described != inspect.getdoc(type(value)):
        return f".. autodata:: {full}\n   :no-value:\n"
    return f".. py:data:: {full}\n\n   Of type ``{type(value).__name__}``.\n"


def pages_of_exports() -> Iterator[tuple[str, str]]:
    """A page for each folder of each package that exports something."""
    for package in (vae_pyro, analysis):
        for folder, names in exports(package).items():
            name = f"{package.__name__}.{folder}"
            about = (inspect.getdoc(import_module(name)) or "").partition("\n\n")[0]
            lines = [title(name), about, "", f".. py:currentmodule:: {package.__name__}\n"]
            yield f"api-{name}", "\n".join([*lines, *(entry(package.__name__, one) for one, _ in sorted(names))])


# --- variants, settings, diagnostics --------------------------------------------------------------------------------


def pages_of_variants() -> Iterator[tuple[str, str]]:
    """A page for each registry of a setting: all variants with options, defaults and source."""
    for kind, registry in CHOICES.items():
        lines = [title(f"{kind.capitalize()} variants")]
        lines.append(f"Written as ``{kind}=NAME`` or ``{kind}=NAME:option=value,option=value``.\n")
        lines.append(table(["name", "summary"], [[f"`{name}`_", registry.summary(name)] for name in registry], "25 75"))
        for name in registry:
            variant = registry[name]
            lines += [f".. _{name}:\n", title(name, "-"), f"Source: ``{source_of(variant)}``\n"]
            rows = options_of(registry.options(name))
            lines.append(table(["option", "type", "default"], rows) if rows else "No options.\n")
            directive = "autoclass" if inspect.isclass(variant) else "autofunction"
            lines.append(f".. {directive}:: {variant.__module__}.{variant.__qualname__}\n   :no-index:\n")
        text = "\n".join(lines)
        # Targets of sections are global in reStructuredText, and two registries may share a name.
        for name in registry:
            target = f"{kind}-{name}".replace("_", "-")
            text = text.replace(f"`{name}`_", f":ref:`{name} <{target}>`").replace(f".. _{name}:", f".. _{target}:")
        yield f"variants-{kind}", text


def page_of_settings() -> tuple[str, str]:
    """All settings of model, fit, data and report."""
    lines = [title("Settings"), "Set from the command line by ``--set key=value``, where the key is unique, or by "]
    lines[-1] += "``--set section.key=value``; in a TOML file by the tables ``model``, ``fit`` and ``data``.\n"
    for section, config in CONFIGS.items():
        name = f"{'analysis' if config is ReportConfig else 'vae_pyro'}.{config.__name__}"
        lines += [title(f"{section}: {config.__name__}", "-"), f"Described in :py:class:`{name}`.\n"]
        lines.append(table(["key", "type", "default"], options_of(config)))
    return "settings", "\n".join(lines)


def page_of_diagnostics() -> tuple[str, str]:
    """All diagnostics in the order of a report."""
    lines = [
        title("Diagnostics"),
        "In the order of the report; ``vae-pyro report RUN --only NAME`` runs one of them.\n",
    ]
    for name in DIAGNOSTICS:
        kind = DIAGNOSTICS[name]
        lines += [title(kind.title, "-"), f":name: ``{name}``", f":question: {escaped(kind.question)}"]
        lines += [f":summary: {DIAGNOSTICS.summary(name)}", f":source: ``{source_of(kind)}``"]
        if kind.requires:
            lines.append(f":requires: {', '.join(str(one) for one in kind.requires)}")
        lines.append("")
        if rows := options_of(kind.Options):
            lines.append(table(["option", "type", "default"], rows))
    return "diagnostics", "\n".join(lines)


def page_of_data() -> tuple[str, str]:
    """Data sets, formats and presets by name."""
    lines = [title("Data sets, formats and presets"), title("Data sets", "-")]
    for registry, heading in ((DATASETS, ""), (READERS, "Formats")):
        lines += [title(heading, "-")] if heading else []
        lines.append(table(["name", "content"], [[literal(one), registry.summary(one)] for one in registry], "25 75"))
    lines.append(title("Presets", "-"))
    rows = [[literal(name), escaped(chosen.source)] for name, chosen in PRESETS.items()]
    lines.append(table(["name", "source"], rows, "25 75"))
    return "data", "\n".join(lines)


# --- command line ---------------------------------------------------------------------------------------------------


def described(text: str | None) -> str:
    """A help text without the markup of rich."""
    return escaped(re.sub(r"\[/?[a-z ]*\]", "", text or ""))


def parameter_row(parameter: Any) -> list[str]:
    """Name, description and default of an argument or option."""
    if parameter.param_type_name == "argument":
        return [literal((parameter.metavar or parameter.name).upper()), described(getattr(parameter, "help", "")), ""]
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    plain = isinstance(default, str | int | float) and default is not False and default != ""
    return [literal(names), described(parameter.help), literal(str(default)) if plain else ""]


def page_of_commands() -> tuple[str, str]:
    """Every verb with its arguments and options."""
    group: Any = typer.main.get_command(command_line)
    lines = [title("Command line"), "``vae-pyro VERB --help`` prints the same.\n"]
    for topic in Topic:
        lines.append(title(topic.value, "-"))
        for name, verb in sorted(VERBS.items()):
            if verb.topic is not topic:
                continue
            command = group.commands[name]
            lines += [f".. _verb-{name}:\n", title(name, "~"), described(command.help), "\n.. code-block:: console\n"]
            lines.append(f"   $ {verb.example}\n")
            panels: dict[str, list[list[str]]] = {}
            for parameter in command.params:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panel = getattr(parameter, "rich_help_panel", None) or kind
                panels.setdefault(panel, []).append(parameter_row(parameter))
            for panel, rows in panels.items():
                lines += [f"**{escaped(panel)}**\n", table(["name", "meaning", "default"], rows, "30 55 15")]
    return "command-line", "\n".join(lines)


def pages() -> dict[str, str]:
    """Every page by name, the index last."""
    made = dict([*pages_of_exports(), *pages_of_variants(), page_of_settings(), page_of_diagnostics(), page_of_data()])
    made |= dict([page_of_commands()])
    groups = {
        "Command line and settings": ["command-line", "settings", "data", "diagnostics"],
        "Variants": [name for name in made if name.startswith("variants-")],
        "Python: vae_pyro": [name for name in made if name.startswith("api-vae_pyro")],
        "Python: analysis": [name for name in made if name.startswith("api-analysis")],
    }
    lines = [title("Listings"), "Generated from the package at every build of this documentation.\n"]
    for caption, names in groups.items():
        lines += [".. toctree::", "   :maxdepth: 1", f"   :caption: {caption}", "", *(f"   {one}" for one in names), ""]
    return made | {"index": "\n".join(lines)}


def write_pages(app: "Sphinx") -> None:
    """Write the pages whose text has changed, and remove those that are no longer made."""
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for old in folder.glob("*.rst"):
        if old.stem not in made:
            old.unlink()
    for name, text in made.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def without_signature(_app: "Sphinx", what: str, _name: str, value: Any, *_rest: Any) -> tuple[str, None] | None:
    """Configurations and results list their fields in the docstring; their constructors would repeat them."""
    if what == "class" and (isinstance(value, type) and issubclass(value, BaseModel)):
        return "(**settings)", None
    return None


def setup(app: "Sphinx") -> dict[str, Any]:
    """Entry point of the extension."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-signature", without_signature)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
