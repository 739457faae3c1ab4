"""Moves a job's output to its log while it waits for a process: one loop, one thread a job.

It waits for four things at once: output, the guard's word, orders from the lane, and the next
deadline. A pipe that a background process keeps open after its step is read until the job ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import threading
from collections.abc import Callable

from infra.clock import Clock
from runner.guards import Exited, Failed, Guard, GuardLostError, Starved
from runner.logs import LogPacker, OnCommand, StreamSplitter
from schemas.late import dataclass
from schemas.loglines import STDERR, STDOUT

READ_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024
#: After a step's process ended, its children's last words are waited for as long as they come.
LINGER_QUIET_MS = 100
LINGER_MS_MAX = 2_000
_BLOCKED_RETRY_MS = 20
_TERM_AFTER = 0.75  # of a grace: GitHub's 7.5 s of 10
_NO_LIMIT_MS = 60_000
_SIGINT_CODES = frozenset({-signal.SIGINT, 128 + signal.SIGINT})


class AbandonedError(Exception):
    """The attempt is not this runner's any more, or must end this instant; nothing is reported."""


@dataclass(slots=True)
class Ladder:
    """How a process is asked to end, more and more firmly: SIGINT, SIGTERM, SIGKILL.

    `grace_ms` is for the step that runs; what runs after it, because its condition wants it to,
    has until `cleanup_ms` after the start.
    """

    start_ms: int
    grace_ms: int
    rung: int = 0
    cleanup_ms: int = 0

    def over_ms(self) -> int:
        """Return when nothing of the job may run any more."""
        return self.start_ms + max(self.grace_ms, self.cleanup_ms)

    def for_later_steps(self) -> Ladder:
        """Return the ladder of a step that begins now: not interrupted, only killed at last."""
        return Ladder(self.start_ms, self.over_ms() - self.start_ms, rung=2)

    def due_ms(self) -> int | None:
        """Return when the next signal is due; None when all were sent."""
        match self.rung:
            case 0:
                return self.start_ms
            case 1:
                return self.start_ms + int(self.grace_ms * _TERM_AFTER)
            case 2:
                return self.start_ms + self.grace_ms
            case _:
                return None

    def climb(self, now_ms: int) -> signal.Signals | None:
        """Return the signal that is due now, if one is."""
        due = self.due_ms()
        if due is None or now_ms < due:
            return None
        self.rung += 1
        return (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[self.rung - 1]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a step's process ended; `timed_out` by the step's own limit, `started` if it ever ran."""

    code: int
    timed_out: bool = False
    started: bool = True
    message: str = ""


@dataclass(slots=True)
class _Pipe:
    fd: int
    splitter: StreamSplitter


class Pump:
    """The loop of one attempt; made and used by the slot's thread, `wake` is for any thread."""

    def __init__(
        self,
        guard: Guard,
        packer: LogPacker,
        clock: Clock,
        *,
        accepts: Callable[[], bool],
        interrupted: Callable[[int], Ladder | None],
        deadline_ms: int,
    ) -> None:
        """Ask `accepts` whether the log takes more, and `interrupted` (at each turn) about orders.

        It is asked at `deadline_ms`, when the job's time is over, at the latest.

        `interrupted(steady_ms)` returns the ladder of the whole job once it is being ended, and
        raises AbandonedError when nothing more may be done.
        """
        self._guard = guard
        self._packer = packer
        self._clock = clock
        self._accepts = accepts
        self._interrupted = interrupted
        self._deadline_ms = deadline_ms
        self._poll = select.poll()
        self._poll.register(guard.fileno(), select.POLLIN)
        self._woken = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._woken, select.POLLIN)
        self._pipes: dict[int, _Pipe] = {}
        self._blocked = False
        #: Signals a process that is no child of the guard's; says whether it could.
        self.signalled: Callable[[signal.Signals], bool] | None = None
        self._closing = threading.Lock()
        self._closed = False

    def wake(self) -> None:
        """Look at the orders now."""
        with self._closing:
            if not self._closed:
                os.eventfd_write(self._woken, 1)

    def open_pipes(self, step: int, on_command: OnCommand) -> tuple[int, int]:
        """Return the write ends of stdout and stderr for a step; the caller closes them."""
        ends = []
        for stream in (STDOUT, STDERR):
            read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(write_end, True)
            with contextlib.suppress(OSError):  # over the user's limit: the default will do
                fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            splitter = StreamSplitter(self._packer, stream, step, on_command)
            self._pipes[read_end] = _Pipe(read_end, splitter)
            if not self._blocked:
                self._poll.register(read_end, select.POLLIN)
            ends.append(write_end)
        return ends[0], ends[1]

    def wait(self, timeout_ms: int | None) -> Ending:
        """Move output until the step's process ended, at the latest some time after the limit."""
        began_ms = self._clock.steady_ms()
        own: Ladder | None = None
        limit_ms = None if timeout_ms is None else began_ms + timeout_ms
        job = self._interrupted(began_ms)
        whole = None if job is None else job.for_later_steps()
        while True:
            now_ms = self._clock.steady_ms()
            if whole is None and (job := self._interrupted(now_ms)) is not None:
                whole = job
            elif whole is not None:
                self._interrupted(now_ms)
            if own is None and limit_ms is not None and now_ms >= limit_ms:
                own = Ladder(now_ms, 10_000)
            self._climb(now_ms, own, whole)
            dues = [ladder.due_ms() for ladder in (own, whole) if ladder is not None]
            if own is None and limit_ms is not None:
                dues.append(limit_ms)
            if whole is None:
                dues.append(self._deadline_ms)
            ending = self._turn(now_ms, [due for due in dues if due is not None])
            if ending is not None:
                self._linger()
                return Ending(
                    ending.code, own is not None and whole is None, ending.started, ending.message
                )

    def _climb(self, now_ms: int, *ladders: Ladder | None) -> None:
        for ladder in ladders:
            number = ladder.climb(now_ms) if ladder is not None else None
            if number is None:
                continue
            is_last = number is signal.SIGKILL
            if self.signalled is None or (not self.signalled(number) and is_last):
                self._guard.signal(number)

    def _turn(self, now_ms: int, dues: list[int]) -> Ending | None:
        """Wait for the next thing and deal with it; returns the ending when that was it."""
        ending: Ending | None = None
        for fd, _ in self._ready(self._timeout_ms(now_ms, dues)):
            if fd == self._woken:
                os.eventfd_read(self._woken)
            elif fd == self._guard.fileno():
                ending = self._heard() or ending
            else:
                self._read(fd)
        self._ship()
        return ending

    def _ready(self, timeout_ms: int) -> list[tuple[int, int]]:
        blocked = not self._accepts()
        if blocked != self._blocked:
            self._blocked = blocked
            for fd in self._pipes:
                if blocked:
                    self._poll.unregister(fd)
                else:
                    self._poll.register(fd, select.POLLIN)
        if blocked:
            timeout_ms = min(timeout_ms, _BLOCKED_RETRY_MS)
        return self._poll.poll(timeout_ms)

    def _timeout_ms(self, now_ms: int, dues: list[int]) -> int:
        waits = [due - now_ms for due in dues]
        log_due = self._packer.due_ms()
        if log_due is not None:
            waits.append(log_due - self._clock.now_ms())
        return max(0, min(waits, default=_NO_LIMIT_MS))

    def _heard(self) -> Ending | None:
        for event in self._guard.read():
            match event:
                case Exited(code=code):
                    return Ending(code)
                case Failed(message=message):
                    return Ending(127, started=False, message=message)
                case Starved():
                    raise GuardLostError("the runner stood still for more than 15 s")
        return None

    def _read(self, fd: int) -> bool:
        """Take one chunk from a pipe; False when there is none now."""
        pipe = self._pipes.get(fd)
        if pipe is None:
            return False
        try:
            chunk = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        now_ms = self._clock.now_ms()
        if not chunk:
            pipe.splitter.close(now_ms)
            self._drop(fd)
            return False
        pipe.splitter.feed(now_ms, chunk)
        return True

    def _drop(self, fd: int) -> None:
        if not self._blocked:
            self._poll.unregister(fd)
        del self._pipes[fd]
        os.close(fd)

    def _ship(self) -> None:
        due_ms = self._packer.due_ms()
        if due_ms is not None:
            now_ms = self._clock.now_ms()
            if now_ms >= due_ms:
                self._packer.flush(now_ms)

    def _linger(self) -> None:
        """Read what the step wrote, and what its children still write for a moment."""
        give_up_ms = self._clock.steady_ms() + LINGER_MS_MAX
        while self._pipes and self._clock.steady_ms() < give_up_ms:
            read = [self._read(fd) for fd in tuple(self._pipes) if self._wait_room()]
            if any(read):
                continue
            if not self._pipes or not self._poll_pipes(LINGER_QUIET_MS):
                return

    def _wait_room(self) -> bool:
        while not self._accepts():
            self._interrupted(self._clock.steady_ms())
            select.select([], [], [], _BLOCKED_RETRY_MS / 1000)
        return True

    def _poll_pipes(self, timeout_ms: int) -> bool:
        poll = select.poll()
        for fd in self._pipes:
            poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def drain(self) -> None:
        """Take what is still in the pipes once everything that could write is dead."""
        for fd in tuple(self._pipes):
            while fd in self._pipes and self._wait_room() and self._read(fd):
                pass
            if fd in self._pipes:
                self._pipes[fd].splitter.close(self._clock.now_ms())
                self._drop(fd)

    def close(self) -> None:
        """Let go of everything."""
        with self._closing:
            self._closed = True
            os.close(self._woken)
        for fd in tuple(self._pipes):
            self._drop(fd)
