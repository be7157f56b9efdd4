"""What cannot be compiled takes the stock step, says so once, and leaves nothing half done."""

import warnings
from itertools import cycle
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from tests.vae_pyro.svi.programs import (
    OPTIMIZERS,
    data,
    lazy_pair,
    small_vae,
    torch_svi,
    trajectory,
    values,
)
from vae_pyro.compilation import inductor
from vae_pyro.compilation.inductor import CompileError
from vae_pyro.svi.compiled_svi import CompiledSVI, SVIFallbackWarning


def test_structure_that_depends_on_values_falls_back_and_says_so_once() -> None:
    def build() -> tuple[Any, Any]:
        model, guide = lazy_pair()

        def branching(x: Tensor) -> None:
            guide(x[torch.nonzero(x.sum(1) >= 0).squeeze(1)])

        return model, branching

    results = []
    for compiled in (False, True):
        pyro.clear_param_store()
        model, guide = build()
        optimizer = OPTIMIZERS["adam"]()
        if compiled:
            svi: SVI = CompiledSVI(model, guide, optimizer, Trace_ELBO())
            with pytest.warns(SVIFallbackWarning, match="depends on the value of a tensor"):
                trajectory(svi, data())  # the first step makes parameters at random, and is a stock step anyway
            pyro.clear_param_store()
            svi = CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO())
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                results.append(trajectory(svi, data()))
            assert len([w for w in caught if w.category is SVIFallbackWarning]) == 1
        else:
            results.append(trajectory(SVI(model, guide, optimizer, Trace_ELBO()), data()))
    assert results[0] == pytest.approx(results[1], rel=1e-12)


def test_the_gate_refuses_a_graph_that_is_not_the_loss() -> None:
    """A loss that changes from call to call: what was traced is not what the stock step computes."""
    factor = cycle((1.0, 2.0)).__next__

    class Moody(Trace_ELBO):
        def loss_and_grads(self, *args: Any, **kwargs: Any) -> Any:
            return super().loss_and_grads(*args, **kwargs) * factor()

    svi = torch_svi(small_vae(), loss=Moody())
    with pytest.warns(SVIFallbackWarning, match="disagrees with the stock loss at the same noise"):
        trajectory(svi, data())


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_the_gate_of_the_compiler_refuses_a_wrong_program(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a percent in the noise, which moves loss and gradients, is refused; the right program is not."""

    def wrong(module: Any) -> Any:
        return lambda inputs: module(*inputs[:-1], inputs[-1] * factor)

    monkeypatch.setattr(inductor, "inductor", wrong)
    svi = torch_svi(small_vae())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svi.step(data())
    assert [("disagrees" in str(w.message)) for w in caught if w.category is SVIFallbackWarning] == [True] * (
        factor != 1.0
    )


def test_without_a_compiler_the_graph_runs_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: Any) -> Any:
        raise CompileError("compiling failed (no C++ compiler)")

    expected = trajectory(torch_svi(small_vae(), compile=False), data())
    pyro.clear_param_store()
    monkeypatch.setattr(inductor, "inductor", absent)
    svi = torch_svi(small_vae())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = trajectory(svi, data())
        svi.step(data()[:9])
    assert [w.category for w in caught].count(SVIFallbackWarning) == 1
    assert got == pytest.approx(expected, rel=1e-9)


def test_handlers_from_outside_take_the_stock_step() -> None:
    x = data()
    svi = torch_svi(small_vae())
    torch.manual_seed(0)
    with pytest.warns(SVIFallbackWarning, match="effect handlers from outside"), pyro.poutine.scale(scale=3.0):
        scaled = svi.step(x)
    pyro.clear_param_store()
    torch.manual_seed(0)
    assert scaled == pytest.approx(3 * torch_svi(small_vae(), compile="never").step(x), rel=1e-12)


def test_an_optimizer_without_a_rule_takes_its_own_step() -> None:
    results = []
    for form in ("never", False):
        pyro.clear_param_store()
        vae = small_vae()
        svi = CompiledSVI(
            vae.model, vae.guide, torch.optim.Adagrad(vae.parameters(), lr=0.1), Trace_ELBO(), compile=form
        )
        results.append(trajectory(svi, data()))
    assert results[0] == pytest.approx(results[1], rel=1e-9)
    schedule = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.5})
    pyro.clear_param_store()
    vae = small_vae()
    svi = CompiledSVI(vae.model, vae.guide, schedule, Trace_ELBO(), compile=False)
    svi.step(data())
    schedule.step()
    assert {obj.get_last_lr()[0] for obj in schedule.optim_objs.values()} == {0.05}
    svi.step(data())


@pytest.mark.parametrize("form", ["never", False, True])
@pytest.mark.usefixtures("uncompiled")
def test_a_loss_that_is_not_finite_changes_nothing(form: Any) -> None:
    vae, x = small_vae(), data()
    svi = torch_svi(vae, compile=form, skip_nonfinite=True)
    svi.step(x)
    before = values(vae)
    broken = x.clone()
    broken[0, 0] = torch.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encountered NaN", category=UserWarning)
        with pyro.validation_enabled(False):
            assert not svi.step(broken) > -torch.inf
    assert all(torch.equal(a, b) for a, b in zip(before, values(vae), strict=True))
    svi.step(x)
    assert not all(torch.equal(a, b) for a, b in zip(before, values(vae), strict=True))


def test_a_cleared_parameter_store_is_noticed() -> None:
    model, guide = lazy_pair()
    svi = CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False)
    first = trajectory(svi, data())
    pyro.clear_param_store()
    assert trajectory(CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False), data()) == first
    pyro.clear_param_store()
    assert trajectory(svi, data())[0] == first[0]


def test_bad_arguments_are_refused() -> None:
    vae = small_vae()
    with pytest.raises(ValueError, match="optim is a Pyro or a torch optimizer, got dict"):
        CompiledSVI(vae.model, vae.guide, {"lr": 1}, Trace_ELBO())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compile is 'auto', True, False, 'never' or a number of steps, got 'often'"):
        torch_svi(vae, compile="often")
    with pytest.raises(ValueError, match="num_ensemble is at least 1, got 0"):
        torch_svi(vae, num_ensemble=0)
    with pytest.raises(ValueError, match="num_ensemble=2 requires 2 seeds, got 3"):
        torch_svi(vae, num_ensemble=2, seeds=[1, 2, 3])
    with pytest.raises(ValueError, match="seeds, initialize and own_batches belong to num_ensemble"):
        torch_svi(vae, seeds=[1])
    with pytest.raises(ValueError, match="tensors of one length expected, got lengths"):
        torch_svi(vae).run_epoch(data(), data()[:3], batch_size=5)
    with pytest.raises(
        ValueError, match="an epoch requires data and a positive batch_size, got 40 data in batches of 0"
    ):
        torch_svi(vae).run_epoch(data(), batch_size=0)
    with pytest.raises(IndexError, match="no member 2 of 2, and no step has been taken"):
        torch_svi(vae, num_ensemble=2).member(2)
