"""What does not fit into memory is refused with its size before it is allocated."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from vae_pyro import VAE, VAEConfig
from vae_pyro.core import memory
from vae_pyro.core.isolation import seeded
from vae_pyro.core.memory import (
    allocations_within_memory,
    in_units,
    is_out_of_memory,
    memory_bytes,
    require_memory,
)


def test_sizes_are_compared_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 << 28 < memory_bytes() < 1 << 50
    monkeypatch.setattr(memory, "memory_bytes", lambda: 1 << 30)
    require_memory(1 << 30, "a table")
    with pytest.raises(
        ValueError, match=r"^a table take 3 GiB of memory, and at most 1 GiB are there; take fewer rows$"
    ):
        require_memory(3 << 30, "a table", "take fewer rows")
    assert [in_units(size) for size in (0, 1023, 1 << 20, 2.0**71)] == ["0 bytes", "1,023 bytes", "1 MiB", "2,048 EiB"]


def test_tensors_are_added_up_and_the_one_that_does_not_fit_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory_bytes", lambda: 4096)
    with seeded(0), allocations_within_memory("two", "make one"):
        torch.zeros(500)
        torch.nn.Linear(10, 10)
    with allocations_within_memory("three", "make one"):
        torch.zeros(500)
        torch.zeros(500)
        with pytest.raises(ValueError, match="three take 5.86 KiB of memory.*make one"):
            torch.zeros(500)
    with pytest.raises(ValueError, match=r"four have more than 2\^63 elements"), allocations_within_memory("four", "x"):
        torch.empty(1 << 62, 1 << 62)


def test_generators_are_as_they_were_without_the_watch() -> None:
    made = []
    for watched in (False, True):
        generator = torch.Generator().manual_seed(4)
        watch = allocations_within_memory("some", "x") if watched else nullcontext()
        with seeded(3), watch:
            made.append((torch.randn(5), torch.rand(3, generator=generator)))
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"latent_dim": 10**13},
        {"latent_dim": 2**62},
        {"latent_dim": 10**6, "posterior": "full_rank", "encoder": "mlp:hidden=[4]"},
        {"latent_dim": 2, "encoder": "mlp:hidden=[400000000,400]"},
        {"latent_dim": 2, "structure": "m2:num_classes=100000000000"},
        {"latent_dim": 2, "prior": "mixture:components=10000000000000"},
        {"latent_dim": 2, "x_shape": (1, 8, 8), "encoder": "conv:channels=[100000000000]"},
    ],
)
def test_weights_beyond_memory_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="the weights of the VAE of latent_dim=.* (take .*iB of memory|more than 2)"):
        VAE(VAEConfig(**{"x_shape": (784,), **options}))


def test_a_failed_allocation_is_known_whoever_tried_it() -> None:
    for allocate in (lambda: np.empty(1 << 62, np.uint8), lambda: torch.empty(1 << 55), lambda: bytearray(1 << 62)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("a bug"))
