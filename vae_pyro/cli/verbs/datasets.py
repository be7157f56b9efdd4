"""``vae-pyro datasets``: data sets by name."""

from rich.table import Table

from vae_pyro.cli.console import console
from vae_pyro.cli.registration import Topic, verb


@verb(Topic.LIST, "vae-pyro datasets")
def datasets() -> None:
    """Named data sets; fit also takes a path to .npy, .npz, .csv, .parquet, .zarr or a folder of images."""
    from vae_pyro.data.datasets import DATASETS

    table = Table("name", "content", title="fit NAME or fit PATH")
    for name in DATASETS:
        table.add_row(name, DATASETS.summary(name))
    console.print(table)
