"""One real Kafka and one real PostgreSQL for a whole test run, whatever the number of workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from infra.embedded import processes
from infra.embedded.processes import ProcessName


class Server(Protocol):
    """What a shared server must be able to do; `start` is harmless when it runs."""

    def start(self) -> str:
        """Start it unless it runs; return its address."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


def cache_dir() -> Path:
    """Return where fetched jars are kept between test runs."""
    return Path(os.environ.get("TAILRACE_CACHE") or Path.home() / ".cache" / "tailrace")


@contextlib.contextmanager
def shared(server: Server, folder: Path) -> Iterator[str]:
    """Use a server together with the other workers; the last one to leave ends it.

    A watcher process ends it when the workers were killed and nobody could leave.
    """
    users = folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    with _locked(folder):
        name = processes.name_of(os.getpid())
        assert name is not None
        mine.write_text(name.to_text(), encoding="utf-8")
        address = server.start()
        _watch(folder)
    try:
        yield address
    finally:
        with _locked(folder):
            mine.unlink(missing_ok=True)
            if not living_users(folder):
                server.stop()
                shutil.rmtree(folder / "home", ignore_errors=True)


def living_users(folder: Path) -> list[ProcessName]:
    """Return the processes that use the server of `folder` and live."""
    names = [
        ProcessName.from_text(path.read_text(encoding="utf-8"))
        for path in (folder / "users").iterdir()
    ]
    return [name for name in names if name is not None and processes.name_of(name.pid) == name]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _watch(folder: Path) -> None:
    subprocess.Popen(
        [sys.executable, "-m", "tests.support.watcher", str(folder)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ).returncode = 0  # it outlives us; nobody is to wait for it
