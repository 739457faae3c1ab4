"""Jobs per second, and what each costs by process."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.figures import Report, Row
from tests.bench.load import Target, cpu_seconds, send_many
from tests.support.eventually import eventually
from tests.support.stack import Stack

_ONE = """\
on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps: [{run: 'true'}]
"""
_MANY = """\
on: push
jobs:
  many:
    runs-on: ubuntu-latest
    strategy:
      matrix: {a: [0,1,2,3,4,5,6,7,8,9], b: [0,1,2,3,4]}
    steps: [{run: 'true'}]
"""


def limit(seconds: float = 3.0, *, threads: int = 4) -> float:
    """Return how many `bash -c true` this machine starts a second from a few threads."""
    stop = time.monotonic() + seconds

    def spawn(_: int) -> int:
        done = 0
        while time.monotonic() < stop:
            subprocess.run(["bash", "-c", "true"], check=True)
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(spawn, range(threads))) / seconds


def measure(stack: Stack, report: Report, folder: Path, *, runs: int, wide_runs: int) -> None:
    """Send all webhooks at once and wait for the last run's end."""
    spawns = limit()
    _measure(stack, report, folder / "one", "one-job runs", _ONE, runs, 1, spawns)
    _measure(stack, report, folder / "many", "50-job runs", _MANY, wide_runs, 50, spawns)


def _measure(
    stack: Stack, report: Report, folder: Path, kind: str, text: str, runs: int, jobs: int,
    spawns: float,
) -> None:  # fmt: skip
    name = f"bench/{folder.name}"
    target = Target.make(stack, name, folder)
    sha = target.repository.commit({".github/workflows/bench.yml": text})
    target.repository.push()
    body = target.body("0" * 40, sha)
    target.send(body, f"{name}-warm")
    _wait(stack, name, 1, timeout_s=60)
    before = cpu_seconds(stack)
    began = time.monotonic()
    send_many(target, ((body, f"{name}-{n}") for n in range(runs)), clients=8)
    _wait(stack, name, runs + 1, timeout_s=120 + runs * jobs / 10)
    took = time.monotonic() - began
    after = cpu_seconds(stack)
    total = runs * jobs
    report.add(
        Row(f"{kind} ({runs}), jobs", total / took, "jobs/s", ">= 80 (170)", spawns,
            "bash -c true a second")
    )  # fmt: skip
    for process in sorted(after):
        spent = (after[process] - before.get(process, 0.0)) / total * 1000
        if spent >= 0.05:
            report.add(Row(f"  CPU a job, {process}", spent, "ms"))


def _wait(stack: Stack, name: str, runs: int, *, timeout_s: float) -> None:
    """Wait until so many runs of the repository are completed."""
    client = stack.client
    query = {"repository": name, "status": "completed", "limit": 1}

    def done() -> bool:
        left = 0
        for status in ("waiting", "queued", "running"):
            left += len(client.get("/runs", {**query, "status": status})["items"])
        if left:
            return False
        return len(list(client.pages("/runs", {"repository": name}, items_max=runs))) >= runs

    eventually(done, timeout_ms=int(timeout_s * 1000), what=f"{runs} runs of {name}")
