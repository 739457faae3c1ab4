"""Cancellation, dismissal, and what is left when a runner is stopped or killed: nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.events import JobFinished, JobStarted, StepFinished
from schemas.streams import Heartbeat
from schemas.workflow.plan import StepPlan
from tests.integration.runner_fixtures import boot, driver, open_home, runner
from tests.support.eventually import eventually
from tests.support.lanes import LaneDriver, RunnerProcess, runner_process

__all__ = ["boot", "driver", "open_home", "runner"]

#: Starts a daemon that leaves group and session, one that leaves its parent, and one that stays.
SCATTER = (
    "setsid sleep {n} >/dev/null 2>&1 &\n"
    "(setsid sh -c 'sleep {n} & disown 2>/dev/null; exec sleep {n}' >/dev/null 2>&1 &)\n"
    "nohup sleep {n} >/dev/null 2>&1 &\n"
    "env -i setsid sleep {n} >/dev/null 2>&1 &\n"
    "trap '' INT TERM\n"
    "echo ready\n"
    "sleep {n}\nsleep {n}\n"
)


@pytest.fixture
def fresh(driver: LaneDriver, open_home: Path) -> Iterator[RunnerProcess]:
    """Yield a runner of the test's own, to be killed."""
    with runner_process(driver, open_home, runner_slots=2) as runner:
        yield runner


def sleepers(seconds: int) -> list[psutil.Process]:
    """Return the living processes `sleep <seconds>`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", str(seconds)]:
                found.append(process)
    return found


def scattered(driver: LaneDriver, boot: Heartbeat, seconds: int, **values: object) -> object:
    """Start a job that scatters processes; returns its assignment once all of them run."""
    assignment = driver.assignment(boot, SCATTER.format(n=seconds), **values)
    driver.send(assignment)
    eventually(lambda: "ready" in driver.so_far(assignment), what="the job's line")
    eventually(lambda: len(sleepers(seconds)) == 6, what="six processes of the job")
    return assignment


def test_cancelling_interrupts_kills_and_runs_cleanup(driver: LaneDriver, boot: Heartbeat) -> None:
    """SIGINT first; steps for which always() or cancelled() holds run; the log is whole."""
    steps = (
        StepPlan(id="__a", run="trap 'echo interrupted; exit 1' INT; echo up; sleep 60 & wait"),
        StepPlan(id="__b", run="echo never"),
        StepPlan(id="__c", run="echo cleanup", condition="always()"),
        StepPlan(id="__d", run="echo was cancelled", condition="cancelled()"),
        StepPlan(id="__e", run="echo failed?", condition="failure()"),
    )
    assignment = driver.assignment(boot, steps)
    driver.send(assignment)
    eventually(lambda: "up" in driver.so_far(assignment), what="the first line")

    driver.cancel(assignment)
    finished = driver.finished(assignment)

    assert (finished.conclusion, finished.reason) == ("cancelled", "cancel.user")
    assert driver.log(assignment).texts() == ["up", "interrupted", "cleanup", "was cancelled"]
    outcomes = [step.outcome for step in driver.of(assignment, StepFinished)]
    assert outcomes == ["cancelled", "skipped", "success", "success", "skipped"]


def test_a_job_that_ignores_every_request_is_killed_in_time(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """SIGKILL at the end of the grace, of everything, wherever it went."""
    assignment = scattered(driver, boot, 7001)

    driver.cancel(assignment, grace_ms=1_000)  # type: ignore[arg-type]
    finished = driver.finished(assignment, timeout_ms=8_000)  # type: ignore[arg-type]

    assert finished.conclusion == "cancelled"
    assert not sleepers(7001)


def test_a_job_over_its_time_limit_is_timed_out(driver: LaneDriver, boot: Heartbeat) -> None:
    """The limit of the assignment ends the job like a cancellation, by its own name."""
    steps = (
        StepPlan(id="__a", run="sleep 60"),
        StepPlan(id="__b", run="echo after", condition="always()"),
    )

    finished, log, _ = driver.run(boot, steps, timeout_ms=500)

    assert (finished.conclusion, finished.reason) == ("timed_out", "user.job_timeout")
    assert log.texts() == ["after"]


def test_what_a_job_leaves_running_ends_with_it(driver: LaneDriver, boot: Heartbeat) -> None:
    """A background process lives until the job ends, not the step; a daemon not longer."""
    steps = (
        StepPlan(id="__a", run="setsid sleep 7002 >/dev/null 2>&1 & sleep 7002 & echo started"),
        StepPlan(id="__b", run="pgrep -cx sleep -u $(id -u) || true"),
    )

    finished, log, _ = driver.run(boot, steps)

    assert finished.conclusion == "success"
    assert log.texts()[1] == "2"
    assert not sleepers(7002)
    assert any("left running" in line.text for line in log.lines())


def test_kill_9_of_the_runner_leaves_nothing_running(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """The guard sees the end of its socket and kills everything the job started, at once."""
    boot = driver.welcome(fresh.runner_id)
    scattered(driver, boot, 7003)

    fresh.kill()

    eventually(lambda: not sleepers(7003), timeout_ms=3_000, what="the end of the job's processes")


def test_kill_9_of_runner_and_guards_is_mended_by_the_next_start(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """Even when nobody was left to kill the job, the next boot finds its processes by a mark."""
    boot = driver.welcome(fresh.runner_id)
    assignment = driver.assignment(boot, "echo ready; setsid sleep 7004 & sleep 7004")
    driver.send(assignment)
    eventually(lambda: len(sleepers(7004)) == 2, what="two processes of the job")
    family = psutil.Process(fresh.process.pid).children(recursive=True)
    guards = [process for process in family if process.name().startswith("tailrace-guard")]
    for process in (psutil.Process(fresh.process.pid), *guards):
        process.suspend()

    for process in guards:
        process.kill()
    fresh.kill()
    assert sleepers(7004)
    fresh.restart()
    second = driver.welcome(fresh.runner_id, not_boot=boot.boot_id)

    assert second.boot_id > boot.boot_id
    assert not sleepers(7004)


def test_a_stopped_runner_leaves_nothing_running_after_15_s(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """A guard that is not fed kills its job; the runner, once it goes on, says so and lives."""
    boot = driver.welcome(fresh.runner_id)
    assignment = scattered(driver, boot, 7005)

    fresh.process.send_signal(signal.SIGSTOP)
    eventually(lambda: not sleepers(7005), timeout_ms=20_000, what="the end of the job's processes")
    fresh.process.send_signal(signal.SIGCONT)

    finished = driver.finished(assignment)  # type: ignore[arg-type]
    assert (finished.conclusion, finished.reason) == ("failure", "infra.guard_lost")
    assert driver.run(boot, "echo again")[0].conclusion == "success"


def test_a_killed_guard_ends_its_job_and_the_slot_goes_on(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """What a killed guard leaves becomes the nursery's, which kills it."""
    boot = driver.welcome(fresh.runner_id)
    assignment = scattered(driver, boot, 7006)
    [sleeper, *_] = sleepers(7006)
    guards = [
        process
        for process in psutil.Process(fresh.process.pid).children(recursive=True)
        if process.name() == "tailrace-guard" and process.children()
    ]

    for guard in guards:
        guard.kill()

    finished = driver.finished(assignment)  # type: ignore[arg-type]
    assert (finished.conclusion, finished.reason) == ("failure", "infra.guard_lost")
    eventually(lambda: not sleepers(7006), timeout_ms=5_000, what="the end of the job's processes")
    assert driver.run(boot, "echo again")[0].conclusion == "success"
    assert not sleeper.is_running()


def test_a_dismissed_boot_kills_its_jobs_and_joins_anew(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """Nothing more is reported of the old boot's job; the new boot is higher and works."""
    boot = driver.welcome(fresh.runner_id)
    assignment = scattered(driver, boot, 7007)

    driver.dismiss(boot)
    second = driver.welcome(fresh.runner_id, not_boot=boot.boot_id)

    assert second.boot_id > boot.boot_id
    assert not sleepers(7007)
    assert driver.run(second, "echo again")[0].conclusion == "success"
    assert not driver.of(assignment, JobFinished)  # type: ignore[arg-type]
    assert fresh.process.poll() is None


def test_sigterm_says_goodbye_and_leaves_nothing_running(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """An orderly stop kills the jobs, tells the fleet, and is done within 5 s."""
    boot = driver.welcome(fresh.runner_id)
    assignment = scattered(driver, boot, 7008)

    assert fresh.stop() == 0

    assert not sleepers(7008)
    eventually(
        lambda: any(b.leaving and b.boot_id == boot.boot_id for b in driver.heartbeats),
        what="a heartbeat that says goodbye",
    )
    assert driver.of(assignment, JobStarted)  # type: ignore[arg-type]
    assert not driver.of(assignment, JobFinished)  # type: ignore[arg-type]


def test_a_second_process_can_not_be_the_same_runner(
    driver: LaneDriver, fresh: RunnerProcess
) -> None:
    """Two processes with one identity would share a boot: the second refuses to start."""
    driver.welcome(fresh.runner_id)

    second = subprocess.run(
        [sys.executable, "-m", "runner"],
        env=dict(fresh.environ), capture_output=True, check=False, timeout=30,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert second.returncode == 1
    assert b"belongs to a runner that runs" in second.stdout + second.stderr


def test_jobs_of_two_slots_can_not_reach_each_other(driver: LaneDriver, boot: Heartbeat) -> None:
    """As root each slot has a user of its own: no signals, no environment, no files."""
    if os.geteuid() != 0:
        pytest.skip("jobs run as the runner's own user")
    first = driver.assignment(boot, "echo $$; SECRET=abc exec sleep 7009")
    driver.send(first)
    [pid] = eventually(lambda: driver.so_far(first), what="the first job's pid")
    eventually(lambda: sleepers(7009), what="the first job's sleep")
    text = f"kill {pid} && echo killed; cat /proc/{pid}/environ && echo read; ls /proc/{pid}/cwd/"

    _, log, _ = driver.run(boot, (StepPlan(id="__a", run=text, shell="bash {0}"),))  # noqa: S604

    assert not {"killed", "read"} & set(log.texts("o"))
    driver.cancel(first, grace_ms=500)
    assert driver.finished(first).conclusion == "cancelled"
