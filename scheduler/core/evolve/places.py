"""Runners, pools and repositories as they were announced, and deadlines that passed."""

from __future__ import annotations

from scheduler.core import deadlines, known, variables
from scheduler.core.evolve.jobs import arm_for
from scheduler.core.index import Index
from scheduler.core.state import Pool, Repository, Runner, State
from schemas import events as e

WITHDRAW_DEADLINE_MS = 15_000


def runner_joined(state: State, index: Index, event: e.RunnerJoined) -> None:
    runner_id = event.runner_id or ""
    known = state.runners.get(runner_id)
    if known is not None and known.boot_id == event.boot_id:
        return
    if known is not None:
        index.pools[known.pool].runners.discard(runner_id)
    state.runners.put(
        runner_id,
        Runner(
            runner_id=runner_id,
            boot_id=event.boot_id or "",
            pool=event.pool,
            labels=tuple(sorted(label.lower() for label in event.labels)),
            slots=event.slots,
            lane=event.lane,
            name=event.name or runner_id,
            capabilities=tuple(sorted(event.capabilities)),
        ),
    )
    index.pools[event.pool].runners.add(runner_id)
    index.touched_pools.add(event.pool)


def runner_gone(state: State, index: Index, event: e.RunnerLost | e.RunnerDismissed) -> None:
    runner = state.runners.get(event.runner_id)
    if runner is None or runner.boot_id != event.boot_id:
        return
    runner.live = False
    state.runners.put(runner.runner_id, runner)
    index.pools[runner.pool].runners.discard(runner.runner_id)
    index.touched_pools.add(runner.pool)


def repository_configured(state: State, _: Index, event: e.RepositoryConfigured) -> None:
    row = state.repositories.get(event.repository) or Repository(name=event.repository)
    row.provider, row.clone_url = event.provider, event.clone_url
    row.default_branch, row.pools = event.default_branch, event.pools
    row.fork_pull_requests, row.fork_secrets = event.fork_pull_requests, event.fork_secrets
    row.removed = False
    state.repositories.put(event.repository, row)
    variables.were_configured(state, event)


def repository_removed(state: State, _: Index, event: e.RepositoryRemoved) -> None:
    row = state.repositories.get(event.repository)
    if row is not None:
        row.removed = True
        state.repositories.put(row.name, row)
        known.forgotten(state, row.name)


def workflows_indexed(state: State, _: Index, event: e.WorkflowsIndexed) -> None:
    known.indexed(state, event)


def variable_set(state: State, _: Index, event: e.VariableSet) -> None:
    variables.was_set(state, event)


def variable_removed(state: State, _: Index, event: e.VariableRemoved) -> None:
    variables.was_removed(state, event)


def pool_configured(state: State, index: Index, event: e.PoolConfigured) -> None:
    labels = tuple(sorted(label.lower() for label in event.labels))
    state.pools.put(event.pool, Pool(name=event.pool, labels=labels))
    index.touched_pools.add(event.pool)


def deadline_passed(state: State, _: Index, event: e.DeadlinePassed) -> None:
    armed = state.armed.get(event.deadline_id)
    if armed is None:
        return
    state.disarm(event.deadline_id)
    if deadlines.kind(event.deadline_id) == deadlines.CRON:
        known.ticked(state, armed, event.occurred_at)
        return
    job = state.jobs.get(armed.subject)
    if job is not None and deadlines.kind(event.deadline_id) == deadlines.ACCEPT:
        arm_for(state, job, deadlines.withdraw, WITHDRAW_DEADLINE_MS)
