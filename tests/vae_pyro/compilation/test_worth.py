"""Whether compiling repays itself: the graph and the number of steps decide, whatever is in the cache."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation.graph import Graph, charged
from vae_pyro.compilation.source import Source
from vae_pyro.compilation.store import ProgramStore
from vae_pyro.compilation.worth import Plan


@pytest.fixture
def graph() -> Graph:
    def chain(x: Tensor) -> tuple[Tensor]:
        for _ in range(20):
            x = x.sin()
        return (x,)

    return Graph(make_fx(chain, tracing_mode="fake")(torch.zeros(1000)), 0, 1)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProgramStore:
    monkeypatch.setenv("VAE_PYRO_CACHE", str(tmp_path))
    return ProgramStore(tmp_path / "compiled")


def test_the_graph_and_the_number_of_steps_decide(graph: Graph) -> None:
    source, steps = Source.of(graph.module), graph.break_even
    assert steps == graph.steps_to_repay(charged(20))
    assert [Plan(planned).compiles(graph, source) for planned in (steps - 1, steps)] == [False, True]
    assert graph.steps_to_repay(1.0) < graph.steps_to_repay(2.0) <= 2 * graph.steps_to_repay(1.0)


def test_what_is_in_the_cache_changes_no_decision(graph: Graph, kept: ProgramStore) -> None:
    source = Source.of(graph.module)
    key = source.key()
    assert key is not None
    kept.put(key, b"program", seconds=1.0, operators=20)
    assert source.stored
    assert not Plan(graph.break_even // 3).compiles(graph, source)


def test_a_decision_stands(graph: Graph) -> None:
    assert Plan(1, compiled=True).compiles(graph, Source.of(graph.module))
    assert not Plan(10**9, compiled=False).compiles(graph, Source.of(graph.module))
