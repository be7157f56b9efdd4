"""Draws of a fitted model, with masks and classes drawn as in the data."""

from collections.abc import Iterator

import torch

from vae_pyro.data.split import Split
from vae_pyro.densities.programs.simulation import simulate
from vae_pyro.densities.walk import ELEMENTS_AT_ONCE, PairData
from vae_pyro.training.refit.methods import Batch

# Batches that are drawn at once.
_MOST_BATCHES = 16


class Simulator:
    """Latents and data of the model, in the form in which a guide is given data.

    Args:
        data: the pair, bound to some data.
        like: data whose masks and classes, row by row, the simulated data are given.

    Raises:
        ValueError: the model draws no data, or other latents than the guide.
    """

    def __init__(self, data: PairData, like: Split) -> None:
        self._data, self._like = data, like
        data.programs.require("amortized", "draws", "latents")
        few = self.draw(2)
        drawn = data.programs.draw(few.x, 1, **few.given).latents
        if set(drawn) != set(few.latents):
            raise ValueError(
                f"the latents of the model are {sorted(few.latents)}, those of the guide {sorted(drawn)}: simulated "
                "data have no latents of the guide's (as where the mask is part of the model); choose method='wake'"
            )

    def draw(self, size: int) -> Batch:
        """So many data with their latents, from torch's generator as it stands."""
        data, like = self._data, self._like
        given = {}
        if like.mask is not None or like.y is not None:
            rows = torch.randint(len(like), (size,)).to(like.device)
            given = {name: value.to(data.device) for name, value in like.given(rows).items()}
        x, latents, _ = simulate(data.programs, size, y=given.get("y"))
        x = x.to(data.device, data.dtype)
        if "mask" in given:
            x = torch.where(given["mask"], x, torch.zeros_like(x))
        return Batch(x, given, latents)

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches without end; several are drawn at once."""
        count = min(max(ELEMENTS_AT_ONCE // (size * self._data.width), 1), _MOST_BATCHES)
        while True:
            drawn = self.draw(size * count)
            for start in range(0, size * count, size):
                yield part_of(drawn, slice(start, start + size))


def part_of(batch: Batch, rows: slice) -> Batch:
    """Some data of a batch."""
    return Batch(
        batch.x[rows],
        {name: value[rows] for name, value in batch.given.items()},
        {name: value[rows] for name, value in batch.latents.items()},
    )
