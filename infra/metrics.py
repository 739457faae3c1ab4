"""Every metric of every service, as data: the only place that names one.

The collectors of prometheus_client are made on first use, so that a process shows only what it
counts. A new metric is a new line here; `tests/unit/test_telemetry.py` holds them to the rules of
naming.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any


class Instrument(StrEnum):
    """How a metric's values behave."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; `labels` are the names whose values `Meters` is given, in this order."""

    name: str
    instrument: Instrument
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, instrument=Instrument.COUNTER, meaning=meaning, labels=labels)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=name, instrument=Instrument.GAUGE, meaning=meaning, labels=labels)


def _seconds(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(
        name=name,
        instrument=Instrument.HISTOGRAM,
        meaning=meaning,
        labels=labels,
        buckets=_SECONDS,
    )


EVENTS_READ = _counter("tailrace_events_read_total", "Records read from a topic.", "topic")
EVENTS_APPENDED = _counter("tailrace_events_appended_total", "Events appended.", "kind")
APPEND_SECONDS = _seconds("tailrace_append_seconds", "From append to acknowledgement.", "topic")
LAG_RECORDS = _gauge(
    "tailrace_lag_records", "Records between the position and the end.", "topic", "partition"
)
WEBHOOKS = _counter("tailrace_webhooks_total", "Webhook requests by answer.", "provider", "status")
PLANS = _counter("tailrace_plans_total", "Deliveries planned, by outcome.", "outcome")
PLAN_SECONDS = _seconds("tailrace_plan_seconds", "From a delivery read to its plan appended.")
GIT_SECONDS = _seconds("tailrace_git_seconds", "Time in git, by operation.", "operation")
DECISIONS = _counter("tailrace_decisions_total", "Decisions of the scheduler.", "kind")
TRANSACTION_SECONDS = _seconds("tailrace_transaction_seconds", "Commit of a transaction.")
CELLS_OWNED = _gauge("tailrace_cells_owned", "Cells that this scheduler is active for.")
QUEUED_JOBS = _gauge("tailrace_queued_jobs", "Attempts that wait for a runner.", "pool")
SLOTS = _gauge("tailrace_slots", "Slots of a pool's runners.", "pool", "state")
RUNNER_BOOTS = _gauge("tailrace_runner_boots", "Boots that the fleet counts as alive.", "pool")
RUNNERS_LOST = _counter("tailrace_runners_lost_total", "Boots lost or gone.", "reason")
JOBS_RUN = _counter("tailrace_jobs_run_total", "Attempts ended on this runner.", "conclusion")
SLOTS_BUSY = _gauge("tailrace_runner_slots_busy", "Slots of this runner in use.")
LOG_LINES = _counter("tailrace_log_lines_total", "Log lines shipped by this runner.")
SECRETS_RELEASED = _counter("tailrace_secret_requests_total", "Requests for secrets.", "answer")
GATEWAY_REFUSED = _counter(
    "tailrace_gateway_refused_total", "Requests that the gateway did not let in.", "why"
)
ROWS_WRITTEN = _counter("tailrace_rows_written_total", "Rows written to read models.", "table")
PROJECT_SECONDS = _seconds("tailrace_project_seconds", "A batch from read to commit.")
DEAD_LETTERS = _counter("tailrace_dead_letters_total", "Records set aside.", "topic")
STREAM_CLIENTS = _gauge("tailrace_stream_clients", "Open server-sent event streams.", "stream")
REQUEST_SECONDS = _seconds("tailrace_http_request_seconds", "HTTP requests.", "route", "status")

METRICS: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)


_registering = threading.Lock()


class Meters:
    """Counts and measures; made where the process is wired and handed to what needs it."""

    def __init__(self, registry: Any = None) -> None:
        """Use prometheus_client's own registry unless another one is given."""
        self._registry = registry
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        self._child(metric, labels).inc(by)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._child(metric, labels).set(value)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a value to a histogram."""
        self._child(metric, labels).observe(value)

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        found = self._children.get((metric.name, labels))
        if found is None:
            family = _family(metric, self._registry)
            found = family.labels(*labels) if metric.labels else family
            self._children[(metric.name, labels)] = found
        return found


class Unmetered(Meters):
    """Meters for a process that nobody asks: count nothing, import nothing."""

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Do nothing."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Do nothing."""


def _family(metric: Metric, registry: Any) -> Any:
    """Return the collector of a metric; one a registry, however many `Meters` there are."""
    # two threads that count for the first time at once would register it twice, which raises
    with _registering:
        return _registered(metric, registry)


@cache
def _registered(metric: Metric, registry: Any) -> Any:
    import prometheus_client

    kind = getattr(prometheus_client, metric.instrument.capitalize())
    options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
    registry = registry or prometheus_client.REGISTRY
    return kind(metric.name, metric.meaning, metric.labels, registry=registry, **options)
