"""The headers of events: CloudEvents 1.0 in binary mode and the W3C trace context."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import given

from schemas.codec import event_headers, event_id, traceparent
from schemas.events import Event, JobStarted, RunnerJoined
from tests.support.records import records_of

REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source")


def headers_of(event: Event) -> dict[str, str]:
    """Return the headers as text."""
    found = event_headers(event, source="tailrace/test", occurred_at=event.occurred_at)
    assert len(found) == len({name for name, _ in found})
    return {name: value.decode() for name, value in found}


@given(records_of(JobStarted))
def test_every_event_is_a_cloudevent(event: JobStarted) -> None:
    """The required attributes are there; id, type and time are the event's."""
    headers = headers_of(event)
    assert all(name in headers for name in REQUIRED)
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_id"] == event.event_id
    assert headers["ce_type"] == "tailrace.JobStarted"
    assert headers["content-type"] == "application/avro"
    at = datetime.strptime(headers["ce_time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert round((at - epoch).total_seconds() * 1000) == event.occurred_at


def test_the_subject_is_the_nearest_thing() -> None:
    """The job, else the run, else the repository, else the runner."""
    event = JobStarted(event_id="e", repository="r", run_id="run", job_id="job", runner_id="box")
    assert headers_of(event)["ce_subject"] == "job"
    assert headers_of(JobStarted(event_id="e", repository="r", run_id="run"))["ce_subject"] == "run"
    joined = RunnerJoined(event_id="e", runner_id="box", pool="p", labels=(), slots=1, lane=0)
    assert headers_of(joined)["ce_subject"] == "box"


@given(records_of(JobStarted))
def test_the_trace_is_the_delivery_and_the_span_the_event(event: JobStarted) -> None:
    """One delivery, one trace, whoever appends; no delivery, no trace."""
    found = headers_of(event).get("traceparent")
    if not event.delivery_id:
        assert found is None
        return
    assert found == traceparent(event.delivery_id, event.event_id)
    matched = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", found or "")
    assert matched is not None
    assert set(matched[1]) != {"0"}
    assert set(matched[2]) != {"0"}
    other = traceparent(event.delivery_id, event.event_id + "x")
    assert other.split("-")[1] == matched[1]
    assert other.split("-")[2] != matched[2]


def test_event_ids_are_uuids_that_tell_their_parts_apart() -> None:
    """Version 5, and ("ab", "c") is not ("a", "bc")."""
    one, other = event_id("JobStarted", "ab", "c"), event_id("JobStarted", "a", "bc")
    pattern = r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(pattern, one)
    assert one != other
    assert one == event_id("JobStarted", "ab", "c")
    assert one != event_id("JobFinished", "ab", "c")
