"""The compiled step takes the stock step's trajectory, says when it cannot, and leaves nothing half done.

Covers the folders svi and compilation, other than the choice of matrix products.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from vae_pyro import VAE, VAEConfig
from vae_pyro.compilation import inductor
from vae_pyro.compilation.capture import find_leaves
from vae_pyro.compilation.inductor import CompileError, disagreement
from vae_pyro.compilation.modes import ProductsIn
from vae_pyro.core.isolation import seeded
from vae_pyro.core.minibatches import BitStream, batches
from vae_pyro.data.split import Split
from vae_pyro.objectives import OBJECTIVES
from vae_pyro.svi.compiled_svi import CompiledSVI, SVIFallbackWarning

pytestmark = pytest.mark.usefixtures("own_store")

type Build = Callable[[], tuple[Any, Any]]


def data(rows: int = 40, columns: int = 6) -> Tensor:
    with seeded(3):
        return (torch.rand(rows, columns, dtype=torch.float64) < 0.4).double()


def small_vae(seed: int = 0, **options: Any) -> VAE:
    return VAE(VAEConfig(x_shape=(6,), latent_dim=2, encoder="mlp:hidden=[7]", **options), seed=seed).double()


def vae_pair() -> tuple[Any, Any]:
    vae = small_vae()
    return vae.model, vae.guide


class Regression(PyroModule):
    """Bayesian linear regression, of Pyro's introductory tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def regression_pair() -> tuple[Any, Any]:
    model = Regression()
    return model, AutoNormal(model)


def regression_data() -> tuple[Tensor, Tensor]:
    with seeded(5):
        x = torch.randn(50, 3)
        return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 + 0.2 * torch.randn(50)


# Rubin 1981, Estimation in parallel randomized experiments: eight schools.
EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools_pair() -> tuple[Any, Any]:
    def model(errors: Tensor, effects: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", len(errors)):
            eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
            pyro.sample("obs", dist.Normal(mu + tau * eta, errors), obs=effects)

    return model, AutoNormal(model)


def lazy_pair() -> tuple[Any, Any]:
    """Parameters that the programs make themselves, with constraints."""

    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.5).double(), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), scale).expand([len(x), 6]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        weight = pyro.param("weight", lambda: 0.1 * torch.randn(6, 2).double())
        share = pyro.param("share", torch.tensor([0.3, 0.7]).double(), constraint=dist.constraints.simplex)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weight, share).to_event(1))

    return model, guide


def trajectory(svi: SVI, *args: Any, steps: int = 6, seed: int = 1) -> list[float]:
    torch.manual_seed(seed)
    return [svi.step(*args) for _ in range(steps)]


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: pyro.optim.Adam({"lr": 0.02}),
    "adam decay": lambda: pyro.optim.Adam({"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.99)}),
    "adamw": lambda: pyro.optim.AdamW({"lr": 0.02, "weight_decay": 0.2}),
    "clipped": lambda: pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.9, "clip_norm": 0.5}),
    "sgd": lambda: pyro.optim.SGD({"lr": 1e-3}),
    "momentum": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1}),
    "nesterov": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "rmsprop": lambda: pyro.optim.RMSprop({"lr": 0.01}),
    "rmsprop centered": lambda: pyro.optim.RMSprop({"lr": 0.01, "momentum": 0.5, "centered": True}),
    "per parameter": lambda: pyro.optim.Adam(lambda name: {"lr": 0.05 if "scale" in name else 0.01}),
}


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
    (stock, wanted), (ours, got) = results
    precise = next(iter(wanted.values())).dtype == torch.float64
    torch.testing.assert_close(ours, stock, rtol=1e-9 if precise else 2e-4, atol=0)
    assert stock[0] != stock[-1]
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-8 if precise else 2e-3, atol=1e-10 if precise else 1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_traced_step_is_the_stock_step(name: str) -> None:
    compare(lazy_pair, (data(),), OPTIMIZERS[name], Trace_ELBO, compile=False)


@pytest.mark.parametrize("name", ["adam decay", "clipped", "nesterov", "rmsprop centered", "per parameter"])
def test_the_rules_of_the_optimizers_are_theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole step with the optimizer inside, without the compiler's minutes: Inductor is the identity here."""
    monkeypatch.setattr(inductor, "inductor", lambda module: lambda inputs: module(*inputs))
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


def test_enumeration_takes_the_stock_step() -> None:
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
    assert results[0] == results[1]
    assert [w.category for w in caught].count(SVIFallbackWarning) == 1


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {"m2"}))  # m2 wants its structure: test_semi_supervised
def test_every_objective_is_traced(name: str) -> None:
    option = ":dataset_size=400" if name == "beta_tcvae" else ""
    compare(
        vae_pair,
        (data(),),
        OPTIMIZERS["adam"],
        lambda: OBJECTIVES.build(OBJECTIVES.resolve(name + option)),
        compile=False,
    )


def torch_svi(vae: VAE, lr: float = 0.02, loss: Any = None, **options: Any) -> CompiledSVI:
    optimizer = torch.optim.Adam(vae.parameters(), lr=lr)
    return CompiledSVI(vae.model, vae.guide, optimizer, loss or Trace_ELBO(), **options)


def values(vae: VAE) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in vae.parameters()]


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


def test_an_option_that_the_program_has_baked_in_makes_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "inductor", lambda module: lambda inputs: module(*inputs))
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


def test_shapes_and_modes_have_programs_of_their_own() -> None:
    x, vae = data(), small_vae()
    svi = torch_svi(vae, compile=False)
    for rows in (40, 40, 7, 40, 7):
        svi.step(x[:rows])
    assert len(svi._programs) == 2
    vae.eval()
    svi.step(x)
    assert len(svi._programs) == 3
    svi.recompile()
    assert len(svi._programs) == 0


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


# --- what cannot be compiled ------------------------------------------------------------------------------------------


def test_structure_that_depends_on_values_falls_back_and_says_so_once() -> None:
    def build() -> tuple[Any, Any]:
        model, guide = lazy_pair()

        def branching(x: Tensor) -> None:
            if x.sum() > 0:
                guide(x)

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
    calls = [0]

    class Moody(Trace_ELBO):
        def differentiable_loss(self, *args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return super().differentiable_loss(*args, **kwargs) * (1 + calls[0] % 2)

    vae = small_vae()
    with pytest.warns(SVIFallbackWarning, match="disagrees with the stock loss at the same noise"):
        torch_svi(vae, loss=Moody()).step(data())


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

    wanted = trajectory(torch_svi(small_vae(), compile=False), data())
    pyro.clear_param_store()
    monkeypatch.setattr(inductor, "inductor", absent)
    svi = torch_svi(small_vae())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = trajectory(svi, data())
        svi.step(data()[:9])
    assert [w.category for w in caught].count(SVIFallbackWarning) == 1
    assert got == pytest.approx(wanted, rel=1e-9)


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


@pytest.mark.parametrize("form", ["never", False, "whole"])
def test_a_loss_that_is_not_finite_changes_nothing(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "whole":
        monkeypatch.setattr(inductor, "inductor", lambda module: lambda inputs: module(*inputs))
    vae, x = small_vae(), data()
    svi = torch_svi(vae, compile=True if form == "whole" else form)
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
    with pytest.raises(ValueError, match="compile is True, False, 'never' or a number of steps, got 'often'"):
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


# --- epochs, bits, resume ---------------------------------------------------------------------------------------------


def test_an_epoch_steps_through_every_datum_once() -> None:
    x, vae = data(43), small_vae()
    svi = torch_svi(vae, compile=False)
    torch.manual_seed(0)
    got = svi.run_epoch(x, batch_size=10, seed=3)
    pyro.clear_param_store()
    again = torch_svi(small_vae(), compile=False)
    torch.manual_seed(0)
    from vae_pyro.core.isolation import derive_seed

    order = list(batches(43, 10, derive_seed(3, 1), x.device))
    assert sorted(torch.cat(order).tolist()) == list(range(43))
    assert [len(index) for index in order] == [10, 10, 10, 10, 3]
    total = sum(again.step(x[index]) for index in order)
    assert got == pytest.approx(total / 43, rel=1e-12)
    assert len(list(batches(43, 10, 0, x.device, drop_last=True))) == 4


def grey() -> Split:
    with seeded(1):
        return Split((torch.rand(40, 6) * 256).to(torch.uint8), top=255.0, draw="binarize")


def test_the_same_seed_gives_the_same_bits_and_so_does_resuming() -> None:
    split, whole = grey(), []
    for _ in range(2):
        pyro.clear_param_store()
        vae = small_vae()
        svi = torch_svi(vae, prepare=lambda *raw: split.observe(*raw, dtype=torch.float64), compile=False)
        torch.manual_seed(0)
        whole.append([svi.run_epoch(split, batch_size=10, seed=epoch) for epoch in range(3)])
        wanted = values(vae)
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
    assert all(torch.equal(a, b) for a, b in zip(wanted, values(fresh), strict=True))


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


@pytest.mark.parametrize("name", ["adam", "clipped"])
def test_many_steps_at_once_are_the_same_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph records, taken without one: rates, counts and order as step by step, remainder and all."""
    monkeypatch.setattr(inductor, "inductor", lambda module: lambda inputs: module(*inputs))
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


# --- ensembles --------------------------------------------------------------------------------------------------------


def alone(seed: int, x: Tensor, **options: Any) -> tuple[list[float], list[Tensor]]:
    pyro.clear_param_store()
    vae = small_vae(seed=seed)
    svi = torch_svi(vae, compile=False, **options)
    return trajectory(svi, x, seed=seed), values(vae)


@pytest.mark.parametrize("form", [False, True])
def test_each_member_is_the_model_trained_alone_with_its_seed(form: bool) -> None:
    x, seeds = data(), [4, 7, 9]
    wanted = [alone(seed, x, clip_norm=5.0) for seed in seeds]
    pyro.clear_param_store()
    vae = small_vae(seed=0)
    unchanged = values(vae)

    def initialize(seed: int) -> None:
        vae.load_state_dict(small_vae(seed=seed).state_dict())

    svi = torch_svi(vae, compile=form, num_ensemble=3, seeds=seeds, initialize=initialize, clip_norm=5.0)
    state = torch.get_rng_state()
    losses = torch.tensor([svi.step(x) for _ in range(6)])
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(unchanged, values(vae), strict=True))
    for number, (stock, parameters) in enumerate(wanted):
        torch.testing.assert_close(losses[:, number], torch.tensor(stock), rtol=1e-9, atol=0)
        by_leaf = {id(leaf): alone for leaf, alone in zip(vae.parameters(), parameters, strict=True)}
        for (name, ours), leaf in zip(svi.member(number).items(), svi.leaves.values(), strict=True):
            torch.testing.assert_close(ours, by_leaf[id(leaf)], rtol=1e-7, atol=1e-10, msg=name)
    assert not torch.allclose(losses[:, 0], losses[:, 1])


def test_members_make_their_own_parameters() -> None:
    x = data()
    wanted = []
    for seed in (0, 1):
        pyro.clear_param_store()
        model, guide = lazy_pair()
        torch.manual_seed(seed)
        find_leaves(Trace_ELBO(), model, guide, (x,), {})
        wanted.append(
            trajectory(CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False), x, seed=seed)
        )
    pyro.clear_param_store()
    model, guide = lazy_pair()
    svi = CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False, num_ensemble=2)
    losses = torch.tensor([svi.step(x) for _ in range(6)])
    torch.testing.assert_close(losses.T, torch.tensor(wanted), rtol=1e-9, atol=0)
    assert set(svi.member(1)) == {"scale", "weight", "share"}
    assert not torch.equal(svi.member(0)["weight"], svi.member(1)["weight"])


# --- types ------------------------------------------------------------------------------------------------------------


def test_products_run_in_bfloat16_and_densities_do_not() -> None:
    x = data().float()
    results = {}
    for autocast in (None, torch.bfloat16):
        pyro.clear_param_store()
        vae = small_vae().float()
        svi = torch_svi(vae, autocast=autocast, compile=False)
        results[autocast] = trajectory(svi, x)
    (traced,) = svi._programs
    kinds = {}
    for node in traced.form.program.graph.module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and isinstance(node.meta.get("val"), Tensor):
            kinds.setdefault(node.target.overloadpacket.__name__, set()).add(node.meta["val"].dtype)
    assert {kinds[name].pop() for name in ("mm", "addmm") if name in kinds} == {torch.bfloat16}
    for name in ("log", "exp", "log1p", "sum"):
        assert torch.bfloat16 not in kinds.get(name, set()) or name == "sum"
    # bfloat16 keeps 8 bits: a product is right to 0.4 %, the loss to better, and it is not the same number.
    assert results[None] != results[torch.bfloat16]
    assert results[None] == pytest.approx(results[torch.bfloat16], rel=0.01)
    with ProductsIn(torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_disagreement_tells_rounding_from_an_error() -> None:
    with seeded(0):
        a = torch.randn(50)
    assert disagreement([a], [a * (1 + 1e-6)]) is None
    assert "differs" in str(disagreement([a], [a * 1.001]))
    assert "finite in other places" in str(disagreement([a], [a / 0]))
    assert "is (50,)" in str(disagreement([a], [a[:3]]))
    assert disagreement([torch.ones(2, dtype=torch.int64)], [torch.zeros(2, dtype=torch.int64)]) is not None


@pytest.mark.cuda
def test_on_cuda_a_step_and_an_epoch_are_those_of_the_cpu() -> None:
    device = torch.device("cuda")
    x = data().float()
    vae = small_vae().float().to(device)
    stock = torch_svi(vae, compile="never")
    torch.manual_seed(0)
    wanted = [stock.step(x.to(device)) for _ in range(5)]
    for form in (False, True):
        pyro.clear_param_store()
        vae = small_vae().float().to(device)
        svi = torch_svi(vae, compile=form)
        torch.manual_seed(0)
        assert [svi.step(x.to(device)) for _ in range(5)] == pytest.approx(wanted, rel=1e-3)
    split = Split(grey().values, top=255.0, draw="binarize").to(device)
    pyro.clear_param_store()
    vae = small_vae().float().to(device)
    svi = torch_svi(vae, prepare=split.observe)
    first = svi.run_epoch(split, batch_size=8, seed=0)
    for epoch in range(1, 30):
        last = svi.run_epoch(split, batch_size=8, seed=epoch)
    assert last < first


def test_looking_for_parameters_leaves_the_buffers_of_members_as_they_were_made() -> None:
    """The programs run once for each member before the first step; what they count in doing so is not the members'."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)
            self.register_buffer("runs", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.runs.add_(1.0)
            return self.layer(x).squeeze(-1)

    net, x = Counting(), torch.arange(12.0).reshape(6, 2)

    def model(x: Tensor) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=net(x))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pyro.get_param_store().scope(), torch.random.fork_rng():
        svi = CompiledSVI(
            model, guide, torch.optim.Adam(net.parameters()), Trace_ELBO(), compile=False, num_ensemble=2,
            seeds=[1, 2], initialize=lambda seed: net.runs.fill_(40.0),
        )  # fmt: skip
        svi.trace(x)
    assert float(net.runs) == 40.0
