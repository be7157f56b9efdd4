"""Products through oneDNN are the same products, and a rule of shapes alone chooses them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation import products
from vae_pyro.compilation.inductor import inductor
from vae_pyro.compilation.products import choose_products, onednn_is_faster
from vae_pyro.core.isolation import seeded


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor where oneDNN is the faster one."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("a torch without oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    return


def graph(function: Any, *inputs: Tensor) -> fx.GraphModule:
    return make_fx(function, tracing_mode="fake")(*inputs)


def targets(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.usefixtures("chosen")
def test_compiled_products_are_torchs_whatever_their_strides() -> None:
    """A linear layer and its gradients: plain, transposed on the left, transposed on the right, with a bias."""
    with seeded(0):
        x, weight, bias, gradient = torch.randn(64, 300), torch.randn(200, 300), torch.randn(200), torch.randn(64, 200)

    def step(x: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        forward = torch.addmm(bias, x, weight.t()).relu()
        return forward, gradient.t() @ x, (gradient * 2) @ weight, (forward + 1).t().contiguous() @ x

    inputs = (x, weight, bias, gradient)
    module = graph(step, *inputs)
    ours = inductor(module)(list(inputs))
    for got, expected in zip(ours, step(*(item.double() for item in inputs)), strict=True):
        # Sums of 64 to 300 products of size 1, in float32.
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-3)
    assert targets(module).count("aten.mm.default") == 3, "the caller's graph is left as it is"


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize(
    ("rows", "inner", "columns", "dtype", "count"),
    [
        (64, 300, 200, torch.float32, 1),
        (64, 300, 200, torch.float64, 0),  # oneDNN has no double
        (20, 400, 40, torch.float32, 0),  # too small to repay the call
        (1024, 400, 20, torch.float32, 0),  # few columns, which are slow
    ],
)
def test_the_rule(rows: int, inner: int, columns: int, dtype: torch.dtype, count: int) -> None:
    a, b = torch.zeros(rows, inner, dtype=dtype), torch.zeros(inner, columns, dtype=dtype)
    module = graph(torch.mm, a, b)
    assert choose_products(module) == count
    assert targets(module).count("vae_pyro.linear.default") == count
    assert targets(module).count("aten.mm.default") == 1 - count


@pytest.mark.usefixtures("chosen")
def test_a_bias_that_is_a_matrix_stays() -> None:
    a, b = torch.zeros(64, 300), torch.zeros(300, 200)
    assert choose_products(graph(torch.addmm, torch.zeros(64, 200), a, b)) == 0
    assert choose_products(graph(torch.addmm, torch.zeros(200), a, b)) == 1


def test_elsewhere_nothing_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    module = graph(torch.mm, torch.zeros(64, 300), torch.zeros(300, 200))
    assert choose_products(module) == 0
    assert targets(module) == ["aten.mm.default"]


@pytest.mark.parametrize(
    ("capability", "cpu", "faster"),
    [("AVX512", "AuthenticAMD", True), ("AVX512", "GenuineIntel", False), ("AVX2", "AuthenticAMD", False)],
)
def test_the_processor(capability: str, cpu: str, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(products.Path, "read_text", lambda self: f"vendor_id : {cpu}")
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() == (faster and torch.backends.mkldnn.is_available())
    finally:
        onednn_is_faster.cache_clear()
