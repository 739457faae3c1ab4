"""Kafka is away in the middle of jobs: nothing of what they did and said is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded.kafka import Broker
from runner.spool import records_of
from tests.integration.runner_fixtures import open_home
from tests.support.eventually import eventually
from tests.support.lanes import LaneDriver, RunnerProcess, runner_process
from tests.support.shared import cache_dir

__all__ = ["open_home"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Yield a broker of the module's own, to be killed."""
    broker = Broker(tmp_path_factory.mktemp("outage") / "kafka", cache=cache_dir())
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def driver(broker: Broker) -> Iterator[LaneDriver]:
    """Yield the scheduler's end of a lane on that broker."""
    driver = LaneDriver(broker.start())
    yield driver
    driver.close()


@pytest.fixture
def runner(driver: LaneDriver, open_home: Path) -> Iterator[RunnerProcess]:
    """Yield a runner on that broker."""
    with runner_process(driver, open_home, runner_slots=2) as runner:
        yield runner


def journals(runner: RunnerProcess) -> list[Path]:
    """Return what the runner's spool has on disk."""
    folder = runner.home / "runner" / runner.runner_id / "spool"
    return [path for path in folder.glob("*.journal") if path.stat().st_size > 0]


def test_nothing_is_lost_when_kafka_and_then_the_runner_go_away(
    broker: Broker, driver: LaneDriver, runner: RunnerProcess
) -> None:
    """Jobs go on through an outage; lines and reports wait on disk and arrive in order.

    What a runner that was killed meanwhile had to say is said by its next boot, before that one
    announces itself: a job that had ended counts.
    """
    boot = driver.welcome(runner.runner_id)
    script = 'echo begin; sleep {pause}; for i in $(seq 1 20); do seq -f "$i.%g" 1 500; done'
    lines = [f"{i}.{j}" for i in range(1, 21) for j in range(1, 501)]
    first = driver.assignment(boot, script.format(pause=1))
    driver.send(first)
    eventually(lambda: "begin" in driver.so_far(first), what="the first line")

    broker.kill()
    eventually(lambda: journals(runner), what="a journal")
    broker.start()
    finished = driver.finished(first, timeout_ms=60_000)
    second = driver.assignment(boot, script.format(pause=1))
    driver.send(second)
    eventually(lambda: "begin" in driver.so_far(second), what="the first line")
    broker.kill()
    eventually(
        lambda: any(promised(path) for path in journals(runner)), what="the end in the journal"
    )
    runner.kill()
    broker.start()
    runner.restart()
    later = driver.welcome(runner.runner_id, not_boot=boot.boot_id)

    assert finished.conclusion == "success"
    assert driver.log(first).texts() == ["begin", *lines]
    assert driver.log(second).texts() == ["begin", *lines]
    ended = driver.finished(second)
    assert (ended.conclusion, ended.boot_id) == ("success", boot.boot_id)
    assert driver.arrived_ms[ended.event_id] <= driver.announced_ms[later.boot_id]
    assert not journals(runner)


def promised(journal: Path) -> bool:
    """Say whether a journal holds a report that waits for its log."""
    return any(True for _ in records_of(journal, later=True))
