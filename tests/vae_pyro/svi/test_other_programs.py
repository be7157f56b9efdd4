"""Programs as other people write them: the stock trajectory, compiled, or the stock step with its reason said."""

import functools
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    SVI,
    EnergyDistance,
    JitTrace_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from vae_pyro.core.isolation import undisturbed
from vae_pyro.svi.compiled_svi import CompiledSVI, SVIFallbackWarning

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(1)) + 1.0
POSITIVE = dist.constraints.positive


@dataclass
class Case:
    """A pair with what is stepped, and what changes between steps.

    Attributes:
        model: Pyro model.
        guide: Pyro guide.
        arguments: of the step of a number.
        change: called before the step of a number.
        loss: made for each run.
        optimizer: likewise.
        modules: whose buffers are compared, and whose tensors must be tensors afterwards.
        reason: part of the warning of the stock step; ``None`` where programs are to be used.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any] = lambda *args: None
    arguments: Callable[[int], tuple[Any, ...]] = lambda step: (X,)
    change: Callable[[int], Any] = lambda step: None
    loss: Callable[[], Any] = Trace_ELBO
    optimizer: Callable[[], Any] = lambda: pyro.optim.Adam({"lr": 0.02})
    modules: list[nn.Module] = field(default_factory=list)
    reason: str | None = None


@dataclass
class Seen:
    """What a run leaves: losses (or the type of what was raised), values, generators, and what was said."""

    losses: list[Any]
    values: dict[str, Tensor]
    states: dict[str, Any]
    generators: list[Any]
    said: list[str]
    svi: Any


def run(kind: Any, build: Callable[[], Case], steps: int = 14, **options: Any) -> Seen:
    with undisturbed():
        return _run(kind, build, steps, options)


def _run(kind: Any, build: Callable[[], Case], steps: int, options: dict[str, Any]) -> Seen:
    pyro.clear_param_store()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (the generator that programs of others draw from)
    random.seed(0)
    case = build()
    optimizer = case.optimizer()
    losses: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svi = kind(case.model, case.guide, optimizer, case.loss(), **options)
        for step in range(steps):
            case.change(step)
            try:
                losses.append(svi.step(*case.arguments(step)))
            except Exception as error:  # what stock raises is compared by its type
                losses.append(type(error).__name__)
    store = pyro.get_param_store()
    values = {name: store[name].detach().clone() for name in store}
    for number, module in enumerate(case.modules):
        for name, value in module.state_dict().items():
            assert type(value) is Tensor, f"{name} is a {type(value).__name__}"
            values[f"{number}.{name}"] = value.clone()
    said = [str(w.message) for w in caught if w.category is SVIFallbackWarning]
    kept = [torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()]  # noqa: NPY002
    return Seen(losses, values, optimizer.get_state(), kept, said, svi)


def numbers(losses: list[Any]) -> list[float]:
    return [number for loss in losses for number in (loss if isinstance(loss, tuple) else (loss,))]


def require_same(build: Callable[[], Case], rtol: float = 1e-4, **options: Any) -> tuple[Seen, Seen]:
    """Losses, parameters, buffers, optimizer state and generators of `CompiledSVI` are the stock's."""
    stock, ours = run(SVI, build), run(CompiledSVI, build, **options)
    for theirs, mine in zip(numbers(stock.losses), numbers(ours.losses), strict=True):
        if isinstance(theirs, str):
            assert mine == theirs
        else:
            assert mine == pytest.approx(theirs, rel=rtol, nan_ok=True)
    assert stock.values.keys() == ours.values.keys()
    for name, value in stock.values.items():
        torch.testing.assert_close(ours.values[name], value, rtol=20 * rtol, atol=1e-4, equal_nan=True, msg=name)
    assert stock.states.keys() == ours.states.keys()
    for name, state in stock.states.items():
        for at, held in state.get("state", {}).items():
            assert held.keys() <= ours.states[name]["state"][at].keys()
            assert float(held.get("step", 0)) == float(ours.states[name]["state"][at].get("step", 0)), name
    assert torch.equal(stock.generators[0], ours.generators[0])
    assert np.array_equal(stock.generators[1][0], ours.generators[1][0])
    assert stock.generators[1][1] == ours.generators[1][1]
    assert stock.generators[2] == ours.generators[2]
    reason = build().reason
    if reason is None:
        assert not ours.said
        assert ours.svi.status().program_steps >= 8
    else:
        assert len(ours.said) == 1
        assert reason in ours.said[0]
        assert [*map(str, numbers(stock.losses))] == [*map(str, numbers(ours.losses))]  # bit for bit
    return stock, ours


# --- pieces -----------------------------------------------------------------------------------------------------------


def regression(net: nn.Module) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(net(x), 1.0).to_event(1), obs=x)

    return model


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Linear(6, 4))
        self.decoder = nn.Linear(2, 3)
        self.beta: Any = 1.0
        self.batch = X

    def model(self, x: Tensor | None) -> None:
        pyro.module("decoder", self.decoder)
        x = self.batch if x is None else x
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=self.beta):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor | None) -> None:
        pyro.module("encoder", self.encoder)
        x = self.batch if x is None else x
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            with pyro.poutine.scale(scale=self.beta):
                pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def vae(change: Callable[[Autoencoder, int], Any] = lambda v, step: None, *, functions: bool = False) -> Case:
    v = Autoencoder()

    def model(x: Tensor | None) -> None:
        v.model(x)

    def guide(x: Tensor | None) -> None:
        v.guide(x)

    if not functions:
        return Case(v.model, v.guide, change=lambda step: change(v, step), modules=[v])
    return Case(model, guide, change=lambda step: change(v, step), modules=[v])


# --- what programs read from outside ----------------------------------------------------------------------------------


def numpy_noise() -> Case:
    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        noise = torch.from_numpy(np.random.randn(*x.shape)).float()  # noqa: NPY002
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x + noise)

    return Case(model, reason="draw from NumPy's generator")


def python_choice() -> Case:
    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        rows = torch.tensor(random.sample(range(len(x)), 5))
        with pyro.plate("data", len(x), subsample=rows):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x[rows])

    return Case(model, reason="draw from Python's generator")


def own_generator() -> Case:
    rng = np.random.default_rng(0)

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0 + rng.random()).to_event(1), obs=x)

    return Case(model, reason="a numpy.random._generator.Generator of its own")


def iterator() -> Case:
    batches = itertools.cycle(X.split(6))

    def model(x: Tensor) -> None:
        w, x = pyro.param("w", torch.zeros(3)), next(batches)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    return Case(model, reason="is an iterator")


def counted() -> Case:
    calls = [0]

    def model(x: Tensor) -> None:
        calls[0] += 1
        w = pyro.param("w", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0 + 1 / calls[0]).to_event(1), obs=x)

    return Case(model, reason="each step changes closure variable 'calls'")


def set_beta(v: Autoencoder, step: int) -> None:
    v.beta = (step + 1) / 10


def freeze(v: Autoencoder, step: int) -> None:
    for parameter in v.decoder.parameters():
        parameter.requires_grad_(step < 5)


def rebind(v: Autoencoder, step: int) -> None:
    v.batch = X if step < 6 else X * 2


SETTINGS = SimpleNamespace(scale=1.0)


def settings() -> Case:
    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, SETTINGS.scale).to_event(1), obs=x)

    def change(step: int) -> None:
        SETTINGS.scale = 1.0 if step < 5 else 2.0

    return Case(model, change=change)


def lists() -> Case:
    weights = [1.0, 2.0]

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w * weights[0], weights[1]).to_event(1), obs=x)

    def change(step: int) -> None:
        weights[1] = 2.0 if step < 5 else 3.0

    return Case(model, change=change)


OUTSIDE: dict[str, Callable[[], Case]] = {
    "noise of NumPy": numpy_noise,
    "a minibatch chosen by Python": python_choice,
    "a generator in a closure": own_generator,
    "an iterator in a closure": iterator,
    "a counter in a closure": counted,
    "a number that is annealed, of a module's methods": lambda: vae(set_beta),
    "a number that is annealed, of functions": lambda: vae(set_beta, functions=True),
    "parameters frozen in the middle": lambda: vae(freeze),
    "a tensor bound anew": lambda: vae(rebind, functions=True),
    "eval() of a module that functions call": lambda: vae(lambda v, step: v.train(step < 5), functions=True),
    "a global namespace": settings,
    "a list in a closure": lists,
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_programs_read_from_outside_is_never_frozen(name: str) -> None:
    case = OUTSIDE[name]

    def build() -> Case:
        made = case()
        if name == "a tensor bound anew":
            made.arguments = lambda step: (None,)
        return made

    require_same(build)


# --- losses -----------------------------------------------------------------------------------------------------------


class Clipped(Trace_ELBO):
    """Pyro's loss whose gradient is clipped."""

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().loss_and_grads(model, guide, *args, **kwargs)
        for leaf in pyro.get_param_store()._params.values():
            if leaf.grad is not None:
                leaf.grad.clamp_(-0.1, 0.1)
        return loss


class Halved(Trace_ELBO):
    def loss_and_grads(self, *args: Any, **kwargs: Any) -> Any:
        return super().loss_and_grads(*args, **kwargs) / 2


def simple(model: Any, guide: Any, x: Tensor) -> Tensor:
    """ELBO of the introductory tutorial on custom losses."""
    guide_trace = pyro.poutine.trace(guide).get_trace(x)
    model_trace = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide_trace)).get_trace(x)
    return -(model_trace.log_prob_sum() - guide_trace.log_prob_sum())


VECTORIZED = {"vectorize_particles": True, "max_plate_nesting": 1, "num_particles": 3}
LOSSES: dict[str, tuple[Callable[[], Any], str | None]] = {
    "RenyiELBO": (lambda: RenyiELBO(alpha=0.0, num_particles=3), None),
    "RenyiELBO, vectorised": (lambda: RenyiELBO(alpha=0.5, **VECTORIZED), None),
    "TraceMeanField_ELBO": (TraceMeanField_ELBO, None),
    "TraceGraph_ELBO": (TraceGraph_ELBO, None),
    "TraceEnum_ELBO": (lambda: TraceEnum_ELBO(max_plate_nesting=1), None),
    "TraceTMC_ELBO": (lambda: TraceTMC_ELBO(max_plate_nesting=1), None),
    "TraceTailAdaptive_ELBO": (lambda: TraceTailAdaptive_ELBO(**VECTORIZED), "loss is not finite"),
    "JitTrace_ELBO": (lambda: JitTrace_ELBO(ignore_jit_warnings=True), "torch.jit"),
    "ReweightedWakeSleep": (lambda: ReweightedWakeSleep(insomnia=1.0, **VECTORIZED), "several numbers"),
    "EnergyDistance": (lambda: EnergyDistance(num_particles=2), "depends on the value of a tensor"),
    "a clipped gradient": (Clipped, None),
    "half of the loss": (Halved, None),
    "a function": (lambda: simple, None),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_runs_is_the_losses_own_gradient(name: str) -> None:
    """Every loss of `pyro.infer`: what `loss_and_grads` does, and not what its name promises."""
    loss, reason = LOSSES[name]

    def build() -> Case:
        made = vae()
        made.modules[0].encoder[1].p = 0.0  # type: ignore[union-attr, index, assignment]
        made.loss, made.reason = loss, reason
        return made

    require_same(build)


def test_a_kernel_loss_is_stock_or_the_same() -> None:
    def build() -> Case:
        made = vae()
        kernel = pyro.contrib.gp.kernels.RBF(3) if hasattr(pyro, "contrib") else None
        made.loss = lambda: Trace_MMD(kernel, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
        return made

    from pyro.contrib.gp import kernels  # noqa: F401 (makes pyro.contrib.gp known)

    stock, ours = run(SVI, build), run(CompiledSVI, build)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-3)


# --- what cannot be traced --------------------------------------------------------------------------------------------


class Bound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Any:
        self.seen = self.seen + x.mean(0)
        return self.layer(x)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x[:, None])[0][:, 0]


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.jit.script(nn.Linear(3, 3))

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class Numpy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) + float(np.median(x.numpy()))


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.log = nn.Linear(3, 3), [""]

    def forward(self, x: Tensor) -> Any:
        h = self.layer(x)
        self.log.append(f"mean {h.mean():.3f}")
        return h


class Selecting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) + x[x > 0].mean()


UNTRACEABLE: dict[Any, str] = {
    Bound: "each step changes",
    Lstm: "the graph fails",
    Numpy: "gives the values of a tensor to Python",
    Text: "each step changes",
    Selecting: "depends on the value of a tensor",
}


@pytest.mark.parametrize("kind", UNTRACEABLE, ids=lambda kind: kind.__name__)
def test_an_exception_while_tracing_means_the_stock_step(kind: Any) -> None:
    def build() -> Case:
        net = kind()
        return Case(regression(net), modules=[net], reason=UNTRACEABLE[kind])

    require_same(build)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is")
def test_a_scripted_module_is_stepped_by_the_stock_step() -> None:
    def build() -> Case:
        net = Scripted()
        return Case(regression(net), modules=[net], reason="is a scripted module")

    require_same(build)


# --- structure --------------------------------------------------------------------------------------------------------


def loop() -> Case:
    def model(x: Tensor) -> None:
        m = pyro.param("m", torch.tensor(0.0))
        for i in pyro.plate("data", 3):
            z = pyro.sample(f"z_{i}", dist.Normal(m, 1.0))
            pyro.sample(f"x_{i}", dist.Normal(z, 1.0), obs=x[i, 0])

    def guide(x: Tensor) -> None:
        for i in pyro.plate("data", 3):
            pyro.sample(f"z_{i}", dist.Normal(pyro.param(f"a_{i}", torch.tensor(0.0)), 1.0))

    return Case(model, guide)


def subsampled() -> Case:
    def model(x: Tensor) -> None:
        m = pyro.param("m", torch.tensor(0.0))
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            z = pyro.sample("z", dist.Normal(m, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows, 0])

    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(0.0))
        with pyro.plate("data", len(x), subsample_size=5):
            pyro.sample("z", dist.Normal(a, 1.0))

    return Case(model, guide)


def mixture() -> Case:
    @config_enumerate
    def model(x: Tensor) -> None:
        weights = pyro.param("weights", torch.tensor([0.4, 0.6]), constraint=dist.constraints.simplex)
        locs = pyro.param("locs", torch.tensor([-1.0, 2.0]))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x[:, 0])

    return Case(model, loss=lambda: TraceEnum_ELBO(max_plate_nesting=1))


def without_parameters() -> Case:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    return Case(model, lambda x: pyro.sample("z", dist.Normal(0.0, 1.0)), reason="no parameters")


def sign() -> Case:
    """Another branch at every eighth step."""

    def model(x: Tensor) -> None:
        m = pyro.param("m", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m if x.sum() > 0 else 2 * m, 1.0), obs=x[:, 0])

    return Case(model, arguments=lambda step: (-X if step == 8 else X,))


def covariance() -> Case:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.eye(3), constraint=dist.constraints.positive_definite)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale), obs=x)

    return Case(model)


STRUCTURES: dict[str, Callable[[], Case]] = {
    "a loop over a plate": loop,
    "a random subsample": subsampled,
    "enumeration": mixture,
    "no parameters": without_parameters,
    "a branch on the data": sign,
    "a covariance that is checked": covariance,
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_ordinary_structures_keep_the_stock_trajectory(name: str) -> None:
    require_same(STRUCTURES[name])


@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal, AutoIAFNormal], ids=lambda kind: kind.__name__)
def test_a_guide_that_sets_itself_up_at_the_first_call_draws_as_in_the_stock_step(kind: Any) -> None:
    def build() -> Case:
        def model(x: Tensor) -> None:
            m = pyro.sample("m", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(m.sum(), 1.0), obs=x[:, 0])

        return Case(model, kind(model))

    require_same(build, rtol=1e-3, compile=False)


@pytest.mark.parametrize(("momentum", "reason"), [(0.1, None), (None, "gives the values of a tensor to Python")])
def test_batchnorm_counts_each_batch_once(momentum: float | None, reason: str | None) -> None:
    def build() -> Case:
        net = nn.Sequential(nn.BatchNorm1d(3, momentum=momentum), nn.Linear(3, 3))
        return Case(regression(net), modules=[net], arguments=lambda step: (X[step : step + 8],), reason=reason)

    _, ours = require_same(build, compile=False)
    assert int(ours.values["0.0.num_batches_tracked"]) == 14


# --- optimizers and gradients -----------------------------------------------------------------------------------------


def alternating(step: int) -> bool:
    return step % 4 == 0


def unused(use: Callable[[int], bool], frozen: bool) -> Callable[[], Case]:
    def build() -> Case:
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)

        def model(x: Tensor, use_b: bool) -> None:
            pyro.module("a", a)
            pyro.module("b", b)
            h = a(x) + (b(x) if use_b else 0)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(h, 1.0).to_event(1), obs=x)

        def change(step: int) -> None:
            if frozen and step == 4:
                b.requires_grad_(False)

        return Case(model, lambda x, use_b: None, lambda step: (X, use(step)), change, modules=[a, b])

    return build


@pytest.mark.parametrize("mode", ["auto", "never", False])
@pytest.mark.parametrize("frozen", [False, True])
def test_parameters_without_a_gradient_move_as_in_the_stock_step(mode: Any, frozen: bool) -> None:
    """Once a parameter had a gradient its gradient is zero and not none, so that momentum goes on moving it."""
    use = (lambda step: True) if frozen else alternating
    build = unused(use, frozen)
    stock, ours = run(SVI, build), run(CompiledSVI, build, compile=mode)
    for name, value in stock.values.items():
        torch.testing.assert_close(ours.values[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "clipped", "scheduler", "late"])
def test_optimizer_state_is_saved_and_loaded_as_in_the_stock_step(kind: str) -> None:
    def model(x: Tensor) -> None:
        m = pyro.param("m", torch.tensor(0.0))
        z = pyro.sample("z", dist.Normal(m, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        scale = pyro.param("s", torch.tensor(1.0), constraint=POSITIVE)
        pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.0)), scale))

    def optimizer() -> Any:
        if kind == "scheduler":
            options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.3}, "gamma": 0.5}
            return pyro.optim.ExponentialLR(options)
        options = {"lr": 0.3, "lrd": 0.9} if kind == "clipped" else {"lr": 0.3}
        return (pyro.optim.ClippedAdam if kind == "clipped" else pyro.optim.Adam)(options)

    results = []
    for cls in (SVI, CompiledSVI):
        pyro.clear_param_store()
        torch.manual_seed(0)
        first = optimizer()
        options: dict[str, Any] = {} if cls is SVI else {"compile": False}
        svi = cls(model, guide, first, Trace_ELBO(), **options)
        for _ in range(3):
            svi.step(X)
            if kind == "scheduler":
                first.step()
        state, store = first.get_state(), pyro.get_param_store().get_state()
        pyro.clear_param_store()
        pyro.get_param_store().set_state(store)
        second = optimizer()
        second.set_state(state)
        svi = cls(model, guide, second, Trace_ELBO(), **options)
        values = []
        for _ in range(3):
            svi.step(X)
            if kind == "scheduler":
                second.step()
            values.append(pyro.param("a").item())
        results.append(values)
    assert results[1] == pytest.approx(results[0], rel=1e-4)


# --- checks at every step ---------------------------------------------------------------------------------------------


def out_of_support() -> Case:
    ones = torch.ones(8, 4)

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(4))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=w).to_event(1), obs=x)

    return Case(model, arguments=lambda step: (255 * ones if step == 7 else ones,))


def parameter_out_of_support() -> Case:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=0 * x[:, 0])

    return Case(model, optimizer=lambda: pyro.optim.SGD({"lr": 0.01}))


def hooked() -> Case:
    calls: list[int] = []

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    def change(step: int) -> None:
        if step == 5:
            pyro.get_param_store()._params["w"].register_hook(lambda gradient: calls.append(1) or gradient * 0)

    return Case(model, change=change)


@pytest.mark.parametrize("build", [out_of_support, parameter_out_of_support], ids=lambda build: build.__name__)
def test_values_are_checked_at_every_step(build: Callable[[], Case]) -> None:
    stock, ours = run(SVI, build), run(CompiledSVI, build, compile=False)
    assert "ValueError" in stock.losses
    assert [loss if isinstance(loss, str) else round(loss, 3) for loss in ours.losses] == [
        loss if isinstance(loss, str) else round(loss, 3) for loss in stock.losses
    ]


def test_a_gradient_hook_in_the_middle_is_called() -> None:
    stock, ours = run(SVI, hooked), run(CompiledSVI, hooked)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-5)
    assert any("gradient hooks" in said for said in ours.said)


def test_a_loss_that_is_not_finite_is_stepped_as_in_the_stock_step() -> None:
    def build() -> Case:
        def model(x: Tensor) -> None:
            w = pyro.param("w", torch.zeros(3))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(w, 1.0, validate_args=False).to_event(1), obs=x)

        return Case(model, arguments=lambda step: (X / 0 if step == 9 else X,))

    with pyro.validation_enabled(False):
        stock, ours = run(SVI, build), run(CompiledSVI, build, compile=False)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-5, nan_ok=True)
    assert bool(stock.values["w"].isnan().all())
    assert bool(ours.values["w"].isnan().all())


# --- arguments --------------------------------------------------------------------------------------------------------


def strides() -> Iterator[Tensor]:
    square = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    yield from (square, square * 2, square.t(), square.flip(0), square.expand(2, 6, 6)[0], square[:, :1].expand(6, 6))


def test_the_same_shape_in_other_strides() -> None:
    batches = list(strides())

    def build() -> Case:
        def model(x: Tensor) -> None:
            w = pyro.param("w", torch.zeros(6))
            with pyro.plate("data", len(x)):
                mean = w + (x.view(-1).mean() if x.is_contiguous() else 0.0)
                pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

        return Case(model, arguments=lambda step: (batches[step % len(batches)],))

    stock, ours = run(SVI, build, 30), run(CompiledSVI, build, 30)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-4)


@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
def test_a_number_that_changes_is_an_input_from_its_second_value_on(kind: Any) -> None:
    def build() -> Case:
        v = Autoencoder()

        def model(x: Tensor, beta: float) -> None:
            with pyro.poutine.scale(scale=beta):
                v.model(x)

        def guide(x: Tensor, beta: float) -> None:
            with pyro.poutine.scale(scale=beta):
                v.guide(x)

        return Case(model, guide, lambda step: (X, kind(min(1.0, (step + 1) / 10))))

    _, ours = require_same(build)
    assert ours.svi.status().programs <= 2


def test_a_number_that_is_structure_is_bounded() -> None:
    def build() -> Case:
        def model(x: Tensor, level: float) -> None:
            w = pyro.param("w", torch.zeros(3))
            scale = 1.0 + float(f"{level:.2f}")
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(w, scale).to_event(1), obs=x)

        return Case(model, lambda x, level: None, lambda step: (X, step / 10))

    stock, ours = run(SVI, build, 30), run(CompiledSVI, build, 30)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-5)
    assert any("changes at every step" in said for said in ours.said)
    assert ours.svi.status().programs <= 5


def test_module_local_parameters_are_traced_once() -> None:
    from pyro.nn import PyroModule

    def build() -> Case:
        class Guide(PyroModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.loc = pyro.nn.PyroParam(torch.zeros(2))

            def forward(self, x: Tensor) -> None:
                pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))

        def model(x: Tensor) -> None:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x[:, 0])

        return Case(model, Guide())

    with pyro.settings.context(module_local_params=True):
        stock, ours = run(SVI, build), run(CompiledSVI, build)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-5)
    assert ours.svi.status().programs == 1
    assert ours.svi.status().program_steps >= 10


def labelled() -> Case:
    """A string that is another one at every step."""

    def model(x: Tensor, label: str) -> None:
        w = pyro.param("w", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    return Case(model, lambda x, label: None, lambda step: (X, f"patient {step}"))


def test_arguments_that_are_not_hashable_or_never_come_twice_are_said() -> None:
    def build() -> Case:
        def model(x: Any) -> None:
            w = pyro.param("w", torch.zeros(3))
            with pyro.plate("data", len(X)):
                pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=torch.as_tensor(x))

        return Case(
            model,
            arguments=lambda step: (X.numpy(),),
            reason="neither a tensor nor hashable",
        )

    require_same(build)

    ours = run(CompiledSVI, labelled, 40)
    assert len(ours.said) == 1
    assert "others at every step" in ours.said[0]


# --- draws ------------------------------------------------------------------------------------------------------------

LAWS: dict[str, Callable[[Tensor], Any]] = {
    "LogNormal": lambda a: dist.LogNormal(a, 1.0),
    "Gamma": lambda a: dist.Gamma(a.exp(), 1.0),
    "Beta": lambda a: dist.Beta(a.exp(), 1.0),
    "Laplace": lambda a: dist.Laplace(a, 1.0),
    "Exponential": lambda a: dist.Exponential(a.exp()),
    "Cauchy": lambda a: dist.Cauchy(a, 1.0),
    "StudentT": lambda a: dist.StudentT(5.0, a),
    "Gumbel": lambda a: dist.Gumbel(a, 1.0),
    "Dirichlet": lambda a: dist.Dirichlet(a.exp().unsqueeze(-1).expand(len(a), 3)),
    "Categorical": lambda a: dist.Categorical(logits=torch.stack([a, -a, 0 * a], -1)),
    "Poisson": lambda a: dist.Poisson(a.exp()),
}


@pytest.mark.parametrize("name", LAWS)
def test_every_draw_before_a_normal_keeps_the_stock_stream(name: str) -> None:
    law = LAWS[name]

    def build() -> Case:
        def value(k: Tensor) -> Tensor:
            return (k[:, 0] if name == "Dirichlet" else k).float().clamp(-3, 3)

        def model(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                k = value(pyro.sample("k", law(torch.zeros(len(x)))))
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal((k + z)[:, None], 1.0).expand(list(x.shape)).to_event(1), obs=x)

        def guide(x: Tensor) -> None:
            a = pyro.param("a", torch.zeros(3))
            with pyro.plate("data", len(x)):
                pyro.sample("k", law(x @ a))
                pyro.sample("z", dist.Normal(x.sum(-1) * a[0], 1.0))

        return Case(model, guide)

    require_same(build, rtol=1e-3)


# --- a store that was not cleared -------------------------------------------------------------------------------------


def test_a_second_pair_beside_an_uncleared_store_is_told_the_way_out() -> None:
    pyro.clear_param_store()
    for number in range(2):
        net = nn.Linear(1, 3)

        def model(x: Tensor, net: nn.Module = net) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(net(z.expand(len(x), 1)), 1.0).to_event(1), obs=x)

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

        svi = CompiledSVI(model, guide, torch.optim.Adam(net.parameters(), 0.1), Trace_ELBO(), compile=False)
        if number == 0:
            svi.step(X)
        else:
            with pytest.warns(SVIFallbackWarning, match=r"call pyro.clear_param_store\(\) before another pair"):
                svi.step(X)


def test_a_replaced_model_is_followed() -> None:
    """`pyro.infer.SVI` reads its programs anew at every step."""
    results = []
    for kind in (SVI, CompiledSVI):
        pyro.clear_param_store()
        first, second = mixture(), loop()
        svi = kind(first.model, first.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
        torch.manual_seed(0)
        del first
        svi.model, svi.guide = second.model, second.guide
        results.append([svi.step(X) for _ in range(5)])
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_a_replaced_optimizer_is_followed() -> None:
    results = []
    for kind in (SVI, CompiledSVI):
        pyro.clear_param_store()
        torch.manual_seed(0)
        case = vae()
        svi = kind(case.model, case.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
        losses = [svi.step(X) for _ in range(4)]
        svi.optim = pyro.optim.SGD({"lr": 0.001})
        results.append(losses + [svi.step(X) for _ in range(4)])
        assert len(svi.optim.optim_objs) > 0
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_a_gradient_of_the_users_own_is_traced() -> None:
    def loss_and_grads(model: Any, guide: Any, x: Tensor) -> Tensor:
        loss = simple(model, guide, x)
        (2 * loss).backward()
        return loss

    results = []
    for kind in (SVI, CompiledSVI):
        pyro.clear_param_store()
        torch.manual_seed(0)
        case = vae()
        svi = kind(case.model, case.guide, pyro.optim.Adam({"lr": 0.02}), simple, loss_and_grads)
        results.append([svi.step(X) for _ in range(8)])
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert svi.status().program_steps == 7


@pytest.mark.parametrize("what", ["loader", "arrays"])
def test_an_epoch_takes_arrays_and_says_what_it_does_not_take(what: str) -> None:
    case = vae()
    svi = CompiledSVI(case.model, case.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    if what == "arrays":
        assert svi.run_epoch(X.numpy(), batch_size=8) > 0
    else:
        with pytest.raises(ValueError, match=r"got DataLoader; step through batches .* with svi.step\(\*batch\)"):
            svi.run_epoch(torch.utils.data.DataLoader([X]), batch_size=8)


def test_a_batch_with_gaps_is_compiled(uncompiled: None) -> None:
    """What the compiler makes is compared on copies with the strides of the batch."""
    wide = torch.randn(20, 5, generator=torch.Generator().manual_seed(2))

    def build() -> Case:
        net = nn.Linear(4, 4)
        return Case(regression(net), arguments=lambda step: (wide[:, :-1],))

    stock, ours = run(SVI, build), run(CompiledSVI, build, compile=True)
    assert numbers(ours.losses) == pytest.approx(numbers(stock.losses), rel=1e-4)
    assert not ours.said


@pytest.mark.usefixtures("uncompiled")
def test_a_gradient_of_rounding_passes_the_gates() -> None:
    """The bias in front of a batch normalisation: its gradient is zero in exact arithmetic."""

    def build() -> Case:
        net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        return Case(regression(net), arguments=lambda step: (1e3 * X,), optimizer=lambda: pyro.optim.SGD({"lr": 1e-9}))

    ours = run(CompiledSVI, build, compile=True)
    assert not ours.said
    assert ours.svi.status().program_steps == 14


def test_namespaces_and_partials_among_the_arguments() -> None:
    options = SimpleNamespace(scale=1.0)

    def double(factor: float, x: Tensor) -> Tensor:
        return factor * x

    def build() -> Case:
        def model(x: Tensor, options: Any, f: Any) -> None:
            w = pyro.param("w", torch.zeros(3))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(f(w), options.scale).to_event(1), obs=x)

        def change(step: int) -> None:
            options.scale = 1.0 if step < 6 else 2.0

        return Case(
            model,
            lambda x, options, f: None,
            lambda step: (X, options, functools.partial(double, 2)),
            change,
        )

    require_same(build)


@pytest.mark.parametrize("mode", ["auto", False])
def test_arguments_that_never_come_twice_are_not_traced_at_every_step(mode: Any) -> None:
    status = run(CompiledSVI, labelled, 40, compile=mode).svi.status()
    assert status.programs <= 9
    assert status.program_steps + status.stock_steps == 40


def test_what_runs_is_counted_when_a_program_is_given_up() -> None:
    def build() -> Case:
        def model(x: Tensor) -> None:
            m = pyro.param("m", torch.tensor(0.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(m if x.sum() > 0 else 2 * m, 1.0), obs=x[:, 0])

        return Case(model, arguments=lambda step: (X if step % 3 else -X,))

    ours = run(CompiledSVI, build, 30)
    status = ours.svi.status()
    assert status.program_steps + status.stock_steps == 30
    assert status.program_steps > 0
    assert any("are others at many steps" in said for said in ours.said)
    assert "fallbacks" in repr(status)
