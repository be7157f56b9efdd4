"""The compiled step takes the stock step's trajectory, in each of its forms."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from tests.vae_pyro.svi.programs import (
    EFFECTS,
    ERRORS,
    OPTIMIZERS,
    Build,
    data,
    grey,
    lazy_pair,
    regression_data,
    regression_pair,
    schools_pair,
    small_vae,
    torch_svi,
    trajectory,
    vae_pair,
    values,
)
from vae_pyro.core.isolation import seeded
from vae_pyro.data.split import Split
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.svi.compiled_svi import CompiledSVI, SVIFallbackWarning


def compare(build: Build, args: tuple[Any, ...], optimizer: Callable[[], Any], loss: Any, **options: Any) -> None:
    """The same losses and parameters as stock SVI, step by step."""
    results = []
    for compiled in (False, True):
        pyro.clear_param_store()
        with seeded(0):
            model, guide = build()
            if isinstance(guide, AutoNormal):
                guide(*args)
        svi = (
            CompiledSVI(model, guide, optimizer(), loss(), **options)
            if compiled
            else SVI(model, guide, optimizer(), loss())
        )
        losses = trajectory(svi, *args)
        if compiled:
            assert len(list(svi._programs)) == len(svi._programs) > 0
        store = pyro.get_param_store()
        results.append((torch.tensor(losses), {name: store[name].detach().clone() for name in store}))
    (stock, expected), (ours, got) = results
    precise = next(iter(expected.values())).dtype == torch.float64
    torch.testing.assert_close(ours, stock, rtol=1e-9 if precise else 2e-4, atol=0)
    assert stock[0] != stock[-1]
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-8 if precise else 2e-3, atol=1e-10 if precise else 1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_traced_step_is_the_stock_step(name: str) -> None:
    compare(lazy_pair, (data(),), OPTIMIZERS[name], Trace_ELBO, compile=False)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["adam decay", "clipped", "nesterov", "rmsprop centered", "per parameter"])
def test_the_rules_of_the_optimizers_are_theirs(name: str) -> None:
    """The whole step with the optimizer inside."""
    compare(lazy_pair, (data(),), OPTIMIZERS[name], Trace_ELBO)


@pytest.mark.parametrize(
    ("build", "args", "loss"),
    [
        (vae_pair, (data(),), Trace_ELBO),
        (regression_pair, regression_data(), Trace_ELBO),
        (schools_pair, (ERRORS, EFFECTS), lambda: Trace_ELBO(num_particles=2, vectorize_particles=True)),
    ],
    ids=["vae", "regression", "eight schools"],
)
def test_compiled_it_takes_the_stock_trajectory(build: Build, args: tuple[Any, ...], loss: Any) -> None:
    compare(build, args, OPTIMIZERS["adam"], loss)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("build", [vae_pair, lazy_pair])
def test_pyros_own_losses_are_traced(build: Build, loss: Any) -> None:
    compare(build, (data(),), OPTIMIZERS["adam"], loss, compile=False)


def test_a_score_function_gradient_is_traced_with_its_draws() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(x.new_tensor(0.3)))
            pyro.sample("x", dist.Normal(2 * z.unsqueeze(-1), 1.0).expand([len(x), 6]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        logits = pyro.param("logits", torch.zeros(40).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    compare(lambda: (model, guide), (data(),), OPTIMIZERS["adam"], Trace_ELBO, compile=False)


def test_enumeration_in_parallel_is_traced() -> None:
    @config_enumerate
    def model(x: Tensor) -> None:
        weights = pyro.param("weights", torch.tensor([0.4, 0.6]).double(), constraint=dist.constraints.simplex)
        locs = pyro.param("locs", torch.tensor([-1.0, 1.0]).double())
        with pyro.plate("data", len(x)):
            which = pyro.sample("which", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[which], 1.0), obs=x)

    with seeded(0):
        x = torch.randn(30, dtype=torch.float64)
    results = []
    for kind in (SVI, CompiledSVI):
        pyro.clear_param_store()
        svi = kind(model, lambda x: None, OPTIMIZERS["adam"](), TraceEnum_ELBO(max_plate_nesting=1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append(trajectory(svi, x))
    assert results[1] == pytest.approx(results[0], rel=1e-9)
    assert not [w for w in caught if w.category is SVIFallbackWarning]
    assert svi.status().program_steps == 4  # a stock step, and one that shows which way is taken


# m2 requires its structure: test_semi_supervised. One of each way of weighting particles, and all where time allows.
FEW = ("elbo", "iwae", "stl", "infovae")
REST = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(set(OBJECTIVES) - {"m2", *FEW})]


@pytest.mark.parametrize("name", [*FEW, *REST])
def test_every_objective_is_traced(name: str) -> None:
    option = ":dataset_size=400" if name == "beta_tcvae" else ""
    compare(
        vae_pair,
        (data(),),
        OPTIMIZERS["adam"],
        lambda: OBJECTIVES.build(OBJECTIVES.resolve(name + option)),
        compile=False,
    )


@pytest.mark.slow
def test_torch_optimizers_prepare_and_clipping_compiled_and_not() -> None:
    """One torch optimizer, bytes scaled inside the program, one norm over all parameters: three forms of one step."""
    raw = (data() * 255).to(torch.uint8)
    results = []
    for form in ("never", False, True):
        pyro.clear_param_store()
        vae = small_vae()
        svi = torch_svi(
            vae,
            prepare=lambda v: ((v.double() / 255,), {}),
            clip_norm=0.5,
            compile=form,
            loss=OBJECTIVES.build(OBJECTIVES.resolve("elbo")),
        )
        losses = trajectory(svi, raw)
        assert float(svi.metrics["gradient_norm"]) > 0.5
        assert float(svi.metrics["kl"]) - float(svi.metrics["reconstruction"]) == pytest.approx(losses[-1])
        results.append((torch.tensor(losses), values(vae)))
    for losses, parameters in results[1:]:
        torch.testing.assert_close(losses, results[0][0], rtol=1e-9, atol=0)
        for ours, stock in zip(parameters, results[0][1], strict=True):
            torch.testing.assert_close(ours, stock, rtol=1e-7, atol=1e-10)


def test_what_changes_between_steps_is_not_baked_in() -> None:
    """A buffer, a learning rate and an option of the optimizer: each reaches the next step."""
    x, results = data(), []
    for form in ("never", False):
        pyro.clear_param_store()
        vae = small_vae()
        objective: Any = OBJECTIVES.build(OBJECTIVES.resolve("elbo"))
        svi = torch_svi(vae, loss=objective, compile=form)
        torch.manual_seed(0)
        losses = []
        for step in range(6):
            objective.kl_weight.fill_(step / 3)
            svi.optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            svi.optimizer.param_groups[0]["eps"] = 1e-8 if step < 3 else 0.1
            losses.append(svi.step(x))
        results.append(torch.tensor(losses))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=0)


@pytest.mark.usefixtures("uncompiled")
def test_an_option_that_the_program_has_baked_in_makes_a_new_one() -> None:
    x, results = data(), []
    for form in ("never", True):
        pyro.clear_param_store()
        vae = small_vae()
        svi = torch_svi(vae, compile=form)
        torch.manual_seed(0)
        losses = [svi.step(x)]
        svi.optimizer.param_groups[0]["betas"] = (0.5, 0.9)
        losses += [svi.step(x) for _ in range(4)]
        results.append(torch.tensor(losses))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=0)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)).double()

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([len(x), 6]).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def test_bound_methods_of_a_module_and_dropout() -> None:
    def build() -> tuple[Any, Any]:
        owner = Dropping()
        return owner.model, owner.guide

    compare(build, (data(),), OPTIMIZERS["adam"], Trace_ELBO, compile=False)
    owner = Dropping()
    pyro.clear_param_store()
    svi = CompiledSVI(owner.model, owner.guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False)
    x = data()
    owner.eval()
    torch.manual_seed(0)
    first = svi.evaluate_loss(x)
    owner.train()
    svi.step(x)
    assert len(svi._programs) == 1
    owner.eval()
    svi.step(x)
    assert len(svi._programs) == 2
    assert first > 0


def test_what_was_set_between_steps_is_refused() -> None:
    svi = torch_svi(small_vae())
    with pytest.raises(AttributeError, match=r"CompiledSVI.share of before 0.2 is now take_step\(..., share=\)"):
        svi.share = 0.5
    with pytest.raises(AttributeError, match="compile="):
        svi.compile = False
    with pytest.raises(ValueError, match="compile is 'auto', True, False, 'never' or a number of steps, got 'often'"):
        svi.take_step((data(),), compile="often")  # type: ignore[arg-type]


@pytest.mark.cuda
def test_on_cuda_a_step_and_an_epoch_are_those_of_the_cpu() -> None:
    device = torch.device("cuda")
    x = data().float()
    vae = small_vae().float().to(device)
    stock = torch_svi(vae, compile="never")
    torch.manual_seed(0)
    expected = [stock.step(x.to(device)) for _ in range(5)]
    for form in (False, True):
        pyro.clear_param_store()
        vae = small_vae().float().to(device)
        svi = torch_svi(vae, compile=form)
        torch.manual_seed(0)
        assert [svi.step(x.to(device)) for _ in range(5)] == pytest.approx(expected, rel=1e-3)
    split = Split(grey().values, top=255.0, draw="binarize").to(device)
    pyro.clear_param_store()
    vae = small_vae().float().to(device)
    svi = torch_svi(vae, prepare=split.observe)
    first = svi.run_epoch(split, batch_size=8, seed=0)
    for epoch in range(1, 30):
        last = svi.run_epoch(split, batch_size=8, seed=epoch)
    assert last < first
