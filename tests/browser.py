"""A browser for tests: Chromium without a window, driven over the W3C WebDriver protocol by the standard library alone.

Debian's `chromium` and `chromium-driver` are enough; where they are missing the tests that need them are skipped.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Key under which the protocol names an element."""

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
WAIT_S = 300.0


def missing() -> str:
    """Return why there is no browser, "" when there is one."""
    absent = [name for name in ("chromedriver", "chromium") if shutil.which(name) is None]
    return f"not installed: {' and '.join(absent)} (apt-get install chromium chromium-driver)" if absent else ""


class Browser:
    """One window."""

    def __init__(self, base: str) -> None:
        options = {
            "args": [*ARGUMENTS, "--window-size=1300,1000"],
            "binary": shutil.which("chromium"),
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        found = _call(f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})
        self.url = f"{base}/session/{found['sessionId']}"

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        _call(f"{self.url}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns; its arguments are `arguments[0]`, ..."""
        return _call(f"{self.url}/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + WAIT_S
        while not (value := self.run(f"return {condition}")):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)
        return value

    def find(self, selector: str) -> str:
        """Return the element a CSS selector finds first."""
        element: str = _call(f"{self.url}/element", {"using": "css selector", "value": selector})[ELEMENT]
        return element

    def click(self, selector: str) -> None:
        """Click an element where a user would see it."""
        _call(f"{self.url}/element/{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Press keys in an element."""
        _call(f"{self.url}/element/{self.find(selector)}/value", {"text": text})

    def pointer(self, actions: Sequence[dict[str, Any]]) -> None:
        """Carry out mouse actions."""
        _call(f"{self.url}/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": list(actions)}]})

    def wheel(self, x: int, y: int, delta: int) -> None:
        """Turn the wheel at a place of the window."""
        action = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": delta, "duration": 0, "origin": "viewport"}
        _call(f"{self.url}/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [action]}]})

    @contextmanager
    def phone(self, width: int) -> Iterator[None]:
        """Be a phone of this width in CSS pixels for a while."""
        metrics = {"width": width, "height": 2 * width, "deviceScaleFactor": 2, "mobile": True}
        _call(f"{self.url}/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})
        yield
        _call(f"{self.url}/goog/cdp/execute", {"cmd": "Emulation.clearDeviceMetricsOverride", "params": {}})

    def printed(self) -> bytes:
        """Return the page as the browser prints it on A4, as PDF."""
        wanted = {"page": {"width": 21.0, "height": 29.7}, "background": True}
        return base64.b64decode(_call(f"{self.url}/print", wanted))

    def console(self) -> list[str]:
        """Return what the console showed since the last call."""
        return [entry["message"] for entry in _call(f"{self.url}/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        messages = (
            json.loads(entry["message"])["message"] for entry in _call(f"{self.url}/se/log", {"type": "performance"})
        )
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        """Close the window."""
        _call(self.url, None, "DELETE")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser and close it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + WAIT_S
        while not _ready(base):
            assert time.monotonic() < end, "chromedriver does not answer"
            time.sleep(0.05)
        window = Browser(base)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait()


def _ready(base: str) -> bool:
    try:
        return bool(_call(f"{base}/status", None, "GET")["ready"])
    except OSError:
        return False


def _call(url: str, body: Any, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            return json.loads(response.read())["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.loads(error.read())["value"]["message"]) from None
