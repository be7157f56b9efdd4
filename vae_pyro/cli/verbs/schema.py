"""``vae-pyro schema``: the kinds of a table's columns as a fit would infer them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from vae_pyro.cli.console import console, print_line
from vae_pyro.cli.options import Kind
from vae_pyro.cli.registration import Topic, verb


@verb(Topic.LIST, "vae-pyro schema people.csv --kind age=real")
def schema(
    data: Annotated[Path, typer.Argument(help="A .csv or .parquet table.")],
    kind: Kind = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the likelihood as a configuration has it.")] = False,
) -> None:
    """Kind of each column of a table: likelihood, range or categories, share missing."""
    from json import dumps

    from vae_pyro.data.tables.inference import infer, parse_kind
    from vae_pyro.data.tables.reading import frame_of

    frame = frame_of(data)
    found = infer(frame, dict(parse_kind(text) for text in kind or []))
    if as_json:
        columns = found.model_dump(mode="json")["columns"]
        typer.echo(dumps({"name": "table", "columns": columns}, indent=1))
        return
    table = Table("column", "kind", "likelihood", "range or categories", "missing", "reason", title=escape(str(data)))
    for row in found.rows():
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for name, reason in found.left_out.items():
        print_line(f"left out: {name}: {reason}", style="yellow")
    print_line(f"{len(frame):,} rows; a log density is one of {found.space}")
