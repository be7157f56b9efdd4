"""``vae-pyro schema``: what the columns of a table are taken for, before anything is fitted."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from vae_pyro.cli.console import Kind, console


def schema(
    data: Annotated[Path, typer.Argument(help="A .csv or .parquet table.")],
    kind: Kind = None,
    json: Annotated[bool, typer.Option("--json", help="Print the likelihood as a configuration has it.")] = False,
) -> None:
    """Show what each column of a table is taken for: kind, likelihood, range or categories, share missing."""
    from json import dumps

    from rich.table import Table

    from vae_pyro.data.tables.inference import infer, parse_kind
    from vae_pyro.data.tables.reading import frame_of

    frame = frame_of(data)
    found = infer(frame, dict(parse_kind(text) for text in kind or []))
    if json:
        columns = found.model_dump(mode="json")["columns"]
        typer.echo(dumps({"name": "table", "columns": columns}, indent=1))
        return
    table = Table("column", "kind", "likelihood", "range or categories", "missing", title=escape(str(data)))
    for row in found.rows():
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for name, reason in found.left_out.items():
        console.print(f"left out: {escape(name)}: {escape(reason)}", style="yellow", highlight=False)
    console.print(f"{len(frame):,} rows; a log density is one of {escape(found.space)}", highlight=False)
