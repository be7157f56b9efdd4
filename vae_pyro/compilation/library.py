"""The shared object that Inductor has compiled from a graph on the CPU, and its call without Inductor.

Inductor's C++ wrapper is an extension module with one function, which takes handles of the inputs and gives handles of
the outputs; what stands around it in Python turns tensors into handles and back (torch 2.15,
``torch._inductor.codegen.cpp_wrapper_cpu``).
"""

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

type Run = Callable[[list[Any]], Any]

_ENTRY = "inductor_entry_cpp"
_ADDRESS = "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"
_OTHER_LIBRARY = re.compile(rb"\0/[^\0]*\.so\0")


def library_of(compiled: Any) -> bytes | None:
    """The shared object of a compiled graph, where it is all that its call consists of; else ``None``.

    Args:
        compiled: what Inductor gives.
    """
    call: Any = getattr(compiled, "current_callable", None)
    code = getattr(call, "__code__", None)
    if code is None or code.co_freevars != ("f",) or getattr(compiled, "constants", None) != {}:
        return None
    entry = call.__closure__[0].cell_contents
    file = getattr(getattr(entry, "__self__", None), "__file__", None)
    if getattr(entry, "__name__", None) != _ENTRY or file is None:
        return None
    content = Path(file).read_bytes()
    return None if _OTHER_LIBRARY.search(content) else content


def load_library(path: Path) -> Run:
    """A shared object as a function of one list of tensors.

    Raises:
        ImportError: it cannot be loaded.
    """
    name = f"{path.stem}.{_ENTRY}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} is no extension module")
    before = os.environ.get(_ADDRESS)
    os.environ[_ADDRESS] = str(torch._C._dynamo.guards._torchinductor_pyobject_tensor_data_ptr)  # type: ignore[attr-defined]
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.modules.pop(name, None)  # where extension modules enter themselves
        if before is None:
            del os.environ[_ADDRESS]
        else:
            os.environ[_ADDRESS] = before
    entry = getattr(module, _ENTRY)

    def run(inputs: list[Any]) -> Any:
        handles = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(inputs)
        inputs.clear()
        return torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs(entry(handles))

    return run
