"""A run's plan as the scheduler reads it: the parsed DAG, contexts and evaluated fields.

Derived from the `Plan` row and made once a run; everything here is a function of rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from scheduler.core import variables
from schemas import events as e
from schemas.ids import job_id
from schemas.variables import ENVIRONMENT_CHARACTERS_MAX
from schemas.workflow.contexts import ref_name, ref_type
from schemas.workflow.errors import LanguageError
from schemas.workflow.expressions import Value, evaluate_condition, evaluate_value, to_string
from schemas.workflow.expressions.values import to_number
from schemas.workflow.matrix import Leg, leg_name
from schemas.workflow.plan import JobPlan, StepPlan, WorkflowPlan
from schemas.workflow.plan_json import job_to_json, plan_from_json
from schemas.workflow.secrets import mentioned_contexts, repository_secret_names
from schemas.workflow.status import JobScope
from schemas.workflow.strategy import Strategy, resolve_strategy
from schemas.workflow.triggers import resolve_inputs

if TYPE_CHECKING:
    from scheduler.core.state import Job, Plan, Run, State

TIMEOUT_MINUTES_DEFAULT = 360
_MINUTE_MS = 60_000
PLANS_CACHED = 256
#: The `strategy` context of a job without a matrix.
_ALONE: dict[str, Value] = {
    "fail-fast": True, "job-index": 0, "job-total": 1, "max-parallel": 1,
}  # fmt: skip


def sibling(job: Job, key: str) -> str:
    """Return the id that a job of the same workflow has, beside this one.

    The jobs of a called workflow hang on their caller (`run.deploy.test`), so that each leg of a
    matrix of calls (`run.deploy.0.test`) has its own.
    """
    return job_id(job.caller or job.run_id, key.rpartition(".")[2])


def planned_jobs(plan: WorkflowPlan, caller: str | None, whole: str) -> tuple[e.PlannedJob, ...]:
    """Return the nodes of the workflow itself (None), or of the one that a job calls."""
    return tuple(
        e.PlannedJob(
            job_id=job_id(whole, job.local_id),
            key=job.id,
            name=job.name or job.local_id,
            needs=job.needs,
            matrix=_has_matrix(job),
            calls=job.call.path if job.call else "",
        )
        for job in plan.children(caller)
    )


def _has_matrix(job: JobPlan) -> bool:
    """Say whether a job becomes legs; a strategy that is one expression may hold a matrix."""
    strategy = job.strategy
    return strategy is not None and (strategy.matrix is not None or strategy.whole is not None)


class PlanView:
    """A parsed plan with what follows from it alone; runs of one workflow text share it."""

    def __init__(self, text: str) -> None:
        """Parse; raises PlanFormatError for a plan of another format."""
        self.plan: WorkflowPlan = plan_from_json(text)
        self.jobs: dict[str, JobPlan] = {job.id: job for job in self.plan.jobs}
        self.dependents: dict[str, list[str]] = {job.id: [] for job in self.plan.jobs}
        for job in self.plan.jobs:
            for need in job.needs:
                self.dependents[need].append(job.id)
        self.ancestors = {job.id: self.plan.ancestors(job.id) for job in self.plan.jobs}
        # what needs no context: most fields of most jobs, and contexts cost a parsed payload
        self.static = {
            (job.id, field)
            for job in self.plan.jobs
            for field in ("condition", "name", "runs_on", "strategy", "environment")
            if not _has_expression(getattr(job, field), field)
        }
        self._for_runner: dict[str, tuple[str, tuple[str, ...]]] = {}

    def for_runner(self, key: str) -> tuple[str, tuple[str, ...]]:
        """Return (the job as JSON, the names of the secrets it mentions), made once."""
        found = self._for_runner.get(key)
        if found is None:
            job = self.jobs[key]
            names = repository_secret_names(self.plan, job)
            found = self._for_runner[key] = job_to_json(job), names
        return found


def uses_image(step: StepPlan) -> bool:
    """Say whether a step runs an image whatever else happens."""
    return step.condition is None and (step.uses or "").startswith("docker://")


def _image_of(container: Value) -> Value:
    """Return a container's image template: what stands beside it may read secrets."""
    return container.get("image") if isinstance(container, dict) else container


def _images_of(services: Mapping[str, Value]) -> Value:
    return {name: _image_of(service) for name, service in services.items()}


def _has_expression(value: object, field: str) -> bool:
    if value is None:
        return False
    return field == "condition" or "${{" in repr(value)


@lru_cache(maxsize=PLANS_CACHED)
def plan_view(text: str) -> PlanView:
    """Return the view of a plan text; raises PlanFormatError."""
    return PlanView(text)


def outcome_context(event: str, sha: str, ref: str) -> dict[str, Value]:
    """Return the part of the `github` context that is each run's own."""
    return {
        "event_name": event,
        "sha": sha,
        "ref": ref,
        "ref_name": ref_name(ref),
        "ref_type": ref_type(ref),
    }


def run_context(run: Run, workflow_name: str, sha: str, ref: str) -> dict[str, Value]:
    """Return the part of the `github` context that names the run and its workflow."""
    return {
        "workflow": workflow_name,
        "workflow_ref": f"{run.repository}/{run.workflow}@{ref}",
        "workflow_sha": sha,
        "run_id": run.run_id,
        "run_number": str(run.run_number),
        "run_attempt": str(run.run_attempt),
    }


def event_json(
    payload_json: str | None, event: str, workflow: str, inputs_json: str | None
) -> str | None:
    """Return `github.event` of a run.

    A dispatch's has every input, as text and with defaults, and its workflow's path, however the
    workflow was named.
    """
    if event != "workflow_dispatch" or not payload_json or not inputs_json:
        return payload_json
    inputs = {name: to_string(value) for name, value in json.loads(inputs_json).items()}
    return _dumps({**json.loads(payload_json), "inputs": inputs, "workflow": workflow})


class RunView:
    """One run's plan with its contexts."""

    def __init__(self, row: Plan) -> None:
        """Look at a `Plan` row; raises PlanFormatError."""
        self.row = row
        shared = plan_view(row.plan_json)
        self.plan, self.jobs = shared.plan, shared.jobs
        self.dependents, self.ancestors = shared.dependents, shared.ancestors
        self._shared = shared
        self._github: dict[str, Value] | None = None
        self._inputs: dict[str, Value] = json.loads(row.inputs_json) if row.inputs_json else {}
        self._github_json = ""

    # ----------------------------------------------------------------- contexts

    def github(self, run: Run) -> dict[str, Value]:
        """Return the `github` context of the run's jobs; `event` is {} when it lies elsewhere."""
        if self._github is None:
            payload = self.row.payload_json
            event = json.loads(payload) if payload else {}
            self._github = {**self._github_base(run), "event": event}
        return self._github

    def _github_base(self, run: Run) -> dict[str, Value]:
        row = self.row
        return {
            # of the delivery's first event; a pull request is two, with a commit each
            **json.loads(row.github_json),
            **outcome_context(row.event, row.sha, row.ref),
            "secret_source": "None" if run.secrets_withheld else "Actions",
            **run_context(run, row.workflow_name, row.sha, row.ref),
        }

    def inputs(self, state: State, job: Job) -> dict[str, Value]:
        """Return the `inputs` context: those of the called workflow, or of the run."""
        caller = state.jobs.get(job.caller)
        if caller is None:
            return self._inputs
        inputs: dict[str, Value] = json.loads(caller.inputs_json or "{}")
        return inputs

    def contexts_for(self, field: str, state: State, run: Run, job: Job) -> dict[str, Value]:
        """Return what a field of a job may read: nothing when there is no expression in it."""
        if (job.key, field) in self._shared.static:
            return {}
        return self.contexts(state, run, job)

    def contexts(self, state: State, run: Run, job: Job) -> dict[str, Value]:
        """Return what a job's own fields may read."""
        return {"github": self.github(run), **self._own_contexts(state, run, job)}

    def _own_contexts(self, state: State, run: Run, job: Job) -> dict[str, Value]:
        contexts: dict[str, Value] = {
            "needs": self.needs(state, job),
            "vars": {**variables.of_job(state, run.repository)},
            "inputs": self.inputs(state, job),
        }
        if job.matrix_json is not None and job.parent is not None:
            contexts["matrix"] = json.loads(job.matrix_json)
            contexts["strategy"] = self.strategy(state, run, job)
        else:
            contexts["matrix"] = None
            contexts["strategy"] = dict(_ALONE)
        return contexts

    def needs(self, state: State, job: Job) -> dict[str, Value]:
        """Return the `needs` context: results and outputs of the direct needs."""
        found: dict[str, Value] = {}
        for key in self.jobs[job.key].needs:
            need = state.jobs[sibling(job, key)]
            outputs: dict[str, Value] = {**need.outputs}
            found[self.jobs[key].local_id] = {"result": need.result, "outputs": outputs}
        return found

    def strategy(self, state: State, run: Run, leg: Job) -> dict[str, Value]:
        """Return the `strategy` context of a leg."""
        strategy = self._strategy(state, run, leg)
        total = len(state.jobs[leg.parent].legs) if leg.parent in state.jobs.rows else 1
        return {
            "fail-fast": strategy.fail_fast,
            "job-index": leg.leg,
            "job-total": total,
            "max-parallel": strategy.max_parallel or total,
        }

    # ----------------------------------------------------------------- conditions and fields

    def holds(self, state: State, run: Run, job: Job) -> bool:
        """Say whether the job's `if` holds now; raises LanguageError."""
        results = {
            self.jobs[key].local_id: state.jobs[sibling(job, key)].result
            for key in self.ancestors[job.key]
        }
        cancelled = bool(run.cancel or job.cancel)
        return evaluate_condition(
            self.jobs[job.key].condition,
            self.contexts_for("condition", state, run, job),
            JobScope(results, cancelled_run=cancelled),
        )

    def name(self, state: State, run: Run, job: Job) -> str:
        """Return the job's name for people; a name that can't be evaluated is left as written."""
        plan = self.jobs[job.key]
        raw = plan.name or plan.local_id
        try:
            name = to_string(evaluate_value(raw, self.contexts_for("name", state, run, job)))
        except LanguageError:
            name = raw
        caller = state.jobs.get(job.caller)
        if caller is None:
            return name
        # a leg was named when it was made; other callers are never queued, so have no name yet
        outer = caller.name if caller.parent is not None else self.name(state, run, caller)
        return f"{outer} / {name}"

    def leg_name(self, state: State, run: Run, leg: Job, values: Leg) -> str:
        """Return a leg's name: a name with an expression as it comes out, else with the values."""
        plan = self.jobs[leg.key]
        name = self.name(state, run, leg)
        return name if _has_expression(plan.name, "name") else leg_name(name, values)

    def legs(self, state: State, run: Run, job: Job) -> tuple[Leg, ...] | None:
        """Return the legs of a matrix job, None for a job without; raises LanguageError."""
        plan = self.jobs[job.key].strategy
        legs = resolve_strategy(plan, self.contexts_for("strategy", state, run, job)).legs
        made = tuple(leg for leg in legs if leg is not None)
        return made or None

    def _strategy(self, state: State, run: Run, job: Job) -> Strategy:
        """Return the strategy of a job whose legs exist; it was valid when they were made."""
        matrix = state.jobs.get(job.parent) or job
        try:
            contexts = self.contexts_for("strategy", state, run, matrix)
            return resolve_strategy(self.jobs[job.key].strategy, contexts)
        except LanguageError:
            return Strategy()

    def fail_fast(self, state: State, run: Run, job: Job) -> bool:
        """Say whether a failed leg cancels the others (GitHub: by default it does)."""
        return self._strategy(state, run, job).fail_fast

    def max_parallel(self, state: State, run: Run, job: Job) -> int | None:
        """Return how many legs may be queued or running at once; None for no limit."""
        return self._strategy(state, run, job).max_parallel

    def tolerates_failure(self, state: State, run: Run, job: Job) -> bool:
        """Say whether the job's `continue-on-error` holds."""
        plan = self.jobs[job.key]
        return self._field(state, run, job, plan.continue_on_error, default=False) is True

    def timeout_ms(self, state: State, run: Run, job: Job) -> int:
        """Return the job's time-out; GitHub's default is 360 minutes."""
        plan = self.jobs[job.key]
        value = self._field(state, run, job, plan.timeout_minutes)
        minutes = to_number(value) if value is not None else 0.0
        # a variable's value is a text: "20" is meant as 20; what is no number is as if not written
        if not 0 < minutes < float("inf"):
            minutes = TIMEOUT_MINUTES_DEFAULT
        return int(minutes * _MINUTE_MS)

    def _field(
        self, state: State, run: Run, job: Job, template: Value, *, default: Value = None
    ) -> Value:
        """Evaluate a field outside the moment in which a mistake in it can fail the job."""
        if isinstance(template, str) and "${{" in template:
            try:
                return evaluate_value(template, self.contexts(state, run, job))
            except LanguageError:
                return default
        return default if template is None else template

    def runs_on(self, state: State, run: Run, job: Job) -> tuple[str | None, tuple[str, ...]]:
        """Return (pool asked for by `group`, lower-case labels); raises LanguageError."""
        plan = self.jobs[job.key]
        value = evaluate_value(plan.runs_on, self.contexts_for("runs_on", state, run, job))
        pool = plan.pool
        if isinstance(value, dict):
            group = value.get("group")
            pool = to_string(group).lower() if group else pool
            value = value.get("labels") or []
        labels = value if isinstance(value, list) else [value]
        return pool, tuple(sorted({to_string(label).lower() for label in labels if label}))

    def capabilities(self, state: State, run: Run, job: Job) -> tuple[str, ...]:
        """Return what the job's runner must be able to do; raises LanguageError.

        An image that comes out empty asks for no container, as on GitHub. A `docker://` step with
        an `if` may never run: it fails when it does on a runner without an engine.
        """
        plan = self.jobs[job.key]
        if any(uses_image(step) for step in plan.steps):
            return (e.CONTAINERS,)
        if plan.container is None and not plan.services:
            return ()
        contexts = self.contexts_for("images", state, run, job)
        container = evaluate_value(_image_of(plan.container), contexts)
        services = evaluate_value(_images_of(plan.services), contexts)
        images = [container, *(services.values() if isinstance(services, dict) else ())]
        return (e.CONTAINERS,) if any(to_string(image).strip() for image in images) else ()

    def environment(self, state: State, run: Run, job: Job) -> str:
        """Return the job's deployment environment, "" for none; raises LanguageError."""
        plan = self.jobs[job.key].environment
        if plan is None:
            return ""
        contexts = self.contexts_for("environment", state, run, job)
        name = to_string(evaluate_value(plan.name, contexts)).strip()
        if len(name) > ENVIRONMENT_CHARACTERS_MAX:
            raise LanguageError(
                f"the name of its environment has {len(name)} characters; "
                f"{ENVIRONMENT_CHARACTERS_MAX} are allowed"
            )
        return name

    def call_inputs(self, state: State, run: Run, job: Job) -> dict[str, Value]:
        """Return the typed inputs that a calling job hands over; raises LanguageError."""
        plan = self.jobs[job.key]
        contexts = self.contexts(state, run, job)
        given = evaluate_value({**plan.with_}, contexts)
        declared = plan.call.inputs if plan.call else {}
        defaults = {"github": contexts["github"], "inputs": contexts["inputs"],
                    "vars": contexts["vars"]}  # fmt: skip
        evaluated = {
            name: replace(spec, default=evaluate_value(spec.default, defaults))
            for name, spec in declared.items()
        }
        inputs, problems = resolve_inputs(evaluated, given if isinstance(given, dict) else {})
        if problems:
            raise LanguageError(f"calling {plan.uses}: {'; '.join(problems)}")
        return inputs

    def call_outputs(self, state: State, run: Run, caller: Job) -> dict[str, str]:
        """Return the outputs of a called workflow; one that can't be evaluated is empty."""
        call = self.jobs[caller.key].call
        if call is None:
            return {}
        jobs: dict[str, Value] = {}
        for inner_id in caller.called:
            inner = state.jobs[inner_id]
            outputs: dict[str, Value] = {**inner.outputs}
            jobs[self.jobs[inner.key].local_id] = {"result": inner.result, "outputs": outputs}
        contexts: dict[str, Value] = {
            "github": self.github(run),
            "jobs": jobs,
            "inputs": json.loads(caller.inputs_json or "{}"),
            "vars": {**variables.of_job(state, run.repository)},
        }
        found: dict[str, str] = {}
        for name, template in call.outputs.items():
            try:
                found[name] = to_string(evaluate_value(template, contexts))
            except LanguageError:
                found[name] = ""
        return found

    # ----------------------------------------------------------------- what a runner gets

    def for_runner(self, key: str) -> tuple[str, tuple[str, ...]]:
        """Return (the job as JSON, the names of the secrets it mentions)."""
        return self._shared.for_runner(key)

    def contexts_json(self, state: State, run: Run, job: Job) -> str:
        """Return the runner's contexts; the github part is written once a run."""
        if not self._github_json:
            # the payload goes in as the text that it came as: parsing it costs more than the rest
            base = _dumps({**self._github_base(run), "event": None})
            payload = self.row.payload_json or "{}"
            self._github_json = f"{base.removesuffix('null}')}{payload}}}"
        contexts: dict[str, Any] = self._own_contexts(state, run, job)
        if job.environment:
            # an environment's come with its job: what decides about the job can't read them
            contexts["vars"] = variables.of_job(state, run.repository, job.environment)
        contexts["env"] = self.plan.workflow_env(self.jobs[job.key])
        contexts["secret_maps"] = self._secret_maps(state, run, job)
        return f'{{"github":{self._github_json},{_dumps(contexts)[1:]}'

    def _secret_maps(self, state: State, run: Run, job: Job) -> list[Value]:
        """Return how callers hand secrets on, the nearest first; see `secrets_inside`."""
        maps: list[Value] = []
        caller = state.jobs.get(job.caller)
        while caller is not None:
            given = self.jobs[caller.key].secrets
            if isinstance(given, str):
                maps.append(given)
            else:
                values: Value = {**(given or {})}
                read = mentioned_contexts(values) - {"secrets", "github"}
                known = self._own_contexts(state, run, caller) if read else {}
                contexts: Value = {name: known.get(name) for name in sorted(read)}
                maps.append({"values": values, "contexts": contexts})
            caller = state.jobs.get(caller.caller)
        return maps


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
