"""What log densities are of, and over which measure: only densities that agree in both can be compared."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

_SOME_Y = re.compile(r"x, and y of ([\d,]+) in ([\d,]+) data")


class Measure(StrEnum):
    """What p(x) is: a probability, a density in the units of x, or a probability given the sum of x."""

    PROBABILITY = "probability"
    DENSITY = "density"
    GIVEN_TOTAL = "probability given the total"


class Variables(StrEnum):
    """The variables of a log density."""

    X = "x"
    X_GIVEN_Y = "x given y"
    X_AND_Y = "x and y"
    X_AND_SOME_Y = "x, and y of some data"
    X_AND_MASK = "x and the mask"


@dataclass(frozen=True)
class Target:
    """What the log densities of a set of data are of.

    Two sets of log densities can be compared only if their targets are equal. The text, as stored files hold it, is
    ``str(target)``, and `parse` reads it.

    Attributes:
        variables: of the densities.
        known: data whose class y is given, where it is given for some and not for all.
        data: number of data, likewise.

    Raises:
        ValueError: counts that do not belong to the variables.

    >>> str(Target(Variables.X_AND_SOME_Y, known=100, data=60_000))
    'x, and y of 100 in 60,000 data'
    >>> Target.parse("x given y") == Target(Variables.X_GIVEN_Y)
    True
    """

    variables: Variables
    known: int = 0
    data: int = 0

    def __post_init__(self) -> None:
        some = self.variables is Variables.X_AND_SOME_Y
        if some != (0 < self.known < self.data) or (not some and (self.known or self.data)):
            raise ValueError(
                f"a target of {str(self.variables)!r} cannot have y known for {self.known} of {self.data} data; counts "
                f"are for {str(Variables.X_AND_SOME_Y)!r}, with 0 < known < data"
            )

    @classmethod
    def with_classes(cls, *, data: int, known: int) -> Self:
        """The target of densities of x and of every class that is given.

        Args:
            data: number of data.
            known: for how many of them the class is given, from 0 to ``data``.
        """
        if known == 0:
            return cls(Variables.X)
        return cls(Variables.X_AND_Y) if known == data else cls(Variables.X_AND_SOME_Y, known=known, data=data)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a target.

        Raises:
            ValueError: ``text`` is that of no target.
        """
        some = _SOME_Y.fullmatch(text)
        if some:
            known, data = (int(number.replace(",", "")) for number in some.groups())
            return cls(Variables.X_AND_SOME_Y, known=known, data=data)
        texts = [variables.value for variables in Variables if variables is not Variables.X_AND_SOME_Y]
        if text not in texts:
            raise ValueError(f"{text!r} is no target of log densities; expected one of {', '.join(map(repr, texts))}")
        return cls(Variables(text))

    def __str__(self) -> str:
        if self.variables is Variables.X_AND_SOME_Y:
            return f"x, and y of {self.known:,} in {self.data:,} data"
        return self.variables.value
