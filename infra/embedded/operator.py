"""What `tailrace up`, `down` and `status` do: the user's side of the supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infra import VERSION
from infra.embedded import jars, java, processes
from infra.embedded.control import NotRunning, ask
from infra.embedded.errors import DiskFullError, EmbeddedError, StartError
from infra.embedded.launchers import REPOSITORY
from infra.embedded.processes import ProcessName
from infra.embedded.supervisor import FAILURE_NAME, LOCK_NAME
from infra.settings import RECORD, Settings

SPACE_FIRST_START_MB = 600
SPACE_NEXT_START_MB = 100
DOWN_S = 20.0
SUPERVISOR_STARTS_MAX = 3
STEP_TRIES_MAX = 3
CRASHES_MAX = 5
GOES_ON = (
    "\nThe supervisor goes on trying: `tailrace status` shows how it gets on, `tailrace down` "
    "ends everything."
)
SUPERVISOR = ("-m", "infra.embedded.supervisor")
_POLL_S = 0.1

Status = dict[str, Any]


class NoSuchProcessError(EmbeddedError):
    """No process of the system has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """How progress is shown; each is called often and decides itself what to print."""

    say: Callable[[str], None]
    downloaded: jars.Progress
    waiting: Callable[[Status], None]


def bring_up(settings: Settings, listener: Listener) -> Status:
    """Start what does not run, and return the status once everything is ready.

    Idempotent. Raises EmbeddedError with what failed and what to do; what was started goes on.
    """
    _refuse_other_version(settings)
    make_home(settings)
    _need_space(settings)
    if not settings.is_fixed("kafka_bootstrap"):
        prepare_kafka(settings, listener)
    (settings.run_dir / FAILURE_NAME).unlink(missing_ok=True)
    _try_again(settings)
    deadline = time.monotonic() + settings.start_timeout_s
    child = None
    starts = 0
    pause = threading.Event()
    while True:
        starting = child is not None and processes.is_alive(child)
        if not starting and not has_supervisor(settings):
            _raise_failure(settings, starts)
            child = _start_supervisor(settings)
            starts += 1
        status = status_of(settings)
        if status is not None:
            listener.waiting(status)
            if status["ready"]:
                return status
            _raise_if_hopeless(status)
        if time.monotonic() > deadline:
            raise StartError(_too_late(settings, status))
        pause.wait(_POLL_S)


def status_of(settings: Settings, *, with_memory: bool = False) -> Status | None:
    """Return what the supervisor says; None if none runs."""
    try:
        return ask(settings.run_dir, {"op": "status", "memory": with_memory})
    except NotRunning:
        return None


def take_down(settings: Settings) -> list[str]:
    """End everything that was started in this home, and return the names of it.

    Works without a supervisor too: what a killed one left behind is ended by its pid files.
    """
    status = status_of(settings)
    if status is not None:
        with contextlib.suppress(NotRunning):
            ask(settings.run_dir, {"op": "stop"})
        if not processes.wait_until(lambda: not has_supervisor(settings), timeout_s=DOWN_S):
            raise EmbeddedError(
                f"The supervisor (pid {status['pid']}) did not end within {DOWN_S:.0f} s. "
                f"`kill -9 {status['pid']}`, then run `tailrace down` again."
            )
        return [line["name"] for line in status["processes"] if line["pid"]]
    ended = []
    for name, process in leftovers(settings):
        first = signal.SIGINT if name == "postgres" else signal.SIGTERM
        processes.end(process, first=first, grace_s=6.0)
        ended.append(name)
    (settings.home / RECORD).unlink(missing_ok=True)
    return ended


def restart(settings: Settings, name: str) -> None:
    """End one process in order and start it again; return once it is ready.

    Raises NotRunning, NoSuchProcessError, and StartError when it does not get ready in time.
    """
    before = _line_of(settings, name)
    answer = ask(settings.run_dir, {"op": "restart", "name": name})
    if "error" in answer:
        raise EmbeddedError(str(answer["error"]))
    deadline = time.monotonic() + settings.start_timeout_s
    pause = threading.Event()
    while True:
        line = _line_of(settings, name)
        if line["state"] == "up" and line["pid"] != before["pid"]:
            return
        if line["crashes"] >= CRASHES_MAX or time.monotonic() > deadline:
            raise StartError(_unwell(line) + GOES_ON)
        pause.wait(_POLL_S)


def _line_of(settings: Settings, name: str) -> dict[str, Any]:
    lines = ask(settings.run_dir, {"op": "status"})["processes"]
    for line in lines:
        if line["name"] == name:
            found: dict[str, Any] = line
            return found
    known = ", ".join(line["name"] for line in lines)
    raise NoSuchProcessError(f"no process is called {name!r}; there are: {known}")


def leftovers(settings: Settings) -> Iterator[tuple[str, ProcessName]]:
    """Yield what runs in this home, services before servers, by its pid files."""
    paths = [(path.stem, path) for path in sorted((settings.run_dir / "processes").glob("*.pid"))]
    paths += [(name, settings.home / name / "pid") for name in ("postgres", "kafka")]
    for name, path in paths:
        process = ProcessName.from_file(path)
        if process is not None:
            yield name, process


def has_supervisor(settings: Settings) -> bool:
    """Tell whether a supervisor holds the lock of this home."""
    try:
        with (settings.run_dir / LOCK_NAME).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def make_home(settings: Settings) -> None:
    """Make the folders. Raises EmbeddedError if this user must not."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        # Jobs of other users of this machine have no business there.
        settings.run_dir.mkdir(exist_ok=True, mode=0o700)
        settings.logs_dir.mkdir(exist_ok=True, mode=0o700)
        settings.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"{error.filename} can't be made: {error.strerror}. Set TAILRACE_HOME to a folder of "
            f"yours (it is {settings.home}, from {settings.sources['home']})."
        ) from error


def prepare_kafka(settings: Settings, listener: Listener) -> None:
    """See to Java and jars before anything is started, so that problems are told at once."""
    java.require_java()
    if not jars.is_complete(settings.cache):
        listener.say(f"Fetching Kafka 4.4.0 ({jars.missing_bytes(settings.cache) / 1e6:.1f} MB)")
        jars.fetch(settings.cache, listener.downloaded)
    jars.class_path(settings.cache)


def _start_supervisor(settings: Settings) -> ProcessName:
    """Start one that outlives this command; if there is one already, it ends at once."""
    return processes.spawn(
        [sys.executable, *SUPERVISOR],
        log_path=settings.logs_dir / "supervisor.log",
        pid_path=settings.run_dir / "supervisor.pid",
        env={**os.environ, "TAILRACE_HOME": str(settings.home)},
        cwd=REPOSITORY,
    )


def _refuse_other_version(settings: Settings) -> None:
    status = status_of(settings)
    if status is not None and status["version"] != VERSION:
        raise EmbeddedError(
            f"A supervisor of version {status['version']} runs (pid {status['pid']}); this is "
            f"version {VERSION}. Run `tailrace down` first: data and running jobs are kept "
            f"by the log."
        )


def _need_space(settings: Settings) -> None:
    first = not (settings.home / "kafka" / "data").exists()
    needed_mb = SPACE_FIRST_START_MB if first else SPACE_NEXT_START_MB
    free_mb = shutil.disk_usage(settings.home).free >> 20
    if free_mb < needed_mb:
        raise DiskFullError(
            f"The disk of {settings.home} has {free_mb} MiB free; starting needs {needed_mb} MiB. "
            f"Free some space, or set TAILRACE_HOME to a folder on another disk."
        )


def _try_again(settings: Settings) -> None:
    """Have a running supervisor start at once what it waits with, or gave up."""
    status = status_of(settings)
    for line in status["processes"] if status else []:
        if line["state"] in ("crashed", "failed"):
            with contextlib.suppress(NotRunning):
                ask(settings.run_dir, {"op": "restart", "name": line["name"]})
                tries_again = partial(_tries_again, settings, line["name"])
                processes.wait_until(tries_again, timeout_s=2.0)


def _tries_again(settings: Settings, name: str) -> bool:
    status = status_of(settings)
    return not any(
        line["name"] == name and (line["state"] == "failed" or line["crashes"] >= CRASHES_MAX)
        for line in (status["processes"] if status else [])
    )


def _raise_failure(settings: Settings, starts: int) -> None:
    """Raise what kept a supervisor from starting, if it said so, or if it keeps ending."""
    failure = settings.run_dir / FAILURE_NAME
    if failure.exists():
        raise StartError(failure.read_text(encoding="utf-8").strip())
    if starts >= SUPERVISOR_STARTS_MAX:
        log = settings.logs_dir / "supervisor.log"
        raise StartError(
            f"The supervisor ended {starts} times. Its log is {log}; the last lines:\n"
            f"{processes.tail(log)}"
        )


def _raise_if_hopeless(status: Status) -> None:
    """Raise what will not come right by waiting."""
    for line in status["processes"]:
        if line["state"] == "failed" or line["crashes"] >= CRASHES_MAX:
            raise StartError(_unwell(line) + GOES_ON)
    for step in status["steps"]:
        if step["state"] == "failed" and step["tries"] >= STEP_TRIES_MAX:
            raise StartError(
                f"{step['name']} failed {step['tries']} times. Its log is {step['log']}; "
                f"the last lines:\n{step['last_lines']}{GOES_ON}"
            )


def _too_late(settings: Settings, status: Status | None) -> str:
    head = (
        f"Not everything answers after {settings.start_timeout_s} s; it goes on trying "
        f"(`tailrace status` shows how it gets on, `tailrace down` ends it)."
    )
    if status is None:
        log = settings.logs_dir / "supervisor.log"
        return f"{head}\nThe supervisor does not answer. Its log is {log}:\n{processes.tail(log)}"
    late_steps = [step for step in status["steps"] if step["state"] != "done"]
    late = [line for line in status["processes"] if line["state"] not in ("up", "waiting")]
    texts = [
        f"{step['name']} ({step['state']}). Its log is {step['log']}; the last lines:\n"
        f"{step['last_lines']}"
        for step in late_steps
        if step["state"] == "failed"
    ]
    return "\n".join([head, *texts, *(_unwell(line) for line in late)])


def _unwell(line: dict[str, Any]) -> str:
    return (
        f"{line['name']}: {line['state']}: {line['detail']}. Its log is {line['log']}; "
        f"the last lines:\n{line['last_lines']}"
    )


def home_of_log(path: str, home: Path) -> str:
    """Return a log's path as short as it can be shown."""
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(home))
    return path
