"""A search that ends in seconds, in this process or another one."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vae_pyro.experiments.tuning.search import Search
from vae_pyro.experiments.tuning.tuning import tune

QUICK: list[tuple[list[str], Any]] = [
    (["fit", "compile"], False),
    (["fit", "epochs"], 2),
    (["fit", "batch_size"], 256),
    (["model", "encoder", "hidden"], [8]),
]


SPACE = ["latent_dim=2..6", "optimizer.lr=1e-4..1e-2:log", "encoder.hidden=[8],[6]"]


def quick(out: Path, source: str = "digits", **changes: Any) -> Search:
    given: dict[str, Any] = {"space": SPACE, "num_trials": 4, "num_random": 3, "assignments": QUICK, "seed": 3}
    return tune(out, source, **(given | changes))


def table(search: Search) -> list[Any]:
    return [(trial.number, trial.state, trial.params, trial.value, trial.curve) for trial in search.trials]


_PROCESS = """
import sys
from pathlib import Path
from tests.vae_pyro.experiments.tuning.quick_search import quick
quick(Path(sys.argv[1]), **eval(sys.argv[2]))
"""


def started(out: Path, **changes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _PROCESS, str(out), repr(changes)], cwd=Path(__file__).parents[4])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the process ended before it came so far"
        assert time.monotonic() < limit
        time.sleep(0.02)


class Crash(BaseException):
    """Ends a search like a kill: nothing catches it, and the lock is gone."""


CRASHED: dict[str, Any] = {
    "num_trials": 4, "num_unpruned": 1, "num_random": 1, "seed": 2,
    "assignments": [*QUICK, (["fit", "epochs"], 4), (["fit", "checkpoint_seconds"], 0)],
}  # fmt: skip
