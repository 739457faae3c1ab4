"""A runner: its handshake, its lane, its slots and its heartbeat.

One `Runner` lives as long as the process; each of its boots is a `Boot`, which ends when the
scheduler dismisses it and is followed by another with a higher boot_id.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.clock import Clock
from infra.log import Append, LogError, LogReader, LogWriter
from infra.metrics import SLOTS_BUSY, Meters
from runner import lane
from runner.actions.remote import RemoteActions
from runner.attempt import Attempt
from runner.environment import MARKER, RunnerFacts
from runner.executors.containers.engine import Engine
from runner.executors.containers.job import remove_leftovers
from runner.folders import Cleaner, Seat, memory_folder, remove, work_folder
from runner.gateway_client import Gateway
from runner.guards import Guard, GuardLostError, Nursery
from runner.heartbeat import Heart
from runner.identity import Identity, IdentityStore
from runner.leftovers import kill_leftovers
from runner.mirrors import Mirrors
from runner.reports import Reports
from runner.spool import Spool, leftovers, records_of
from runner.tools import OnSteps, Tools
from runner.users import UserPool, reachable_path
from schemas import topics
from schemas.codec import HEARTBEATS, LANES, CodecError
from schemas.events import CONTAINERS
from schemas.lanes import Assignment, LaneRecord
from schemas.late import dataclass
from schemas.streams import Heartbeat

logger = logging.getLogger(__name__)

READ_MS = 200
READ_RECORDS_MAX = 500
STOP_MS = 3_500


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """What a runner is told at its start."""

    name: str
    instance: str
    folder: Path
    mirrors: Path
    actions_url: str
    tool_cache: Path
    pool: str
    labels: tuple[str, ...]
    slots: int
    job_user: str
    gateway: Callable[[Identity], Gateway]
    environment: Mapping[str, str]
    facts: RunnerFacts
    hostname: str
    version: str
    isolation: str
    on_steps: OnSteps | None = None
    engine: Callable[[], Engine | None] = lambda: None


class FatalError(Exception):
    """The runner can't go on; the supervisor starts it again."""


class Runner:
    """The process's runner; `run` blocks, `stop` and `readiness` are for other threads."""

    def __init__(
        self,
        config: RunnerConfig,
        *,
        make_reader: Callable[[], LogReader],
        make_writer: Callable[[], LogWriter],
        clock: Clock,
        meters: Meters,
    ) -> None:
        """Lock the runner's folder. Raises RunnerRunsError."""
        self._config = config
        self._make_reader = make_reader
        self._make_writer = make_writer
        self._clock = clock
        self._meters = meters
        self._stopping = threading.Event()
        self._boot: Boot | None = None
        self._store = IdentityStore(config.folder)
        self._runner_id = self._store.runner_id(config.name)

    def run(self) -> None:
        """Serve until `stop`. Raises FatalError or LogError."""
        config = self._config
        engine, mark = config.engine(), self._store.mark()
        if engine is not None:
            remove_leftovers(engine, mark)
        kill_leftovers(mark)
        nursery, users, cleaner = Nursery(), UserPool(config.job_user), Cleaner()
        seats: list[Seat] = []
        try:
            seats = self._seats(users, cleaner)
            while not self._stopping.is_set():
                identity = Identity(
                    self._runner_id, self._store.next_boot(self._clock), self._store.mark()
                )
                self._boot = Boot(
                    config, identity, seats, nursery,
                    reader=self._make_reader(), writer=self._make_writer(),
                    clock=self._clock, meters=self._meters, engine=engine,
                )  # fmt: skip
                self._boot.run(self._stopping)
        finally:
            nursery.close()
            cleaner.close()
            for seat in seats:
                seat.close()
            users.close()
            self._store.close()

    def stop(self) -> None:
        """End in order: kill the jobs, whose leases the goodbye closes."""
        self._stopping.set()

    def readiness(self) -> dict[str, Any]:
        """Return what /readyz says."""
        boot = self._boot
        if boot is None:
            return {"status": "starting", "lag": 0, "runner_id": self._runner_id}
        return boot.readiness()

    def _seats(self, users: UserPool, cleaner: Cleaner) -> list[Seat]:
        config = self._config
        config.tool_cache.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(str(config.folder).encode()).hexdigest()[:8]
        seats = []
        for number in range(config.slots):
            user = users.take()
            work = work_folder(config.folder / "work", user, name=digest)
            if number == 0:
                # nothing of an earlier boot lives any more
                for left in work.iterdir():
                    remove(left)
            memory = memory_folder(f"{digest}-{number}")
            seat = Seat(
                number, user, work, cleaner=cleaner, tool_cache=config.tool_cache, memory=memory
            )
            seats.append(seat)
        return seats


class Boot:
    """One boot: from its announcement to its dismissal or the runner's end."""

    def __init__(
        self,
        config: RunnerConfig,
        identity: Identity,
        seats: list[Seat],
        nursery: Nursery,
        *,
        reader: LogReader,
        writer: LogWriter,
        clock: Clock,
        meters: Meters,
        engine: Engine | None,
    ) -> None:
        """Announce nothing yet."""
        self._config = config
        self._identity = identity
        self._nursery = nursery
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._meters = meters
        self._fatal: Exception | None = None
        self._spools = config.folder / "spool"
        self._spool = Spool(
            writer, self._spools, name=identity.boot_id, clock=clock, on_fatal=self._fail
        )
        environment = {
            **config.environment,
            MARKER: identity.mark,
            "PATH": reachable_path(config.environment["PATH"], seats[0].user),
        }
        gateway = self._gateway = config.gateway(identity)
        self._tools = Tools(
            clock=clock,
            identity=identity,
            spool=self._spool,
            gateway=gateway,
            mirrors=Mirrors(config.mirrors),
            remote=RemoteActions(config.actions_url, Mirrors(config.mirrors / "actions")),
            depot=gateway.depot,
            meters=meters,
            facts=config.facts,
            environment=environment,
            hostname=config.hostname,
            engine=engine,
            on_steps=config.on_steps,
        )
        self._lane = lane.LaneState(identity.runner_id, identity.boot_id)
        self._welcomed = False
        self._over = False
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._queue: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._slots = [
            threading.Thread(
                target=self._serve_slot, args=(seat,), name=f"slot-{seat.number}", daemon=True
            )
            for seat in seats
        ]
        self._guards: dict[int, Guard] = {}
        self._heart = Heart(
            writer,
            clock,
            message=self._heartbeat,
            on_cut_off=self._cut_off,
            feed=self._feed,
            on_fatal=self._fail,
        )

    # ----------------------------------------------------------------- the boot's life

    def run(self, stopping: threading.Event) -> None:
        """Join, serve and leave. Raises FatalError or LogError."""
        try:
            self._send_leftovers(stopping)
            topic = topics.lane_topic(self._config.pool)
            partition = topics.lane_of(self._identity.runner_id)
            _, end = self._reader.bounds(topic, partition)
            self._reader.assign({(topic, partition): end})
            for slot in self._slots:
                slot.start()
            # read once before the announcement: the welcome must find us listening
            self._act(self._reader.read(timeout_ms=0, records_max=READ_RECORDS_MAX))
            self._heart.start()
            logger.info(
                "listening on %s/%d from %d", topic, partition, end,
                extra={"runner_id": self._identity.runner_id, "boot_id": self._identity.boot_id},
            )  # fmt: skip
            while not stopping.is_set() and not self._over and self._fatal is None:
                self._act(self._reader.read(timeout_ms=READ_MS, records_max=READ_RECORDS_MAX))
        finally:
            self._leave(stopping)
        if self._fatal is not None:
            raise FatalError(f"the runner can't go on: {self._fatal}")

    def readiness(self) -> dict[str, Any]:
        """Return what /readyz says."""
        status = "ok" if self._welcomed and self._heart.in_contact() else "starting"
        if self._welcomed and not self._heart.in_contact():
            status = "degraded"
        return {
            "status": status,
            "lag": 0,
            "runner_id": self._identity.runner_id,
            "boot_id": self._identity.boot_id,
            "running": len(self._attempts),
            "slots": len(self._slots),
        }

    def _send_leftovers(self, stopping: threading.Event) -> None:
        """Send what earlier boots could not, before this one is announced.

        So a job that had finished counts as finished, not as lost.
        """
        for journal in leftovers(self._spools):
            if journal.stem == self._identity.boot_id:
                continue
            for later in (False, True):
                for record in records_of(journal, later=later):
                    while not self._spool.accepts() and not stopping.is_set():
                        self._spool.wait_empty(200)
                    self._spool.append(record)
                while not self._spool.wait_empty(1_000):
                    if stopping.is_set() or self._fatal is not None:
                        return
            logger.info("sent what an earlier boot had left in %s", journal.name)
            journal.unlink()

    def _leave(self, stopping: threading.Event) -> None:
        for attempt in list(self._attempts.values()):
            attempt.stop("infra.runner_stopped", report=False)
        for _ in self._slots:
            self._queue.put(None)
        deadline_ms = self._clock.steady_ms() + STOP_MS
        for slot in self._slots:
            if slot.ident is not None:
                slot.join(max(0.0, (deadline_ms - self._clock.steady_ms()) / 1000))
        self._heart.stop(goodbye=stopping.is_set() and self._welcomed)
        self._spool.wait_empty(500)
        self._spool.close()
        self._reader.close()
        for guard in self._guards.values():
            guard.close()
        with contextlib.suppress(LogError):
            self._writer.close()

    def _fail(self, error: Exception) -> None:
        self._fatal = error

    # ----------------------------------------------------------------- the lane

    def _act(self, records: list[Any]) -> None:
        for action in lane.read_batch(self._lane, self._decoded(records)):
            match action:
                case lane.Welcomed():
                    self._welcomed = True
                    logger.info("welcome", extra={"boot_id": self._identity.boot_id})
                case lane.Dismiss(reason=reason):
                    logger.warning("dismissed: %s", reason)
                    self._over = True
                case lane.Begin(assignment=assignment, cancelled=order):
                    attempt = self._accept(assignment)
                    if order is not None:
                        attempt.cancel(order)
                    self._queue.put(attempt)
                case lane.Decline(assignment=assignment, order_id=order_id, reason=reason):
                    reports = Reports(assignment, self._identity)
                    now_ms = self._clock.now_ms()
                    self._spool.append(reports.declined(now_ms, reason=reason, order_id=order_id))
                case lane.Cancel(order=order):
                    found = self._attempts.get((order.job_id or "", order.attempt or 0))
                    if found is not None:
                        found.cancel(order)

    def _decoded(self, records: list[Any]) -> list[LaneRecord]:
        found = []
        for record in records:
            if record.value is None or record.key != self._identity.runner_id.encode():
                continue
            try:
                found.append(LANES.decode(record.value))
            except CodecError as error:
                # whoever wrote it gets no answer and takes the job back after its deadline
                logger.error(  # noqa: TRY400 - the message says it all
                    "an order can't be read: %s", error,
                    extra={"topic": record.topic, "offset": record.offset},
                )  # fmt: skip
        return found

    def _accept(self, assignment: Assignment) -> Attempt:
        """Say that the job has begun, before anything is set up for it."""
        now_ms = self._clock.now_ms()
        reports = Reports(assignment, self._identity)
        self._spool.append(
            reports.started(
                now_ms, isolation=self._config.isolation, hostname=self._config.hostname
            )
        )
        attempt = Attempt(assignment, reports, self._tools, started_ms=now_ms)
        with self._lock:
            self._attempts[attempt.key] = attempt
        return attempt

    # ----------------------------------------------------------------- the slots

    def _serve_slot(self, seat: Seat) -> None:
        """Run what comes. A slot that can't go on ends the boot: its jobs get another attempt.

        Otherwise the heartbeat would go on to call a job running that nobody runs.
        """
        try:
            self._run_attempts(seat)
        except Exception as error:
            logger.exception("slot %d failed", seat.number)
            self._fail(error)

    def _run_attempts(self, seat: Seat) -> None:
        guard = self._guards[seat.number] = self._nursery.guard()
        while (attempt := self._queue.get()) is not None:
            if guard.lost:
                guard.close()
                guard = self._guards[seat.number] = self._nursery.guard()
            self._meters.set(SLOTS_BUSY, len(self._attempts))
            attempt.run(guard, seat)
            with self._lock:
                self._attempts.pop(attempt.key, None)
            self._meters.set(SLOTS_BUSY, len(self._attempts))

    def _cut_off(self) -> None:
        """No contact for too long: end the jobs that hold a group or an environment."""
        for attempt in list(self._attempts.values()):
            if attempt.assignment.exclusive:
                attempt.stop("infra.lost_contact", report=True)

    def _feed(self) -> None:
        for guard in list(self._guards.values()):
            with contextlib.suppress(GuardLostError):
                guard.feed()

    def _heartbeat(self, *, leaving: bool) -> Append:
        config, identity = self._config, self._identity
        with self._lock:
            running = tuple(attempt.running() for attempt in self._attempts.values())
        beat = Heartbeat(
            occurred_at=self._clock.now_ms(),
            runner_id=identity.runner_id,
            boot_id=identity.boot_id,
            pool=config.pool,
            labels=config.labels,
            slots=config.slots,
            lane=topics.lane_of(identity.runner_id),
            name=config.name,
            isolation=config.isolation,
            version=config.version,
            hostname=config.hostname,
            running=running,
            welcomed=self._welcomed,
            leaving=leaving,
            public_key=self._gateway.public_key,
            capabilities=(CONTAINERS,) if self._tools.engine is not None else (),
        )
        return Append(
            topics.HEARTBEATS,
            topics.partition_of(identity.runner_id, topics.HEARTBEAT_PARTITIONS),
            topics.heartbeat_key(identity.runner_id, identity.boot_id).encode(),
            HEARTBEATS.encode(beat),
        )
