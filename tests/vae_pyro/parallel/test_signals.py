"""Ctrl-C that waits, and processes that are not reached by it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from vae_pyro.parallel.signals import interrupts_later


def test_interrupts_wait_and_processes_started_in_the_meantime_do_not_see_them() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    reached = []

    def interrupted() -> None:
        with interrupts_later():
            os.kill(os.getpid(), signal.SIGINT)
            started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            reached.append(started.stdout)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["alive\n"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_interrupts_wait_in_processes_with_other_threads() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    reached = []

    def interrupted() -> None:
        with interrupts_later():
            signal.pthread_kill(other.ident or 0, signal.SIGINT)
            time.sleep(0.05)
            reached.append("after")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        stop.set()
        other.join()
    assert reached == ["after"]
