"""How stored values become observations, and the space in which the observations lie."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic_core import core_schema

type Draw = Literal["none", "binarize", "dequantize"]


class SpaceKind(StrEnum):
    """Kinds of observation spaces; densities are comparable within one space alone."""

    GIVEN = "given"  # arrays whose preparation is not known
    STORED = "stored"  # values as they are stored
    SCALED = "scaled"  # stored values divided by a number
    DEQUANTIZED = "dequantized"  # stored values plus uniform noise, divided by a number where there is one
    DRAWN = "drawn"  # 0 or 1, drawn with the intensity as probability
    THRESHOLDED = "thresholded"  # 0 or 1, intensities cut at half
    COLUMNS = "columns"  # columns of a table, each in its units
    NAMED = "named"  # anything else that a user names


_PATTERNS: dict[SpaceKind, str] = {
    SpaceKind.GIVEN: "the values as given",
    SpaceKind.STORED: "the stored values",
    SpaceKind.SCALED: r"stored values / (?P<divisor>\S+)",
    SpaceKind.DEQUANTIZED: r"stored values \+ uniform noise|\(stored values \+ uniform noise\) / (?P<divisor>\S+)",
    SpaceKind.DRAWN: r"0/1, one draw of Bernoulli\(intensity\)",
    SpaceKind.THRESHOLDED: "0/1, intensity at least half",
    SpaceKind.COLUMNS: "columns of a table: .*",
}


def _parsed(text: str) -> tuple[SpaceKind, float | None]:
    for kind, pattern in _PATTERNS.items():
        found = re.fullmatch(pattern, text)
        if found is not None:
            number = found.groupdict().get("divisor")
            try:
                return kind, None if number is None else float(number)
            except ValueError:
                break
    return SpaceKind.NAMED, None


class Space(str):
    """What log densities of observations are densities of: a kind and its numbers, which print as words.

    It is a string, so that files and tables hold it as text, and ``Space(text)`` reads it again. Two spaces are equal
    where kind and divisor are.

    Attributes:
        kind: see `SpaceKind`.
        divisor: of the stored values, where they are divided.

    >>> Space("stored values / 16").kind
    <SpaceKind.SCALED: 'scaled'>
    >>> Space("stored values / 16") == Space.scaled(16.0), Space("metres").kind == "named"
    (True, True)
    """

    kind: SpaceKind
    divisor: float | None

    def __new__(cls, text: str = "the values as given") -> Self:
        space = super().__new__(cls, text)
        space.kind, space.divisor = _parsed(str(text))
        return space

    @property
    def _value(self) -> tuple[Any, ...]:
        written = str(self) if self.kind in (SpaceKind.COLUMNS, SpaceKind.NAMED) else None
        return self.kind, self.divisor, written

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        return self._value == (other if isinstance(other, Space) else Space(other))._value

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        return hash(self._value)

    def compatible(self, other: "Space | str") -> bool:
        """Whether the spaces are equal, or one of them is not known because its data were given as arrays."""
        spaces = self, Space(other)
        return spaces[0] == spaces[1] or any(space.kind == SpaceKind.GIVEN for space in spaces)

    @classmethod
    def scaled(cls, divisor: float | None) -> Self:
        """Stored values, divided by a number where there is one."""
        return cls("the stored values" if divisor is None else f"stored values / {divisor:g}")

    @classmethod
    def dequantized(cls, divisor: float | None) -> Self:
        """Stored values plus uniform noise, divided by a number where there is one."""
        noisy = "stored values + uniform noise"
        return cls(noisy if divisor is None else f"({noisy}) / {divisor:g}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )


GIVEN = Space()
DRAWN = Space("0/1, one draw of Bernoulli(intensity)")
THRESHOLDED = Space("0/1, intensity at least half")


@dataclass(frozen=True)
class Observation:
    """How stored values become observations.

    Attributes:
        top: divides them, so that full intensity is 1; ``None`` leaves them.
        draw: randomness of an observation, see `vae_pyro.data.split.Split`.
        space: of the observations.
        cut: values are 0 below it and 1 from it on, once, where they are read; ``None`` cuts nothing.
    """

    top: float | None
    draw: Draw
    space: Space
    cut: float | None = None
