"""Time and peak memory of a step on sparse and on dense rows, each in a process of its own."""

import json
import subprocess
import sys
from itertools import chain, count
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import sparse

from benchmarks import common
from benchmarks.memory import peak
from vae_pyro import VAE, Split, VAEConfig
from vae_pyro.core.minibatches import BitStream
from vae_pyro.data.memory.sparse import SparseSplit
from vae_pyro.data.memory.sparse_rows import SparseRows
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.svi.compiled_svi import CompiledSVI

# Steps that are timed, after as many that are not.
TIMED_STEPS = 20


def step_times(rows: int, columns: int, each: int, dense: bool) -> dict[str, Any]:
    """Milliseconds of a step and of making its batch, and the peak memory of this process, libraries included."""
    random = np.random.default_rng(0)
    start = np.arange(0, (rows + 1) * each, each)
    entries = (random.integers(1, 4, rows * each).astype(np.float32), random.integers(columns, size=rows * each), start)
    split: Split = SparseSplit(SparseRows.of(sparse.csr_array(entries, shape=(rows, columns))))
    del entries
    if dense:
        split = Split(split.stored(slice(None)))
    vae = VAE(VAEConfig(x_shape=(columns,), latent_dim=10, likelihood="poisson", encoder="mlp:hidden=[128]"))
    objective = OBJECTIVES.build(OBJECTIVES.resolve("elbo"))
    svi = CompiledSVI(
        vae.model, vae.guide, torch.optim.Adam(vae.parameters()), objective, prepare=split.observe, compile=True
    )
    stepped: list[float] = []
    made: list[float] = []
    epoch = chain.from_iterable(split.epoch(100, number, BitStream(number)) for number in count())
    for _ in range(2 * TIMED_STEPS):
        began = perf_counter()
        raw = next(epoch)
        batched = perf_counter()
        float(svi.step_tensor(*raw))
        made.append(1e3 * (batched - began))
        stepped.append(1e3 * (perf_counter() - began))
    return {
        "rows": rows,
        "columns": columns,
        "each": each,
        "dense": dense,
        "step": vars(common.Spread.of(stepped[TIMED_STEPS:])),
        "batch": vars(common.Spread.of(made[TIMED_STEPS:])),
        "peak": peak(),
    }


def in_process(rows: int, columns: int, each: int, dense: bool) -> dict[str, Any]:
    """`step_times` in a process of its own, for its own peak of memory."""
    options = json.dumps({"rows": rows, "columns": columns, "each": each, "dense": dense})
    command = [sys.executable, "-m", "benchmarks.sparse.step_times", options]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return measured


if __name__ == "__main__":
    print(json.dumps(step_times(**json.loads(sys.argv[1]))))
