"""``vae-pyro presets``: reference configurations by name."""

from rich.table import Table

from vae_pyro.cli.console import console
from vae_pyro.cli.registration import Topic, verb


@verb(Topic.LIST, "vae-pyro presets")
def presets() -> None:
    """Reference configurations, and the source of each."""
    from vae_pyro.models.presets import PRESETS

    table = Table("preset", "fit", "source", title="fit DATA --preset NAME")
    for name, chosen in PRESETS.items():
        optimizer, batch, length = (chosen.fit[key] for key in ("optimizer", "batch_size", "epochs"))
        table.add_row(name, f"{optimizer}; batch {batch}; {length} epochs", chosen.source)
    console.print(table)
