"""The live view of an experiment: all runs in one, read from their folders."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, Self

from vae_pyro.core.files import RunError
from vae_pyro.core.isolation import undisturbed
from vae_pyro.experiments.folder import Experiment, Status, lock_file
from vae_pyro.parallel.locks import is_held


@dataclass
class _Line:
    """Progress of one trial."""

    epochs: int
    done: int = 0
    before: int = 0
    elbo: float | None = None
    status: Status = "waiting"


class ExperimentProgress:
    """A live view of all runs on standard error, read from their folders, so that it works with every backend.

    Args:
        experiment: at the start of the call.
        show: show the view; by default where standard error is a terminal.
    """

    def __init__(self, experiment: Experiment, *, show: bool | None = None) -> None:
        self.experiment = experiment
        epochs = {variant["label"]: variant["fit"]["epochs"] for variant in experiment.config.variants}
        self.lines = {trial.name: _Line(epochs[trial.variant.label]) for trial in experiment.trials}
        for name, line in self.lines.items():
            line.status = experiment.status[name]
            if line.status == "broken":
                line.status = "waiting"  # it will be tried again
        self._began = monotonic()
        self._live: Any = None
        if sys.stderr.isatty() if show is None else show:
            with undisturbed():  # rich draws from Python's generator when it is imported
                from rich.console import Console
                from rich.live import Live
            self._live = Live(console=Console(stderr=True), get_renderable=self.view, refresh_per_second=1)

    def __enter__(self) -> Self:
        self.look()
        for line in self.lines.values():
            line.before = line.done
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def ended(self, name: str, *, broken: bool) -> None:
        """The worker of a trial has returned."""
        self.lines[name].status = "broken" if broken else "done"

    def look(self) -> None:
        """Read the progress of the runs."""
        for trial in self.experiment.trials:
            line = self.lines[trial.name]
            if line.status in ("done", "broken"):
                if line.status == "done":
                    line.done = line.epochs
                continue
            with suppress(RunError):
                rows = trial.folder.read_history()
                line.done, line.elbo = len(rows), rows[-1].get("validation_elbo") if rows else None
            if is_held(lock_file(self.experiment.path, trial.name)):
                line.status = "running"
            elif line.status == "running":
                line.status = "half-finished"

    def _counted(self) -> list[_Line]:
        return [line for line in self.lines.values() if line.status != "broken"]

    def remaining_seconds(self) -> float | None:
        """Estimate from the epochs of this call so far; ``None`` before the first."""
        fitted = sum(line.done - line.before for line in self._counted())
        left = sum(line.epochs - line.done for line in self._counted())
        return left * (monotonic() - self._began) / fitted if fitted > 0 else None

    def view(self) -> Any:
        """A bar for all runs, and a line for each that is running."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        self.look()
        done, planned = (sum(getattr(line, name) for line in self._counted()) for name in ("done", "epochs"))
        states = [line.status for line in self.lines.values()]
        left = self.remaining_seconds()
        total = Table.grid(padding=(0, 1))
        total.add_row(
            f"{states.count('done')}/{len(states)} done, {states.count('running')} running, "
            f"{states.count('half-finished')} half, {states.count('broken')} broken",
            ProgressBar(total=max(planned, 1), completed=done, width=20),
            "" if left is None else f"{_clock(left)} left",
        )
        running = Table.grid(padding=(0, 2))
        for trial in self.experiment.trials:
            line = self.lines[trial.name]
            if line.status == "running":
                elbo = "" if line.elbo is None else f"validation ELBO {line.elbo:.2f}"
                running.add_row(trial.variant.label, f"seed {trial.seed}", f"epoch {line.done}/{line.epochs}", elbo)
        return Group(total, running)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
