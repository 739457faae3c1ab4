"""The command line answers at once, and nothing heavy is on the way."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.cli import COMMANDS

TAILRACE = str(Path(sys.executable).with_name("tailrace"))
HEAVY = ("fastapi", "psycopg", "confluent_kafka", "faust", "fastavro", "msgspec", "aiohttp")
WITHIN_S = 0.2


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_answers_within_a_fifth_of_a_second(command: str) -> None:
    """The best of ten counts: the others measured the neighbours."""
    taken: list[float] = []
    for _ in range(10):
        started = time.perf_counter()
        done = subprocess.run(
            [TAILRACE, *command.split(), "--help"], capture_output=True, text=True, check=True
        )
        taken.append(time.perf_counter() - started)
        assert "Usage: tailrace" in done.stdout
        if taken[-1] < WITHIN_S:
            return
    pytest.fail(f"`tailrace {command} --help` took at best {min(taken):.3f} s")


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
