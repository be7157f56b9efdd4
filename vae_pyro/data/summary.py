"""Facts about data that a likelihood checks before it accepts them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSummary:
    """Facts about data that a likelihood is checked against before the first step.

    Attributes:
        low: smallest observed value.
        high: largest observed value.
        integral: whether every observed value is an integer.
        step: spacing of the lattice that the values lie on, where they are quantised (1/255 for scaled bytes).
    """

    low: float
    high: float
    integral: bool
    step: float | None = None

    @property
    def range(self) -> str:
        """``[low, high]`` for a message."""
        return f"[{self.low:g}, {self.high:g}]"
