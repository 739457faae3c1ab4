"""Events per second: the scheduler's loop on a real Kafka, and a rebuild of the read models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from infra.clock import SystemClock
from infra.embedded.kafka import Broker
from infra.kafka import KafkaLog, KafkaWriter
from infra.log import Append
from scheduler.shell import CellShell
from schemas import codec
from schemas import events as e
from schemas.ids import job_id, run_id
from schemas.topics import EVENTS
from schemas.workflow.plan_json import plan_to_json
from tests.bench.figures import Report, Row
from tests.support.refold import fold_again
from tests.support.shared import cache_dir
from tests.support.stack import Stack
from tests.support.wire import Wire
from tests.support.workflows import PATH, compiled

_REPOSITORY = "bench/fold"
_TEXT = """
on: push
jobs:
  one: {runs-on: linux, steps: [{run: 'true'}]}
"""


def history(runs: int) -> Iterator[e.Event]:
    """Yield the inputs of so many one-job runs as ingest, planner and a runner append them."""
    at = 1_750_000_000_000
    outcome = e.WorkflowOutcome(
        path=PATH, outcome="planned", name="ci", plan_json=plan_to_json(compiled(_TEXT)),
        event="push", sha="a" * 40, ref="refs/heads/main",
    )  # fmt: skip
    yield e.RepositoryConfigured(
        event_id=codec.event_id("RepositoryConfigured", _REPOSITORY), occurred_at=at,
        repository=_REPOSITORY, provider="git", clone_url="/srv/fold.git",
    )  # fmt: skip
    yield e.RunnerJoined(
        event_id=codec.event_id("RunnerJoined", "r1", "b1"), occurred_at=at, runner_id="r1",
        boot_id="b1", pool="default", labels=("linux",), slots=runs, lane=0,
    )  # fmt: skip
    payload = '{"commits":[' + ",".join(['{"id":"%s"}' % ("c" * 40)] * 20) + "]}"
    for number in range(runs):
        delivery = f"d{number}"
        run = run_id(at, delivery, PATH)
        job = job_id(run, "one")
        received = e.DeliveryReceived(
            event_id=codec.event_id("DeliveryReceived", delivery), occurred_at=at,
            repository=_REPOSITORY, delivery_id=delivery, source="webhook", provider="git",
            event="push", ref="refs/heads/main", sha="a" * 40, actor="ada",
            payload_json=payload,
        )  # fmt: skip
        yield received
        yield e.DeliveryPlanned(
            event_id=codec.event_id("DeliveryPlanned", delivery), occurred_at=at,
            repository=_REPOSITORY, delivery_id=delivery, caused_by=received.event_id,
            workflows=(outcome,), github_json='{"repository":"bench/fold"}',
        )  # fmt: skip
        yield from _reports(at, delivery, run, job)


def _reports(at: int, delivery: str, run: str, job: str) -> Iterator[e.Event]:
    reports: tuple[tuple[type[e.Event], dict[str, object]], ...] = (
        (e.JobStarted, {}),
        (e.StepStarted, {"number": 1, "name": "true", "started_at": at}),
        (e.StepFinished, {"number": 1, "name": "true", "outcome": "success",
                          "conclusion": "success", "exit_code": 0}),
        (e.JobFinished, {"conclusion": "success", "started_at": at, "finished_at": at}),
    )  # fmt: skip
    for kind, fields in reports:
        yield kind(
            event_id=codec.event_id(kind.__name__, job, 1), occurred_at=at,
            repository=_REPOSITORY, run_id=run, delivery_id=delivery, job_id=job, attempt=1,
            runner_id="r1", boot_id="b1", **fields,  # type: ignore[arg-type]
        )  # fmt: skip


def scheduler_loop(report: Report, folder: Path, *, runs: int) -> None:
    """Let the real shell with the real core work through a prepared log."""
    broker = Broker(folder / "kafka", cache=cache_dir())
    try:
        bootstrap = broker.start()
        wire = Wire(bootstrap)
        records = [_record(event) for event in history(runs)]
        writer = KafkaWriter(bootstrap, "bench")
        for start in range(0, len(records), 5_000):
            writer.append_all(records[start : start + 5_000], timeout_ms=60_000)
        limit = _decode_rate(records)
        shell = CellShell(log=KafkaLog(bootstrap, "bench"), clock=SystemClock(), number=0,
                          version="bench")  # fmt: skip
        shell.take()
        wall, cpu = time.perf_counter(), time.process_time()
        while shell.next_offset < len(records):
            shell.step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        shell.close()
        finished = sum(isinstance(x.event, e.RunFinished) for x in wire.events())
        if finished != runs:
            raise RuntimeError(f"{finished} of {runs} runs finished")
        report.add(
            Row("scheduler's loop", len(records) / wall, "events/s", ">= 10,000", limit,
                "decoding alone")
        )  # fmt: skip
        report.add(Row("  CPU an event", cpu / len(records) * 1e6, "us"))
        report.add(Row("  decisions an input", shell.counts.decisions / len(records), ""))
        writer.close()
        wire.close()
    finally:
        broker.stop()


def rebuild(stack: Stack, report: Report) -> None:
    """Fold the stack's whole log into an empty database; it must equal the live one."""
    found = fold_again(stack.record())
    if found.live != found.again:
        raise RuntimeError(f"the rebuilt read models differ: {found.live} {found.again}")
    report.add(
        Row("rebuild of the read models", found.records / found.seconds, "events/s", ">= 15,000")
    )
    report.details["rebuild"] = {"records": found.records, "seconds": found.seconds}


def _record(event: e.Event) -> Append:
    headers = codec.event_headers(event, source="bench", occurred_at=event.occurred_at)
    key = (event.repository or event.runner_id or "").encode()
    return Append(EVENTS, 0, key, codec.EVENTS.encode(event), headers)


def _decode_rate(records: list[Append]) -> float:
    began = time.perf_counter()
    for record in records:
        codec.EVENTS.decode(record.value or b"")
    return len(records) / (time.perf_counter() - began)
