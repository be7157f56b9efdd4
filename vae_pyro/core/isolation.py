"""Run a Pyro program and leave nothing behind: no random state, parameter, or validation flag is changed."""

import logging
import operator
import os
import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyro
import torch

# Torch's generators, Pyro's parameter store and its validation belong to the process: what runs in one of its threads
# waits until what runs in another has put them back.
_SERIAL = threading.RLock()


def derive_seed(seed: int, *stream: int) -> int:
    """A seed for one of many independent random streams of a run.

    SplitMix64's finaliser over the words of ``(seed, *stream)``, so that neighbouring seeds and streams share nothing.

    Args:
        seed: the run's seed.
        stream: numbers that name the stream, an epoch for instance.

    Returns:
        An integer in ``[0, 2**63)``.

    Raises:
        ValueError: see `checked_seed`.

    References:
        Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators, OOPSLA, fig. 17.
        doi:10.1145/2660193.2660195
    """
    mask = (1 << 64) - 1
    state = 0
    for word in (checked_seed(seed), *map(int, stream)):
        state = (state + 0x9E3779B97F4A7C15 + (word & mask)) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


def checked_seed(seed: int) -> int:
    """A seed as a Python integer; NumPy's integers are taken as well.

    Raises:
        ValueError: no integer, or one of more than 64 bits, of which the lower ones alone would be used.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise ValueError(f"seed is an integer, got {seed!r} ({type(seed).__name__})") from None
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"seed has at most 64 bits, -2**63 to 2**64 - 1, got {number}")
    return number


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from generators seeded with ``seed``, and put the caller's generators back afterwards.

    Threads of a process take turns, since the generators are those of all.

    Args:
        seed: for the CPU and every CUDA device; ``None`` draws from the caller's generators as they are.

    Raises:
        ValueError: see `checked_seed`.
    """
    if seed is None:
        yield
        return
    seed = checked_seed(seed)
    started = torch.cuda.is_initialized()
    with _SERIAL, torch.random.fork_rng(range(torch.cuda.device_count()) if started else ()):
        if started:
            torch.manual_seed(seed)
        else:  # torch.manual_seed would queue the seed for CUDA as well, which nothing takes back
            torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def isolated(seed: int | None = None, *, validate: bool = False) -> Iterator[None]:
    """Run Pyro programs with their own random state and without a trace in Pyro's parameter store, see `seeded`.

    Parameters that are in the store already stay visible and unchanged in name; those that the programs add are
    taken out again.

    Args:
        seed: see `seeded`.
        validate: Pyro's validation inside the block. It costs a synchronisation for each distribution, so callers
            that have checked their data leave it off.
    """
    with _SERIAL:
        store = pyro.get_param_store()
        before = set(store.keys())
        try:
            with seeded(seed), pyro.validation_enabled(validate):
                yield
        finally:
            for name in set(store.keys()) - before:
                del store[name]


class RandomStream:
    """One stream of torch's random numbers, entered and left any number of times.

    What is drawn inside `active` depends on the seed and on what the stream has drawn before, not on what anything else
    draws in between.

    Args:
        seed: of the stream, for the CPU and every CUDA device.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[torch.Tensor, list[torch.Tensor]] | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Draw from the stream, as in `isolated`, and put the caller's generators back afterwards."""
        with isolated(self._seed):
            if self._states is not None:
                torch.default_generator.set_state(self._states[0])
                if self._states[1]:
                    torch.cuda.set_rng_state_all(self._states[1])
            try:
                yield
            finally:
                on_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
                self._states = torch.default_generator.get_state(), on_cuda


@contextmanager
def muted(logger_name: str, level: int) -> Iterator[None]:
    """Without what a logger says below a level; its own level is put back."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Import and run a compiler's machinery without what it leaves: environment, generators, filters, remarks.

    torch's tracer and Inductor set environment variables and draw from NumPy's and Python's generators when they are
    first used, and remark on machines without a GPU that there is none.
    """
    environment = dict(os.environ)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the global one is what is kept)
    try:
        with muted("torch.utils.cpp_extension", logging.ERROR), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
