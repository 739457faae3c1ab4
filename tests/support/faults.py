"""A cell's log and owners among faults, by seed: what simulations of the scheduler share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.clock import Clock, ManualClock
from infra.log import Append, LogError, MemoryLog, MemoryTransactionalWriter, TransactionError
from scheduler.shell import CellShell
from schemas import codec
from schemas.events import Event
from schemas.topics import EVENTS, SCHEDULER_STATE


class FaultyWriter(MemoryTransactionalWriter):
    """A transactional writer whose commits fail now and then, with or without effect."""

    chance: random.Random
    faulty: FaultyLog

    def transact(self, records: Sequence[Append]) -> None:
        """Commit, or raise TransactionError before or after the records are there."""
        fate = self.chance.random() if self.faulty.faults else 1.0
        if fate < 0.06:
            raise TransactionError("lost before it was committed")
        super().transact(records)
        if fate < 0.12:
            raise TransactionError("committed, but the answer was lost")


@dataclass
class FaultyLog(MemoryLog):
    """A log that hands out faulty writers."""

    chance: random.Random = field(default_factory=random.Random)
    faults: bool = True

    def transactional_writer(self, transactional_id: str) -> FaultyWriter:
        """Return a writer that fences every earlier one."""
        self.epochs[transactional_id] = self.epochs.get(transactional_id, 0) + 1
        writer = FaultyWriter(self, transactional_id, self.epochs[transactional_id])
        writer.chance, writer.faulty = self.chance, self
        return writer


class FaultyWorld:
    """One cell's log, its clock and its owners, which come, double and go."""

    def __init__(self, seed: int) -> None:
        """Begin with an empty log that nobody owns."""
        self.chance = random.Random(seed)  # noqa: S311 - a seed that can be played again
        self.clock = ManualClock()
        self.log = FaultyLog(chance=self.chance)
        self.owners: list[CellShell] = []

    def put(self, *events: Event) -> None:
        """Append inputs."""
        for event in events:
            headers = codec.event_headers(event, source="sim", occurred_at=0)
            self.log.put(Append(EVENTS, 0, b"k", codec.EVENTS.encode(event), headers))

    def machine_clock(self) -> Clock:
        """Return the clock of the machine on which the next owner runs."""
        return self.clock

    def own(self) -> None:
        """A (further) process takes the cell; the one before may not know it yet."""
        shell = CellShell(
            log=self.log, clock=self.machine_clock(), number=0, version="sim", pace_ms=0
        )
        try:
            shell.take()
        except LogError:
            return
        self.owners.append(shell)

    def step(self) -> None:
        """Any owner, also one that was fenced, does a step; an error ends it."""
        if not self.owners:
            return self.own()
        shell = self.chance.choice(self.owners[-2:])
        try:
            shell.step(idle_ms=0)
        except LogError:
            self.owners.remove(shell)

    def forget(self) -> None:
        """The changelog topic is lost while nobody owns the cell."""
        self.owners.clear()
        self.log.records[(SCHEDULER_STATE, 0)].clear()
