"""Names that Python code reads: global variables, and attributes of whatever objects."""

import dis
import sys
import types
from dataclasses import dataclass
from functools import cache

import torch

# Whose own variables and attributes are no business of a program: they change its values through arguments alone.
_LIBRARIES = sys.stdlib_module_names | {
    "builtins", "_pytest", "arviz", "funsor", "matplotlib", "numpy", "opt_einsum", "pandas", "pyro", "pyroapi",
    "pytest", "rich", "scipy", "sklearn", "tensorboard", "torch", "torchvision", "tqdm", "wandb", "xarray",
}  # fmt: skip
_BY_STRING = frozenset({"getattr", "setattr", "hasattr", "attrgetter"})
_WHOLE = frozenset({"vars", "__dict__"})


def is_library(module: str | None) -> bool:
    """Whether a module, by its name, belongs to Python, torch, Pyro or NumPy."""
    return module is not None and module.partition(".")[0] in _LIBRARIES


def is_standard(module: str | None) -> bool:
    """Whether a module, by its name, is one of Python's own: its objects hold what a program puts there."""
    return module is not None and module.partition(".")[0] in sys.stdlib_module_names | {"builtins"}


@dataclass(frozen=True)
class Read:
    """What one function reads.

    Attributes:
        variables: names of global variables.
        attributes: names of attributes, of any object.
        made_up: whether it makes up names of attributes at run time, so that any may be read.
    """

    variables: frozenset[str]
    attributes: frozenset[str]
    made_up: bool


@cache
def names_of(code: types.CodeType) -> Read:
    """Names that a function reads, with the functions that it defines.

    Names that a function gives to ``getattr`` are among its string constants.
    """
    instructions = list(dis.get_instructions(code))
    variables = {i.argval for i in instructions if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    attributes = set(code.co_names)
    made_up = False
    if (variables | attributes) & _BY_STRING:
        attributes |= {constant for constant in code.co_consts if isinstance(constant, str)}
        made_up = any(i.opname == "BUILD_STRING" for i in instructions)
    made_up = made_up or bool((variables | attributes) & _WHOLE)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_of(constant)
            variables |= inner.variables
            attributes |= inner.attributes
            made_up = made_up or inner.made_up
    return Read(frozenset(variables), frozenset(attributes), made_up)


@cache
def names_of_library(cls: type) -> frozenset[str]:
    """Attributes that the methods of a library's class read, and which a subclass may have set."""
    if cls is torch.nn.Module or cls.__module__ == "builtins":
        return frozenset()
    functions = [value for value in vars(cls).values() if isinstance(value, types.FunctionType)]
    return frozenset().union(*(names_of(function.__code__).attributes for function in functions))
