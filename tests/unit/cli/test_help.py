"""The command line answers at once, and nothing heavy is on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.cli import COMMANDS

TAILRACE = str(Path(sys.executable).with_name("tailrace"))
HEAVY = ("fastapi", "psycopg", "confluent_kafka", "faust", "fastavro", "msgspec", "aiohttp")
WITHIN_S = 0.2
# Where the machine is so busy that even a bare interpreter takes long: so many times that.
WITHIN_STARTS = 14
TRIES = 6
WORKFLOW = "on: push\njobs:\n  a:\n    runs-on: linux\n    steps:\n      - run: make\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_answers_within_a_fifth_of_a_second(command: str) -> None:
    """By the child's processor time, which a free core turns into as much time."""
    _is_quick(TAILRACE, *command.split(), "--help", says="Usage: tailrace")


def test_lint_and_eval_are_done_within_a_fifth_of_a_second(tmp_path: Path) -> None:
    """Start, work and end: they are run by editors and before commits."""
    path = tmp_path / "a.yml"
    path.write_text(WORKFLOW)
    _is_quick(TAILRACE, "lint", str(path), says="1 file: no problems")
    _is_quick(TAILRACE, "eval", "format('{0}', 1 == 1)", says='"true"')


def _is_quick(*command: str, says: str) -> None:
    """Hold the best of several tries against the limit, each beside a bare interpreter's start."""
    taken: list[tuple[float, float]] = []
    for _ in range(TRIES):
        seconds = _cpu_seconds(*command, says=says)
        if seconds < WITHIN_S:
            return
        start = _cpu_seconds(sys.executable, "-c", "pass", says="")
        if seconds < WITHIN_STARTS * start:
            return
        taken.append((start, seconds))
    pytest.fail(f"{' '.join(command)}: processor seconds of python's start and of it: {taken}")


def _cpu_seconds(*command: str, says: str) -> float:
    """Return the processor time that the kernel counted for one child and what it waited for."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert (child.returncode, says in output) == (0, True), output
    return usage.ru_utime + usage.ru_stime


def test_no_command_imports_a_service_library_for_its_help() -> None:
    """Every command's module, imported in one process, brings none of the heavy libraries."""
    modules = sorted({where.partition(":")[0] for where, _ in COMMANDS.values()})
    script = (
        f"import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_list_says_what_each_command_says_of_itself() -> None:
    """The lines in the table begin as the commands' own help does not contradict: none is empty."""
    assert all(line.endswith(".") and len(line) < 70 for _, line in COMMANDS.values())
