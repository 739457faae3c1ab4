"""A small real service for tests of the supervisor: `python -m tests.support.fake_service`.

What it does is steered by a file `TAILRACE_HOME/INSTANCE.mode`, so that a test can change it
while it runs: `ok` (or no file), `unready`, `crash`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

from infra.health import HealthServer

_POLL_S = 0.02


def main() -> None:
    """Serve health until the mode says to crash."""
    name = os.environ["TAILRACE_INSTANCE"]
    mode_path = Path(os.environ["TAILRACE_HOME"]) / f"{name}.mode"

    def mode() -> str:
        return mode_path.read_text(encoding="ascii").strip() if mode_path.exists() else "ok"

    def ready() -> Mapping[str, Any]:
        fine = mode() == "ok"
        return {"status": "ok" if fine else "degraded", "lag": 7, "reason": "the test says so"}

    sys.stdout.write(f"{name} started\n")
    sys.stdout.flush()
    with HealthServer(int(os.environ["TAILRACE_FAKE_PORT"]), ready, name):
        pause = Event()
        while mode() != "crash":
            pause.wait(_POLL_S)
    sys.stdout.write(f"{name} crashes because the test says so\n")
    sys.exit(3)


if __name__ == "__main__":
    main()
