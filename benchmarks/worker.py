"""A contender in a process of its own, driven over a pipe.

XLA's and torch's thread pools must not meet, and a process that waits must not spin: between two epochs a worker blocks
in a read. One line of JSON goes in, one comes out.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.work import Task


class WorkerError(RuntimeError):
    """A contender could not do what it was asked for; the message says why."""


class Worker:
    """The parent's end: a contender that can be set up, run and closed.

    Args:
        name: in `benchmarks.contenders.CONTENDERS`, or ``floor``.
        task: what to do.
    """

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self._scratch = tempfile.TemporaryDirectory(prefix="vae_pyro-benchmark-", ignore_cleanup_errors=True)
        self._log = (Path(self._scratch.name) / "stderr").open("w+")
        environment = {
            **os.environ,
            # Compilers start from nothing, so that their time is that of a first use.
            "TORCHINDUCTOR_CACHE_DIR": str(Path(self._scratch.name) / "inductor"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        if task.device == "cpu":
            environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[1],
            env=environment,
        )

    def ask(self, command: str) -> dict[str, Any]:
        """Send ``setup`` or ``epoch`` and wait for the answer.

        Raises:
            WorkerError: the contender failed, or its process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"its process ended with code {self._process.wait()}: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def last_words(self) -> str:
        """The last line that the process wrote to standard error."""
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def warnings(self) -> list[str]:
        """Lines on standard error that name a warning."""
        self._log.seek(0)
        return [line.strip() for line in self._log.read().splitlines() if "Warning:" in line]

    def processor_seconds(self) -> float | None:
        """Processor time that the process has used so far; ``None`` where the system does not say."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.close()  # the worker's loop ends with its input
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._log.close()
        self._scratch.cleanup()


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(name: str, task: Task) -> None:
    """The child's end: answer until the input ends."""
    # What libraries print must not run into the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(payload: dict[str, Any]) -> None:
        answers.write(json.dumps(payload) + "\n")
        answers.flush()

    served = _Floor(task) if name == "floor" else _Served(name, task)
    for line in sys.stdin:
        try:
            answer(getattr(served, line.strip())())
        except Exception as error:  # whatever it is, the other contenders go on
            from benchmarks.contenders import NotInstalledError

            traceback.print_exc()
            absent = isinstance(error, NotInstalledError)
            text = str(error).strip().splitlines()
            answer({"error": f"{'not installed' if absent else type(error).__name__}: {text[0] if text else ''}"})


class _Served:
    def __init__(self, name: str, task: Task) -> None:
        from benchmarks.contenders import CONTENDERS

        self.contender, self.task = CONTENDERS[name](), task

    def setup(self) -> dict[str, Any]:
        began = perf_counter()
        first_step = self.contender.setup(self.task)
        return {"setup": perf_counter() - began, "first_step": first_step, "threads": self._threads()}

    def epoch(self) -> dict[str, Any]:
        self.contender.synchronize()
        began = perf_counter()
        loss = self.contender.epoch()
        self.contender.synchronize()
        seconds = perf_counter() - began
        return {
            "seconds": seconds,
            "loss": loss,
            "peak_memory": peak_memory(),
            "device_memory": self.contender.device_memory(),
        }

    def _threads(self) -> int | None:
        if not self.contender.loads_torch:
            return None
        import torch

        return torch.get_num_threads()


class _Floor:
    def __init__(self, task: Task) -> None:
        self.task = task

    def epoch(self) -> dict[str, Any]:
        from benchmarks.floor import floor

        return floor(self.task)


if __name__ == "__main__":
    main(sys.argv[1], Task(**json.loads(sys.argv[2])))
