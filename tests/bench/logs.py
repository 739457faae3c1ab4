"""Log lines per second until readable, and from a printed line to an SSE client."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Report, Row, spread
from tests.bench.load import Target
from tests.support.eventually import eventually
from tests.support.stack import Stack

LINES = 200_000
_AWK = f"""awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf "%099d\\n", i }}'"""
_BURST = f"""\
on: push
jobs:
  burst:
    runs-on: ubuntu-latest
    steps:
      - run: {_AWK}
"""
_DRIP = """\
on: push
jobs:
  drip:
    runs-on: ubuntu-latest
    steps:
      - run: |
          sleep 1
          for i in $(seq 200); do echo "at $EPOCHREALTIME"; sleep 0.05; done
"""


def file_limit() -> float:
    """Return lines a second of the same command writing into a file."""
    with tempfile.NamedTemporaryFile() as out:
        began = time.perf_counter()
        subprocess.run(["bash", "-c", _AWK], stdout=out, check=True)
        return LINES / (time.perf_counter() - began)


def measure(stack: Stack, report: Report, folder: Path) -> None:
    """Run both jobs."""
    limit = file_limit()
    found = max(_burst(stack, folder / f"burst-{n}", n) for n in range(3))
    report.add(Row("log lines until readable, best of 3", found, "lines/s", ">= 200,000 (300,000)",
                   limit, "awk into a file"))  # fmt: skip
    delays = _drip(stack, folder / "drip")
    spread(report, "printed line to SSE client", delays, goals=("60 (20)", "(60)", ""))


def _job(stack: Stack, folder: Path, text: str, name: str) -> tuple[str, str]:
    target = Target.make(stack, name, folder)
    sha = target.repository.commit({".github/workflows/log.yml": text})
    target.repository.push()
    target.send(target.body("0" * 40, sha), f"{name}-push")
    run = stack.run_of(name, sha)
    client = stack.client

    def started() -> str | None:
        job = client.get(f"/runs/{run['run_id']}")["jobs"][0]
        return job["job_id"] if job["steps"] else None

    return str(run["run_id"]), eventually(started, what=f"{name} started")


def _burst(stack: Stack, folder: Path, number: int) -> float:
    """Return lines a second from the step's start to the last line read through the API."""
    run_id, job_id = _job(stack, folder, _BURST, f"bench/burst-{number}")
    client = stack.client
    path = f"/jobs/{job_id}/attempts/1/log"

    last = f"{LINES - 1:099d}".encode()

    def readable() -> float | None:
        tail = b"".join(client.text(path, {"from_line": LINES - 50, "limit": 200}))
        return time.time() if last in tail else None  # noqa: TID251 - wall time of the step

    at = eventually(readable, what="the last line", timeout_ms=60_000)
    run = stack.wait_for_end(run_id)
    [step] = [s for s in run["jobs"][0]["steps"] if s["started_at"] and "awk" in s["name"]]
    return LINES / (at - _seconds(step["started_at"]))


def _seconds(instant: object) -> float:
    if isinstance(instant, str):
        from datetime import datetime

        return datetime.fromisoformat(instant).timestamp()
    return float(str(instant)) / 1000


def _drip(stack: Stack, folder: Path) -> list[float]:
    """Return ms from each line's own time stamp to its arrival at a client."""
    _, job_id = _job(stack, folder, _DRIP, "bench/drip")
    delays: list[float] = []
    for event in stack.client.follow(f"/jobs/{job_id}/attempts/1/log/stream"):
        now = time.time()  # noqa: TID251 - compared with the job's own clock
        if event.event == "end":
            break
        if event.event == "lines":
            texts = [line["text"] for line in event.json()["lines"]]
            printed = [float(text[3:]) for text in texts if text.startswith("at ")]
            delays += [(now - at) * 1000 for at in printed]
    return delays
