"""Runs steps on the machine itself: own session, own user where possible, own folders, a guard."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from runner.executors import Command, Inside
from runner.folders import JobFolders, Seat
from runner.guards import Guard, GuardLostError
from runner.pump import Ending, Pump

ISOLATION_USER = "host-user"  # a system user other than the services'
ISOLATION_PROCESS = "host"  # the runner's own user


class HostWorkplace:
    """An attempt on this machine; every process of it is a descendant of `guard`."""

    def __init__(self, seat: Seat, folders: JobFolders, guard: Guard, pump: Pump) -> None:
        """Work in the seat's `folders`; nothing runs yet."""
        self.folders = folders
        self.inside: Inside | None = None
        self._seat = seat
        self._guard = guard
        self._pump = pump
        self._dirty = False
        self._has_end = False
        self._timeout_ms: int | None = None

    def start(self, command: Command) -> None:
        """Start a process through the guard."""
        out, err = self._pump.open_pipes(command.step, command.on_command)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._guard.spawn(
                command.argv,
                env=command.env,
                cwd=command.cwd,
                user=None if command.place == "engine" else self.folders.user,
                fds={0: nothing, 1: out, 2: err, **command.fds},
            )
        finally:
            for fd in (nothing, out, err):
                os.close(fd)
        self._dirty = True
        self._timeout_ms = command.timeout_ms

    def wait(self) -> Ending:
        """Move output until the process ended."""
        return self._pump.wait(self._timeout_ms)

    def sweep(self) -> list[tuple[int, str]]:
        """Kill what is left, wherever it went, then take its last words."""
        found = self._guard.sweep()
        self._dirty = False
        self._pump.drain()
        return found

    def at_end(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Leave a command of the runner's own with the guard, should `close` not be reached."""
        self._has_end = True
        self._guard.at_end(argv, env)

    def close(self) -> None:
        """Kill what is left and give the folders back."""
        with contextlib.suppress(GuardLostError):
            # also takes the guard's words that nobody waited for: they are not the next job's
            if self._dirty or self._has_end:
                self._guard.sweep()
            if self._has_end:
                self._guard.at_end((), {})
        self._pump.close()
        self._seat.give_back(self.folders)
