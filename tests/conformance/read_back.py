"""A run as the read models have it, in the form of `tailrace run-local --json`.

The two passes over the `runs` cases are compared by the same code, so that they can't be held to
different things. The read models keep no steps context: of a step with an id, its outcome and
conclusion are put together again from the step's row and the workflow's plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infra.cli.client import Client
from infra.cli.local.fold import JobView, RunView, run_json
from schemas.workflow.plan import JobPlan

#: What a step's row has of `steps.<id>`.
STEP_FIELDS = ("outcome", "conclusion")


def run_of(client: Client, run_id: str, plans: Mapping[str, JobPlan]) -> dict[str, Any]:
    """Return a completed run; `plans` are its workflow's own jobs by id."""
    found = client.get(f"/runs/{run_id}")
    rows = {row["job_id"]: row for row in found["jobs"]}
    run = view_of(found)
    for job_id, job in run.jobs.items():
        row = rows.get(job_id)
        if row is not None and row["attempts"]:
            job.log = list(_log(client, job_id, row["attempts"][-1]["attempt"]))
        if row is not None and job.key in plans:
            job.steps_context = steps_context(plans[job.key], row["steps"])
    return run_json(run)


def view_of(found: dict[str, Any]) -> RunView:
    """Return the run with its matrix jobs, which the read model shows as their legs alone."""
    run = RunView(
        found["run_id"], found["repository"], found["workflow"], found["workflow_name"] or "",
        found["event"], found["ref"], found["sha"], found["conclusion"] or "", found["reason"],
        found["problems"],
    )  # fmt: skip
    for row in found["jobs"]:
        above = row["matrix_of"]
        if above and above not in run.jobs:
            run.jobs[above] = JobView(above, row["key"], row["name"], is_matrix=True)
        run.jobs[row["job_id"]] = _view(row)
        if above:
            run.jobs[above].inside.append(row["job_id"])
    for job in run.jobs.values():
        caller = run.jobs.get((_matrix_of(run, job) or job.job_id).rpartition(".")[0])
        if caller is not None:
            job.caller = caller.job_id
            if not job.is_leg:
                caller.calls = True
                caller.inside.append(job.job_id)
    return run


def _view(row: dict[str, Any]) -> JobView:
    return JobView(
        row["job_id"],
        row["key"],
        row["name"],
        row["matrix"],
        is_leg=bool(row["matrix_of"]),
        attempt=row["live_attempt"] or 0,
        conclusion=row["conclusion"] or "",
        reason=row["reason"],
        message=row["message"] or "",
        started_at=row["started_at"] or 0,
        finished_at=row["finished_at"] or 0,
        outputs=row["outputs"],
        summary=row["summary"] or "",
        annotations=row["annotations"],
        steps=row["steps"],
    )


def _matrix_of(run: RunView, job: JobView) -> str:
    if not job.is_leg:
        return ""
    return next(each.job_id for each in run.jobs.values()
                if each.is_matrix and job.job_id in each.inside)  # fmt: skip


def steps_context(plan: JobPlan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the steps that have ids; pre and post steps of actions stand around the plan's."""
    actions = sum(step.uses is not None for step in plan.steps)
    spare = len(rows) - len(plan.steps)
    before = 0
    while before < min(actions, spare) and rows[before]["name"].startswith("Pre "):
        before += 1
    own = rows[before : before + len(plan.steps)]
    return {
        step.id: {field: row[field] for field in STEP_FIELDS}
        for step, row in zip(plan.steps, own, strict=False)
        if step.id
    }


def _log(client: Client, job_id: str, attempt: int) -> Iterator[dict[str, Any]]:
    for event in client.follow(f"/jobs/{job_id}/attempts/{attempt}/log/stream"):
        if event.event == "end":
            return
        if event.event == "lines":
            yield from event.json()["lines"]
