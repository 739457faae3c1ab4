"""Kafka behind `infra/log.py`: client settings, readers and writers in one place.

The settings and their reasons are in `infra/README.md`; the ones that differ from librdkafka's
defaults each prevent a stall or a loss that was measured.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from infra.log import (
    Append,
    AppendError,
    FencedError,
    LogError,
    Partition,
    Record,
    TransactionError,
)
from schemas.topics import RECORD_BYTES_MAX

logger = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 5_000
_READ_MANY = 5_000
_LEADER_TIMEOUT_S = 10
_NO_LEADER = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
_FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED,  # noqa: SLF001
                     KafkaError.INVALID_PRODUCER_EPOCH})  # fmt: skip


#: For readers that nobody waits for: the broker answers with a batch, or after some milliseconds.
#: Every append is otherwise answered to every reader by itself, which is most of the broker's CPU.
UNHURRIED: dict[str, Any] = {"fetch.min.bytes": 65_536, "fetch.wait.max.ms": 25}


def client_settings(bootstrap: str, client_id: str) -> dict[str, Any]:
    """Return what every client has."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "socket.nagle.disable": True,
        "logger": logging.getLogger("infra.kafka.client"),
        "log.connection.close": False,
    }


def producer_settings(bootstrap: str, client_id: str, *, linger_ms: float = 0) -> dict[str, Any]:
    """Return an idempotent producer's settings; acks from all replicas."""
    return {
        **client_settings(bootstrap, client_id),
        "enable.idempotence": True,
        "linger.ms": linger_ms,
        "message.timeout.ms": 30_000,
        "message.max.bytes": RECORD_BYTES_MAX,
        "compression.type": "zstd",
        "queue.buffering.max.kbytes": 65_536,
        # between two tries of one request; the default of 100 shows up in every transaction
        "retry.backoff.ms": 2,
        "retry.backoff.max.ms": 250,
    }


def consumer_settings(bootstrap: str, client_id: str, group: str) -> dict[str, Any]:
    """Return a consumer's settings: nothing is committed by itself, committed records only."""
    return {
        **client_settings(bootstrap, client_id),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "check.crcs": True,
        "fetch.wait.max.ms": 500,
        "fetch.min.bytes": 1,
        # 1000 by default: a reader that is ahead of its caller stalls for a whole second
        "fetch.queue.backoff.ms": 5,
        "fetch.message.max.bytes": RECORD_BYTES_MAX,
        "queued.max.messages.kbytes": 32_768,
        "topic.metadata.refresh.interval.ms": 60_000,
    }


def to_record(message: Message) -> Record:
    """Return a consumed message as a record."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise LogError("a consumed message has no place in the log")
    key, value = message.key(), message.value()
    headers: Any = message.headers()
    return Record(
        topic,
        partition,
        offset,
        _bytes(key),
        _bytes(value),
        tuple(headers) if headers else (),
        message.timestamp()[1],
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


class KafkaReader:
    """Reads assigned partitions; no consumer group takes part."""

    def __init__(
        self, bootstrap: str, client_id: str, *, tell_end: bool = False, **overrides: Any
    ) -> None:
        """Connect lazily; `overrides` are librdkafka properties.

        With `tell_end` the reader knows when it has read all there is. Offsets alone don't tell:
        transaction markers lie behind the last record, and no reader is given those.
        """
        settings = consumer_settings(bootstrap, client_id, f"{client_id}-unused")
        settings["enable.partition.eof"] = tell_end
        self._consumer = Consumer({**settings, **overrides})
        self._ends: dict[Partition, int] = {}
        self._at_end: set[Partition] = set()

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read exactly these partitions from these offsets."""
        self._ends = dict.fromkeys(positions, 0)
        self._at_end = set()
        self._consumer.assign(
            [TopicPartition(topic, part, offset) for (topic, part), offset in positions.items()]
        )

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go on from another offset of an assigned partition."""
        self._consumer.seek(TopicPartition(topic, partition, offset))

    def read(self, *, timeout_ms: int, records_max: int) -> list[Record]:
        """Return what is there; waits only while nothing is.

        `consume(n, t)` alone would wait the whole of `t` unless n messages came.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            first = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if first is None:
                return []
            messages = [first]
            if records_max > 1:
                messages += self._consumer.consume(records_max - 1, 0)
            self._note_ends(messages)
            records = [to_record(message) for message in messages if not _is_error(message)]
            if records:
                return records

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return (first offset kept, next offset after the last committed record)."""
        deadline = time.monotonic() + _LEADER_TIMEOUT_S
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=10
                )
            except KafkaException as error:
                # a topic that was made just now, or whose broker just went
                if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                    raise LogError(f"no watermarks of {topic}/{partition}: {error}") from error
                time.sleep(0.05)
                continue
            return low, high

    def behind(self, topic: str, partition: int, next_offset: int) -> int:
        """Return how many records are still to be read, as of the last read; from any thread.

        Asking the consumer itself from another thread than the reader's can wait for ever: the
        client lets one thread at a time in, and the reader is back before anybody else is.
        """
        if (topic, partition) in self._at_end:
            return 0
        return max(0, self._ends.get((topic, partition), 0) - next_offset)

    def _note_ends(self, messages: Sequence[Message]) -> None:
        for message in messages:
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is None:
                self._at_end.discard(place)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                self._at_end.add(place)
        for topic, partition in self._ends:
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), cached=True
            )
            self._ends[topic, partition] = max(0, int(high))

    def ended(self, topic: str, partition: int) -> bool:
        """Say whether all there was at the last read has been read; needs `tell_end`."""
        return (topic, partition) in self._at_end

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()


def _is_error(message: Message) -> bool:
    """Raise for what stops a reader; say True for what librdkafka mends by itself."""
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
        return True
    if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
        raise LogError(
            f"{message.topic()}/{message.partition()}: the offset to go on from is not kept "
            f"any more ({error.str()}); records were deleted before they were read"
        )
    if error.fatal():
        raise LogError(f"{message.topic()}/{message.partition()}: {error.str()}")
    logger.warning("kafka: %s", error.str())
    return True


class KafkaWriter:
    """Appends with an idempotent producer; callbacks come from its own polling thread."""

    def __init__(
        self, bootstrap: str, client_id: str, *, linger_ms: float = 0, **overrides: object
    ) -> None:
        """Connect and warm the producer: the first use of a cold one waits up to a second."""
        settings = producer_settings(bootstrap, client_id, linger_ms=linger_ms)
        self._producer = Producer({**settings, **overrides})
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name=f"{client_id}-acks", daemon=True)
        self._poller.start()

    def warm(self, timeout_ms: int = 10_000) -> None:
        """Fetch metadata so that the first append does not; LogError when no broker answers."""
        try:
            self._producer.list_topics(timeout=timeout_ms / 1000)
        except KafkaException as error:
            raise LogError(f"Kafka does not answer within {timeout_ms} ms: {error}") from error

    def append(self, record: Append, on_ack: Callable[[Exception | None], None]) -> None:
        """Queue a record; BufferError when the client's buffer is full (back-pressure)."""

        self.append_at(record, lambda _, error: on_ack(error))

    def append_at(self, record: Append, on_stored: Callable[[int, Exception | None], None]) -> None:
        """As `append`; `on_stored` is told the record's offset (-1 when it failed)."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                on_stored(-1, _append_error(record, error))
                return
            offset = message.offset()
            on_stored(-1 if offset is None else offset, None)

        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        except KafkaException as error:
            # refused here, before anything was sent: a record over the size limit, for instance
            raise _append_error(record, error.args[0]) from error

    def append_all(self, records: Sequence[Append], *, timeout_ms: int) -> None:
        """Append and wait for every acknowledgement; AppendError names what failed."""
        pending = len(records)
        if not pending:
            return
        done = threading.Event()
        lock = threading.Lock()
        failed: list[Exception] = []

        def acked(error: Exception | None) -> None:
            nonlocal pending
            with lock:
                pending -= 1
                if error is not None:
                    failed.append(error)
                if pending == 0:
                    done.set()

        for record in records:
            self._append_when_room(record, acked)
        if not done.wait(timeout_ms / 1000):
            raise AppendError(f"{pending} of {len(records)} records not acknowledged in time")
        if failed:
            raise failed[0]

    def _append_when_room(self, record: Append, on_ack: Callable[[Exception | None], None]) -> None:
        while True:
            try:
                return self.append(record, on_ack)
            except BufferError:
                self._closed.wait(0.01)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.2)

    def flush(self, timeout_ms: int) -> int:
        """Wait for what is queued; returns how many records are still not acknowledged."""
        return int(self._producer.flush(timeout_ms / 1000))

    def close(self, timeout_ms: int = 10_000) -> None:
        """Flush; AppendError when something was not acknowledged."""
        left = self.flush(timeout_ms)
        self._closed.set()
        self._poller.join(timeout=1)
        if left:
            raise AppendError(f"{left} records were not acknowledged before closing")


def _append_error(record: Append, error: KafkaError) -> AppendError:
    return AppendError(f"append to {record.topic}/{record.partition} failed: {error.str()}")


class KafkaTransactionalWriter:
    """Appends transactions; creating one fences every earlier writer of the same id."""

    def __init__(self, bootstrap: str, client_id: str, transactional_id: str) -> None:
        """Fence the predecessor and end what it left open; LogError when Kafka is away."""
        self._id = transactional_id
        self._producer = Producer(
            {
                **producer_settings(bootstrap, client_id),
                "transactional.id": transactional_id,
                # a killed writer blocks committed readers until then, or until its successor
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
            }
        )
        self._errors: list[KafkaError] = []
        try:
            self._producer.init_transactions(30)
        except KafkaException as error:
            raise LogError(f"transactional id {transactional_id}: {error}") from error

    def transact(self, records: Sequence[Append]) -> None:
        """Append all in one transaction and return once it is committed."""
        try:
            self._producer.begin_transaction()
            for record in records:
                self._produce(record)
            self._producer.commit_transaction(TRANSACTION_TIMEOUT_MS / 1000)
        except KafkaException as error:
            raise self._translated(error.args[0]) from error
        if self._errors:
            raise self._translated(self._errors[0])

    def _produce(self, record: Append) -> None:
        while True:
            try:
                return self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers),
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.01)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._errors.append(error)

    def _translated(self, error: KafkaError) -> LogError:
        if error.code() in _FENCED:
            return FencedError(f"transactional id {self._id} was taken by another writer")
        return TransactionError(f"transaction of {self._id} failed or is unknown: {error.str()}")

    def close(self) -> None:
        """Drop what is queued; the broker aborts an open transaction."""
        self._producer.purge()
        self._producer.flush(0)


class CellMember:
    """A member of the consumer group that shares out cells.

    It speaks KIP-848's protocol: a dead member is gone after the broker's session time, which is
    2 s for the embedded one.
    """

    def __init__(self, bootstrap: str, client_id: str, group: str, topic: str) -> None:
        """Join the group; `owned` changes only inside `poll`."""
        settings = consumer_settings(bootstrap, client_id, group)
        settings["group.protocol"] = "consumer"
        settings["auto.offset.reset"] = "earliest"
        self.owned: set[int] = set()
        self._consumer = Consumer(settings)
        self._consumer.subscribe(
            [topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )

    def poll(self, timeout_ms: int) -> set[int]:
        """Serve the group; returns the cells that are this member's now."""
        message = self._consumer.poll(timeout_ms / 1000)
        if message is not None:
            _is_error(message)
        return set(self.owned)

    @property
    def joined(self) -> bool:
        """Whether the group knows this member."""
        return bool(self._consumer.memberid())

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        # membership only: the cell's records are read by a reader of their own from the
        # position in the changelog, never from the group's offsets
        consumer.pause(partitions)
        self.owned |= {p.partition for p in partitions}

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        self.owned -= {p.partition for p in partitions}

    def close(self) -> None:
        """Leave the group: the next member takes over at once."""
        self._consumer.close()


class KafkaLog:
    """A Kafka cluster as a `Log`."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        """Connect when something is read or written."""
        self._bootstrap = bootstrap
        self._client_id = client_id

    def reader(self) -> KafkaReader:
        """Return a reader with nothing assigned."""
        return KafkaReader(self._bootstrap, self._client_id, tell_end=True)

    def transactional_writer(self, transactional_id: str) -> KafkaTransactionalWriter:
        """Fence every earlier writer of the id and return the one that has it now."""
        return KafkaTransactionalWriter(self._bootstrap, self._client_id, transactional_id)

    def read_to_end(self, topic: str, partition: int, offset: int | None) -> Iterator[Record]:
        """Yield committed records from `offset` (None: the first kept) to today's end.

        The end is the broker's word for it: transaction markers take offsets of their own, so the
        last record's offset is not one below the end.
        """
        settings = consumer_settings(self._bootstrap, self._client_id, "read-to-end")
        # the end is told with the first fetch that finds nothing: it should not wait for records
        settings["fetch.wait.max.ms"] = 5
        consumer = Consumer({**settings, "enable.partition.eof": True})
        try:
            if offset is None:
                # asked for here: librdkafka's own look-up of "beginning" waits half a second
                # until its connection is up
                where = TopicPartition(topic, partition)
                offset, _ = consumer.get_watermark_offsets(where, timeout=10)
            consumer.assign([TopicPartition(topic, partition, offset)])
            while True:
                first = consumer.poll(1)
                rest = consumer.consume(_READ_MANY, 0) if first is not None else []
                for message in [] if first is None else [first, *rest]:
                    error = message.error()
                    if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                        return
                    if not _is_error(message):
                        yield to_record(message)
        finally:
            consumer.close()
