"""The comparison of a compiled function with its graph, and programs that are kept."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from vae_pyro.compilation import inductor, store
from vae_pyro.compilation.inductor import compile_checked, disagreement
from vae_pyro.compilation.library import Run
from vae_pyro.compilation.source import Source
from vae_pyro.compilation.store import ProgramStore, StoreWarning
from vae_pyro.core.isolation import seeded


def test_disagreement_tells_rounding_from_an_error() -> None:
    with seeded(0):
        a = torch.randn(50)
    assert disagreement([a], [a * (1 + 1e-6)]) is None
    assert "differs" in str(disagreement([a], [a * 1.001]))
    assert "finite in other places" in str(disagreement([a], [a / 0]))
    assert "is (50,)" in str(disagreement([a], [a[:3]]))
    assert disagreement([torch.ones(2, dtype=torch.int64)], [torch.zeros(2, dtype=torch.int64)]) is not None


def step(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """A product, a reduction, and a copy into an input."""
    product = (x @ weight).tanh()
    weight.copy_(weight - 0.1 * (x.t() @ product))
    return product.sum(), product.mean(0)


def test_a_program_is_kept_and_found_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Compiled, then found without the compiler; not found where a file is damaged or its folder not one's own."""
    monkeypatch.setenv("VAE_PYRO_CACHE", str(tmp_path))
    with seeded(0):
        inputs = [torch.randn(30, 40), torch.randn(40, 20)]
    source = Source.of(make_fx(step, tracing_mode="fake")(*inputs))
    compiled: list[fx.GraphModule] = []

    def interpreted(module: fx.GraphModule) -> Run:
        compiled.append(module)
        return lambda inputs: module(*inputs)

    def run() -> list[Tensor]:
        program, given = compile_checked(source, inputs), [tensor.clone() for tensor in inputs]
        return [*program(list(given)), *given]

    cold = run()
    monkeypatch.setattr(inductor, "inductor", interpreted)
    modules = set(sys.modules)
    warm = run()
    assert not compiled
    assert all(torch.equal(a, b) for a, b in zip(cold, warm, strict=True))
    assert set(sys.modules) == modules

    def is_compiled_anew(times: int) -> None:
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(cold, run(), strict=True))
        assert len(compiled) == times

    (library,) = (tmp_path / "compiled").glob("*.so")
    content = library.read_bytes()
    library.write_bytes(content[: len(content) // 2])
    is_compiled_anew(1)
    library.write_bytes(content)
    library.chmod(0o777)
    is_compiled_anew(2)
    library.chmod(0o700)
    kept, key = ProgramStore(tmp_path / "compiled"), str(source.key())
    kept.path.chmod(0o777)
    store._WARNED.clear()
    is_compiled_anew(3)
    kept.path.chmod(0o700)
    assert [warning.category for warning in recwarn.list] == [StoreWarning]
    with monkeypatch.context() as patched:  # a program of another graph under this one's name
        patched.setattr(inductor, "load_library", lambda path: lambda inputs: source.module(inputs[0] * 2, inputs[1]))
        is_compiled_anew(4)
    kept.put(key, b"no shared object", seconds=1.0, operators=1)
    is_compiled_anew(5)
