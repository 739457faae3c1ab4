"""Finds and kills processes that a crash of runner and guards together left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

from runner.environment import MARKER

logger = logging.getLogger(__name__)


def kill_leftovers(mark: str) -> int:
    """Kill every process that bears a runner's mark in its environment; returns how many.

    The mark is of the runner's folder (`IdentityStore.mark`), not its name: several installations
    on a machine have runners of the same name, whose jobs are none of ours. Called at the start,
    when nothing of this runner may run. Guards kill by descent and miss nothing while they live;
    this is for the day when they were killed too.
    """
    entry = f"{MARKER}={mark}\0".encode()
    killed: set[int] = set()
    for _ in range(10):
        found = {pid for pid in _pids() if pid != os.getpid() and entry in _environment(pid)}
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        if not found:
            break
    if killed:
        logger.warning("killed %d processes that an earlier boot had left behind", len(killed))
    return len(killed)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    except OSError:
        return b""
