"""A run folder with its model and data, as most verbs begin."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vae_pyro.data.dataset import Dataset
    from vae_pyro.data.split import Split
    from vae_pyro.models.vae import VAE
    from vae_pyro.runs.folder import RunFolder


def open_model(run: Path, device: str) -> "tuple[RunFolder, VAE]":
    """A run and its model.

    Raises:
        RunError: the run cannot be used.
        ValueError: no such device.
    """
    from vae_pyro.runs.folder import RunFolder
    from vae_pyro.training.config import FitConfig

    folder = RunFolder(run)
    return folder, folder.load_model(FitConfig(device=device).torch_device())


def open_split(run: Path, split: str, data_root: Path | None, device: str) -> "tuple[RunFolder, VAE, Split]":
    """A run, its model and one split of its data.

    Raises:
        RunError: the run cannot be used, or its data have changed.
        ValueError: no such split, or one without data.
    """
    folder, vae, data = open_all(run, data_root, device)
    return folder, vae, data.split(split)


def open_all(run: Path, data_root: Path | None, device: str) -> "tuple[RunFolder, VAE, Dataset]":
    """A run, its model and all its data.

    Raises:
        RunError: the run cannot be used, or its data have changed.
        FileNotFoundError: its data are not there; nothing is downloaded.
    """
    from vae_pyro.core.files import RunError
    from vae_pyro.data.datasets import without_downloads

    folder, vae = open_model(run, device)
    with without_downloads():
        data = folder.data_config(data_root).load()
    facts = folder.facts()
    if facts.fingerprint != data.facts.fingerprint:
        raise RunError(
            f"the data of {str(run)!r} have changed: {data.config.source!r} now has fingerprint "
            f"{data.facts.fingerprint[:12]}, the run was fitted on {facts.fingerprint[:12]}"
        )
    return folder, vae, data


def other_data(
    run: Path, data: str, data_root: Path | None, device: str, *, classes: bool = True
) -> "tuple[RunFolder, VAE, Split]":
    """A run, its model, and all of other data, observed as the run's are and accepted by the model.

    Args:
        run: the folder.
        data: name or path.
        data_root: folder of downloaded data sets.
        device: of the model.
        classes: whether the programs are given classes where they require them; a classifier infers them.

    Raises:
        RunError: the run cannot be used.
        FileNotFoundError: no such data.
        ValueError: data of another shape, a table that lacks a column, or data outside the support of the likelihood.
    """
    import torch

    from vae_pyro.data.dataset import load_all

    folder, vae = open_model(run, device)
    config = folder.data_config(data_root).replace(source=data, stream=None)
    facts = folder.facts()
    if facts.schema is not None:  # codes are those of the run's table, whatever categories the other table has
        config = config.replace(kinds=None, columns=facts.schema.columns)
    chosen = load_all(config, facts)
    if chosen.y is not None and not vae.num_classes:
        chosen = chosen.replace(y=None)
    # A classifier tries every class: this one stands for them.
    tried = None if classes or not vae.num_classes else torch.zeros(1, dtype=torch.int64)
    vae.check_data(chosen, blank=True, y=tried)
    return folder, vae, chosen
