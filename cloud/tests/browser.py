"""Headless Chromium, driven through chromedriver's W3C HTTP interface; nothing beyond httpx is needed.

One for all tests of a process: it starts long, and a test leaves nothing in it."""

from __future__ import annotations

import base64
import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from edge_runtime.tests.waiting import free_port

START_S = 60.0
ARGUMENTS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--window-size=1280,1000")


def missing() -> str:
    """Why there is no browser; empty if there is one."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(absent)}: apt-get install chromium chromium-driver" if absent else ""


class Browser:
    def __init__(self, client: httpx.Client, session: str, driver: subprocess.Popen[bytes]) -> None:
        self._client, self._session, self._driver = client, f"/session/{session}", driver

    def open(self, url: str) -> None:
        self._post("/url", {"url": url})

    def run(self, script: str) -> Any:
        """The value that the JavaScript returns."""
        return self._post("/execute/sync", {"script": script, "args": []})

    def wait(self, condition: str, timeout_s: float = 90.0) -> None:
        """Until the JavaScript expression holds; AssertionError with the page's text if it never does."""
        deadline = time.monotonic() + timeout_s
        while not self.run(f"return Boolean({condition})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"never true: {condition}\n{self.run('return document.body.innerText')}")
            time.sleep(0.05)

    def leave(self) -> None:
        """Signed out of everything, on an empty page."""
        self.open("about:blank")
        self._post("/goog/cdp/execute", {"cmd": "Network.clearBrowserCookies", "params": {}})

    def end(self) -> None:
        self._client.delete(self._session)
        self._client.close()
        self._driver.terminate()
        self._driver.wait()

    def text(self, element_id: str) -> str:
        return str(self.run(f"return document.getElementById('{element_id}').textContent"))

    def console(self) -> list[str]:
        """What the page's console told, errors and refused content included."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._client.get(f"{self._session}/screenshot").json()["value"])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._client.post(self._session + path, json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{answer['error']}: {answer['message']}")
        return answer


@contextmanager
def browser() -> Iterator[Browser]:
    page = started()
    page.console()
    try:
        yield page
    finally:
        page.leave()


@functools.cache
def started() -> Browser:
    port = free_port()
    arguments = [*ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else list(ARGUMENTS)
    wanted = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120.0, trust_env=False)
    _wait_ready(client)
    made = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
    if "sessionId" not in made:
        raise AssertionError(f"Chromium did not start: {made}")
    return Browser(client, made["sessionId"], driver)


def end() -> None:
    if started.cache_info().currsize:
        started().end()


def _wait_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.get("/status")
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
