"""The command that is left with a guard: run when its runner is dead or stands still."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.guards import Guard, Starved
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
SERVE = """
import socket, sys
from runner import guard
guard.STARVED_S = float(sys.argv[2])
guard.become_subreaper(b"tailrace-guard")
guard.Guard(socket.socket(fileno=int(sys.argv[1]))).run()
"""
NEVER_S, SOON_S = 600.0, 0.2


@contextmanager
def serving(starved_s: float) -> Iterator[tuple[Guard, subprocess.Popen[bytes]]]:
    """Yield the runner's end of a guard with that patience, and its process."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(theirs.fileno()), str(starved_s)],
            pass_fds=[theirs.fileno()], cwd=ROOT,
        )  # fmt: skip
    guard = Guard(ours)
    try:
        yield guard, process
    finally:
        guard.close()
        process.wait(10)


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Return the file that the command writes to."""
    return tmp_path / "told"


def leave(guard: Guard, told: Path) -> None:
    """Leave a command with the guard that tells of itself once for each time it is run."""
    guard.at_end(["sh", "-c", 'echo "$WORD" >> "$0"', str(told)], {**os.environ, "WORD": "ended"})


def test_the_command_is_run_when_the_runner_is_gone(told: Path) -> None:
    """Although no process of the job's is left, and before the guard itself ends."""
    with serving(NEVER_S) as (guard, process):
        leave(guard, told)
        assert guard.sweep() == []
        assert not told.exists()
        guard.close()
        assert process.wait(10) == 0
    assert told.read_text() == "ended\n"


def test_the_command_is_run_once_when_the_runner_stands_still(told: Path) -> None:
    """The runner is told so; going on and standing still again runs it again."""
    with serving(SOON_S) as (guard, _):
        leave(guard, told)
        assert guard.read() == [Starved()]
        eventually(told.exists, what="the command's word")
        guard.feed()
        assert guard.read() == [Starved()]
        eventually(lambda: told.read_text() == "ended\n" * 2, what="its second word")
        guard.at_end((), {})
    assert told.read_text() == "ended\n" * 2


def test_a_command_that_was_taken_back_is_not_run(told: Path) -> None:
    """A job that ended as it should leaves nothing to do; nor does one that can't be started."""
    with serving(NEVER_S) as (guard, process):
        leave(guard, told)
        guard.at_end((), {})
        guard.close()
        assert process.wait(10) == 0
    assert not told.exists()
    with serving(NEVER_S) as (guard, process):
        guard.at_end(["/nowhere/engine"], {})
        guard.close()
        assert process.wait(10) == 0
