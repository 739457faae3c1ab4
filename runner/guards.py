"""The runner's end of its guards: hands them work and reads what became of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner import guard as guard_process
from schemas.late import dataclass

FEED_MS = 3_000
_SWEEP_S_MAX = guard_process.SWEEP_S_MAX + guard_process.END_S_MAX + 5.0


class GuardLostError(Exception):
    """A guard ended although nobody asked it to; its job is over, the slot gets a new guard."""


@dataclass(frozen=True, slots=True)
class JobUser:
    """Whom a job runs as; `groups` are the supplementary ones."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Exited:
    """The step's process ended; `code` is negative for a signal."""

    code: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The step's process could not be made."""

    message: str


@dataclass(frozen=True, slots=True)
class Starved:
    """The guard killed everything because the runner stood still too long."""


GuardEvent = Exited | Failed | Starved


class Guard:
    """One slot's guard. Only the slot's own thread reads; `feed` may come from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        """Talk over `connection`."""
        self._connection = connection
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self.lost = False

    def fileno(self) -> int:
        """Return what to poll for `read`."""
        return self._connection.fileno()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        user: JobUser | None,
        fds: Mapping[int, int],
    ) -> None:
        """Start a process in a session of its own; `fds` maps its descriptors to ours."""
        spec = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
            "uid": None if user is None else user.uid,
            "gid": None if user is None else user.gid,
            "groups": [] if user is None else list(user.groups),
            "targets": list(fds),
        }
        self._send(("spawn", spec), list(fds.values()))

    def at_end(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Have a command run when this process is dead or stands still; () for none any more.

        It is the runner's own, for what a job has that is no descendant of the guard.
        """
        spec = {"argv": list(argv), "env": dict(env)} if argv else None
        self._send(("at_end", spec))

    def signal(self, number: int) -> None:
        """Signal the process group of the step that was started last."""
        self._send(("signal", int(number)))

    def feed(self) -> None:
        """Say that the runner lives; a guard that is gone is noticed by whoever reads."""
        with contextlib.suppress(GuardLostError):
            self._send(("feed",))

    def read(self) -> list[GuardEvent]:
        """Return what happened, waiting for it if need be. Raises GuardLostError."""
        return [event for event in map(_event, self._messages()) if event is not None]

    def sweep(self) -> list[tuple[int, str]]:
        """Kill whatever the job left, wherever it went; returns (pid, name) of what was found."""
        self._send(("sweep",))
        self._connection.settimeout(_SWEEP_S_MAX)
        try:
            while True:
                for message in self._messages():
                    if message[0] == "swept":
                        return [(pid, name) for pid, name in message[1]]  # type: ignore[attr-defined]
        finally:
            self._connection.settimeout(None)

    def close(self) -> None:
        """Let the guard end."""
        self._connection.close()

    def _messages(self) -> list[tuple[object, ...]]:
        try:
            data = self._connection.recv(65_536)
        except OSError as error:
            self.lost = True
            raise GuardLostError(f"guard does not answer: {error}") from error
        if not data:
            self.lost = True
            raise GuardLostError("guard ended")
        self._buffer += data
        return guard_process.unpack(self._buffer)

    def _send(self, message: tuple[object, ...], fds: Sequence[int] = ()) -> None:
        data = guard_process.pack(message)
        try:
            with self._lock:
                sent = 0
                if fds:
                    sent = socket.send_fds(self._connection, [data], list(fds))
                self._connection.sendall(data[sent:])
        except OSError as error:
            self.lost = True
            raise GuardLostError(f"guard is gone: {error}") from error


def _event(message: tuple[object, ...]) -> GuardEvent | None:
    match message:
        case ("exited", int(code)):
            return Exited(code)
        case ("failed", str(text)):
            return Failed(text)
        case ("starved",):
            return Starved()
        case _:
            return None


class Nursery:
    """The process that guards are forked from; started when the first one is asked for."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def guard(self) -> Guard:
        """Return a new guard."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with self._lock, theirs:
            try:
                self._hand_over(theirs)
            except OSError:
                self._stop()
                self._hand_over(theirs)
        return Guard(ours)

    def _hand_over(self, theirs: socket.socket) -> None:
        control = self._control or self._start()
        socket.send_fds(control, [b"g"], [theirs.fileno()])

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(guard_process.__file__)),
                 str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )  # fmt: skip
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process = None

    def close(self) -> None:
        """Let the nursery end once its guards have."""
        with self._lock:
            self._stop()


def terminate(guard: Guard) -> None:
    """Kill the step's process group at once."""
    with contextlib.suppress(GuardLostError):
        guard.signal(signal.SIGKILL)


def same_user() -> bool:
    """Say whether jobs can only run as the runner's own user."""
    return os.geteuid() != 0
