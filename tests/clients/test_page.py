"""The page in a browser: documents pasted, and their order as it changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.serving import KEY

websocket = pytest.importorskip("websocket")
pytestmark = pytest.mark.clients

DOCS = ["Mars has two small moons.", "Air scatters blue light more than red.", "Dogs bark."]


class Browser:
    """Chromium, through its own protocol."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("there is no Chromium")
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--remote-debugging-port=0",
             "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port_file = folder / "DevToolsActivePort"
        for _ in range(200):
            if port_file.is_file() and port_file.read_text().strip():
                break
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        tabs = httpx.get(f"http://127.0.0.1:{port}/json").json()
        page = next(tab for tab in tabs if tab["type"] == "page")
        self._socket = websocket.create_connection(page["webSocketDebuggerUrl"])
        self._number = 0
        self.mistakes: list[Any] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.mistakes.append(answer["params"])
            entry = answer.get("params", {}).get("entry", {})
            if entry.get("level") == "error":
                self.mistakes.append(entry)
            if answer.get("id") == self._number:
                return answer["result"]

    def run(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def wait(self, script: str) -> None:
        for _ in range(300):
            if self.run(script):
                return
            time.sleep(0.1)
        raise AssertionError(f"never: {script}")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path)
    yield found
    found.process.kill()
    found.process.wait()


SHOWN = "[...document.querySelectorAll('#results .text')].map(e => e.textContent)"


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_documents_are_pasted_and_their_order_changes(
    address: str, browser: Browser, width: int
) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
        mobile=width < 500,
    )  # fmt: skip
    browser.call("Page.navigate", url=address)
    browser.wait("document.readyState === 'complete'")
    for name, value in (("query", "why is the sky blue"), ("documents", "\n".join(DOCS)),
                        ("key", KEY)):  # fmt: skip
        browser.run(
            f"document.getElementById('{name}').value = {json.dumps(value)};"
            "document.getElementById('form').dispatchEvent(new Event('input', {bubbles: true}))"
        )
    assert browser.run("document.getElementById('count').textContent") == "3 documents"
    assert "Bearer KEY" in browser.run("document.getElementById('curl').textContent")
    browser.run("document.getElementById('go').click()")
    browser.wait("document.getElementById('status').textContent.includes(' in ')")
    assert browser.run(SHOWN)[0] == DOCS[1]
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert not browser.mistakes


def test_a_missing_key_is_told_on_the_page(address: str, browser: Browser) -> None:
    browser.call("Page.navigate", url=address)
    browser.wait("document.readyState === 'complete'")
    browser.run("document.getElementById('query').value = 'q'")
    browser.run("document.getElementById('documents').value = 'a'")
    browser.run("document.getElementById('go').click()")
    browser.wait("document.getElementById('status').textContent.includes('API key')")
    assert browser.run("document.getElementById('key').closest('details').open")
