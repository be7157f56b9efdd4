"""What a trace holds: matrix products in another type, and no value of a tensor."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.util import warn_if_nan as warn_under_another_name
from torch import Tensor

from tests.vae_pyro.svi.programs import (
    data,
    small_vae,
    torch_svi,
    trajectory,
)
from vae_pyro.compilation.capture import capture_function
from vae_pyro.compilation.graph import CaptureError
from vae_pyro.compilation.modes import ProductsIn


@pytest.mark.usefixtures("own_store")
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


@pytest.mark.usefixtures("own_store")
def test_distributions_that_check_their_values_are_traced() -> None:
    """They were made while validation was enabled, outside of the programs; nothing of torch is replaced for it."""
    prior = dist.HalfNormal(torch.ones(3), validate_args=True)
    check = torch.distributions.Distribution._validate_sample
    seen: list[bool] = []

    def density(z: Tensor) -> tuple[Tensor, ...]:
        seen.append(torch.distributions.Distribution._validate_sample is check)
        return (prior.log_prob(z).sum(-1),)

    z = torch.tensor([[0.5, 1.0, 2.0], [0.1, 0.2, 0.3]])
    graph = capture_function(density, [z])
    assert seen == [True]
    torch.testing.assert_close(graph.module(z, *graph.constants)[0], prior.log_prob(z).sum(-1))
    with pytest.raises(ValueError, match="within the support"):
        prior.log_prob(-z)


def test_pyro_finds_no_nan_while_a_program_is_traced_and_finds_it_again_afterwards() -> None:
    """Whatever name the warning was imported under."""

    def density(z: Tensor) -> tuple[Tensor, ...]:
        return (warn_under_another_name(z.log(), "density"),)

    graph = capture_function(density, [torch.ones(2)])
    assert graph.module(torch.ones(2))[0].tolist() == [0.0, 0.0]
    with pytest.warns(UserWarning, match="Encountered NaN: density"):
        density(-torch.ones(2))


def test_a_program_that_branches_on_nan_itself_is_no_static_graph() -> None:
    def density(z: Tensor) -> tuple[Tensor, ...]:
        return (z * 0 if torch.isnan(z).any() else z,)

    with pytest.raises(CaptureError, match="depends on the value of a tensor"):
        capture_function(density, [torch.ones(2)])
