"""Which queued job goes to which runner, and why the others do not.

First come first served among the jobs that a free runner could take; ties go by runner id. A
pool's order of service is `_turn`: priorities and fair share belong there.

A job that needs a container engine waits as long as no runner with its labels is up, or as one
that has an engine is only away. Where runners with its labels are up and none of the pool's has
an engine it is refused, since nothing that it could wait for is under way.
"""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.core import orchestration
from scheduler.core.ids import about_job
from scheduler.core.index import Index, PoolIndex, Queue
from scheduler.core.outputs import Cause, Order, Output
from scheduler.core.state import Job, JobPhase, Runner, State
from schemas import events as e
from schemas.lanes import Assignment

ACCEPT_WITHIN_MS = 5_000
REFUSED = "user.unsupported_container"


def dispatch(state: State, index: Index, cause: Cause, cell: int) -> Iterator[Output]:
    """Refuse what no runner can do, assign what there is room for; say why the rest waits."""
    while (hopeless := _hopeless(state, index)) is not None:
        # one by one: what follows from a refusal may be queued in any pool
        yield from _refuse(state, index, hopeless, cause)
    touched = sorted(index.touched_pools)
    index.touched_pools.clear()
    for name in touched:
        pool = index.pools[name]
        runners = index.live_runners(state, name)
        while (found := _turn(state, pool, runners)) is not None:
            job, runner = found
            yield from _assign(state, index, job, runner, cause, cell)
        yield from _blocked(state, name, pool, runners, cause)
    index.touched_pools.clear()


def _hopeless(state: State, index: Index) -> Job | None:
    """Return a job that no runner can do, however long it waits."""
    for name in sorted(index.touched_pools):
        queues = index.pools[name].queues
        for queue in (queues[wants] for wants in sorted(queues) if wants[1]):
            job = queue.first(state)
            if job is None or not any(_serves(r, queue) for r in index.live_runners(state, name)):
                continue
            known = (runner for runner in state.runners if runner.pool == name)
            if not any(_serves(runner, queue) and _can(runner, queue) for runner in known):
                return job
    return None


def _serves(runner: Runner, queue: Queue) -> bool:
    return set(runner.labels).issuperset(queue.wants[0])


def _can(runner: Runner, queue: Queue) -> bool:
    return set(runner.capabilities).issuperset(queue.wants[1])


def _refuse(state: State, index: Index, job: Job, cause: Cause) -> Iterator[Output]:
    """End a job: no runner of its pool has what it needs."""
    run = state.runs[job.run_id]
    yield e.JobFailed(
        **about_job(e.JobFailed, run, job, cause),
        reason=REFUSED,
        message=(
            f"job {job.key!r} needs a container engine (`container`, `services` or a docker:// "
            f"step), and no runner of pool {job.pool} with the labels {', '.join(job.labels)} has "
            "one: install docker or podman on such a runner and start it again, or choose labels "
            "of a runner that has one"
        ),
    )
    yield from orchestration.after_end(state, index, run, job, cause)


def _turn(state: State, pool: PoolIndex, runners: list[Runner]) -> tuple[Job, Runner] | None:
    """Return the next job and its runner: the longest-waiting job that some free slot fits."""
    free = [runner for runner in runners if len(runner.leases) < runner.slots]
    if not free:
        return None
    best: tuple[Job, Runner] | None = None
    for wants in sorted(pool.queues):
        job = pool.queues[wants].first(state)
        if job is None or (best is not None and best[0].sequence <= job.sequence):
            continue
        runner = _runner_for(job, free)
        if runner is not None:
            best = (job, runner)
    return best


def _runner_for(job: Job, free: list[Runner]) -> Runner | None:
    """Return the free runner with most room, one that did not lose the job where there is one."""
    matching = [
        runner
        for runner in free
        if set(runner.labels).issuperset(job.labels)
        and set(runner.capabilities).issuperset(job.capabilities)
    ]
    if job.excluded:
        elsewhere = [r for r in matching if r.runner_id not in job.excluded]
        matching = elsewhere or matching
    if not matching:
        return None
    return min(matching, key=lambda r: (len(r.leases) - r.slots, r.runner_id))


def _assign(
    state: State, index: Index, job: Job, runner: Runner, cause: Cause, cell: int
) -> Iterator[Output]:
    run = state.runs[job.run_id]
    columns = about_job(e.JobAssigned, run, job, cause)
    columns["caused_by"] = job.last_event
    assigned = e.JobAssigned(
        **columns,
        runner_id=runner.runner_id,
        boot_id=runner.boot_id,
        pool=runner.pool,
        lane=runner.lane,
        accept_within_ms=ACCEPT_WITHIN_MS,
        environment=job.environment,
    )
    yield assigned
    view = index.view(state, run.run_id)
    plan = view.jobs[job.key]
    job_json, secrets = view.for_runner(job.key)
    yield Order(
        pool=runner.pool,
        lane=runner.lane,
        record=Assignment(
            order_id=assigned.event_id,
            runner_id=runner.runner_id,
            boot_id=runner.boot_id,
            job_id=job.job_id,
            attempt=job.attempt,
            repository=run.repository,
            run_id=run.run_id,
            delivery_id=run.delivery_id,
            name=job.name,
            job_json=job_json,
            contexts_json=view.contexts_json(state, run, job),
            secrets=secrets,
            secrets_allowed=not run.secrets_withheld,
            payload_uri=view.row.payload_uri,
            events_partition=cell,
            position=cause.offset,
            exclusive=plan.concurrency is not None or plan.environment is not None,
            timeout_ms=view.timeout_ms(state, run, job),
            accept_within_ms=ACCEPT_WITHIN_MS,
        ),
    )


def _blocked(
    state: State, name: str, pool: PoolIndex, runners: list[Runner], cause: Cause
) -> Iterator[Output]:
    """Say why queued jobs do not run, for each whose reason is a new one."""
    for wants in sorted(pool.queues):
        queue = pool.queues[wants]
        first = queue.first(state)
        if first is None:
            queue.fresh.clear()
            queue.blocked = ""
            continue
        reason, detail, blockers = _reason(name, queue, runners)
        waiting = queue.fresh
        if reason != queue.blocked:
            waiting = [job_id for _, job_id in sorted(queue.heap)]
        for job_id in waiting:
            job = state.jobs.get(job_id)
            if job is None or job.phase is not JobPhase.QUEUED or job.blocked == reason:
                continue
            run = state.runs[job.run_id]
            yield e.JobBlocked(
                **about_job(e.JobBlocked, run, job, cause, reason, cause.offset),
                reason=reason,
                detail=detail,
                blockers=blockers,
            )
        queue.fresh = []
        queue.blocked = reason


def _reason(name: str, queue: Queue, runners: list[Runner]) -> tuple[str, str, tuple[str, ...]]:
    labels = queue.wants[0]
    serving = [runner for runner in runners if _serves(runner, queue)]
    able = [runner for runner in serving if _can(runner, queue)]
    wanted = ", ".join(labels)
    if serving and not able:
        detail = f"the runners of pool {name} that have a container engine are away"
        return "no_engine", detail, labels
    if not able:
        detail = f"no runner of pool {name} is up" if not runners else (
            f"no runner of pool {name} has the labels {wanted}"
        )  # fmt: skip
        return "no_runner", detail, labels
    slots = sum(runner.slots for runner in able)
    return "pool_full", f"all {slots} slots of pool {name} for {wanted} are in use", ()
