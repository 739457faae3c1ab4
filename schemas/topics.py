"""Names, keys, partitions and settings of every topic: the only place that computes a partition.

librdkafka and aiokafka hash keys differently, so every producer passes the partition explicitly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from zlib import crc32

EVENTS = "events"
LOGS = "logs"
HEARTBEATS = "heartbeats"
SCHEDULER_STATE = "scheduler-state"
DEAD_LETTERS = "dead-letters"

RECORD_BYTES_MAX = 8 * 1024 * 1024
DAY_MS = 24 * 60 * 60 * 1000

LANES = 16
LOG_PARTITIONS = 4
HEARTBEAT_PARTITIONS = 1
DEAD_LETTER_PARTITIONS = 1

_POOL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic as it must exist: partitions and broker-side settings."""

    name: str
    partitions: int
    settings: dict[str, str] = field(default_factory=dict)


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key: crc32 of its UTF-8 bytes modulo `partitions`."""
    return crc32(key.encode()) % partitions


def cell_of(repository: str, cells: int) -> int:
    """Return the cell, which is the partition of `events`, that a repository belongs to."""
    return partition_of(repository, cells) if cells > 1 else 0


def lane_topic(pool: str) -> str:
    """Return the topic of a pool's lanes; ValueError for a name that no topic may have."""
    if _POOL_NAME.fullmatch(pool) is None:
        raise ValueError(
            f"pool name {pool!r}: use 1 to 63 lower-case letters, digits, '-' and '_', "
            "starting with a letter or a digit"
        )
    return f"pool.{pool}"


def lane_of(runner_id: str) -> int:
    """Return the lane that a runner listens to."""
    return partition_of(runner_id, LANES)


def heartbeat_key(runner_id: str, boot_id: str) -> str:
    """Return the key of a boot's heartbeats; the topic keeps the last one of each boot.

    The partition is `partition_of(runner_id, HEARTBEAT_PARTITIONS)`: boots of a runner stay in
    order.
    """
    return f"{runner_id}@{boot_id}"


def boot_of(key: str) -> tuple[str, str]:
    """Return (runner_id, boot_id) of a heartbeat's key."""
    runner_id, _, boot_id = key.rpartition("@")
    return runner_id, boot_id


def log_key(job_id: str, attempt: int) -> str:
    """Return the key of an attempt's log records."""
    return f"{job_id}@{attempt}"


def log_partition(job_id: str, attempt: int) -> int:
    """Return the partition of an attempt's log."""
    return partition_of(log_key(job_id, attempt), LOG_PARTITIONS)


def topic_specs(*, cells: int, pools: tuple[str, ...], replication: int = 1) -> list[TopicSpec]:
    """Return every topic that an installation needs."""
    big = {"max.message.bytes": str(RECORD_BYTES_MAX), "compression.type": "producer"}
    if replication > 1:
        big["min.insync.replicas"] = "2"
    forever = {**big, "retention.ms": "-1", "retention.bytes": "-1"}
    compacted = {**big, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2",
                 "segment.ms": "600000", "segment.bytes": str(64 * 1024 * 1024)}  # fmt: skip
    specs = [
        TopicSpec(name=EVENTS, partitions=cells, settings=forever),
        TopicSpec(name=LOGS, partitions=LOG_PARTITIONS, settings=forever),
        TopicSpec(name=SCHEDULER_STATE, partitions=cells, settings=compacted),
        TopicSpec(
            name=HEARTBEATS,
            partitions=HEARTBEAT_PARTITIONS,
            # the last heartbeat of every boot that was not yet called lost is kept, however long
            # the fleet was down; the rest goes at the next compaction
            settings={
                "cleanup.policy": "compact",
                "min.cleanable.dirty.ratio": "0.2",
                "segment.ms": "600000",
                "segment.bytes": str(64 * 1024 * 1024),
            },
        ),
        TopicSpec(
            name=DEAD_LETTERS,
            partitions=DEAD_LETTER_PARTITIONS,
            settings={**big, "retention.ms": str(30 * DAY_MS)},
        ),
    ]
    lanes = {**big, "retention.ms": str(DAY_MS), "segment.ms": str(DAY_MS // 4)}
    specs += [TopicSpec(name=lane_topic(p), partitions=LANES, settings=lanes) for p in pools]
    return specs
