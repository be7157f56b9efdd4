"""A measurement in a process of its own, driven over a pipe: one line of JSON goes in, one comes out.

Between two commands the process blocks in a read, so that it does not disturb the one that is timed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ProcessError(RuntimeError):
    """A command failed, or the process ended; the message gives the reason."""


class MeasuringProcess:
    """The parent's end of a measurement.

    Args:
        name: shown in messages.
        command: module and arguments for ``python -m``.
        environment: complete environment of the process.
        scratch: folder for its files, removed with it; a new one by default.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        scratch: "tempfile.TemporaryDirectory[str] | None" = None,
    ) -> None:
        self.name = name
        self._scratch = scratch or scratch_folder()
        self._log = (Path(self._scratch.name) / "stderr").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[1],
            env=environment,
        )

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            ProcessError: the command failed, or the process ended.
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
            raise ProcessError(f"its process ended with code {self._process.wait()}: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ProcessError(answer["error"])
        return answer

    def last_words(self) -> str:
        """The last line that the process wrote to standard error."""
        lines = self._log_lines()
        return lines[-1] if lines else "it wrote nothing"

    def warnings(self) -> list[str]:
        """Lines on standard error that contain a warning."""
        return [line.strip() for line in self._log_lines() if "Warning:" in line]

    def _log_lines(self) -> list[str]:
        self._log.seek(0)
        return self._log.read().strip().splitlines()

    def processor_seconds(self) -> float | None:
        """Processor time that the process has used so far; ``None`` where the system does not report it."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.close()  # the loop of the process ends with its input
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._log.close()
        self._scratch.cleanup()


def scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder of a benchmark."""
    return tempfile.TemporaryDirectory(prefix="vae_pyro-benchmark-", ignore_cleanup_errors=True)
