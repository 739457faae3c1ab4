"""Processes that outlive whoever started them: named so that a recycled pid is never mistaken."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import StartError

LOG_TAIL_LINES = 10
LOG_TAIL_COLUMNS = 300
_POLL_S = 0.02
_START_FIELD = 19  # of /proc/PID/stat, counted from the state


@dataclass(frozen=True, slots=True)
class ProcessName:
    """A process for good: its pid, its start in clock ticks since boot, and which boot that was."""

    pid: int
    started: int
    boot: str

    def to_text(self) -> str:
        """Return the form in which it is kept on disk: the boot, and what /proc says."""
        return f"{self.boot}\n{self.pid} () ? {'0 ' * 18}{self.started}\n"

    @classmethod
    def from_text(cls, text: str) -> ProcessName | None:
        """Read it back; None if the text is not one (cut off by a crash, for instance)."""
        boot, _, stat = text.partition("\n")
        try:
            fields = _after_command(stat)
            return cls(int(stat.split(" ", 1)[0]), int(fields[_START_FIELD]), boot)
        except (ValueError, IndexError):
            return None

    @classmethod
    def from_file(cls, path: Path) -> ProcessName | None:
        """Return the living process that a pid file names, or None."""
        try:
            name = cls.from_text(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return None
        return name if name is not None and is_alive(name) else None


def name_of(pid: int) -> ProcessName | None:
    """Return the name of a living process; None if there is none, or only its corpse."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return ProcessName(pid, int(fields[_START_FIELD]), _boot_id())


def is_alive(process: ProcessName) -> bool:
    """Tell whether exactly this process lives; buries it first if it was a child of ours."""
    bury(process.pid)
    return name_of(process.pid) == process


_exit_codes: dict[int, int] = {}
"""Of children that ended, by pid: a corpse can be asked only once, by whichever thread."""


def bury(pid: int) -> None:
    """Remember a dead child's exit code (negative: the signal); nothing if it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
    if found:
        _exit_codes[pid] = os.waitstatus_to_exitcode(status)


def exit_code(process: ProcessName) -> int | None:
    """Return how a dead child ended, once; None if it was not a child of ours."""
    return _exit_codes.pop(process.pid, None)


def forget(process: ProcessName) -> None:
    """Drop the exit code of a process that was ended on purpose."""
    _exit_codes.pop(process.pid, None)


def spawn(
    argv: Sequence[str | Path],
    *,
    log_path: Path,
    pid_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: tuple[int, int] | None = None,
) -> ProcessName:
    """Start a process in a session of its own, its output appended to `log_path`.

    `user` is the (uid, gid) to run as. The process is not ended when its starter ends. It writes
    `pid_path` itself before it becomes the program, so that no process is ever left unnamed.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    pid_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log, pid_path.open("wb") as pid_file:
        # The pid file comes in as standard input: a shell need not know descriptors above 9.
        name_itself = (
            "read -r boot </proc/sys/kernel/random/boot_id; read -r stat </proc/self/stat; "
            'printf \'%s\\n%s\\n\' "$boot" "$stat" >&0; exec "$@" </dev/null'
        )
        child = subprocess.Popen(
            ["/bin/sh", "-c", name_itself, "sh", *(str(part) for part in argv)],
            stdin=pid_file,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
            user=None if user is None else user[0],
            group=None if user is None else user[1],
            extra_groups=None if user is None else [],
        )
    name = name_of(child.pid)
    # Popen would complain that its child still runs; `bury` looks after it by its pid.
    child.returncode = 0
    return name or ProcessName(child.pid, 0, _boot_id())


def age_s(process: ProcessName) -> float:
    """Return for how long a process has run, whoever started it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / os.sysconf("SC_CLK_TCK")


def send(process: ProcessName, signal_number: int) -> bool:
    """Signal exactly this process; False if it is gone."""
    if not is_alive(process):
        return False
    try:
        os.kill(process.pid, signal_number)
    except ProcessLookupError:
        return False
    return True


def end(process: ProcessName, *, first: int = signal.SIGTERM, grace_s: float = 10.0) -> None:
    """Ask the process to end by `first`, and after `grace_s` do not ask any more."""
    if send(process, first) and not wait_gone(process, timeout_s=grace_s):
        send(process, signal.SIGKILL)
        wait_gone(process, timeout_s=5.0)


def wait_gone(process: ProcessName, *, timeout_s: float) -> bool:
    """Wait until the process is gone; False if it still lives after `timeout_s`."""
    return wait_until(lambda: not is_alive(process), timeout_s=timeout_s)


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """Poll `condition` until it holds; False if it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause.wait(_POLL_S)
    return True


def wait_started(
    process: ProcessName,
    ready: Callable[[], bool],
    *,
    what: str,
    log_path: Path,
    timeout_s: float,
) -> None:
    """Wait until `ready` holds. Raises StartError with the log's last lines if it does not."""
    if wait_until(lambda: ready() or not is_alive(process), timeout_s=timeout_s) and ready():
        return
    fate = f"did not answer within {timeout_s:.0f} s" if is_alive(process) else "ended at once"
    raise StartError(f"{what} {fate}. Its log is {log_path}; the last lines:\n{tail(log_path)}")


def tail(log_path: Path, lines_max: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, indented; empty if there is none."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(f"  {line[:LOG_TAIL_COLUMNS]}" for line in text.splitlines()[-lines_max:])


def _stat_fields(pid: int) -> list[str] | None:
    """Return /proc/PID/stat from the state on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return _after_command(text)


def _after_command(stat: str) -> list[str]:
    # The command may hold anything, even brackets.
    return stat[stat.rindex(")") + 2 :].split()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
