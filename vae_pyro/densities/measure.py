"""What log densities are of, and over which measure: only densities that agree in both can be compared."""

import re
from enum import StrEnum
from typing import Self

_SOME_Y = re.compile(r"x, and y of ([\d,]+) in ([\d,]+) data")


class Measure(StrEnum):
    """What p(x) is: a probability, given the sum of x or not, or a density in its units, with masses or without.

    Given the total, probabilities of all x of one total sum to one. With the total as exposure they do not: the total
    is a covariate of rates, and x may have any sum. The two are not comparable.
    """

    PROBABILITY = "probability"
    DENSITY = "density"
    DENSITY_AND_MASSES = "density with masses at repeated values"
    GIVEN_TOTAL = "probability given the total"
    GIVEN_EXPOSURE = "probability given the total as exposure"

    @property
    def dense(self) -> bool:
        """Whether it has units of x."""
        return self in (Measure.DENSITY, Measure.DENSITY_AND_MASSES)


class Variables(StrEnum):
    """The variables of a log density."""

    X = "x"
    X_GIVEN_Y = "x given y"
    X_AND_Y = "x and y"
    X_AND_SOME_Y = "x, and y of some data"
    X_AND_MASK = "x and the mask"


class Target(str):
    """What the log densities of a set of data are of: two sets can be compared only if their targets are equal.

    As a member of `Measure`, a target is its own text, which stored files hold and `parse` reads.

    Args:
        variables: of the densities.
        known: data whose class y is given, where it is given for some and not for all.
        data: number of data, likewise.

    Raises:
        ValueError: counts that do not belong to the variables.

    >>> str(Target(Variables.X_AND_SOME_Y, known=100, data=60_000))
    'x, and y of 100 in 60,000 data'
    >>> Target.parse("x given y").variables
    <Variables.X_GIVEN_Y: 'x given y'>
    """

    __slots__ = ("data", "known", "variables")

    variables: Variables
    known: int
    data: int

    def __new__(cls, variables: Variables, *, known: int = 0, data: int = 0) -> Self:
        some = variables is Variables.X_AND_SOME_Y
        if some != (0 < known < data) or (not some and (known or data)):
            raise ValueError(
                f"a target of {str(variables)!r} cannot have y known for {known} of {data} data; counts are for "
                f"{str(Variables.X_AND_SOME_Y)!r}, with 0 < known < data"
            )
        target = super().__new__(cls, f"x, and y of {known:,} in {data:,} data" if some else variables.value)
        for name, value in (("variables", variables), ("known", known), ("data", data)):
            object.__setattr__(target, name, value)
        return target

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a target is not changed; make another one with the {name} {value!r}")

    def __getnewargs_ex__(self) -> tuple[tuple[Variables], dict[str, int]]:
        return (self.variables,), {"known": self.known, "data": self.data}

    def __getstate__(self) -> None:
        return None

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
