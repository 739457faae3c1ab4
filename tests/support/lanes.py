"""A scheduler's end of a lane, for tests of the runner: gives orders, reads what comes back."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import zstandard

from infra.clock import SystemClock
from infra.embedded.ports import free_port
from infra.kafka import KafkaReader, KafkaWriter
from infra.kafka_admin import Admin
from infra.log import Append
from schemas import loglines, topics
from schemas.codec import EVENTS, HEARTBEATS, LANES, LOGS, event_headers, event_id
from schemas.events import (
    AssignmentDeclined,
    Event,
    JobAssigned,
    JobFinished,
    RunnerJoined,
    StepFinished,
)
from schemas.lanes import (
    Assignment,
    CancelOrder,
    Dismissed,
    LaneRecord,
    Welcome,
    Withdraw,
)
from schemas.streams import Heartbeat, LogBatch
from schemas.workflow.plan import JobPlan, StepPlan
from schemas.workflow.plan_json import job_to_json
from tests.support.eventually import eventually

E = TypeVar("E", bound=Event)
_numbers = itertools.count(1)
GITHUB = {
    "repository": "demo/hello", "ref": "refs/heads/main", "ref_name": "main", "ref_type": "branch",
    "sha": "0" * 40, "event_name": "push", "actor": "ada", "workflow": "CI", "run_id": "r1",
    "run_number": "1", "run_attempt": "1", "event": {"head_commit": {"message": "hello"}},
}  # fmt: skip


@dataclass(slots=True)
class Log:
    """An attempt's log, put together from its batches; complete once `ended`."""

    batches: list[LogBatch] = field(default_factory=list)

    @property
    def ended(self) -> LogBatch | None:
        """The last batch when it has come."""
        return self.batches[-1] if self.batches and self.batches[-1].last else None

    def blocks(self) -> list[bytes]:
        """The plain blocks."""
        decompressor = zstandard.ZstdDecompressor()
        return [decompressor.decompress(batch.block) for batch in self.batches]

    def lines(self) -> list[loglines.LogLine]:
        """Every line."""
        pairs = zip(self.batches, self.blocks(), strict=True)
        return [line for batch, block in pairs for line in loglines.lines(block, batch.first_line)]

    def texts(self, streams: str = "oe") -> list[str]:
        """The texts of what the steps printed."""
        return [line.text for line in self.lines() if line.stream in streams]


class LaneDriver:
    """Plays the scheduler for the runners of one pool of its own."""

    def __init__(self, bootstrap: str) -> None:
        """Make the topics that are missing and listen to what follows."""
        self.bootstrap = bootstrap
        self.pool = f"test-{os.getpid()}-{next(_numbers)}"
        admin = Admin(bootstrap)
        wanted = topics.topic_specs(cells=1, pools=(self.pool,))
        there = set(admin._client.list_topics(timeout=15).topics)  # noqa: SLF001
        admin.ensure_topics([spec for spec in wanted if spec.name not in there])
        self._writer = KafkaWriter(bootstrap, "test-lane")
        self._writer.warm()
        # what is sent through it within 50 ms lies in one batch, so a runner reads it at once
        self._together = KafkaWriter(bootstrap, "test-lane-together", linger_ms=50)
        self._together.warm()
        self._reader = KafkaReader(bootstrap, "test-lane")
        self._positions = {(topics.EVENTS, 0): 0, (topics.HEARTBEATS, 0): 0}
        self._positions |= {(topics.LOGS, part): 0 for part in range(topics.LOG_PARTITIONS)}
        for topic, part in self._positions:
            self._positions[(topic, part)] = self._reader.bounds(topic, part)[1]
        self._reader.assign(self._positions)
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self.events: list[Event] = []
        self.offsets: dict[str, int] = {}
        self.logs: dict[tuple[str, int], Log] = {}
        self.heartbeats: list[Heartbeat] = []
        self.arrived_ms: dict[str, int] = {}
        self.announced_ms: dict[str, int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()
        self._together.close()

    def _listen(self) -> None:
        while not self._closing.is_set():
            for record in self._reader.read(timeout_ms=100, records_max=1000):
                assert record.value is not None
                with self._lock:
                    self._take(record.topic, record.offset, record.value)

    def _take(self, topic: str, offset: int, value: bytes) -> None:
        if topic == topics.EVENTS:
            event = EVENTS.decode(value)
            self.offsets[event.event_id] = offset
            self.arrived_ms[event.event_id] = self._clock.steady_ms()
            self.events.append(event)
        elif topic == topics.LOGS:
            batch = LOGS.decode(value)
            assert isinstance(batch, LogBatch)
            log = self.logs.setdefault((batch.job_id, batch.attempt), Log())
            if batch.seq == len(log.batches):
                log.batches.append(batch)
        else:
            beat = HEARTBEATS.decode(value)
            if isinstance(beat, Heartbeat) and beat.pool == self.pool:
                self.announced_ms.setdefault(beat.boot_id, self._clock.steady_ms())
                self.heartbeats.append(beat)

    # ----------------------------------------------------------------- orders

    def send(self, *records: LaneRecord) -> None:
        """Put orders on the runner's lane; several lie side by side in one batch."""
        writer = self._writer if len(records) == 1 else self._together
        writer.append_all(
            [
                Append(
                    topics.lane_topic(self.pool),
                    topics.lane_of(record.runner_id),
                    record.runner_id.encode(),
                    LANES.encode(record, occurred_at=None),
                )
                for record in records
            ],
            timeout_ms=10_000,
        )

    def boot(self, runner_id: str, *, not_boot: str = "") -> Heartbeat:
        """Wait for the announcement of a runner's (next) boot."""
        return eventually(
            lambda: next(
                (
                    beat
                    for beat in reversed(self.heartbeats)
                    if beat.runner_id == runner_id and beat.boot_id > not_boot and not beat.leaving
                ),
                None,
            ),
            what=f"heartbeat of {runner_id}",
        )

    def welcome(self, runner_id: str, *, not_boot: str = "") -> Heartbeat:
        """Wait for a boot, welcome it, and wait until it knows."""
        beat = self.boot(runner_id, not_boot=not_boot)
        self.joined(beat)
        self.send(
            Welcome(
                order_id=event_id("RunnerJoined", runner_id, beat.boot_id),
                runner_id=runner_id, boot_id=beat.boot_id, slots=beat.slots,
            )
        )  # fmt: skip
        return beat

    def joined(self, beat: Heartbeat) -> None:
        """Append what the fleet makes of a boot's heartbeat."""
        self.append(
            RunnerJoined(
                event_id=event_id("RunnerJoined", beat.runner_id, beat.boot_id),
                occurred_at=self._clock.now_ms(), runner_id=beat.runner_id, boot_id=beat.boot_id,
                pool=beat.pool, labels=beat.labels, slots=beat.slots, lane=beat.lane,
                public_key=beat.public_key,
            )
        )  # fmt: skip

    def assignment(
        self, beat: Heartbeat, steps: tuple[StepPlan, ...] | str, **values: Any
    ) -> Assignment:
        """Return an assignment for a boot; `steps` may be one script."""
        if isinstance(steps, str):
            steps = (StepPlan(id="__run", run=steps),)
        number = next(_numbers)
        contexts = {"github": GITHUB, "needs": {}, "vars": {}, "inputs": {}, "env": {}}
        contexts |= values.pop("contexts", {})
        plan = values.pop("plan", {})
        job_id = values.pop("job_id", f"20260101-{os.getpid():06x}{number:06x}.build")
        given = {
            "order_id": event_id("JobAssigned", job_id, 1),
            "runner_id": beat.runner_id,
            "boot_id": beat.boot_id,
            "job_id": job_id,
            "attempt": 1,
            "repository": "demo/hello",
            "run_id": job_id.partition(".")[0],
            "delivery_id": "d1",
            "name": "build",
            "job_json": job_to_json(JobPlan(id="build", steps=steps, **plan)),
            "contexts_json": json.dumps(contexts),
        }
        return Assignment(**{**given, **values})

    def append(self, event: Event) -> None:
        """Append somebody else's event."""
        self._writer.append_all(
            [
                Append(
                    topics.EVENTS, 0, event.repository.encode(), EVENTS.encode(event),
                    event_headers(event, source="tailrace/test", occurred_at=event.occurred_at),
                )
            ],
            timeout_ms=10_000,
        )  # fmt: skip

    def assigned(self, assignment: Assignment, *, environment: str = "") -> JobAssigned:
        """Append the decision behind an assignment, as the scheduler does."""
        event = JobAssigned(
            event_id=assignment.order_id,
            occurred_at=self._clock.now_ms(),
            repository=assignment.repository,
            run_id=assignment.run_id,
            delivery_id=assignment.delivery_id,
            job_id=assignment.job_id,
            attempt=assignment.attempt,
            runner_id=assignment.runner_id,
            boot_id=assignment.boot_id,
            environment=environment,
            pool=self.pool,
            lane=topics.lane_of(assignment.runner_id),
        )
        self.append(event)
        return event

    def withdraw(self, assignment: Assignment) -> Withdraw:
        """Return the withdrawal of an assignment."""
        return Withdraw(
            order_id=event_id("Withdraw", assignment.job_id), runner_id=assignment.runner_id,
            boot_id=assignment.boot_id, job_id=assignment.job_id, attempt=assignment.attempt,
        )  # fmt: skip

    def cancel(self, assignment: Assignment, *, grace_ms: int = 10_000) -> None:
        """Order the end of a job."""
        self.send(
            CancelOrder(
                order_id=event_id("CancelOrder", assignment.job_id),
                runner_id=assignment.runner_id, boot_id=assignment.boot_id,
                job_id=assignment.job_id, attempt=assignment.attempt,
                reason="cancel.user", grace_ms=grace_ms,
            )
        )  # fmt: skip

    def dismiss(self, beat: Heartbeat) -> None:
        """Give a boot up."""
        self.send(
            Dismissed(
                order_id=event_id("RunnerDismissed", beat.boot_id),
                runner_id=beat.runner_id, boot_id=beat.boot_id, reason="silent",
            )
        )  # fmt: skip

    # ----------------------------------------------------------------- what came back

    def of(self, assignment: Assignment, kind: type[E]) -> list[E]:
        """Return the reports of a kind about an attempt."""
        with self._lock:
            return [
                event
                for event in self.events
                if isinstance(event, kind)
                and (event.job_id, event.attempt) == (assignment.job_id, assignment.attempt)
            ]

    def finished(self, assignment: Assignment, *, timeout_ms: int = 30_000) -> JobFinished:
        """Wait for the end of an attempt."""
        return eventually(
            lambda: next(iter(self.of(assignment, JobFinished)), None),
            timeout_ms=timeout_ms,
            what=f"JobFinished of {assignment.job_id}",
        )

    def declined(self, assignment: Assignment) -> AssignmentDeclined:
        """Wait until an assignment is given back."""
        return eventually(
            lambda: next(iter(self.of(assignment, AssignmentDeclined)), None), what="declined"
        )

    def log(self, assignment: Assignment) -> Log:
        """Wait for the whole log of an attempt."""
        key = (assignment.job_id or "", assignment.attempt or 0)

        def whole() -> Log | None:
            log = self.logs.get(key)
            return log if log is not None and log.ended else None

        return eventually(whole, what=f"log of {assignment.job_id}")

    def so_far(self, assignment: Assignment) -> list[str]:
        """Return what an attempt printed until now."""
        key = (assignment.job_id or "", assignment.attempt or 0)
        with self._lock:
            log = self.logs.get(key)
            return log.texts() if log is not None else []

    def run(
        self, beat: Heartbeat, steps: tuple[StepPlan, ...] | str, **values: Any
    ) -> tuple[JobFinished, Log, list[StepFinished]]:
        """Run a job to its end."""
        assignment = self.assignment(beat, steps, **values)
        self.send(assignment)
        finished = self.finished(assignment)
        return finished, self.log(assignment), self.of(assignment, StepFinished)


@dataclass(slots=True)
class RunnerProcess:
    """A real runner in a process of its own."""

    process: subprocess.Popen[bytes]
    runner_id: str
    home: Path
    environ: Mapping[str, str]
    output: Path

    def kill(self) -> None:
        """Kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """End it in order; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    def restart(self) -> None:
        """Start it again on the same folder."""
        self.process = _start(self.environ, self.output)


def _start(environ: Mapping[str, str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "runner"], env=dict(environ), stdout=out, stderr=out,
            stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
        )  # fmt: skip


@contextmanager
def runner_process(driver: LaneDriver, home: Path, **settings: object) -> Iterator[RunnerProcess]:
    """Start a runner in the driver's pool; ended with the block."""
    runner_id = f"{driver.pool}-r{next(_numbers)}"
    environ = {
        **os.environ,
        "TAILRACE_HOME": str(home),
        "TAILRACE_KAFKA_BOOTSTRAP": driver.bootstrap,
        "TAILRACE_RUNNER_ID": runner_id,
        "TAILRACE_INSTANCE": runner_id,
        "TAILRACE_RUNNER_POOL": driver.pool,
        "TAILRACE_LOG_FORMAT": "text",
        "TAILRACE_CONTAINER_ENGINE": "none",
        # nobody's, unless the test has a gateway: the usual port may be an installation's
        "TAILRACE_GATEWAY_PORT": str(free_port()),
        **{f"TAILRACE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    output = home / f"{runner_id}.log"
    home.mkdir(parents=True, exist_ok=True)
    runner = RunnerProcess(_start(environ, output), runner_id, home, environ, output)
    try:
        yield runner
    finally:
        if runner.process.poll() is None:
            runner.process.send_signal(signal.SIGCONT)
            runner.process.terminate()
            try:
                runner.process.wait(15)
            except subprocess.TimeoutExpired:
                runner.kill()
