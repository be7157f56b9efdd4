"""Markers that need something, and a guard: a test that leaves global state changed fails."""

import contextlib
import importlib
import os
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyro
import pytest
import torch

from vae_pyro.data.datasets import data_root

# Some libraries add warning filters or settings on their first use; let that happen before anything is watched.
torch.testing.assert_close(torch.ones(1), torch.ones(1))
_weight = torch.zeros(1, requires_grad=True)
_weight.grad = torch.zeros(1)
torch.optim.Adam([_weight]).step()
importlib.import_module("h5netcdf")
importlib.import_module("sklearn.datasets")
importlib.import_module("torch.utils.tensorboard")
importlib.import_module("arviz")
importlib.import_module("torchvision")
os.environ["VAE_PYRO_CACHE"] = ""  # tests compile for themselves
for _extra in ("jax", "numpyro"):  # which arviz loads lazily where they are installed
    with contextlib.suppress(ImportError):
        importlib.import_module(_extra)


def _mnist_there() -> bool:
    return (data_root(None) / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.getoption("-m")
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("mnist") and not _mnist_there():
            item.add_marker(pytest.mark.skip(reason="no MNIST under VAE_PYRO_DATA"))
        if item.get_closest_marker("slow") and "slow" not in asked:
            item.add_marker(pytest.mark.skip(reason="slow; run with -m slow"))


def _global_state() -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy generator": str(np.random.get_state()),  # noqa: NPY002 (the global one is what is watched)
        "Python generator": random.getstate(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch validation": torch.distributions.Distribution._Distribution__validate_args
        if hasattr(torch.distributions.Distribution, "_Distribution__validate_args")
        else torch.distributions.Distribution._validate_args,
        "pyro settings": tuple(sorted((key, str(value)) for key, value in pyro.settings.get().items())),
        "parameter store": tuple(sorted(pyro.get_param_store().keys())),
        "matplotlib": dict(mpl.rcParams),
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "folder": Path.cwd(),
        "signal handlers": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "warning filters": list(warnings.filters),
    }


@pytest.fixture(autouse=True)
def _guard_global_state() -> Iterator[None]:
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    if "environment" in changed:
        keys = dict(set(before["environment"].items()) ^ set(after["environment"].items()))
        changed[changed.index("environment")] = f"environment ({', '.join(sorted(keys))})"
    if "warning filters" in changed:
        new = [item for item in after["warning filters"] if item not in before["warning filters"]]
        changed[changed.index("warning filters")] = f"warning filters ({new})"
    pyro.clear_param_store()
    if "torch generator" in changed:
        torch.set_rng_state(torch.frombuffer(bytearray(before["torch generator"]), dtype=torch.uint8))
    if changed:
        pytest.fail(f"the test left global state changed: {', '.join(changed)}")


@pytest.fixture
def own_store() -> Iterator[None]:
    """For tests of stock Pyro, which writes to its global store and draws from torch's generator."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(0)
        yield
