"""A page opened in headless Chromium, driven over the DevTools protocol through a pipe: nothing else to install.

References:
    Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 60
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium reads commands from descriptor 3 and answers on 4.
_LAUNCH = """
import os, sys
for given, wanted in ((int(sys.argv[1]), 3), (int(sys.argv[2]), 4)):
    os.dup2(given, wanted)
    os.close(given)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    """Path of a Chromium, or ``None``; ``VAE_PYRO_CHROMIUM`` names one that is not on the path."""
    given = os.environ.get("VAE_PYRO_CHROMIUM")
    return given or next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass
class Browser:
    """A tab of a running Chromium.

    Attributes:
        complaints: errors and warnings of console, page and security policy since the last `open`.
        requests: addresses that the page asked for since the last `open`, without ``data:``.
    """

    to: int
    back: int
    session: str = ""
    count: int = 0
    buffer: bytes = b""
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            RuntimeError: the browser refused it.
        """
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"Chromium was silent for {_SECONDS} s")
            read = os.read(self.back, 1 << 20)
            if not read:
                raise RuntimeError("Chromium has ended")
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        self._note(answer.get("method", ""), answer.get("params", {}))
        return answer

    def _note(self, event: str, params: dict[str, Any]) -> None:
        self.seen.add(event)
        if event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(value.get("value")) for value in params["args"]))
        elif event == "Network.requestWillBeSent" and not params["request"]["url"].startswith("data:"):
            self.requests.append(params["request"]["url"])

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Size of the window in CSS pixels, light or dark, screen or ``print``; for the next `open` and after."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def open(self, address: str) -> None:
        """Go to an address and wait until everything is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self.seen.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self.seen:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page.

        Raises:
            RuntimeError: it threw.
        """
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "the expression threw"))
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it prints."""
        answer = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path


def faults(tab: Browser) -> list[str]:
    """What is wrong with the open page, in words: complaints, requests, pictures that did not load, a page too wide."""
    wrong = [f"the console says: {text}" for text in tab.complaints]
    wrong += [f"the page asks for {address}" for address in tab.requests[1:]]  # the first is the page itself
    unseen = "[...document.images].filter(i => !i.complete || !(i.naturalWidth > 0)).map(i => i.alt)"
    wrong += [f"a picture did not load: {alt}" for alt in tab.evaluate(unseen)]
    wrong += ["a picture has no alt text"] * tab.evaluate("[...document.images].filter(i => !i.alt.trim()).length")
    width, room = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    if width > room:
        wrong.append(f"the page is {width} pixels wide in a window of {room}")
    return wrong


@contextmanager
def browser(binary: str) -> Iterator[Browser]:
    """Start a Chromium with an empty profile, and end it."""
    (theirs_in, to), (back, theirs_out) = _pipe(), _pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out)),
                *(binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(theirs_in, theirs_out),
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            tab = Browser(to, back)
            target = tab.call("Target.createTarget", url="about:blank")["targetId"]
            tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                tab.call(f"{domain}.enable")
            yield tab
        finally:
            os.close(to)
            os.close(back)
            try:
                process.wait(10)  # it ends when its pipe does
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pipe() -> tuple[int, int]:
    """Ends of a pipe, reading and writing, clear of the descriptors that Chromium takes."""
    read, write = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read, write)]
    os.close(read)
    os.close(write)
    return high[0], high[1]
