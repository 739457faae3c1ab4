"""Look-ups that are derived from the rows: queues, live runners, remembered deliveries.

Nothing here is saved; `Index.of(state)` makes all of it again after a restore, and a test holds
the result equal to what evolving built.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import field

from scheduler.core.state import Job, JobPhase, Runner, State
from scheduler.core.view import RunView
from schemas.late import dataclass

#: What a job asks of its runner: (labels, capabilities).
Wants = tuple[tuple[str, ...], tuple[str, ...]]


def wants_of(job: Job) -> Wants:
    """Return what a job asks of its runner."""
    return job.labels, job.capabilities


@dataclass(slots=True)
class Queue:
    """Jobs of one pool that ask for the same of a runner, first come first served.

    The heap keeps entries of jobs that have left the queue until they come to its top.
    """

    wants: Wants
    heap: list[tuple[int, str]] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    blocked: str = ""

    def push(self, job: Job) -> None:
        """Add a job at the place that its sequence gives it."""
        heapq.heappush(self.heap, (job.sequence, job.job_id))
        self.fresh.append(job.job_id)

    def first(self, state: State) -> Job | None:
        """Return the job whose turn it is; drops entries that are no longer true."""
        while self.heap:
            sequence, job_id = self.heap[0]
            job = state.jobs.get(job_id)
            if job is not None and job.phase is JobPhase.QUEUED and job.sequence == sequence:
                return job
            heapq.heappop(self.heap)
        return None


@dataclass(slots=True)
class PoolIndex:
    """A pool's live runners and queues."""

    runners: set[str] = field(default_factory=set)
    queues: dict[Wants, Queue] = field(default_factory=dict)


@dataclass(slots=True)
class Index:
    """Every derived look-up of a cell."""

    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    pending: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    pools: dict[str, PoolIndex] = field(default_factory=lambda: defaultdict(PoolIndex))
    views: dict[str, RunView] = field(default_factory=dict)
    touched_pools: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, state: State) -> Index:
        """Derive everything from the rows."""
        index = cls()
        for key, remembered in state.seen.rows.items():
            index.seen[key.rpartition("#")[0]].add(remembered.value)
        for delivery in sorted(state.deliveries, key=lambda d: d.sequence):
            places = index.closed if delivery.closed else index.pending
            places[delivery.repository].append(delivery.delivery_id)
        for runner in state.runners:
            if runner.live:
                index.pools[runner.pool].runners.add(runner.runner_id)
        for job in sorted(state.jobs, key=lambda job: job.sequence):
            if job.phase is JobPhase.QUEUED:
                index.enqueue(job)
        return index

    def enqueue(self, job: Job) -> None:
        """Put a job into its pool's queue."""
        queues = self.pools[job.pool].queues
        wants = wants_of(job)
        queue = queues.get(wants)
        if queue is None:
            queue = queues[wants] = Queue(wants)
        queue.push(job)
        self.touched_pools.add(job.pool)

    def view(self, state: State, run_id: str) -> RunView:
        """Return the parsed plan of a run, parsed once."""
        view = self.views.get(run_id)
        if view is None:
            view = self.views[run_id] = RunView(state.plans[run_id])
        return view

    def live_runners(self, state: State, pool: str) -> list[Runner]:
        """Return the pool's live runners in the order of their ids."""
        return [state.runners[runner_id] for runner_id in sorted(self.pools[pool].runners)]
