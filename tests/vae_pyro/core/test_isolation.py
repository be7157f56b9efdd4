from typing import Any

import numpy as np
import pyro
import pytest
import torch

from vae_pyro.core.isolation import RandomStream, derive_seed, isolated, seeded


def test_the_same_seed_gives_the_same_draws_and_restores_the_caller() -> None:
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.randn(4)
    with seeded(3):
        second = torch.randn(4)
    with seeded(4):
        other = torch.randn(4)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_isolation_removes_parameters_and_restores_flags_even_after_an_error() -> None:
    validation = pyro.settings.get("validate_distributions_pyro")
    with pytest.raises(RuntimeError), isolated(0):  # noqa: PT012 (the block is the point)
        pyro.param("left_behind", torch.zeros(2))
        raise RuntimeError
    assert "left_behind" not in pyro.get_param_store()
    assert pyro.settings.get("validate_distributions_pyro") == validation


def test_isolation_keeps_parameters_that_were_there() -> None:
    with pyro.get_param_store().scope():
        pyro.param("mine", torch.ones(1))
        with isolated(0):
            assert float(pyro.param("mine").detach()) == 1.0
        assert "mine" in pyro.get_param_store()


def test_streams_do_not_collide() -> None:
    seeds = {derive_seed(seed, stream, step) for seed in range(20) for stream in range(5) for step in range(50)}
    assert len(seeds) == 20 * 5 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(0) != derive_seed(0, 0)


def test_a_stream_goes_on_where_it_was_left() -> None:
    with isolated(5):
        whole = torch.randn(7)
    stream = RandomStream(5)
    parts = []
    with torch.random.fork_rng():
        for size in (3, 4):
            torch.manual_seed(size)
            before = torch.get_rng_state()
            with stream.active():
                parts.append(torch.randn(size))
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("seed", [1 << 64, 1 << 80, -(1 << 63) - 1])
def test_seeds_beyond_64_bits_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed has at most 64 bits, .* got {seed}"):
        derive_seed(seed)
    with pytest.raises(ValueError, match="seed has at most 64 bits"), seeded(seed):
        pass
    assert len({derive_seed(one) for one in (0, (1 << 64) - 1, -(1 << 63), 1 << 62)}) == 4


@pytest.mark.parametrize("seed", [1.5, "1", None, np.float64(1)])
def test_seeds_are_integers(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed is an integer, got"):
        derive_seed(seed)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_seeds_of_numpy_are_those_of_python(kind: type) -> None:
    assert derive_seed(kind(3), 1, 2) == derive_seed(3, 1, 2)
    with seeded(kind(3)):
        one = torch.randn(3)
    with seeded(3):
        assert torch.equal(one, torch.randn(3))
