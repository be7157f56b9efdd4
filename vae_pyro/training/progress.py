"""The live line of a fit: epoch, ELBO and its terms, and speed; nothing where standard error is no terminal."""

import sys
from time import monotonic
from types import TracebackType
from typing import Any, Self

from vae_pyro.core.isolation import undisturbed

_REFRESH_SECONDS = 0.1
_SHORT = {"elbo": "ELBO", "kl": "KL", "reconstruction": "rec"}  # the line has to fit a terminal of 80 columns


class FitProgress:
    """Progress bar on standard error.

    Args:
        epochs: epochs of the whole run.
        steps_per_epoch: steps of one epoch.
        show: ``None`` shows it where standard error is a terminal.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, *, show: bool | None = None) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        shown = sys.stderr.isatty() if show is None else show
        self._bar: Any = _bar() if shown else None
        self._task: Any = None
        self._drawn = 0.0
        self._validation = ""

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("fit", total=self.epochs * self.steps_per_epoch, epoch="", values="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, batch: int, means: dict[str, float], data_per_second: float) -> None:
        """Show the running means of an epoch, in nats per datum; at most ten times a second."""
        if self._bar is None or (monotonic() - self._drawn < _REFRESH_SECONDS and batch < self.steps_per_epoch):
            return
        self._drawn = monotonic()
        terms = " ".join(f"{_SHORT[name]} {value:.2f}" for name, value in means.items())
        self._bar.update(
            self._task,
            completed=epoch * self.steps_per_epoch + batch,
            epoch=f"{epoch + 1}/{self.epochs}",
            values=f"{terms}{self._validation} {data_per_second:,.0f}/s",
        )

    def validated(self, elbo: float) -> None:
        """Show the validation ELBO from now on."""
        self._validation = f" val {elbo:.2f}"


def _bar() -> Any:
    with undisturbed():  # importing rich.progress draws from Python's generator, which is the caller's
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    return Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[values]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=5,
    )
