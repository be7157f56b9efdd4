"""What log densities are of, and over which measure: only densities that agree in both can be compared."""

from enum import StrEnum


class Measure(StrEnum):
    """Over what p(x) is normalised."""

    PROBABILITY = "probability"
    DENSITY = "density"
    GIVEN_TOTAL = "probability given the total"


type Target = str
