"""What travels on `logs` and `heartbeats`: batches of lines and signs of life."""

from __future__ import annotations

from schemas.events import RunningAttempt
from schemas.fields import Millis
from schemas.late import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """What every record of an attempt's log has; `seq` counts records from 0 without a gap."""

    job_id: str
    attempt: int
    runner_id: str
    boot_id: str
    run_id: str
    repository: str
    seq: int
    occurred_at: Millis = 0
    delivery_id: str | None = None
    caused_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch(LogRecord):
    """Lines of an attempt, masked; `first_line` counts from 0.

    `block` is a zstd frame of the batch's lines in the format of `schemas/loglines.py`. The last
    batch has `last` set, with the whole log's line count and sha256 (of the text of all lines,
    each ended by a newline).
    """

    first_line: int
    lines: int
    size_bytes: int
    block: bytes
    last: bool = False
    total_lines: int = 0
    total_sha256: str = ""


LOG_KINDS: tuple[type[LogRecord], ...] = (LogBatch,)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatRecord:
    """What every record on `heartbeats` has."""

    occurred_at: Millis = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(HeartbeatRecord):
    """One boot of one runner lives; `leaving` says that it ends on purpose, with no jobs left.

    `public_key` is that of `RunnerJoined`.
    `capabilities` are what its machine can do beside running processes (`events.CONTAINERS`).
    """

    runner_id: str
    boot_id: str
    pool: str
    labels: tuple[str, ...]
    slots: int
    lane: int
    name: str = ""
    isolation: str = ""
    version: str = ""
    hostname: str = ""
    running: tuple[RunningAttempt, ...] = ()
    welcomed: bool = False
    leaving: bool = False
    public_key: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(HeartbeatRecord):
    """One second passed for the fleet on this partition: silence is counted in ticks."""

    number: int
    fleet_id: str


HEARTBEAT_KINDS: tuple[type[HeartbeatRecord], ...] = (Heartbeat, Tick)
