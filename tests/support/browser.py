"""A headless Chromium, driven as the WebDriver standard says, over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

MISSING = next((name for name in ("chromium", "chromedriver") if shutil.which(name) is None), None)
"""What is not installed of what a browser takes; None where all is there."""

_PATIENCE = 5.0
"""Seconds until what is to happen soon has happened."""

_KEY = "element-6066-11e4-a52e-4f735466cecf"
"""What the standard calls an element by."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Browser:
    """A browser with one page.

    Attributes:
        url: of its session.
    """

    url: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the driver answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method)
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, page: Path) -> None:
        """Open a file from disk."""
        self.ask("POST", "/url", {"url": page.as_uri()})

    def run(self, script: str, *arguments: object) -> Any:
        """What the body of a function returns in the page."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def count(self, selector: str) -> int:
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def click(self, selector: str) -> None:
        """Scroll to an element, and click it where it is, as a user does."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", selector)
        self.ask("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into an element in place of what it holds."""
        found = self._find(selector)
        self.ask("POST", f"/element/{found}/clear", {})
        self.ask("POST", f"/element/{found}/value", {"text": text})

    def soon(self, script: str) -> bool:
        """Whether a script says so within some seconds: charts are drawn anew a while after the window has changed."""
        end = time.monotonic() + _PATIENCE
        while not (said := bool(self.run(script))) and time.monotonic() < end:
            time.sleep(0.05)
        return said

    def resize(self, width: int, height: int) -> None:
        """Give the page a size, as a telephone has it, or a screen."""
        parameters = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", parameters)

    def darken(self) -> None:
        """Prefer dark colours."""
        features = [{"name": "prefers-color-scheme", "value": "dark"}]
        self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """What the console has said since it was last asked."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def _find(self, selector: str) -> str:
        return str(self.ask("POST", "/element", {"using": "css selector", "value": selector})[_KEY])


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser, and end it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        service = Browser(f"http://127.0.0.1:{port}")
        _wait_for(service)
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,1000"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = service.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        opened = Browser(f"{service.url}/session/{session}")
        try:
            yield opened
        finally:
            opened.ask("DELETE", "")
    finally:
        driver.terminate()
        driver.wait()


def _wait_for(service: Browser, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if service.ask("GET", "/status")["ready"]:
                return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)
