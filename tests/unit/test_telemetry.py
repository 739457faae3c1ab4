"""Log lines that say what they are about, metrics as data, traces only when asked for."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import prometheus_client
import pytest

from infra.metrics import DECISIONS, METRICS, PLAN_SECONDS, RUNNER_BOOTS, Instrument, Meters
from infra.telemetry import REPEAT_AFTER_S, bound, configure_logging, configure_tracing, trace_id_of
from schemas.codec import traceparent


@dataclass
class Choices:
    """The settings that telemetry reads."""

    log_format: str = "json"
    log_level: str = "info"
    instance: str = "fleet-0"
    otlp_endpoint: str = ""


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Yield where log lines go; the root logger is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_a_json_line_has_service_message_and_what_it_is_about(stream: io.StringIO) -> None:
    """Bound fields and those of the call; the call's win."""
    configure_logging(Choices(), "fleet", stream)
    with bound(run_id="run", job_id="old"):
        logging.getLogger("a").info("hello %s", "you", extra={"job_id": "job", "pool": "gpu"})
    line = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*\+00:00", line.pop("time"))
    assert line == {
        "level": "info", "service": "fleet", "instance": "fleet-0", "logger": "a",
        "message": "hello you", "run_id": "run", "job_id": "job", "pool": "gpu",
    }  # fmt: skip


def test_an_exception_stays_on_its_json_line(stream: io.StringIO) -> None:
    """One line, one object, however long the trace."""
    configure_logging(Choices(), "fleet", stream)
    try:
        int("bad")
    except ValueError:
        logging.getLogger("a").exception("failed")
    [line] = stream.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_a_text_line_is_for_people(stream: io.StringIO) -> None:
    """Time, level, logger, message, then what it is about."""
    configure_logging(Choices(log_format="text"), "fleet", stream)
    logging.getLogger("a").warning("late", extra={"run_id": "r1"})
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} WARNING a: late  \[run_id=r1\]\n", stream.getvalue()
    )


def test_levels_below_the_setting_are_left_out(stream: io.StringIO) -> None:
    """Configuring twice does not print twice."""
    configure_logging(Choices(log_level="warning"), "fleet", stream)
    configure_logging(Choices(log_level="warning"), "fleet", stream)
    logging.getLogger("a").info("no")
    logging.getLogger("a").warning("yes")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["yes"]


def test_a_chatty_library_says_the_same_thing_once(stream: io.StringIO) -> None:
    """The next line after a pause tells how many were held; our own lines are never held."""
    configure_logging(Choices(), "fleet", stream)
    library, own = logging.getLogger("aiokafka.client"), logging.getLogger("scheduler.fleet")
    for _ in range(3):
        library.error("Unable connect to node with id %s", 1)
        own.error("held up")
    later = library.makeRecord("aiokafka.client", logging.ERROR, "", 0,
                               "Unable connect to node with id %s", (1,), None)  # fmt: skip
    later.created += REPEAT_AFTER_S
    library.handle(later)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines].count("held up") == 3
    told = [line for line in lines if line["logger"] == "aiokafka.client"]
    assert [line.get("repeated") for line in told] == [None, 2]


def test_bound_fields_end_with_their_block_and_stay_in_their_thread(stream: io.StringIO) -> None:
    """Nothing leaks to the next piece of work or to a neighbour."""
    configure_logging(Choices(), "fleet", stream)
    with bound(run_id="r1"):
        other = threading.Thread(target=lambda: logging.getLogger("a").info("other"))
        other.start()
        other.join()
    logging.getLogger("a").info("after")
    assert all("run_id" not in json.loads(line) for line in stream.getvalue().splitlines())


def test_a_trace_is_named_on_the_lines_of_its_span(stream: io.StringIO) -> None:
    """Also without OpenTelemetry: the id comes from the record's header."""
    configure_logging(Choices(), "fleet", stream)
    parent = traceparent("github:1", "event")
    tracing = configure_tracing(Choices(), "fleet")
    assert not tracing.enabled
    with tracing.span("decide", traceparent=parent):
        logging.getLogger("a").info("x")
    assert json.loads(stream.getvalue())["trace_id"] == trace_id_of(parent)
    assert trace_id_of("nonsense") is None


def test_an_endpoint_without_the_extra_is_a_warning_not_a_crash(stream: io.StringIO) -> None:
    """The sentence says what to install."""
    pytest.importorskip("opentelemetry")
    if "opentelemetry.sdk" in sys.modules or _sdk_is_installed():
        pytest.skip("the extra is installed here")
    configure_logging(Choices(), "fleet", stream)
    assert not configure_tracing(Choices(otlp_endpoint="http://127.0.0.1:9"), "fleet").enabled
    assert "tailrace[telemetry]" in stream.getvalue()


def _sdk_is_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("opentelemetry.sdk") is not None


def test_nothing_of_opentelemetry_is_imported_unless_it_is_used() -> None:
    """No cost for those who do not trace."""
    script = (
        "import sys, infra.telemetry, infra.metrics, infra.health;"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --------------------------------------------------------------------------- metrics


def test_names_follow_prometheus_rules() -> None:
    """One prefix, base units, counters end in _total, no name twice."""
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert re.fullmatch(r"tailrace_[a-z_]+", metric.name)
        assert (metric.instrument is Instrument.COUNTER) == metric.name.endswith("_total")
        assert (metric.instrument is Instrument.HISTOGRAM) == metric.name.endswith("_seconds")
        assert metric.meaning.endswith(".")


def test_meters_count_set_and_observe() -> None:
    """Two of them in one process share a registry without a quarrel."""
    registry = prometheus_client.CollectorRegistry()
    first, second = Meters(registry), Meters(registry)
    first.count(DECISIONS, "JobScheduled")
    second.count(DECISIONS, "JobScheduled", by=2)
    first.set(RUNNER_BOOTS, 4, "default")
    first.observe(PLAN_SECONDS, 0.2)
    value = registry.get_sample_value
    assert value("tailrace_decisions_total", {"kind": "JobScheduled"}) == 3
    assert value("tailrace_runner_boots", {"pool": "default"}) == 4
    assert value("tailrace_plan_seconds_count") == 1


def test_threads_that_count_for_the_first_time_at_once_share_a_collector() -> None:
    """As the slots of a runner do with their first jobs; none of them may fail at it."""

    class Slow(prometheus_client.CollectorRegistry):
        """A registry in which two registrations meet unless somebody keeps them apart."""

        def register(self, collector: Any) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.1)
            super().register(collector)

    meeting, registry, failed = threading.Barrier(2), Slow(), list[Exception]()

    def count() -> None:
        try:
            Meters(registry).count(DECISIONS, "JobScheduled")
        except Exception as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert registry.get_sample_value("tailrace_decisions_total", {"kind": "JobScheduled"}) == 4
