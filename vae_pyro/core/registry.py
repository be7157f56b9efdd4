"""Named variants with validated options: the meaning of ``likelihood="gaussian:scale=0.1"``.

A variant is a class or function registered under a name. Its keyword-only parameters are its options: their
annotations validate what a user writes and their defaults fill in the rest. Adding a variant means writing it, and
nothing else.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from math import inf
from textwrap import shorten
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

# Columns of a printed registry.
_LINE = 120
# Characters of a value that a message shows.
_SHOWN = 100


class Choice(BaseModel):
    """A variant by name, with its options: the JSON form is ``{"name": "gaussian", "scale": 0.1}``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options without the name."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        options = ",".join(f"{key}={plain(value)}" for key, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def plain(value: Any) -> str:
    """Inverse of `parse_scalar`."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)


def parse_scalar(text: str) -> Any:
    """The JSON value that ``text`` spells (``0.1``, ``[200,200]``), or ``text`` where it is not JSON (``relu``)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, integers of thousands of digits, or brackets nested as deeply
        return text


def split_commas(text: str) -> list[str]:
    """The pieces between commas; commas inside brackets or quotes do not separate.

    >>> split_commas('[8],[8,8],"a,b"')
    ['[8]', '[8,8]', '"a,b"']
    """
    pieces, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{") - (character in "]}")
        if character == "," and depth == 0 and not quoted:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def parse_choice(text: str) -> dict[str, Any]:
    """Read ``name`` or ``name:key=value,key=value`` (values are JSON or plain words).

    Raises:
        ValueError: an option has no ``=``.
    """
    name, _, rest = text.partition(":")
    choice: dict[str, Any] = {"name": name.strip()}
    for piece in filter(None, split_commas(rest)):
        key, equals, value = piece.partition("=")
        if not equals:
            raise ValueError(f"option {piece!r} of {name!r} has no value; write {name}:{piece}=VALUE")
        choice[key.strip()] = parse_scalar(value.strip())
    return choice


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, and cut where it is long or nested deeply."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # integers of more digits than Python writes
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def describe_errors(error: ValidationError) -> str:
    """One sentence for each error of a pydantic validation, with the offending value."""
    sentences = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "is not a known key"
        elif item["type"] != "value_error":
            message = f"{message}, got {shown(item['input'])}"
        sentences.append(f"{where}: {message}" if where else message)
    return "; ".join(sentences)


class Registry[T]:
    """Variants of one kind (``likelihood``, ``prior``, ...) by name.

    Args:
        kind: the variants' common name, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._variants: dict[str, Callable[..., T]] = {}
        self._places: dict[str, float] = {}

    def register[F: Callable[..., Any]](self, name: str, *, order: float = inf) -> Callable[[F], F]:
        """Decorator that enters a class or function under ``name``.

        Args:
            name: unique among the variants.
            order: place in listings, the smallest first; variants of equal order stand as they were registered.

        Raises:
            ValueError: the name is taken.
        """

        def enter(variant: F) -> F:
            if name in self._variants:
                raise ValueError(f"{self.kind} {name!r} is registered already, as {self._variants[name]}")
            self._variants[name], self._places[name] = variant, order
            return variant

        return enter

    def unregister(self, name: str) -> None:
        """Remove a variant."""
        del self._variants[name], self._places[name]

    def __getitem__(self, name: str) -> Callable[..., T]:
        if name not in self._variants:
            near = difflib.get_close_matches(name, self._variants, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown {self.kind} {name!r}; {hint}choose from {', '.join(self)}")
        return self._variants[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._variants, key=self._places.__getitem__))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.kind}s: {', '.join(self)}>"

    def __str__(self) -> str:
        widest = max(map(len, self), default=0)
        width = _LINE - widest - 2
        return "\n".join(f"{name:<{widest}}  {shorten(self.summary(name), width, placeholder=' ...')}" for name in self)

    def summary(self, name: str) -> str:
        """First sentence of the variant's docstring."""
        return (inspect.getdoc(self[name]) or "").partition("\n")[0]

    def options(self, name: str) -> type[BaseModel]:
        """The pydantic model of a variant's options, made from its keyword-only parameters."""
        variant = self[name]
        function = variant.__init__ if inspect.isclass(variant) else variant
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {
            parameter.name: (hints[parameter.name], ... if parameter.default is parameter.empty else parameter.default)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
        return create_model(f"{name}_options", __config__=config, **fields)

    def resolve(self, value: str | Mapping[str, Any] | Choice) -> Choice:
        """Validate a choice and fill in the defaults of its options.

        Args:
            value: ``"name"``, ``"name:key=value,..."``, a mapping with ``name`` and options, or a `Choice`.

        Raises:
            ValueError: unknown name, unknown option, or an option out of its range; the message names it and lists
                the known ones.
        """
        if isinstance(value, str):
            value = parse_choice(value)
        elif isinstance(value, Choice):
            value = value.model_dump()
        elif not isinstance(value, Mapping) or "name" not in value:
            raise ValueError(f"a {self.kind} is a name or a mapping with the key 'name', got {shown(value)}")
        given = dict(value)
        name = given.pop("name")
        if not isinstance(name, str) or not all(isinstance(key, str) for key in given):
            raise ValueError(f"a {self.kind} is a name or a mapping with the key 'name', got {shown(value)}")
        options = self.options(name)
        unknown = sorted(set(given) - set(options.model_fields))
        if unknown:
            known = ", ".join(options.model_fields) or "none"
            raise ValueError(f"{self.kind} {name!r} has no option {unknown[0]!r}; its options: {known}")
        try:
            filled = options(**given)
        except ValidationError as error:
            raise ValueError(f"{self.kind} {name!r}: {describe_errors(error)}") from None
        return Choice(name=name, **filled.model_dump())

    def build(self, choice: Choice, *args: Any) -> T:
        """Call the chosen variant with ``args`` and its options."""
        return self[choice.name](*args, **choice.options)


class ClassRegistry[T](Registry[T]):
    """Variants that are classes, whose attributes say what they can be combined with."""

    def register[F: Callable[..., Any]](self, name: str, *, order: float = inf) -> Callable[[F], F]:
        """As `Registry.register`, of classes only.

        Raises:
            ValueError: the name is taken.
            TypeError: the variant is not a class.
        """
        enter = super().register(name, order=order)

        def enter_class(variant: F) -> F:
            if not isinstance(variant, type):
                raise TypeError(f"{self.kind} {name!r} must be a class, got {variant!r}")
            return enter(variant)

        return enter_class

    def __getitem__(self, name: str) -> type[T]:
        variant = super().__getitem__(name)
        assert isinstance(variant, type)
        return variant

    def name_of(self, variant: type) -> str:
        """Name under which a class or its nearest base is registered; the class's own name where none is."""
        names = {known: name for name, known in self._variants.items()}
        return next((names[kind] for kind in variant.__mro__ if kind in names), variant.__name__)

    def exported(self, package: str, class_name: str) -> type[T]:
        """The variant whose class has a name, for the ``__getattr__`` of the package that holds the variants.

        Raises:
            AttributeError: no variant's class is called so.
        """
        for name, variant in self._variants.items():
            if getattr(variant, "__name__", None) == class_name:
                return self[name]
        raise AttributeError(f"module {package!r} has no attribute {class_name!r}")
