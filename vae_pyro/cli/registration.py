"""Registration of verbs, `verb`, which also spreads groups of options (frozen dataclasses) over a verb's signature."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_args, get_type_hints

from typer.models import OptionInfo


class Topic(StrEnum):
    """Groups of verbs in the help text, in their order."""

    FIT = "Fit and compare"
    CHECK = "Check a fit"
    USE = "Use a fit"
    LIST = "Data and presets"


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        function: carries the verb out; its parameters are its arguments and options, as typer reads them.
        topic: under which the help text lists it.
        example: a call, for the help text.
        renamed: former names of options, each with the present one.
    """

    function: Callable[..., None]
    topic: Topic
    example: str
    renamed: Mapping[str, str]

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.function.__name__


VERBS: dict[str, Verb] = {}


def verb(
    topic: Topic, example: str, *, renamed: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that makes a function a verb under its own name.

    A parameter whose type is a dataclass stands for all fields of it: each is an argument or option of the verb, and
    the options have a panel of their own in the help text, which the dataclass names as ``panel``.

    Args:
        topic: under which the help text lists it.
        example: a call, for the help text.
        renamed: former names of options, which are refused with the present one.

    Raises:
        ValueError: the name is taken, or an option is there twice.
    """

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        if function.__name__ in VERBS:
            raise ValueError(f"the verb {function.__name__!r} is registered already, by {VERBS[function.__name__]}")
        spread = _spread(function)
        VERBS[function.__name__] = Verb(spread, topic, example, renamed or {})
        return spread

    return enter


def _spread(function: Callable[..., None]) -> Callable[..., None]:
    """The function of the fields of its dataclasses in the place of these."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: dict[str, Parameter] = {}
    for name in signature(function).parameters:
        group = hints[name]
        if is_dataclass(group) and isinstance(group, type):
            groups[name] = group
            found = _fields(group)
        else:
            found = [signature(function).parameters[name]]
        for parameter in found:
            if parameter.name in parameters:
                raise ValueError(f"{function.__name__} has the option {parameter.name!r} twice")
            parameters[parameter.name] = parameter.replace(kind=Parameter.KEYWORD_ONLY)

    @wraps(function)
    def spread(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**made, **values)

    spread.__signature__ = signature(function).replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    spread.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return spread


def _fields(group: type[Any]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            annotation=_in_panel(hints[field.name], group.panel),
            default=Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(group)
    ]


def _in_panel(annotation: Any, panel: str) -> Any:
    """The annotation of an option whose help stands in a panel of the help text."""
    kind, info = get_args(annotation)
    if isinstance(info, OptionInfo):
        info = copy(info)
        info.rich_help_panel = panel
    return Annotated[kind, info]
