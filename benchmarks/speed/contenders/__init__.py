"""The contenders of `benchmarks.speed`: one class for each way to train the same VAE on the same data.

Each runs in its own process (`benchmarks.speed.worker`). `setup` builds it and takes the first step, which includes
compilation; `epoch` is timed. Libraries are imported inside `setup`, so that NumPyro's process does not load torch, nor
torch's process jax.
"""

from collections.abc import Callable

from benchmarks.speed.contenders.base import Contender
from benchmarks.speed.contenders.compiled_svi import Compiled
from benchmarks.speed.contenders.numpyro_svi import NumPyro
from benchmarks.speed.contenders.stock_svi import StockSVI
from benchmarks.speed.contenders.torch_scripts import HandWritten, UsualScript

CONTENDERS: dict[str, Callable[[], Contender]] = {
    "torch": HandWritten,
    "dataloader": UsualScript,
    "stock": StockSVI,
    "numpyro": NumPyro,
    "compiled": Compiled,
    "ensemble-1": lambda: Compiled(1),
    "ensemble-4": lambda: Compiled(4),
    "ensemble-16": lambda: Compiled(16),
}
