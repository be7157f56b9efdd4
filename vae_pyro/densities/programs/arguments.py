"""What a program is called with beside the data: which of ``size``, ``mask`` and ``y`` its signature takes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

_KEYWORDS = ("size", "mask")


@dataclass(frozen=True)
class Arguments:
    """How a program is called.

    Attributes:
        role: ``model`` or ``guide``, which errors name.
        size: whether ``program(size=n)`` draws data without any.
        mask: whether it takes a mask.
        y: name of the argument for classes; empty where there is none.
        requires_y: whether it has no default.
    """

    role: str
    size: bool = True
    mask: bool = True
    y: str = "y"
    requires_y: bool = False

    @classmethod
    def of(cls, program: Callable[..., Any], role: str) -> "Arguments":
        """Read the signature of a program.

        The first argument is the data. Classes are ``y``, or the only other argument that is required or has the
        default ``None``, such as ``ys`` or ``labels``. What else has a default keeps it.

        Raises:
            ValueError: no argument for data, or several others that are required.
        """
        inner = without_handlers(program)
        try:
            signature = inspect.signature(inner.forward if isinstance(inner, nn.Module) else inner)
        except (TypeError, ValueError):  # some callables of C have none
            return cls(role, size=False)
        parameters = list(signature.parameters.values())
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        positional = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
        named = [parameter for parameter in parameters if parameter.kind.name not in ("VAR_KEYWORD", "VAR_POSITIONAL")]
        data = next((parameter for parameter in named if parameter.kind.name.startswith("POSITIONAL")), None)
        if data is None and not positional:
            raise ValueError(f"the {role} takes no data: its arguments are {signature}; write {role}(x)")
        optional = positional if data is None else data.default is not data.empty
        others = {parameter.name: parameter for parameter in named if parameter is not data}
        required = [name for name, at in others.items() if at.default is at.empty and name not in (*_KEYWORDS, "y")]
        if len(required) > 1 or (required and "y" in others):
            raise ValueError(
                f"the {role} requires {', '.join(required)} beside the data, and is given x, mask and y alone; bind "
                f"the others first, as in functools.partial({role}, {required[-1]}=...)"
            )
        unset = [name for name, at in others.items() if at.default is None and name not in _KEYWORDS]
        candidates = ["y"] if "y" in others else required or unset
        y = candidates[0] if len(candidates) == 1 else "y" if anything else ""
        return cls(
            role,
            size=optional and ("size" in others or anything),
            mask="mask" in others or anything,
            y=y,
            requires_y=y in others and others[y].default is others[y].empty,
        )

    def given(self, mask: Tensor | None, y: Tensor | None) -> dict[str, Any]:
        """The keywords of a call: ``mask`` and ``y`` where they are given and taken."""
        found = {"mask": mask if self.mask else None, self.y: y if self.y else None}
        return {name: value for name, value in found.items() if value is not None}


def require_arguments(model: Arguments, guide: Arguments, mask: Tensor | None, y: Tensor | None) -> None:
    """Refuse data that come with what the programs do not take, or without what they require.

    A guide may do without the mask, since what is not observed is 0, and either program without the classes.

    Raises:
        ValueError: no argument for the mask or the classes, or none given where they are required.
    """
    hidden = 0 if mask is None else int((~mask).sum())
    if hidden and not model.mask:
        raise ValueError(
            f"{hidden:,} elements of x are not observed (NaN, or False in mask), and the model takes no argument mask; "
            "leave these data out, or write model(x, *, mask=None), which scores observed elements alone"
        )
    for arguments in (model, guide):
        if y is None and arguments.requires_y:
            raise ValueError(f"the {arguments.role} requires {arguments.y} beside the data; give it as y=")
    if y is not None and not model.y and not guide.y:
        raise ValueError("y is given, and neither program takes classes; leave y out, or write model(x, y=None)")


def without_handlers(program: Any) -> Any:
    """A program without the effect handlers around it, which hide its signature."""
    while isinstance(program, partial):
        if isinstance(program.func, partial):
            program = program.func
        elif len(program.args) >= 2 and isinstance(program.args[0], Messenger):
            _, inner, *bound = program.args
            program = partial(inner, *bound, **program.keywords) if bound or program.keywords else inner
        else:
            break
    return program
