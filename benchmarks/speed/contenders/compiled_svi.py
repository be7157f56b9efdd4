"""`CompiledSVI` on the VAE of `vae_pyro`: a single run, or an ensemble."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.speed.contenders.stock_svi import VAEContender, layers_of
from benchmarks.speed.contenders.torch_scripts import set_weights, without_effect
from benchmarks.speed.task import eps_for_sum


class Compiled(VAEContender):
    """`vae_pyro.svi.compiled_svi.CompiledSVI`: a single run, or an ensemble."""

    compiles = True
    about = "`CompiledSVI.run_epoch`, `Trace_ELBO`, torch's Adam, bytes in memory"

    def __init__(self, members: int | None = None) -> None:
        self.num_ensemble = members
        if members is not None:
            self.about = f"`CompiledSVI(..., num_ensemble={members})`; times are per member"
        self.members = members or 1

    def build(self) -> None:
        self.pair = self.vae()
        self.optimizer = self.adam(self.pair.parameters(), eps=eps_for_sum(self.task.batch))
        self.svi, self.run = compiled_svi(self, self.num_ensemble)
        self.epochs = 0

    def warm_up(self, steps: int) -> None:
        with without_effect(self.optimizer):
            self.run(steps * self.task.batch, self.task.seed)
        reset_members(self.svi)

    def epoch(self) -> float:
        self.epochs += 1
        return float(np.mean(self.run(None, self.task.seed + self.epochs)))


def compiled_svi(contender: Compiled, members: int | None) -> tuple[Any, Callable[[int | None, int], Any]]:
    """The SVI of a contender and its epochs; with `reset_members`, the only user of `CompiledSVI`'s interface.

    Returns:
        The SVI, and ``run(num_images, seed)``, which trains once on the first ``num_images`` (``None``: all) and
        returns the mean loss in nats per datum, or those of the members.
    """
    from pyro.infer import Trace_ELBO

    from vae_pyro.data.split import Split
    from vae_pyro.svi.compiled_svi import CompiledSVI

    pair, task = contender.pair, contender.task
    split = Split(contender.resident(), top=255.0, draw="binarize")
    options: dict[str, Any] = {}
    if members is not None:

        def initialize(seed: int) -> None:
            set_weights(layers_of(pair), replace(task, seed=seed))

        options = {
            "num_ensemble": members,
            "seeds": [task.seed + number for number in range(members)],
            "initialize": initialize,
        }
    svi = CompiledSVI(
        pair.model, pair.guide, contender.optimizer, Trace_ELBO(), prepare=split.observe, compile=True, **options
    )

    def run(num_images: int | None, seed: int) -> Any:
        some = split if num_images is None else split.take(slice(num_images))
        return svi.run_epoch(some, batch_size=task.batch, seed=seed, drop_last=True)

    return svi, run


def reset_members(svi: Any) -> None:
    """Set the moments and counts of an ensemble's optimizer to zero, which the torch optimizer does not hold."""
    for slot in [] if svi.ensemble is None else svi.ensemble.slots:
        slot.count.zero_()
        for tensor in slot.state().values():
            tensor.zero_()
