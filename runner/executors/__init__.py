"""Where steps run: the contract of an executor, and the executors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal, Protocol

from runner.folders import JobFolders
from runner.logs import OnCommand
from runner.pump import Ending
from schemas.late import dataclass

Place = Literal["job", "machine", "engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the container of a job's steps has: the user's id, PATH, and which shells and tools."""

    uid: int
    path: str
    programs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to run for a step; `fds` maps further descriptors of its to ours.

    `env` is the whole environment, `cwd` absolute. `timeout_ms` is the step's own limit. `place`
    says whose it is: the job's own (in its container where it has one), the job's user's on the
    machine, or the runner's, which starts the container engine's program alone.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    step: int
    on_command: OnCommand
    timeout_ms: int | None = None
    fds: Mapping[int, int] = field(default_factory=dict)
    place: Place = "job"


class Workplace(Protocol):
    """The place of one attempt. One thread uses it; the order of calls is `open` … `close`."""

    folders: JobFolders
    inside: Inside | None

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
