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
