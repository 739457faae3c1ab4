"""Structured logs, metric definitions and optional traces: how a process tells what it does.

A log line carries what it is about (`run_id`, `job_id`, `event_id`, ...): bound for a stretch of
work by `bound(...)`, or given to one call by `extra={"run_id": ...}`. Traces need the extra
`tailrace[telemetry]` and an endpoint in the settings; without them nothing is imported.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Protocol, TextIO

#: What a log line may be about, in the order in which text lines show it.
FIELDS = (
    "repository",
    "delivery_id",
    "run_id",
    "job_id",
    "attempt",
    "runner_id",
    "boot_id",
    "event_id",
    "topic",
    "partition",
    "offset",
    "trace_id",
)

_EMPTY: Mapping[str, object] = MappingProxyType({})
_bound: ContextVar[Mapping[str, object]] = ContextVar("tailrace_log_fields", default=_EMPTY)
_KNOWN = frozenset(FIELDS)
_RESERVED = frozenset(
    {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", *FIELDS}
)


class LogSettings(Protocol):
    """The settings that this module reads."""

    @property
    def log_format(self) -> str:
        """`json` or `text`."""
        ...

    @property
    def log_level(self) -> str:
        """A level's name."""
        ...

    @property
    def instance(self) -> str:
        """Which copy of the service this is."""
        ...


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Put fields on every log line of the block, in this thread or task only."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace id within a W3C `traceparent`, None when it is not one."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None  # noqa: PLR2004


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a record is about: bound fields, overridden by those of the call."""
    own = {name: value for name, value in record.__dict__.items() if name in _KNOWN}
    merged = {**_bound.get(), **own}
    ordered = {name: merged[name] for name in FIELDS if merged.get(name) is not None}
    extra = {name: value for name, value in merged.items() if name not in _KNOWN}
    extra |= {n: v for n, v in record.__dict__.items() if n not in _RESERVED}
    return {**ordered, **extra}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def __init__(self, service: str, instance: str) -> None:
        """Name the service and the copy of it on every line."""
        super().__init__()
        self._service = {"service": service, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": _instant(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an exception's trace follows on lines of its own."""
        at = _instant(record).strftime("%H:%M:%S.%f")[:-3]
        about = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        line = f"{at} {record.levelname:<7} {record.name}: {record.getMessage()}"
        if about:
            line += f"  [{about}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _instant(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class Repeats(logging.Filter):
    """Lets a client library say the same thing once in five seconds, with how often it was said.

    While a broker is away its clients try several times a second; the log is to stay readable.
    """

    _SAME_CHARACTERS = 60

    def __init__(self) -> None:
        """Begin with nothing said."""
        super().__init__()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is to be written; only those of chatty libraries are held."""
        if not record.name.startswith(_CHATTY):
            return True
        key = (record.name, record.getMessage()[: self._SAME_CHARACTERS])
        last_s, held = self._said.get(key, (0.0, 0))
        if record.created - last_s < REPEAT_AFTER_S:
            self._said[key] = (last_s, held + 1)
            return False
        if len(self._said) > _SAID_MAX:
            self._said.clear()
        self._said[key] = (record.created, 0)
        if held:
            record.repeated = held
        return True


REPEAT_AFTER_S = 5.0
_SAID_MAX = 1_000
_CHATTY = ("aiokafka", "infra.kafka.client")


def configure_logging(settings: LogSettings, service: str, stream: TextIO | None = None) -> None:
    """Send every log line of the process to stderr (or `stream`) in the format of the settings."""
    handler = logging.StreamHandler(stream or sys.stderr)
    as_json = settings.log_format == "json"
    handler.setFormatter(JsonFormatter(service, settings.instance) if as_json else TextFormatter())
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, root.level))
    logging.captureWarnings(capture=True)


#: Libraries that say much at levels at which it tells an operator nothing.
_QUIET = {
    "aiokafka": logging.WARNING,
    "botocore": logging.WARNING,
    "faust": logging.WARNING,
    "infra.kafka.client": logging.WARNING,
    "mode": logging.WARNING,
    "uvicorn.access": logging.WARNING,
}


# --------------------------------------------------------------------------- traces


class TraceSettings(LogSettings, Protocol):
    """The settings that tracing reads."""

    @property
    def otlp_endpoint(self) -> str:
        """Where spans are sent by OTLP over HTTP; empty: nowhere."""
        ...


class Tracing:
    """Makes spans when OpenTelemetry is installed and asked for, else nothing at no cost."""

    def __init__(self, tracer: Any = None) -> None:
        """Wrap an OpenTelemetry tracer, or nothing."""
        self._tracer = tracer

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    @contextlib.contextmanager
    def span(
        self, name: str, *, traceparent: str | None = None, **attributes: str | int
    ) -> Iterator[None]:
        """Trace the block as a child of a record's `traceparent`; its log lines name the trace."""
        trace_id = trace_id_of(traceparent)
        with bound(trace_id=trace_id) if trace_id else contextlib.nullcontext():
            if self._tracer is None:
                yield
                return
            from opentelemetry.trace.propagation.tracecontext import (
                TraceContextTextMapPropagator,
            )

            carrier = {"traceparent": traceparent} if traceparent else {}
            parent = TraceContextTextMapPropagator().extract(carrier)
            with self._tracer.start_as_current_span(name, context=parent, attributes=attributes):
                yield


def configure_tracing(settings: TraceSettings, service: str) -> Tracing:
    """Return this process's tracing: nothing unless the settings name an endpoint."""
    if not settings.otlp_endpoint:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logging.getLogger(__name__).warning(
            "an endpoint for traces is set but OpenTelemetry is not installed: "
            "`pip install 'tailrace[telemetry]'`; going on without traces"
        )
        return Tracing()
    resource = Resource.create(
        {"service.name": f"tailrace-{service}", "service.instance.id": settings.instance}
    )
    provider = TracerProvider(resource=resource)
    endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider.get_tracer("tailrace"))
