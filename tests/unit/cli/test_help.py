"""The command line answers at once, and nothing heavy is on the way."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from infra.cli import COMMANDS

TAILRACE = str(Path(sys.executable).with_name("tailrace"))
HEAVY = ("fastapi", "psycopg", "confluent_kafka", "faust", "fastavro", "msgspec", "aiohttp")
WITHIN_S = 0.2


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_answers_within_a_fifth_of_a_second(command: str) -> None:
    """By processor time, which a free core turns into as much time; the best of three counts."""
    taken = [_help_seconds(command) for _ in range(3)]
    assert min(taken) < WITHIN_S, f"`tailrace {command} --help` took {taken}"


def _help_seconds(command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [TAILRACE, *command.split(), "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: tailrace" in done.stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
