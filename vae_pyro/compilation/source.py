"""What a compiled program is made of, by which it is found again without being made."""

import hashlib
import inspect
import json
import operator
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import fx

import vae_pyro
from vae_pyro.compilation import products
from vae_pyro.compilation.store import kept

_NAMESPACES = frozenset({"aten", "prims"})
_COMPILER = tuple(str(Path(__file__).with_name(name)) for name in ("inductor.py", "library.py", "products.py"))
# Settings of Inductor in the environment that name places, and change no program.
_PLACES = frozenset({"TORCHINDUCTOR_CACHE_DIR"})


class Source:
    """A graph that is traced when it is needed.

    Args:
        make: traces it.
        graph: the captured graph that it contains.
        parts: whatever else it depends on, as JSON values.
        code: functions and classes that make it, whose source files are part of what it is.
    """

    def __init__(
        self, make: Callable[[], fx.GraphModule], graph: fx.GraphModule, parts: Any = None, code: Sequence[Any] = ()
    ) -> None:
        self._make, self._graph, self._parts, self._code = make, graph, parts, code

    @classmethod
    def of(cls, graph: fx.GraphModule) -> Self:
        """A graph that is there."""
        return cls(lambda: graph, graph)

    @cached_property
    def module(self) -> fx.GraphModule:
        """The graph."""
        return self._make()

    def interpreted(self, inputs: list[Any]) -> Any:
        """The graph as a function of one list of inputs, run operator by operator."""
        return self.module(*inputs)

    @property
    def stored(self) -> bool:
        """Whether its compiled program is kept."""
        key = self.key()
        return key is not None and kept(lambda store: store.path if store.holds(key) else None) is not None

    @cached_property
    def operators(self) -> int:
        """How many the captured graph has."""
        return sum(node.op == "call_function" for node in self._graph.graph.nodes)

    @property
    def on_cpu(self) -> bool:
        """Whether all inputs are on the CPU."""
        return all(node.meta["val"].device.type == "cpu" for node in self._placeholders())

    def key(self) -> str | None:
        """SHA-256 of everything that the compiled program depends on; ``None`` where that is not known.

        These are the operators with their arguments, shapes, strides and types of the inputs, the rule and the options
        of the optimizer, versions, processor, threads, compiler, and settings of torch and Inductor. An operator from
        outside of torch may be defined otherwise the next time.
        """
        if not self.on_cpu or not self._only_torch():
            return None
        inputs = [
            [list(value.shape), list(value.stride()), str(value.dtype)]
            for value in (node.meta["val"] for node in self._placeholders())
        ]
        try:
            files = sorted({*_COMPILER, *(inspect.getfile(item) for item in self._code)})
            code = [_content_digest(file) for file in files]
            payload = json.dumps([self._graph.code, inputs, self._parts, code, _machine(), _settings()])
        except (AttributeError, OSError, RuntimeError, TypeError, ValueError):
            return None
        return hashlib.sha256(payload.encode()).hexdigest()

    def _placeholders(self) -> Iterator[fx.Node]:
        return (node for node in self._graph.graph.nodes if node.op == "placeholder")

    def _only_torch(self) -> bool:
        for node in self._graph.graph.nodes:
            if node.op == "get_attr":  # a value that stands in no input
                return False
            known = getattr(node.target, "namespace", None) in _NAMESPACES or node.target is operator.getitem
            if node.op == "call_function" and not known:
                return False
        return True


@cache
def _content_digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@cache
def _machine() -> list[Any]:
    """Versions, processor and compiler; Inductor compiles for the very processor that it runs on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = sorted(
            {line for line in lines if line.startswith(("vendor_id", "model name", "flags", "Features"))}
        )
    except OSError:  # not Linux
        processor = [platform.processor(), platform.machine()]
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    status = Path(compiler).stat() if compiler else None
    return [
        vae_pyro.__version__,
        torch.__version__,
        torch.version.git_version,
        torch.__file__,
        sys.version,
        platform.platform(),
        processor,
        compiler and os.path.realpath(compiler),
        status and [status.st_size, status.st_mtime_ns],
    ]


def _settings() -> list[Any]:
    """Settings of torch that compiling or the program depends on."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("TORCHINDUCTOR_", "CXX", "CPPFLAGS", "CXXFLAGS", "LDFLAGS")) and name not in _PLACES
    }
    config = sys.modules.get("torch._inductor.config")
    changed = "" if config is None else config.codegen_config()  # what has been set to other than the default
    return [
        sorted(environment.items()),
        sorted(line for line in changed.splitlines() if not line.startswith("import ")),
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        products.onednn_is_faster(),
        torch.backends.mkldnn.enabled,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        str(torch.get_default_dtype()),
    ]
