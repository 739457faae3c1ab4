"""The fleet: heartbeats to RunnerJoined and RunnerLost, by Faust: `python -m scheduler.fleet`.

It appends a tick a second to each partition of `heartbeats` that it reads, so that silence is
counted in the log (`scheduler/liveness.py` decides). Everything it says may be said twice: ids
derive from the boot, and an offset is committed only after the facts of its record are durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from typing import Any, Protocol

from infra.clock import Clock
from infra.log import Append, LogError, LogReader, LogWriter, Record
from infra.metrics import DEAD_LETTERS as DEAD_LETTER_COUNT
from infra.metrics import EVENTS_APPENDED, EVENTS_READ, RUNNER_BOOTS, RUNNERS_LOST, Meters
from scheduler import liveness
from scheduler.liveness import Fact, Forgotten, Liveness
from schemas import topics
from schemas.codec import EVENTS, HEARTBEATS, CodecError, UnknownSchemaError, event_headers
from schemas.events import RunnerLost
from schemas.late import dataclass
from schemas.streams import HeartbeatRecord, Tick

logger = logging.getLogger("scheduler.fleet")  # also when it is __main__

APP_ID = "tailrace-fleet"
TICK_INTERVAL_MS = 1_000
READY_WITHIN_MS = 5_000
_SESSION_TIMEOUT_S = 6
_RESTORE_BATCH = 2_000
_TICK_KEY = b"tick"
_SOURCE = "tailrace/fleet"


class FleetError(Exception):
    """The fleet can't go on without risking to forget a boot; it ends and is started again."""


# --------------------------------------------------------------------------- what it appends


def fact_record(fact: Fact, *, cells: int) -> Append:
    """Return a fact as a record for the cell that its pool belongs to."""
    event = fact.event
    return Append(
        topics.EVENTS,
        topics.cell_of(fact.pool, cells),
        (event.runner_id or "").encode(),
        EVENTS.encode(event),
        event_headers(event, source=_SOURCE, occurred_at=event.occurred_at),
    )


def forgotten_record(partition: int, event: RunnerLost) -> Append:
    """Return the record that lets compaction drop a boot that is over."""
    key = topics.heartbeat_key(event.runner_id or "", event.boot_id or "")
    return Append(topics.HEARTBEATS, partition, key.encode(), None)


def tick_record(partition: int, tick: Tick) -> Append:
    """Return a tick as a record."""
    return Append(topics.HEARTBEATS, partition, _TICK_KEY, HEARTBEATS.encode(tick))


def dead_letter(record: Record, error: CodecError) -> Append:
    """Return an undecodable record, byte for byte, with where it came from."""
    origin = {
        "x-origin-topic": record.topic,
        "x-origin-partition": str(record.partition),
        "x-origin-offset": str(record.offset),
        "x-error": str(error),
    }
    headers = [*record.headers, *((name, text.encode()) for name, text in origin.items())]
    return Append(topics.DEAD_LETTERS, 0, record.key, record.value, headers)


def input_of(record: Record) -> HeartbeatRecord | Forgotten:
    """Return what a record of `heartbeats` says; CodecError when it can't be read."""
    if record.value is not None:
        return HEARTBEATS.decode(record.value)
    runner_id, boot_id = topics.boot_of((record.key or b"").decode(errors="replace"))
    return Forgotten(runner_id=runner_id, boot_id=boot_id)


# --------------------------------------------------------------------------- the fold and its shell


class _Appender(Protocol):
    def __call__(self, *records: Append) -> Awaitable[None]:
        """Return once every record is durable; AppendError otherwise."""
        ...


@dataclass(slots=True)
class Fleet:
    """The state of every partition that this process reads, and what it appends for them."""

    append: _Appender
    open_reader: Callable[[], LogReader]
    cells: int
    clock: Clock
    fleet_id: str
    meters: Meters = field(default_factory=Meters)
    states: dict[int, Liveness] = field(default_factory=dict)
    own_tick_read_at: dict[int, int] = field(default_factory=dict)
    _number: int = 0

    async def handle(self, record: Record) -> None:
        """Take one record in; returns once everything that follows from it is durable."""
        state = self.states.get(record.partition)
        if state is None:
            state = await asyncio.to_thread(self._restored, record.partition, record.offset)
            self.states[record.partition] = state
        self.meters.count(EVENTS_READ, record.topic)
        try:
            heard = input_of(record)
        except UnknownSchemaError as error:
            raise FleetError(
                f"{record.topic}/{record.partition} offset {record.offset}: {error}"
            ) from error
        except CodecError as error:
            await self._set_aside(record, error)
            return
        facts = liveness.decide(state, heard)
        await self._append_facts(record.partition, facts)
        liveness.evolve(state, heard)
        if isinstance(heard, Tick) and heard.fleet_id == self.fleet_id:
            self.own_tick_read_at[record.partition] = self.clock.steady_ms()
            self._gauge()

    async def _append_facts(self, partition: int, facts: Sequence[Fact]) -> None:
        if not facts:
            return
        await self.append(*(fact_record(fact, cells=self.cells) for fact in facts))
        lost = [fact.event for fact in facts if isinstance(fact.event, RunnerLost)]
        # after the facts: a boot that is forgotten without having been called lost holds its
        # leases for ever
        await self.append(*(forgotten_record(partition, event) for event in lost))
        for fact in facts:
            self.meters.count(EVENTS_APPENDED, type(fact.event).__name__)
            logger.info(
                "%s",
                type(fact.event).__name__,
                extra={
                    "runner_id": fact.event.runner_id,
                    "boot_id": fact.event.boot_id,
                    "event_id": fact.event.event_id,
                    "pool": fact.pool,
                },
            )
        for event in lost:
            self.meters.count(RUNNERS_LOST, event.reason)

    async def _set_aside(self, record: Record, error: CodecError) -> None:
        logger.warning(
            "a record can't be read and is set aside on %s: %s",
            topics.DEAD_LETTERS,
            error,
            extra={"topic": record.topic, "partition": record.partition, "offset": record.offset},
        )
        self.meters.count(DEAD_LETTER_COUNT, record.topic)
        await self.append(dead_letter(record, error))

    def _restored(self, partition: int, before: int) -> Liveness:
        """Fold what the topic keeps up to an offset: the boots that lived when it was reached.

        Faust's own tables are not used: their recovery can lose keys, and here the input is its
        own compacted changelog.
        """
        state = Liveness()
        reader = self.open_reader()
        try:
            position, _ = reader.bounds(topics.HEARTBEATS, partition)
            reader.assign({(topics.HEARTBEATS, partition): position})
            while position < before:
                for record in reader.read(timeout_ms=1_000, records_max=_RESTORE_BATCH):
                    position = record.next_offset
                    if record.offset < before:
                        with contextlib.suppress(CodecError):
                            liveness.evolve(state, input_of(record))
        finally:
            reader.close()
        logger.info("knows %d boots of %s/%d", len(state.boots), topics.HEARTBEATS, partition)
        return state

    def release(self, partitions: set[int]) -> None:
        """Forget partitions that another process reads now."""
        for partition in partitions:
            self.states.pop(partition, None)
            self.own_tick_read_at.pop(partition, None)

    async def tick(self, partitions: set[int]) -> None:
        """Append the next tick to each partition and wait until it is durable.

        A tick that failed leaves a gap in the numbers, as a late one leaves it in time: either
        gives every boot its full time again.
        """
        self._number += 1
        tick = Tick(number=self._number, fleet_id=self.fleet_id, occurred_at=self.clock.now_ms())
        try:
            await self.append(*(tick_record(partition, tick) for partition in partitions))
        except LogError as error:
            logger.warning("a tick was not appended: %s", error)

    def readiness(self, partitions: set[int], lag: int) -> dict[str, Any]:
        """Return the answer for /readyz: ok while its own ticks come back to it."""
        boots = sum(len(state.boots) for state in list(self.states.values()))
        answer = {"lag": lag, "boots": boots, "partitions": sorted(partitions)}
        read_at = dict(self.own_tick_read_at)
        if not partitions:
            return {"status": "starting", "detail": "no partition is assigned yet", **answer}
        if not partitions <= read_at.keys():
            return {"status": "starting", "detail": "no tick came back yet", **answer}
        age_ms = self.clock.steady_ms() - min(read_at[partition] for partition in partitions)
        if age_ms > READY_WITHIN_MS:
            detail = f"its last tick came back {age_ms} ms ago: is Kafka there?"
            return {"status": "degraded", "detail": detail, **answer}
        return {"status": "ok", **answer}

    def _gauge(self) -> None:
        alive: dict[str, int] = dict.fromkeys(self._pools_seen, 0)
        for state in self.states.values():
            for boot in state.boots.values():
                alive[boot.pool] = alive.get(boot.pool, 0) + 1
        self._pools_seen.update(alive)
        for pool, count in alive.items():
            self.meters.set(RUNNER_BOOTS, count, pool)

    _pools_seen: set[str] = field(default_factory=set)


# --------------------------------------------------------------------------- Kafka from asyncio


def awaitable_appends(writer: LogWriter) -> _Appender:
    """Return a function that appends without blocking the loop and waits for every ack."""

    async def append(*records: Append) -> None:
        loop = asyncio.get_running_loop()
        acks: list[asyncio.Future[None]] = []
        for record in records:
            ack: asyncio.Future[None] = loop.create_future()
            acks.append(ack)
            writer.append(record, _resolver(loop, ack))
        await asyncio.gather(*acks)

    return append


def _resolver(
    loop: asyncio.AbstractEventLoop, ack: asyncio.Future[None]
) -> Callable[[Exception | None], None]:
    def resolve(error: Exception | None) -> None:
        if ack.done():
            return
        if error is None:
            ack.set_result(None)
        else:
            ack.set_exception(error)

    def acked(error: Exception | None) -> None:
        # the loop may be closed when an ack comes while the process ends
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(resolve, error)

    return acked


# --------------------------------------------------------------------------- Faust


def faust_app(bootstrap: str, instance: str, app_id: str = APP_ID) -> Any:
    """Return the Faust application; it neither declares topics nor elects a leader.

    Settings that differ from Faust's defaults each prevent a loss or a stall: "The fleet" in
    `scheduler/README.md` says which.
    """
    import faust

    return faust.App(
        app_id,
        broker="kafka://" + bootstrap.replace(",", ";kafka://"),
        broker_client_id=instance,
        # a restart within the session time takes its partitions back at once
        consumer_group_instance_id=instance,
        processing_guarantee="at_least_once",
        store="memory://",
        table_standby_replicas=0,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=topics.HEARTBEAT_PARTITIONS,
        value_serializer="raw",
        key_serializer="raw",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=_SESSION_TIMEOUT_S,
        broker_heartbeat_interval=_SESSION_TIMEOUT_S / 4,
        broker_rebalance_timeout=_SESSION_TIMEOUT_S + 1,
        # a request that was under way when the broker died holds up everything for so long
        broker_request_timeout=_SESSION_TIMEOUT_S + 2,
        broker_max_poll_interval=60,
        broker_commit_interval=1.0,
        stream_wait_empty=False,
        stream_recovery_delay=0,
    )


def to_record(message: Any) -> Record:
    """Return a message of Faust as a record."""
    headers = message.headers or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        tuple((name, value or b"") for name, value in pairs),
        message.timestamp and int(message.timestamp * 1000),
    )


class FleetWorker:
    """Runs the fleet in Faust until it is told to stop or something failed."""

    def __init__(self, app: Any, fleet: Fleet) -> None:
        """Register the agent; nothing is connected yet."""
        self._app = app
        self._fleet = fleet
        self._stopping = asyncio.Event()
        self._started = False
        self._failure: BaseException | None = None
        self._topic = app.topic(topics.HEARTBEATS, value_serializer="raw", key_serializer="raw")
        app.agent(self._topic, concurrency=1, name="fleet")(self._consume)
        app.on_partitions_revoked.connect(self._revoked)

    async def run(self) -> None:
        """Run until `stop`; FleetError when it has to be started again."""
        await self._app.start()
        self._started = True
        ticker = asyncio.create_task(self._tick_for_ever())
        ticker.add_done_callback(self._ended)
        waiter = asyncio.create_task(self._app.wait_until_stopped())
        waiter.add_done_callback(self._ended)
        await self._stopping.wait()
        ticker.cancel()
        waiter.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._app.stop(), timeout=3)
        if self._failure is not None:
            raise FleetError(f"the fleet failed: {self._failure!r}") from self._failure

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def readiness(self) -> dict[str, Any]:
        """Return the answer for /readyz; called from the thread of the health server."""
        partitions = self._assigned()
        return self._fleet.readiness(partitions, self._lag(partitions))

    async def _consume(self, stream: Any) -> None:
        try:
            async for event in stream.events():
                await self._fleet.handle(to_record(event.message))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the process ends with it
            self._fail(error)
            # Faust acknowledges the event of an agent that raises, and starts it anew with the
            # next one: its facts would be lost. So it never returns, and nothing is committed.
            await asyncio.Event().wait()

    async def _tick_for_ever(self) -> None:
        clock = self._fleet.clock
        due_ms = clock.steady_ms()
        while True:
            partitions = self._assigned()
            if partitions:
                await self._fleet.tick(partitions)
            # never two at once to catch up: heartbeats had no time to come between them
            due_ms = max(due_ms + TICK_INTERVAL_MS, clock.steady_ms())
            await asyncio.sleep((due_ms - clock.steady_ms()) / 1000)

    async def _revoked(self, _app: Any, revoked: Any, **_: Any) -> None:
        self._fleet.release({tp.partition for tp in revoked})

    def _assigned(self) -> set[int]:
        from faust.exceptions import ConsumerNotStarted

        # Whoever asks first makes the consumer, bound to the event loop of its own thread: the
        # health server's would be the wrong one.
        if not self._started:
            return set()
        try:
            found = self._app.consumer.assignment()
        except ConsumerNotStarted:
            return set()
        return {tp.partition for tp in found if tp.topic == topics.HEARTBEATS}

    def _lag(self, partitions: set[int]) -> int:
        from faust.types import TP

        lag = 0
        for partition in partitions:
            tp = TP(topics.HEARTBEATS, partition)
            end = self._app.consumer.highwater(tp)
            read = self._app.monitor.tp_read_offsets.get(tp)
            lag += max(0, end - read - 1) if end and read is not None else 0
        return lag

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self._stopping.is_set():
            return
        self._fail(task.exception() or FleetError("Faust stopped by itself"))

    def _fail(self, error: BaseException) -> None:
        logger.error("the fleet ends, to be started again: %s", error, exc_info=error)
        self._failure = self._failure or error
        self._stopping.set()


async def serve(settings: Any) -> None:
    """Wire and run the fleet until SIGTERM or SIGINT."""
    from infra.clock import SystemClock, random_id
    from infra.health import HealthServer
    from infra.kafka import KafkaReader, KafkaWriter

    instance = settings.instance or "fleet-0"
    writer = KafkaWriter(settings.kafka_bootstrap, instance)
    fleet = Fleet(
        append=awaitable_appends(writer),
        open_reader=lambda: KafkaReader(settings.kafka_bootstrap, f"{instance}-restore"),
        cells=settings.cells,
        clock=SystemClock(),
        fleet_id=random_id(),
    )
    worker = FleetWorker(faust_app(settings.kafka_bootstrap, instance), fleet)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    with HealthServer(settings.fleet_port, worker.readiness, "fleet"):
        try:
            await asyncio.to_thread(writer.warm, 30_000)
            await worker.run()
        finally:
            writer.close(2_000)


def main() -> int:
    """Run the fleet; the exit code is 1 when it has to be started again."""
    from infra.health import HealthPortError
    from infra.settings import Settings, SettingsError
    from infra.telemetry import configure_logging

    try:
        settings = Settings.load()
        configure_logging(settings, "fleet")
        asyncio.run(serve(settings))
    except (SettingsError, HealthPortError, FleetError, LogError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
