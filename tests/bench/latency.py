"""From sending a webhook to the first step's process, hop by hop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.bench.figures import Report, Row, percentile, spread
from tests.bench.load import Target, events_of
from tests.support.eventually import eventually
from tests.support.stack import Stack

_WORKFLOW = """\
name: Bench
on: push
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo $EPOCHREALTIME > "{folder}/$GITHUB_SHA.tmp"
          mv "{folder}/$GITHUB_SHA.tmp" "{folder}/$GITHUB_SHA"
"""
_HOPS = ("DeliveryReceived", "DeliveryPlanned", "JobAssigned", "JobStarted", "StepStarted")


def measure(stack: Stack, report: Report, folder: Path, *, pushes: int, remote: bool) -> None:
    """Push one commit after the other and wait for each step's own time stamp."""
    kind = "remote clone" if remote else "local repository"
    marks = folder / f"marks-{'remote' if remote else 'local'}"
    marks.mkdir(parents=True)
    marks.chmod(0o777)
    folder.chmod(0o755)
    target_folder = folder / f"repo-{'remote' if remote else 'local'}"
    clone_url = f"file://{target_folder / 'bare.git'}" if remote else ""
    name = f"bench/latency-{'remote' if remote else 'local'}"
    target = Target.make(stack, name, target_folder, clone_url=clone_url)
    before = target.repository.commit(
        {".github/workflows/bench.yml": _WORKFLOW.format(folder=marks)}, "Add the workflow"
    )
    target.repository.push()
    totals: list[float] = []
    acks: list[float] = []
    sent: dict[str, float] = {}
    for number in range(pushes + 5):
        sha = target.repository.commit({"n": str(number)}, f"Change {number}")
        target.repository.push()
        body = target.body(before, sha)
        began = time.time()  # noqa: TID251 - compared with the step's own clock
        ack = target.send(body, f"latency-{kind}-{number}")
        mark = marks / sha
        eventually(mark.exists, what=f"step of push {number}", timeout_ms=30_000)
        before = sha
        if number >= 5:  # the first ones warm caches and connections
            totals.append((float(mark.read_text()) - began) * 1000)
            acks.append(ack * 1000)
            sent[sha] = began * 1000
    goals = ("", "", "") if remote else ("45 (25)", "100 (60)", "")
    spread(report, f"webhook to first step, {kind}", totals, goals=goals)
    report.add(Row(f"webhook acknowledged, {kind} p50", percentile(acks, 0.5), "ms"))
    hops = _hops(stack, name, sent)
    for hop, values in hops.items():
        report.add(Row(f"  hop to {hop} p50", percentile(values, 0.5), "ms"))
    report.details[f"latency_{'remote' if remote else 'local'}_ms"] = totals


def _hops(stack: Stack, name: str, sent: dict[str, float]) -> dict[str, list[float]]:
    """Return each hop's own share in ms, from the instants in the events."""
    hops: dict[str, list[float]] = {hop: [] for hop in _HOPS}
    client = stack.client
    runs = list(client.pages("/runs", {"repository": name}, items_max=len(sent)))
    for run in runs[:50]:
        if run["sha"] not in sent:
            continue
        at: dict[str, float] = {}
        for event in events_of(stack, run["run_id"]):
            at.setdefault(event["kind"], _instant(event))
        last = sent[run["sha"]]
        for hop in _HOPS:
            if hop in at:
                hops[hop].append(at[hop] - last)
                last = at[hop]
    return {hop: values for hop, values in hops.items() if values}


def _instant(event: dict[str, Any]) -> float:
    at = event["data"].get("started_at") if event["kind"] == "StepStarted" else None
    found = at or event["occurred_at"]
    if isinstance(found, str):
        from datetime import datetime

        return datetime.fromisoformat(found).timestamp() * 1000
    return float(found)
