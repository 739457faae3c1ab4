"""Who a runner is: a stable runner_id, and a boot_id that is higher at every start."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import socket
from pathlib import Path
from typing import IO

from infra.clock import Clock, random_id, uuid7
from schemas.late import dataclass

_ARCHITECTURES = {"x86_64": "X64", "aarch64": "ARM64", "armv7l": "ARM", "i686": "X86"}
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")


class RunnerRunsError(Exception):
    """Another process is this runner: give each its own TAILRACE_INSTANCE or TAILRACE_RUNNER_ID."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The fencing token of everything that a boot reports."""

    runner_id: str
    boot_id: str
    #: What the environment of its jobs' processes has, and that of no other runner's.
    mark: str = ""


def runner_name(configured: str, instance: str) -> str:
    """Return the runner_id: what is set, or the machine's name and the instance."""
    name = configured or f"{socket.gethostname()}-{instance or 'runner'}"
    return _SAFE.sub("-", name)


def architecture() -> str:
    """Return the machine's architecture as `runner.arch` names it."""
    return _ARCHITECTURES.get(platform.machine(), "X64")


class IdentityStore:
    """Keeps the identity in the runner's folder; the folder is locked while this lives."""

    def __init__(self, folder: Path) -> None:
        """Lock `folder`. Raises RunnerRunsError when another process holds it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lock: IO[str] = (folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunnerRunsError(f"{folder} belongs to a runner that runs") from None

    def runner_id(self, name: str) -> str:
        """Return the id that this folder was first used with, `name` the first time."""
        path = self._folder / "runner_id"
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if not kept:
            _write_durably(path, name)
        return kept or name

    def mark(self) -> str:
        """Return what only the jobs of the runner in this folder bear, in every boot of it."""
        path = self._folder / "mark"
        kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if not kept:
            kept = random_id()
            _write_durably(path, kept)
        return kept

    def next_boot(self, clock: Clock) -> str:
        """Return a boot_id above every earlier one; it is on disk before it is used."""
        path = self._folder / "boot_id"
        last = path.read_text(encoding="utf-8").strip() if path.exists() else None
        boot_id = uuid7(clock.now_ms(), above=last or None)
        _write_durably(path, boot_id)
        return boot_id

    def close(self) -> None:
        """Let another process be this runner."""
        self._lock.close()


def _write_durably(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
