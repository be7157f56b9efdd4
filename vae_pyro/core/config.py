"""Base of every configuration: frozen, validated, and with errors that fit on a line."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from vae_pyro.core.registry import Choice, Registry, describe_errors


class Config(BaseModel):
    """A frozen configuration without unknown keys.

    Raises:
        ValueError: a key is not known or a value not allowed; the message names each, with the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            closed = type(self).model_config.get("extra") == "forbid"
            unknown = closed and set(values) - set(type(self).model_fields)
            hint = f" (known keys: {', '.join(type(self).model_fields)})" if unknown else ""
            raise ValueError(f"{type(self).__name__}: {describe_errors(error)}{hint}") from None

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self)(**{**self.model_dump(), **changes})


def choice_of(registry: Registry[Any]) -> Any:
    """Type of a field that holds a variant of ``registry``: a name, ``name:option=value``, or a mapping."""
    return Annotated[Choice, BeforeValidator(registry.resolve), PlainSerializer(lambda choice: choice.model_dump())]
