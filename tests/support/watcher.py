"""Ends a shared test server whose users were killed: `python -m tests.support.watcher FOLDER`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from infra.embedded import processes
from infra.embedded.processes import ProcessName
from tests.support.shared import living_users

_POLL_S = 2.0


def watch(folder: Path) -> None:
    """Wait until nobody uses the server of `folder`; then kill it if it still runs."""
    pause = threading.Event()
    while folder.exists() and living_users(folder):
        pause.wait(_POLL_S)
    for record in (folder / "home").glob("**/pid"):
        server = ProcessName.from_text(record.read_text(encoding="utf-8"))
        if server is not None:
            processes.send(server, signal.SIGKILL)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
