"""Where steps run: the contract of an executor, and the executors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runner.folders import JobFolders
from runner.logs import OnCommand
from runner.pump import Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to run for a step; `fds` maps further descriptors of its to ours.

    `env` is the whole environment, `cwd` absolute. `timeout_ms` is the step's own limit.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    step: int
    on_command: OnCommand
    timeout_ms: int | None = None
    fds: Mapping[int, int] = field(default_factory=dict)


class Workplace(Protocol):
    """The place of one attempt. One thread uses it; the order of calls is `open` … `close`."""

    folders: JobFolders

    def start(self, command: Command) -> None:
        """Start a process; nothing of the step before runs any more but what it left behind."""
        ...

    def wait(self) -> Ending:
        """Move output into the log until the process ended.

        A failing process is an `Ending`, never an exception. Raises AbandonedError or
        GuardLostError when the attempt can't go on; `close` is still to be called.
        """
        ...

    def sweep(self) -> list[tuple[int, str]]:
        """Kill whatever the attempt left running; returns (pid, name) of each. May be repeated."""
        ...

    def close(self) -> None:
        """Give everything back; safe to call at any time, also after an exception."""
        ...
