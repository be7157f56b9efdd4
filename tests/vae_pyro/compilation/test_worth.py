"""Whether compiling repays itself: what is found costs little, what is slow here costs more."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation.graph import Graph, charged, compile_seconds
from vae_pyro.compilation.source import Source
from vae_pyro.compilation.store import ProgramStore
from vae_pyro.compilation.worth import Plan, seconds_to_repay


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


def test_by_rule_it_is_the_break_even_of_the_graph(graph: Graph) -> None:
    source, steps = Source.of(graph.module), graph.break_even
    assert steps == graph.steps_to_repay(charged(20))
    assert [Plan(planned, by_rule=True).compiles(graph, source) for planned in (steps - 1, steps)] == [False, True]
    assert graph.steps_to_repay(1.0) < graph.steps_to_repay(2.0) <= 2 * graph.steps_to_repay(1.0)


def test_what_is_kept_is_repaid_at_once(graph: Graph, kept: ProgramStore) -> None:
    source = Source.of(graph.module)
    key = source.key()
    assert key is not None
    few = graph.break_even // 3
    assert not Plan(few).compiles(graph, source)
    kept.put(key, b"program", seconds=1.0, operators=20)
    assert source.stored
    assert Plan(few).compiles(graph, source)
    assert not Plan(few, by_rule=True).compiles(graph, source)
    assert not Plan(10).compiles(graph, source)


@pytest.mark.parametrize(("slowness", "expected"), [(1.5, 1.5), (0.8, 0.8), (20.0, 2.0), (0.01, 0.5)])
def test_seconds_follow_what_was_measured_here(
    slowness: float, expected: float, graph: Graph, kept: ProgramStore
) -> None:
    source = Source.of(graph.module)
    assert seconds_to_repay(source) == charged(20)
    for number, noise in enumerate((0.99, 1.0, 1.01)):
        kept.put(f"other{number}", b"1", seconds=slowness * noise * compile_seconds(50), operators=50)
    assert seconds_to_repay(source) == pytest.approx(expected * charged(20))


def test_a_decision_stands(graph: Graph, kept: ProgramStore) -> None:
    assert Plan(1, compiled=True).compiles(graph, Source.of(graph.module))
    plan = Plan(graph.break_even // 3)
    assert not plan.compiles(graph, Source.of(graph.module))
    kept.put(str(Source.of(graph.module).key()), b"program", seconds=1.0, operators=20)
    assert not plan.compiles(graph, Source.of(graph.module))
