"""What identifies a compiled program, and what it does not depend on."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation import source
from vae_pyro.compilation.source import Source


def of(function: Callable[..., Any], *inputs: Tensor, parts: Any = None, code: Any = ()) -> Source:
    graph = make_fx(function, tracing_mode="fake")(*inputs)
    return Source(lambda: graph, graph, parts, code)


def product(x: Tensor, y: Tensor) -> tuple[Tensor]:
    return (x @ y * 0.1,)


x = torch.zeros(4, 4)


def test_the_same_graph_has_the_same_key() -> None:
    first = of(product, x, x.clone()).key()
    assert first is not None
    assert of(product, x + 1, x.clone()).key() == first  # values are no part of it


@pytest.mark.parametrize(
    "other",
    [
        of(lambda x, y: (x @ y * 0.2,), x, x.clone()),
        of(lambda x, y: (x @ y + 0.1,), x, x.clone()),
        of(product, x, torch.zeros(4, 5)),
        of(product, x, x.clone().t()),
        of(product, x.double(), x.double().clone()),
        of(product, x, x.clone(), parts=[1]),
        of(product, x, x.clone(), code=[pytest]),
    ],
)
def test_other_graphs_have_other_keys(other: Source) -> None:
    assert other.key() not in (None, of(product, x, x.clone()).key())


def test_the_key_follows_threads_settings_and_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = of(product, x, x.clone())
    keys = [ours.key()]
    for place, name, value in (
        (torch, "get_num_threads", lambda: 77),
        (torch, "get_float32_matmul_precision", lambda: "medium"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "NO AVX"),
        (source.products, "onednn_is_faster", lambda: "other"),
        (source, "_machine", lambda: ["another processor"]),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, value)
            keys.append(ours.key())
    with monkeypatch.context() as patched:
        patched.setenv("TORCHINDUCTOR_FREEZING", "1")
        keys.append(ours.key())
        patched.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
        assert ours.key() == keys[-1]
    from torch._inductor import config

    with config.patch({"cpp.simdlen": 8}):
        keys.append(ours.key())
    assert ours.key() == keys[0]
    assert len(set(keys)) == len(keys)


def test_operators_from_elsewhere_and_values_inside_are_not_kept() -> None:
    @torch.library.custom_op("vae_pyro_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_fake(torch.empty_like)
    assert of(lambda x: (twice(x),), x).key() is None
    graph = make_fx(lambda x: (x + torch.ones(4) * x,))(torch.zeros(4))
    assert Source.of(make_fx(lambda y: (graph(y),), tracing_mode="fake")(torch.zeros(4))).key() is not None
    assert of(product, x, x.clone(), parts=[object()]).key() is None


def test_the_key_is_the_same_before_inductor_has_been_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("torch._inductor.config")
    after = of(product, x, x.clone()).key()
    monkeypatch.delitem(sys.modules, "torch._inductor.config")
    assert of(product, x, x.clone()).key() == after
