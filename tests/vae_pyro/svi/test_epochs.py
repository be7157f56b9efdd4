"""Epochs: every datum once, the same bits for the same seed, and blocks of steps that are the steps one by one."""

import warnings

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from tests.vae_pyro.svi.programs import (
    OPTIMIZERS,
    data,
    grey,
    lazy_pair,
    small_vae,
    torch_svi,
    values,
)
from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.minibatches import BitStream, batches
from vae_pyro.data.split import Split
from vae_pyro.svi.compiled_svi import CompiledSVI, SVIFallbackWarning


def test_an_epoch_steps_through_every_datum_once() -> None:
    x, vae = data(43), small_vae()
    svi = torch_svi(vae, compile=False)
    torch.manual_seed(0)
    got = svi.run_epoch(x, batch_size=10, seed=3)
    pyro.clear_param_store()
    again = torch_svi(small_vae(), compile=False)
    torch.manual_seed(0)
    order = list(batches(43, 10, derive_seed(3, 1), x.device))
    assert sorted(torch.cat(order).tolist()) == list(range(43))
    assert [len(index) for index in order] == [10, 10, 10, 10, 3]
    total = sum(again.step(x[index]) for index in order)
    assert got == pytest.approx(total / 43, rel=1e-12)
    assert len(list(batches(43, 10, 0, x.device, drop_last=True))) == 4


def test_the_same_seed_gives_the_same_bits_and_so_does_resuming() -> None:
    split, whole = grey(), []
    for _ in range(2):
        pyro.clear_param_store()
        vae = small_vae()
        svi = torch_svi(vae, prepare=lambda *raw: split.observe(*raw, dtype=torch.float64), compile=False)
        torch.manual_seed(0)
        whole.append([svi.run_epoch(split, batch_size=10, seed=epoch) for epoch in range(3)])
        expected = values(vae)
    assert whole[0] == whole[1]

    pyro.clear_param_store()
    vae = small_vae()
    svi = torch_svi(vae, prepare=lambda *raw: split.observe(*raw, dtype=torch.float64), compile=False)
    torch.manual_seed(0)
    svi.run_epoch(split, batch_size=10, seed=0)
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    state, generator = svi.optimizer.state_dict(), torch.get_rng_state()
    state = {
        "state": {k: {n: v.clone() for n, v in s.items()} for k, s in state["state"].items()},
        **{"param_groups": state["param_groups"]},
    }
    pyro.clear_param_store()
    fresh = small_vae(seed=9)
    fresh.load_state_dict(weights)
    svi = torch_svi(fresh, prepare=lambda *raw: split.observe(*raw, dtype=torch.float64), compile=False)
    svi.optimizer.load_state_dict(state)
    torch.set_rng_state(generator)
    assert [svi.run_epoch(split, batch_size=10, seed=epoch) for epoch in (1, 2)] == whole[0][1:]
    assert all(torch.equal(a, b) for a, b in zip(expected, values(fresh), strict=True))


def test_random_words_observe_bernoulli_with_the_right_probability() -> None:
    """Each grey level's share of ones; |z| < 5 over 256 levels fails by chance in 1.5e-4 of streams (one, fixed)."""
    levels = torch.arange(256, dtype=torch.uint8).repeat(4000, 1)
    split = Split(levels, top=255.0, draw="binarize")
    (x,), _ = split.observe(*split.raw(torch.arange(4000), BitStream(7)))
    share, probability = x.double().mean(0), torch.arange(256).double() / 255
    assert torch.equal(share[[0, 255]], probability[[0, 255]])
    error = (probability * (1 - probability) / 4000).sqrt()[1:-1]
    assert ((share - probability)[1:-1] / error).abs().max() < 5
    assert not torch.equal(BitStream(7)(100), BitStream(8)(100))
    words = BitStream(1)(200_001)
    assert len(words) == 200_001
    assert words.double().mean().abs() < 5 * 2**32 / (12 * 200_001) ** 0.5


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["adam", pytest.param("clipped", marks=pytest.mark.slow)])
def test_many_steps_at_once_are_the_same_steps(name: str) -> None:
    """What a CUDA graph records, taken without one: rates, counts and order as step by step, remainder and all."""
    x, results = data(43), []
    for form, at_once in (("never", 1), (True, 1), (True, 4)):
        pyro.clear_param_store()
        vae = small_vae()
        svi = CompiledSVI(vae.model, vae.guide, OPTIMIZERS[name](), Trace_ELBO(), compile=form, steps_at_once=at_once)
        torch.manual_seed(0)
        losses = [svi.run_epoch(x, batch_size=5, seed=epoch) for epoch in range(3)]
        assert bool(svi._epochs.replays) == (at_once > 1)
        results.append((torch.tensor(losses), values(vae)))
    for losses, parameters in results[1:]:
        torch.testing.assert_close(losses, results[0][0], rtol=1e-7, atol=0)
        for ours, stock in zip(parameters, results[0][1], strict=True):
            torch.testing.assert_close(ours, stock, rtol=1e-6, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(results[1][1], results[2][1], strict=True))


@pytest.mark.usefixtures("uncompiled")
def test_blocks_give_way_to_handlers_and_to_another_parameter_store() -> None:
    """What a step looks at before it is taken holds for a block of steps as well."""
    x, results = data(), []
    for form, at_once in (("never", 1), (True, 4)):
        pyro.clear_param_store()
        model, guide = lazy_pair()
        optimizer = OPTIMIZERS["adam"]()
        svi = CompiledSVI(model, guide, optimizer, Trace_ELBO(), compile=form, steps_at_once=at_once)
        torch.manual_seed(0)
        losses = [svi.run_epoch(x, batch_size=5, seed=epoch) for epoch in range(2)]
        with warnings.catch_warnings(), pyro.poutine.scale(scale=3.0):
            warnings.simplefilter("ignore", SVIFallbackWarning)
            losses.append(svi.run_epoch(x, batch_size=5, seed=2))
        losses.append(svi.run_epoch(x, batch_size=5, seed=3))
        replays = len(svi._epochs.replays)
        pyro.clear_param_store()
        losses.append(svi.run_epoch(x, batch_size=5, seed=4))
        losses.append(svi.run_epoch(x, batch_size=5, seed=5))
        results.append((losses, pyro.get_param_store()["weight"].detach().clone()))
    assert replays == 1
    assert results[0][0][2] > 2 * results[0][0][1]
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-7)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-6, atol=1e-9)
