"""``vae-pyro``: the command line, made of the verbs that `vae_pyro.cli.verbs` holds."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from vae_pyro import __version__
from vae_pyro.cli import verbs
from vae_pyro.cli.console import Group
from vae_pyro.cli.registration import VERBS, Topic


class VerbCommand(TyperCommand):
    """Refuses former names of options with the present ones."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        renamed = VERBS[self.name or ""].renamed
        for word in args:
            name = word.partition("=")[0]
            if name in renamed:
                raise typer.BadParameter(f"{name} is now {renamed[name]}", ctx)
        return super().parse_args(ctx, args)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vae-pyro {__version__}")
        raise typer.Exit


def command_line() -> typer.Typer:
    """The application of all verbs: every module of `vae_pyro.cli.verbs` is imported, and nothing that takes long."""
    for module in iter_modules(verbs.__path__):
        import_module(f"{verbs.__name__}.{module.name}")
    made = typer.Typer(
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        help="Variational autoencoders as Bayesian models in Pyro: fit them, and check how far their posterior holds.",
    )

    @made.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None: ...

    order = list(Topic)
    for one in sorted(VERBS.values(), key=lambda verb: (order.index(verb.topic), verb.name)):
        made.command(
            one.name,
            cls=VerbCommand,
            epilog=f"[dim]Example:[/] [bold]{escape(one.example)}[/]",
            rich_help_panel=one.topic.value,
        )(one.function)
    return made


app = command_line()


def main() -> None:
    """Entry point of the console script."""
    app()
