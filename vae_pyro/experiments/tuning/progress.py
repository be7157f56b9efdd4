"""The live line of a search, read from its journal, so that it includes the trials of all processes."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_pyro.core.isolation import undisturbed
from vae_pyro.experiments.tuning.search import read_search

_REFRESH_SECONDS = 1.0


@contextmanager
def search_progress(path: Path, num_trials: int, *, show: bool | None) -> Iterator[None]:
    """A live line on standard error; by default where that is a terminal."""
    if not (sys.stderr.isatty() if show is None else show):
        yield
        return
    with undisturbed():  # importing rich.progress draws from Python's generator, which is the caller's
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    done = threading.Event()
    columns = TextColumn("trials {task.completed}/{task.total}"), BarColumn(12), TextColumn("{task.fields[counts]}")
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as bar:
        task = bar.add_task("search", total=num_trials, counts="")

        def update() -> None:
            search = read_search(path)
            ended = search.of_state("complete", "pruned", "failed")
            parts = [f"{len(search.of_state(state))} {state}" for state in ("running", "pruned", "failed")]
            if search.of_state("complete"):
                parts.insert(0, f"best validation ELBO {search.best.value:.2f} (trial {search.best.number})")
            bar.update(task, completed=len(ended), counts=", ".join(parts))

        def watch() -> None:
            while not done.wait(_REFRESH_SECONDS):
                update()

        thread = threading.Thread(target=watch, name="progress of a search", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            update()
