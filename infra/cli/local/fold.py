"""What a local run came to: a fold of its events, and its JSON. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, field
from typing import Any

from schemas import events as e
from schemas.ids import job_id as job_id_of
from schemas.late import dataclass

#: Why a job waits when all that it waits for is other jobs.
_PASSES = frozenset({"needs", "max_parallel", "pool_full"})
_SEVERITY = ("failure", "timed_out", "cancelled", "success", "skipped")


@dataclass(slots=True)
class JobView:
    """A job, a matrix job, a leg or a caller; the last two have their jobs in `inside`."""

    job_id: str
    key: str
    name: str
    matrix: Any = None
    inside: list[str] = field(default_factory=list)
    is_matrix: bool = False
    is_leg: bool = False
    calls: bool = False
    caller: str = ""
    attempt: int = 0
    conclusion: str = ""
    reason: str = ""
    message: str = ""
    started_at: int = 0
    finished_at: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    annotations: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    steps_context: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def local_id(self) -> str:
        """The id in its own workflow file."""
        return self.key.rpartition(".")[2]


@dataclass(slots=True)
class RunView:
    """A run; `jobs` are all of its jobs by id, in the order in which they came to be."""

    run_id: str
    repository: str
    workflow: str
    name: str
    event: str
    ref: str
    sha: str
    conclusion: str = ""
    reason: str = ""
    problems: list[dict[str, Any]] = field(default_factory=list)
    jobs: dict[str, JobView] = field(default_factory=dict)

    def conclusion_of(self, job: JobView) -> str:
        """Return a job's conclusion: its own, else what its legs or called jobs come to."""
        if job.conclusion or not job.inside:
            return job.conclusion
        found = {self.conclusion_of(self.jobs[inner]) for inner in job.inside}
        if "" in found:
            return ""
        return next((word for word in _SEVERITY if word in found), "")

    def top(self) -> list[JobView]:
        """Return the jobs of the workflow itself; a matrix job stands for its legs."""
        return [job for job in self.jobs.values() if not job.caller and not job.is_leg]

    def working(self) -> list[JobView]:
        """Return the jobs that a runner gets: no matrix job, no caller."""
        return [job for job in self.jobs.values() if not job.is_matrix and not job.inside]


@dataclass(slots=True)
class Outcome:
    """Every run of the delivery, and why the other workflows did not run."""

    runs: dict[str, RunView] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    handled: bool = False

    def over(self) -> bool:
        """Say whether nothing more is to come."""
        return self.handled and all(run.conclusion for run in self.runs.values())

    def conclusion(self) -> str:
        """Return what all runs together come to; "" when there is none."""
        found = {run.conclusion for run in self.runs.values()}
        return next((word for word in _SEVERITY if word in found), "")

    def job(self, job_id: str | None) -> JobView | None:
        """Return a job of any run."""
        run = self.runs.get((job_id or "").split(".", 1)[0])
        return run.jobs.get(job_id or "") if run is not None else None

    # ----------------------------------------------------------------- the fold

    def evolve(self, event: e.Event) -> None:
        """Take the next event."""
        match event:
            case e.DeliveryIgnored():
                self.handled = True
                self.ignored.append(event.detail or event.reason)
            case e.RunPlanned() | e.RunRejected():
                self.handled = True
                self._begun(event)
            case e.RunFinished():
                run = self.runs[event.run_id or ""]
                run.conclusion, run.reason = event.conclusion, event.reason
            case e.MatrixExpanded() | e.WorkflowCalled():
                self._grown(event)
            case _:
                job = self.job(event.job_id)
                if job is not None:
                    _of_job(job, event)
                    if isinstance(event, e.JobBlocked) and event.reason not in _PASSES:
                        self.waiting[job.job_id] = event.detail or event.reason
                    elif isinstance(event, e.JobAssigned):
                        self.waiting.pop(job.job_id, None)

    def _begun(self, event: e.RunPlanned | e.RunRejected) -> None:
        run = RunView(
            event.run_id or "", event.repository, event.workflow, event.workflow_name,
            event.event, event.ref, event.sha,
        )  # fmt: skip
        self.runs[run.run_id] = run
        if isinstance(event, e.RunRejected):
            run.conclusion, run.reason = e.Conclusion.FAILURE, event.reason
            run.problems = [asdict(problem) for problem in event.problems]
        else:
            _add(run, event.jobs, "")

    def _grown(self, event: e.MatrixExpanded | e.WorkflowCalled) -> None:
        run = self.runs[event.run_id or ""]
        parent = run.jobs[event.job_id or ""]
        if isinstance(event, e.WorkflowCalled):
            parent.calls = True
            parent.inside = [job.job_id for job in event.jobs]
            _add(run, event.jobs, parent.job_id)
            return
        parent.is_matrix = True
        for leg in event.legs:
            matrix = json.loads(leg.matrix_json)
            run.jobs[leg.job_id] = JobView(
                leg.job_id, parent.key, leg.name, matrix, is_leg=True, caller=parent.caller
            )
            parent.inside.append(leg.job_id)


def _add(run: RunView, jobs: tuple[e.PlannedJob, ...], caller: str) -> None:
    for job in jobs:
        run.jobs[job.job_id] = JobView(job.job_id, job.key, job.name, caller=caller)


def _of_job(job: JobView, event: e.Event) -> None:
    match event:
        case e.JobScheduled():
            job.name = event.name or job.name
            if (event.attempt or 0) > 1:
                job.steps.clear()
                job.conclusion = job.reason = job.message = ""
            job.attempt = event.attempt or 0
        case e.JobStarted():
            job.started_at = event.occurred_at
        case e.StepFinished():
            job.steps.append(
                {
                    "number": event.number, "name": event.name, "outcome": event.outcome,
                    "conclusion": event.conclusion, "exit_code": event.exit_code,
                    "reason": event.reason, "started_at": event.started_at,
                    "finished_at": event.finished_at,
                }
            )  # fmt: skip
        case e.JobFinished():
            job.conclusion, job.reason, job.message = event.conclusion, event.reason, event.message
            job.finished_at, job.outputs, job.summary = (
                event.finished_at, dict(event.outputs), event.summary,
            )  # fmt: skip
            job.annotations = [asdict(annotation) for annotation in event.annotations]
        case e.JobSkipped():
            job.conclusion, job.reason = e.Conclusion.SKIPPED, event.reason
        case e.JobCancelled():
            job.conclusion, job.reason = e.Conclusion.CANCELLED, event.reason
        case e.JobFailed():
            job.conclusion, job.reason = e.Conclusion.FAILURE, event.reason
            job.message = event.message
        case _:
            pass


# --------------------------------------------------------------------------- as JSON


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return `{conclusion, runs, ignored}`, as `tailrace run-local --json` prints it."""
    return {
        "conclusion": outcome.conclusion() or None,
        "runs": [run_json(run) for run in outcome.runs.values()],
        "ignored": outcome.ignored,
    }


def run_json(run: RunView) -> dict[str, Any]:
    """Return a run with its conclusions by job, its legs, its called jobs and all of its jobs."""
    legs = [job for job in run.jobs.values() if job.is_leg and not job.caller]
    called: dict[str, dict[str, str]] = {}
    for job in run.jobs.values():
        if job.caller and not job.is_leg:
            inner = called.setdefault(run.jobs[job.caller].key, {})
            inner[job.local_id] = run.conclusion_of(job)
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "name": run.name,
        "event": run.event,
        "ref": run.ref,
        "sha": run.sha,
        "conclusion": run.conclusion,
        "reason": run.reason,
        "problems": run.problems,
        "job_conclusions": {job.key: run.conclusion_of(job) for job in run.top()},
        "matrix_legs": [
            {"job": job.key, "matrix": job.matrix, "conclusion": run.conclusion_of(job)}
            for job in legs
        ],
        "called_workflow_jobs": called,
        "steps_context": {
            _place(job): job.steps_context for job in run.working() if job.steps_context
        },
        "jobs": [_job_json(run, job) for job in run.working()],
    }


def _place(job: JobView) -> str:
    """Return a job's id without its run's: `test`, of a leg `test.0`."""
    return job.job_id.removeprefix(job_id_of(job.job_id.split(".", 1)[0], ""))


def _job_json(run: RunView, job: JobView) -> dict[str, Any]:
    return {
        "job": job.key,
        "job_id": job.job_id,
        "name": job.name,
        "matrix": job.matrix,
        "conclusion": run.conclusion_of(job),
        "reason": job.reason,
        "message": job.message,
        "attempt": job.attempt,
        "started_at": job.started_at or None,
        "finished_at": job.finished_at or None,
        "outputs": job.outputs,
        "summary": job.summary,
        "annotations": job.annotations,
        "steps": job.steps,
        "log": job.log,
    }
