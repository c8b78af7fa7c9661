"""Pages in headless Chromium, by the DevTools protocol over pipes: keys, sizes, and what they ask for."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# The last ones keep the browser itself from asking anybody for anything.
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run
    --disable-background-networking --disable-component-update --disable-sync --disable-quic""".split()
PATIENCE = 60  # seconds


class Browser:
    """A tab.

    Attributes:
        events: what the browser told, in order: (method, what is told).
    """

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back = to, back
        self.numbers, self.left = itertools.count(1), b""
        self.session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask for something and wait for what comes of it; keep what is told meanwhile."""
        number = next(self.numbers)
        asked = {"id": number, "method": method, "params": arguments}
        if self.session is not None:
            asked["sessionId"] = self.session
        os.write(self.to, json.dumps(asked).encode() + b"\0")
        while (told := self._next()).get("id") != number:
            self.events.append((told["method"], told["params"]))
        assert "error" not in told, f"{method}: {told['error']}"
        return told["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.left:
            assert select.select([self.back], [], [], max(0, until - time.monotonic()))[0], (
                "Chromium is silent"
            )
            read = os.read(self.back, 1 << 20)
            assert read, "Chromium has ended"
            self.left += read
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def open(
        self, path: Path, width: int, height: int = 900, *, ready: str = "document.readyState == 'complete'"
    ) -> None:
        """Show a file in a window of a size, and wait until an expression holds there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=width < 500)
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + PATIENCE
        while not self.eval(f"location.protocol == 'file:' && Boolean({ready})"):
            assert time.monotonic() < until, f"not ready: {self.complaints}"
            time.sleep(0.02)

    def eval(self, expression: str) -> Any:
        """Return the value of an expression, which a promise may give, as JSON has it."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, as from a keyboard."""
        text = {"text": key} if len(key) == 1 else {}
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **code)

    @property
    def asked_for(self) -> list[str]:
        """Addresses that the page wanted something from, but for itself and data that it holds."""
        asked = [
            told["request"]["url"] for method, told in self.events if method == "Network.requestWillBeSent"
        ]
        return [url for url in asked[1:] if not url.startswith("data:")]

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of scripts, console and security policy."""
        found = [
            told["exceptionDetails"]["text"]
            for method, told in self.events
            if method == "Runtime.exceptionThrown"
        ]
        found += [str(told["args"]) for method, told in self.events if method == "Runtime.consoleAPICalled"]
        return found + [told["entry"]["text"] for method, told in self.events if method == "Log.entryAdded"]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what is shown as a PNG."""
        told = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start Chromium with an empty profile; skip the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium to show pages; install Debian's package chromium")
    (read, to), (back, written) = os.pipe(), os.pipe()
    # It reads from descriptor 3 and writes to 4, which may be one of ours until they are moved away.
    theirs, ours = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read, written))
    line = [
        program,
        *FLAGS,
        "--remote-debugging-pipe",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ]
    process = subprocess.Popen(
        line,
        close_fds=False,
        preexec_fn=lambda: (os.dup2(theirs, 3), os.dup2(ours, 4)),
        stderr=subprocess.DEVNULL,
    )
    for end in (read, written, theirs, ours):
        os.close(end)
    try:
        yield Browser(to, back)
    finally:
        os.close(to)
        os.close(back)  # at which it ends
        process.wait(PATIENCE)
