"""Fixtures of the runner's tests: one lane, and a real runner on it, for each test module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.streams import Heartbeat
from tests.support.lanes import LaneDriver, RunnerProcess, runner_process


@pytest.fixture(scope="module")
def driver(kafka: str) -> Iterator[LaneDriver]:
    """Yield the scheduler's end of a pool of the module's own."""
    driver = LaneDriver(kafka)
    yield driver
    driver.close()


@pytest.fixture(scope="module")
def open_home() -> Iterator[Path]:
    """Yield a home that the job's user can pass through, as an installation's is."""
    home = Path(tempfile.mkdtemp(prefix="tailrace-test-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def runner(driver: LaneDriver, open_home: Path) -> Iterator[RunnerProcess]:
    """Yield a runner with four slots."""
    with runner_process(driver, open_home, runner_slots=4) as runner:
        yield runner


@pytest.fixture(scope="module")
def boot(driver: LaneDriver, runner: RunnerProcess) -> Heartbeat:
    """Return the runner's boot, welcomed."""
    return driver.welcome(runner.runner_id)
