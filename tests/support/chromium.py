"""A real Chromium for browser tests, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

_FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip


def chromium_path() -> str:
    """Return Chromium's path: `CHROMIUM`, or the one on PATH; AssertionError with what to do."""
    found = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    assert found, "no Chromium: run `apt-get install -y chromium`, or set CHROMIUM to its path"
    return found


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Talk to the tab behind `socket`."""
        self._socket = socket
        self._number = 0
        self.problems: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a DevTools method; uncaught exceptions and refusals of the CSP are noted."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=20)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.problems.append(f"{entry['text']} ({entry.get('url', '')})")

    async def open(self, url: str) -> None:
        """Go to an address and wait until the page is there."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 15) -> Any:
        """Wait for a truthy value of an expression and return it."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (found := await self.value(expression)):
            assert asyncio.get_running_loop().time() < deadline, f"never true: {expression}"
            await asyncio.sleep(0.02)
        return found


@contextlib.asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """Yield a tab of a fresh browser whose profile lies in `folder`."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(  # noqa: ASYNC220 - a test waits for nothing else meanwhile
        [chromium_path(), *_FLAGS, *sandbox, f"--user-data-dir={folder}", "about:blank"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = int(await _eventually(lambda: _port(folder / "DevToolsActivePort")))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                tabs = await answer.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                yield page
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


def _port(path: Path) -> str:
    return path.read_text().split("\n", 1)[0] if path.exists() else ""


async def _eventually(read: Callable[[], str]) -> str:
    for _ in range(300):
        if found := read():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("Chromium did not start within 15 s")
