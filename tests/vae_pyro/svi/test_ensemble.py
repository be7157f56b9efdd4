"""Members of an ensemble are the runs alone."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from tests.vae_pyro.svi.programs import (
    OPTIMIZERS,
    data,
    lazy_pair,
    small_vae,
    torch_svi,
    trajectory,
    values,
)
from vae_pyro.compilation.capture import find_leaves
from vae_pyro.svi.compiled_svi import CompiledSVI


def alone(seed: int, x: Tensor, **options: Any) -> tuple[list[float], list[Tensor]]:
    pyro.clear_param_store()
    vae = small_vae(seed=seed)
    svi = torch_svi(vae, compile=False, **options)
    return trajectory(svi, x, seed=seed), values(vae)


@pytest.mark.parametrize("form", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_each_member_is_the_model_trained_alone_with_its_seed(form: bool) -> None:
    x, seeds = data(), [4, 7, 9]
    expected = [alone(seed, x, clip_norm=5.0) for seed in seeds]
    pyro.clear_param_store()
    vae = small_vae(seed=0)
    unchanged = values(vae)

    def initialize(seed: int) -> None:
        vae.load_state_dict(small_vae(seed=seed).state_dict())

    svi = torch_svi(vae, compile=form, num_ensemble=3, seeds=seeds, initialize=initialize, clip_norm=5.0)
    state = torch.get_rng_state()
    losses = torch.tensor([svi.step(x) for _ in range(6)])
    assert [traced.steps for traced in svi._programs] == [6]  # traced once
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(unchanged, values(vae), strict=True))
    for number, (stock, parameters) in enumerate(expected):
        torch.testing.assert_close(losses[:, number], torch.tensor(stock), rtol=1e-9, atol=0)
        by_leaf = {id(leaf): alone for leaf, alone in zip(vae.parameters(), parameters, strict=True)}
        for (name, ours), leaf in zip(svi.member(number).items(), svi.leaves.values(), strict=True):
            torch.testing.assert_close(ours, by_leaf[id(leaf)], rtol=1e-7, atol=1e-10, msg=name)
    assert not torch.allclose(losses[:, 0], losses[:, 1])


def test_members_make_their_own_parameters() -> None:
    x = data()
    expected = []
    for seed in (0, 1):
        pyro.clear_param_store()
        model, guide = lazy_pair()
        torch.manual_seed(seed)
        find_leaves(Trace_ELBO(), model, guide, (x,), {})
        expected.append(
            trajectory(CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False), x, seed=seed)
        )
    pyro.clear_param_store()
    model, guide = lazy_pair()
    svi = CompiledSVI(model, guide, OPTIMIZERS["adam"](), Trace_ELBO(), compile=False, num_ensemble=2)
    losses = torch.tensor([svi.step(x) for _ in range(6)])
    torch.testing.assert_close(losses.T, torch.tensor(expected), rtol=1e-9, atol=0)
    assert set(svi.member(1)) == {"scale", "weight", "share"}
    assert not torch.equal(svi.member(0)["weight"], svi.member(1)["weight"])


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
