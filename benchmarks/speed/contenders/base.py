"""The interface of a contender: build and warm up, then timed epochs."""

from abc import ABC, abstractmethod
from typing import ClassVar

from benchmarks.speed.task import Task


class NotInstalledError(RuntimeError):
    """A library of the contender is not installed; the message names it."""


class Contender(ABC):
    """One way to train.

    Attributes:
        about: description for the table.
        members: number of VAEs that an epoch trains at once.
        compiles: whether the time of the first step is that of a compiler.
        loads_torch: whether its process uses torch.
    """

    about: str
    members: int = 1
    compiles: ClassVar[bool] = False
    loads_torch: ClassVar[bool] = True

    @abstractmethod
    def setup(self, task: Task) -> float:
        """Build it, compile it, warm it up; the weights are the initial ones afterwards.

        Returns:
            Seconds of the first step, with all tracing and compiling.

        Raises:
            NotInstalledError: a library is absent.
        """

    @abstractmethod
    def epoch(self) -> float:
        """Train on every image once, in a new random order.

        Returns:
            The running mean of the loss in nats per datum, averaged over members.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def device_memory(self) -> int | None:
        """Peak bytes on an accelerator; ``None`` on a CPU."""
        return None
