"""The largest legal record of each topic stays below the broker's limit.

Limits are refused at the door; here they meet in the records that carry them. Text whose limit
counts characters is taken at four bytes a character, and nothing is assumed of compression.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.kafka import KafkaWriter, producer_settings
from infra.log import Append
from ingest.planner.plan import DELIVERY_PLAN_BYTES_MAX, PLAN_BYTES_MAX
from ingest.planner.workflows import PROBLEMS_MAX
from ingest.routes import INLINE_BYTES_MAX
from runner.attempt import SUMMARY_CHARACTERS_MAX
from runner.commands import ANNOTATION_CHARACTERS_MAX, ANNOTATIONS_MAX
from runner.logs import BATCH_BYTES_MAX
from runner.steps import OUTPUT_BYTES_MAX
from scheduler.core.evolve.jobs import RUN_OUTPUTS_BYTES_MAX
from schemas import codec, topics
from schemas.events import (
    Annotation,
    DeliveryPlanned,
    DeliveryReceived,
    Event,
    JobFinished,
    Leg,
    MatrixExpanded,
    Outcome,
    PlannedJob,
    PlanProblem,
    RunPlanned,
    RunRejected,
    WorkflowOutcome,
)
from schemas.lanes import Assignment
from schemas.loglines import TEXT_BYTES_MAX
from schemas.variables import TOGETHER_BYTES_MAX
from schemas.workflow.compiler.calls import JOBS_MAX
from schemas.workflow.matrix import LEGS_MAX, NAME_CHARACTERS_MAX
from tests.support.eventually import eventually

WIDE = "\U0001f600"  # four bytes in UTF-8
ID = "20261123-5f0c2a9b7d31"
NAME = WIDE * NAME_CHARACTERS_MAX
#: Room for headers, key and the record's own frame in a batch.
FRAME_BYTES = 16 * 1024


def problem() -> PlanProblem:
    """Return a long mistake."""
    return PlanProblem(path="p" * 200, line=1, column=1, message=WIDE * 500)


def planned(plan_bytes: int) -> WorkflowOutcome:
    """Return a plan of a size."""
    return WorkflowOutcome(path="w.yml", outcome=Outcome.PLANNED, plan_json="x" * plan_bytes)


LARGEST: dict[str, Event] = {
    "a webhook's payload just small enough to be inline": DeliveryReceived(
        event_id=ID, source="webhook", provider="github", event="push",
        payload_json="x" * INLINE_BYTES_MAX, inputs_json="x" * 65_536, message=WIDE * 65_536,
    ),
    "plans up to the limit of a delivery": DeliveryPlanned(
        event_id=ID, github_json="x" * 65_536,
        workflows=tuple(planned(PLAN_BYTES_MAX)
                        for _ in range(DELIVERY_PLAN_BYTES_MAX // PLAN_BYTES_MAX)),
    ),
    "all the mistakes of a workflow": RunRejected(
        event_id=ID, workflow="w.yml", problems=(problem(),) * (PROBLEMS_MAX + 1)
    ),
    "a run of as many jobs as there may be": RunPlanned(
        event_id=ID, workflow="w.yml", workflow_name=NAME, run_name=NAME, run_number=1,
        jobs=tuple(PlannedJob(job_id=f"{ID}.{'k' * 100}", key="k" * 100, name=NAME,
                              needs=("n" * 100,) * 10) for _ in range(JOBS_MAX)),
    ),
    "a matrix of as many legs as there may be": MatrixExpanded(
        event_id=ID, legs=tuple(Leg(job_id=f"{ID}.{'k' * 100}.{n}", name=NAME, index=n,
                                    matrix_json="x" * 8_192) for n in range(LEGS_MAX)),
    ),
    "outputs, summary and annotations all at their limits": JobFinished(
        event_id=ID, conclusion="failure", message=WIDE * 2_000,
        outputs={"o" * 100: "x" * OUTPUT_BYTES_MAX}, summary=WIDE * SUMMARY_CHARACTERS_MAX,
        annotations=(Annotation(level="error", message=WIDE * ANNOTATION_CHARACTERS_MAX,
                                path=WIDE * 1_024, title=WIDE * 1_024),) * ANNOTATIONS_MAX,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", LARGEST)
def test_the_largest_event_has_room(what: str) -> None:
    """Each limit alone is meaningless; the record that they make must fit."""
    event = LARGEST[what]
    size = len(codec.EVENTS.encode(event)) + _headers_size(event)
    assert size <= topics.RECORD_BYTES_MAX - FRAME_BYTES, f"{size:,} bytes"


def _headers_size(event: Event) -> int:
    headers = codec.event_headers(event, source="tailrace/test", occurred_at=0)
    return sum(len(name) + len(value) for name, value in headers)


def test_the_largest_assignment_has_room() -> None:
    """A job as large as its plan may be, the payload, and the outputs of the whole run."""
    variables = 2 * TOGETHER_BYTES_MAX  # an environment's beside the others
    contexts = INLINE_BYTES_MAX + RUN_OUTPUTS_BYTES_MAX + variables + 256 * 1024
    order = Assignment(
        order_id=ID, runner_id="r", boot_id="b", repository="o/r", run_id=ID, delivery_id="d",
        name=NAME, job_json="x" * PLAN_BYTES_MAX, contexts_json="x" * contexts,
        secrets=("S" * 100,) * 1_000,
    )  # fmt: skip
    assert len(codec.LANES.encode(order)) <= topics.RECORD_BYTES_MAX - FRAME_BYTES


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 64))
def test_log_batches_stay_far_below(lines: int) -> None:
    """A batch is closed at its limit: it exceeds it by one line of the longest kind at most."""
    from schemas.streams import LogBatch

    block = os.urandom(BATCH_BYTES_MAX + TEXT_BYTES_MAX)
    batch = LogBatch(
        job_id=ID, attempt=1, runner_id="r", boot_id="b", run_id=ID, repository="o/r", seq=0,
        first_line=0, lines=lines, size_bytes=len(block), block=block,
    )  # fmt: skip
    assert len(codec.LOGS.encode(batch)) < topics.RECORD_BYTES_MAX // 16


def test_every_topic_that_carries_them_takes_a_record_of_the_limit() -> None:
    """Broker and clients have one limit, `RECORD_BYTES_MAX`."""
    specs = {s.name: s for s in topics.topic_specs(cells=1, pools=("default",))}
    for name in (topics.EVENTS, topics.LOGS, topics.SCHEDULER_STATE, topics.DEAD_LETTERS,
                 topics.lane_topic("default")):  # fmt: skip
        assert specs[name].settings["max.message.bytes"] == str(topics.RECORD_BYTES_MAX)
    assert producer_settings("b", "c")["message.max.bytes"] == topics.RECORD_BYTES_MAX


def test_a_real_broker_takes_the_largest_event(kafka: str) -> None:
    """Written uncompressed, so that the limit and not the compressor is tried."""
    from infra.topics import ensure

    [spec] = [s for s in topics.topic_specs(cells=1, pools=()) if s.name == topics.EVENTS]
    topic = f"sizes-{os.getpid()}"
    ensure(kafka, [dataclasses.replace(spec, name=topic)])
    value = os.urandom(topics.RECORD_BYTES_MAX - FRAME_BYTES)
    uncompressed: dict[str, Any] = {"compression.type": "none"}
    writer = KafkaWriter(kafka, "sizes", **uncompressed)
    acked: list[Exception | None] = []
    writer.append(Append(topic, 0, b"key", value), acked.append)
    assert eventually(lambda: acked, what="an answer") == [None]
    writer.close()
