"""From a real `git push` to a finished run, through every real part of the system."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas import events as e
from tests.support.eventually import eventually
from tests.support.refold import fold_again
from tests.support.stack import GitRepository, Stack, running
from tests.support.wire import Wire

DIAMOND = """\
name: Diamond
on: push
jobs:
  start:
    runs-on: ubuntu-latest
    outputs:
      word: ${{ steps.say.outputs.word }}
    steps:
      - uses: actions/checkout@v4
      - id: say
        run: echo "word=$(cat WORD)" >> "$GITHUB_OUTPUT"
  left:
    needs: start
    runs-on: ubuntu-latest
    outputs:
      side: left-${{ needs.start.outputs.word }}
    steps:
      - run: echo "left has ${{ needs.start.outputs.word }}"
  right:
    needs: start
    runs-on: ubuntu-latest
    outputs:
      side: ${{ steps.s.outputs.side }}
    steps:
      - id: s
        run: echo "side=right-${{ needs.start.outputs.word }}" >> "$GITHUB_OUTPUT"
  matrix:
    needs: [left, right]
    runs-on: ubuntu-latest
    strategy:
      fail-fast: false
      matrix:
        number: [1, 2, 3, 4]
    steps:
      - run: echo "leg ${{ matrix.number }} of ${{ needs.left.outputs.side }}"
      - if: matrix.number == 3
        run: exit 7
  join:
    needs: [left, right, matrix]
    if: always()
    runs-on: ubuntu-latest
    steps:
      - env:
          SIDES: ${{ needs.left.outputs.side }} ${{ needs.right.outputs.side }}
        run: echo "$SIDES ${{ needs.matrix.result }}"
  never:
    needs: matrix
    runs-on: ubuntu-latest
    steps:
      - run: echo unreachable
  only-on-failure:
    needs: matrix
    if: failure()
    runs-on: ubuntu-latest
    steps:
      - run: echo "cleaning up"
"""

SLOW = """\
name: Slow
on: push
jobs:
  legs:
    runs-on: ubuntu-latest
    strategy:
      fail-fast: true
      matrix:
        part: [quick, endless]
    steps:
      - run: |
          echo "part ${{ matrix.part }}"
          if [ "${{ matrix.part }}" = quick ]; then
            until [ -e "@FOLDER@/endless-runs" ]; do sleep 0.1; done
            exit 1
          fi
          touch "@FOLDER@/endless-runs"
          sleep 600
"""

BACKBONE = {"DeliveryReceived", "JobScheduled", "JobAssigned", "JobStarted", "JobFinished",
            "JobCancelled"}  # fmt: skip


@pytest.fixture(scope="module")
def stack(run_dir: Path) -> Iterator[Stack]:
    """Yield a running installation."""
    home = Path(tempfile.mkdtemp(prefix="whole-", dir=run_dir))
    home.chmod(0o755)
    with running(home / "home", runner_slots="4") as stack:
        yield stack
    shutil.rmtree(home, ignore_errors=True)


def pushed(stack: Stack, repository: GitRepository, name: str, files: dict[str, str]) -> str:
    """Push a commit and return the id of the run that it started."""
    sha = repository.commit(files)
    repository.push()
    return str(stack.run_of(name, sha)["run_id"])


def text_of(stack: Stack, job: dict[str, Any]) -> str:
    """Return the whole log of a job's last attempt."""
    attempt = job["attempts"][-1]["attempt"]
    path = f"/jobs/{job['job_id']}/attempts/{attempt}/log/raw"
    return b"".join(stack.client.text(path)).decode()


def ends_of(run: dict[str, Any]) -> list[tuple[str, int, str, str, str]]:
    """Return how each attempt of a run's jobs ended, for a failure's words."""
    return [
        (job["key"], attempt["attempt"], attempt["conclusion"], attempt["reason"],
         attempt["message"])
        for job in run["jobs"] for attempt in job["attempts"]
    ]  # fmt: skip


def trail_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    """Return the run's audit trail."""
    return list(stack.client.pages(f"/runs/{run_id}/events", {}, items_max=5_000))


def test_a_push_runs_a_diamond_with_a_matrix_and_a_failing_leg(
    stack: Stack, open_folder: Path
) -> None:
    """Ten jobs, outputs passed along needs, one failing leg: API, events and logs agree."""
    repository = stack.add_repository("test/diamond", open_folder / "diamond")
    run_id = pushed(
        stack, repository, "test/diamond",
        {".github/workflows/diamond.yml": DIAMOND, "WORD": "river"},
    )  # fmt: skip
    run = stack.wait_for_end(run_id)
    jobs = {job["job_id"].partition(".")[2]: job for job in run["jobs"]}
    found = {key: job["conclusion"] for key, job in jobs.items()}
    assert found.pop("matrix", "failure") == "failure"
    assert found == {
        "start": "success", "left": "success", "right": "success", "matrix.0": "success",
        "matrix.1": "success", "matrix.2": "failure", "matrix.3": "success", "join": "success",
        "never": "skipped", "only-on-failure": "success",
    }  # fmt: skip
    assert run["conclusion"] == "failure"
    assert jobs["matrix.2"]["reason"] == "user.exit_code"
    assert "left-river right-river failure" in text_of(stack, jobs["join"])
    assert "leg 3 of left-river" in text_of(stack, jobs["matrix.2"])
    failed = [step for step in jobs["matrix.2"]["steps"] if step["conclusion"] == "failure"]
    assert [step["exit_code"] for step in failed] == [7]
    for job in jobs.values():
        for attempt in job["attempts"]:
            times = [
                attempt[f"{name}_at"] for name in ("queued", "assigned", "started", "finished")
            ]
            assert None not in times
            assert times == sorted(times)
            assert attempt["runner_id"]
            assert attempt["boot_id"]
    kinds = Counter(event["kind"] for event in trail_of(stack, run_id))
    assert kinds["JobFinished"] == 9
    assert kinds["RunFinished"] == 1


def test_a_cancelled_leg_leaves_all_seven_events_with_one_root(
    stack: Stack, open_folder: Path
) -> None:
    """Received to cancelled, log batches included; every cause is earlier, one has none."""
    repository = stack.add_repository("test/cancel", open_folder / "cancel")
    workflow = SLOW.replace("@FOLDER@", str(open_folder))
    run_id = pushed(stack, repository, "test/cancel", {".github/workflows/slow.yml": workflow})
    run = stack.wait_for_end(run_id)
    assert {j["conclusion"] for j in run["jobs"] if "." in j["job_id"].partition(".")[2]} == {
        "failure", "cancelled",
    }  # fmt: skip
    wire = Wire(stack.record()["kafka_bootstrap"])
    try:
        trail = [
            logged.event
            for logged in wire.events()
            if logged.event.run_id == run_id or logged.event.delivery_id == run["delivery_id"]
        ]
    finally:
        wire.close()
    assert {type(event).__name__ for event in trail} >= BACKBONE
    seen: set[str] = set()
    roots = []
    for event in trail:
        if event.caused_by is None:
            roots.append(event)
        else:
            assert event.caused_by in seen, f"{type(event).__name__} is caused by nothing earlier"
        seen.add(event.event_id)
    assert [type(event) for event in roots] == [e.DeliveryReceived]
    for job in run["jobs"]:
        if job["attempts"]:
            _await_archive(stack, job["job_id"])


def _await_archive(stack: Stack, job_id: str) -> None:
    """Wait until the job's log is in the object store, complete."""

    def archived() -> bool:
        run = stack.client.get(f"/runs/{job_id.partition('.')[0]}")
        [job] = [job for job in run["jobs"] if job["job_id"] == job_id]
        log = job["attempts"][-1]["log"]
        return bool(log["complete"] and log["archived"])

    eventually(archived, what=f"the log of {job_id} is archived")


@pytest.mark.parametrize(
    "service",
    ["ingest", "planner", "scheduler-1", "scheduler-2", "fleet", "projector", "api", "gateway"],
)
def test_a_run_survives_the_death_of_each_service(
    stack: Stack, open_folder: Path, service: str
) -> None:
    """Kill -9 in the middle of a run: it ends right and its log is complete."""
    name = f"test/kill-{service}"
    repository = stack.add_repository(name, open_folder / "repository")
    workflow = f"""\
on: push
jobs:
  first:
    runs-on: ubuntu-latest
    steps:
      - run: |
          touch {open_folder}/running
          for i in $(seq 30); do echo "line $i"; sleep 0.05; done
          until [ -e {open_folder}/go ]; do sleep 0.05; done
  second:
    needs: first
    runs-on: ubuntu-latest
    steps:
      - run: echo "the end"
"""
    run_id = pushed(stack, repository, name, {".github/workflows/kill.yml": workflow})
    eventually((open_folder / "running").exists, what="the first job runs")
    os.kill(stack.pid(service), signal.SIGKILL)
    (open_folder / "go").touch()
    _all_up(stack)
    run = stack.wait_for_end(run_id)
    assert run["conclusion"] == "success", ends_of(run)
    first, second = run["jobs"]
    assert [job["attempts"][-1]["attempt"] for job in (first, second)] == [1, 1]
    lines = text_of(stack, first)
    assert all(f"line {number}\n" in lines for number in range(1, 31))
    assert "the end" in text_of(stack, second)


def _all_up(stack: Stack) -> None:
    """Wait until every process answers; the error names those that do not."""

    def all_up() -> bool:
        down = [p for p in stack.status()["processes"] if p["state"] != "up"]
        if down:
            raise AssertionError([f"{p['name']} {p['state']}: {p.get('detail')}" for p in down])
        return True

    eventually(all_up, what="all services answer again", timeout_ms=60_000)


def test_a_gateway_killed_in_the_middle_of_a_request_fails_no_job(
    stack: Stack, open_folder: Path
) -> None:
    """It has the runner's request for secrets and dies before it answers: the first try goes on."""
    name = "test/kill-asked"
    repository = stack.add_repository(name, open_folder / "repository")
    stack.client.put(f"/repositories/{name}/secrets/WORD", {"value": "riverbank"})
    workflow = """\
on: push
jobs:
  only:
    runs-on: ubuntu-latest
    steps:
      - run: echo "length ${#WORD}"
        env: {WORD: '${{ secrets.WORD }}'}
"""
    gateway, runner = stack.pid("gateway"), psutil.Process(stack.pid("runner-1"))
    [port] = {c.laddr.port for c in psutil.Process(gateway).net_connections() if not c.raddr}
    # stopped, it still takes connections, and answers none of them
    os.kill(gateway, signal.SIGSTOP)
    run_id = pushed(stack, repository, name, {".github/workflows/ask.yml": workflow})
    eventually(
        lambda: any(c.raddr and c.raddr.port == port for c in runner.net_connections()),
        what="the runner's request",
    )
    os.kill(gateway, signal.SIGKILL)
    run = stack.wait_for_end(run_id)
    assert run["conclusion"] == "success", ends_of(run)
    [job] = run["jobs"]
    assert [attempt["attempt"] for attempt in job["attempts"]] == [1]
    lines = text_of(stack, job)
    assert "length 9\n" in lines
    assert "##[warning]the gateway at" in lines
    assert "The gateway answers again" in lines
    _all_up(stack)


@pytest.mark.parametrize("process", ["kafka", "postgres"])
def test_a_run_survives_the_death_of_kafka_and_postgres(
    stack: Stack, open_folder: Path, process: str
) -> None:
    """Kill -9 of the broker or the database in the middle of a run loses nothing."""
    name = f"test/kill-{process}"
    repository = stack.add_repository(name, open_folder / "repository")
    workflow = f"""\
on: push
jobs:
  only:
    runs-on: ubuntu-latest
    steps:
      - run: |
          touch {open_folder}/running
          for i in $(seq 100); do echo "line $i"; sleep 0.05; done
"""
    run_id = pushed(stack, repository, name, {".github/workflows/kill.yml": workflow})
    eventually((open_folder / "running").exists, what="the job runs")
    os.kill(stack.pid(process), signal.SIGKILL)
    _all_up(stack)
    run = stack.wait_for_end(run_id, timeout_ms=90_000)
    assert run["conclusion"] == "success", ends_of(run)
    [job] = run["jobs"]
    lines = text_of(stack, job)
    assert all(f"line {number}\n" in lines for number in range(1, 101))


def test_a_killed_runner_leaves_nothing_running_and_its_job_goes_on_elsewhere(
    stack: Stack, open_folder: Path
) -> None:
    """After kill -9 of the runner its processes are gone and the next attempt succeeds."""
    repository = stack.add_repository("test/kill-runner", open_folder / "repository")
    workflow = f"""\
on: push
jobs:
  only:
    runs-on: ubuntu-latest
    steps:
      - run: |
          if [ -e {open_folder}/again ]; then echo "second try"; exit 0; fi
          touch {open_folder}/again
          echo $$ > {open_folder}/pid
          sleep 600
"""
    run_id = pushed(stack, repository, "test/kill-runner", {".github/workflows/kill.yml": workflow})
    eventually(lambda: (open_folder / "pid").exists() and (open_folder / "pid").read_text().strip(),
               what="the job runs")  # fmt: skip
    job_pid = int((open_folder / "pid").read_text())
    os.kill(stack.pid("runner-1"), signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{job_pid}").exists(), what="the job's process is gone",
               timeout_ms=25_000)  # fmt: skip
    run = stack.wait_for_end(run_id, timeout_ms=60_000)
    assert run["conclusion"] == "success", ends_of(run)
    [job] = run["jobs"]
    assert len(job["attempts"]) == 2
    assert job["attempts"][0]["reason"].startswith("infra.")
    assert "second try" in text_of(stack, job)


def test_folding_the_log_again_gives_identical_read_models(stack: Stack, open_folder: Path) -> None:
    """The tables made while it happened equal those folded from offset 0 into an empty database."""
    repository = stack.add_repository("test/refold", open_folder / "repository")
    run_id = pushed(
        stack, repository, "test/refold",
        {".github/workflows/diamond.yml": DIAMOND, "WORD": "again"},
    )  # fmt: skip
    run = stack.wait_for_end(run_id)
    for job in run["jobs"]:
        if job["attempts"]:
            _await_archive(stack, job["job_id"])
    found = fold_again(stack.record())
    assert found.live["run"][0] >= 1
    assert found.live == found.again
