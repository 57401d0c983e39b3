"""A real browser without a window: Chromium, told what to do by the DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-headless-shell")
_LONGEST = 120.0
"""Seconds for one answer: machines are busy."""
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # which root has no right to
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Tab:
    """A page that is open, and what it asked for and complained of."""

    def __init__(self, sends: int, receives: int) -> None:
        self._sends, self._receives = sends, receives
        self._number = 0
        self._left = b""
        self._session: str | None = None
        self.requests: list[str] = []
        """Addresses that the page loaded or tried to."""
        self.faults: list[str] = []
        """What the console got: errors of scripts, and what the page's policy refused."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1200, height: int = 900) -> None:
        """Open a file, and wait until it is there."""
        self.requests.clear()
        self.faults.clear()
        self.look(width=width, height=height)
        self._ask("Page.navigate", url=path.as_uri())
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(path.as_uri())}")

    def look(self, *, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """See the page in a window of this size, with this colour scheme."""
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._ask("Emulation.setEmulatedMedia", features=features)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is worth in the page."""
        told = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _LONGEST
        while not self.value(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def press(self, key: str, **how: Any) -> None:
        """Press a key and let it go."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Tab": 9}.get(key, ord(key[0].upper()))
        said = {"key": key, "windowsVirtualKeyCode": code, **how}
        self._ask("Input.dispatchKeyEvent", type="keyDown", text=text, **said)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **said)

    def click(self, selector: str) -> None:
        """Click into the middle of an element."""
        box = self.value(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; its result. Events that come before are taken note of."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._sends, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _LONGEST
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._receives], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._receives, 1 << 16)
            assert data, "the browser is gone"
            self._left += data
        message, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.faults.append(said["params"]["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.faults.append(said["params"]["entry"]["text"])
            case _:
                pass


def _pipe() -> list[int]:
    """A pipe whose descriptors have numbers that a shell does not need for others."""
    found = []
    for descriptor in os.pipe():
        found.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20))
        os.close(descriptor)
    return found


@contextmanager
def browser(place: Path) -> Iterator[Tab]:
    """A browser that keeps its files in `place`, and ends with the block."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    asks, sends = _pipe()
    receives, answers = _pipe()
    # the protocol's pipes are the descriptors 3 and 4 of the browser
    command = ["bash", "-c", f'exec "$@" 3<&{asks} 4>&{answers}', "sh", program, *_OPTIONS, f"--user-data-dir={place}"]
    with (place.parent / "browser.log").open("wb") as log:
        environ = {**os.environ, "HOME": str(place)}
        running = subprocess.Popen(command, pass_fds=(asks, answers), stdout=log, stderr=log, env=environ)
    os.close(asks)
    os.close(answers)
    try:
        yield Tab(sends, receives)
    finally:
        os.close(sends)  # which ends it
        os.close(receives)
        with suppress(subprocess.TimeoutExpired):
            running.wait(10)
        running.kill()
        running.wait()
