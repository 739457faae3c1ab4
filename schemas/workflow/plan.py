"""The compiled workflow as data: raw templates with source lines, nothing evaluated.

A template is a string with `${{ }}` parts, or a JSON-like value with such strings in it. What a
field may use when it is evaluated is in `contexts.AVAILABILITY`. The scheduler and the runner
evaluate; the plan travels between them as JSON (`plan_json`).
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal, TypeAlias

from schemas.late import dataclass
from schemas.workflow.expressions.values import Value

Template: TypeAlias = Value
InputType = Literal["string", "boolean", "number", "choice", "environment"]
Permissions: TypeAlias = "str | dict[str, str]"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPlan:
    """A typed input of workflow_dispatch or workflow_call; the default may be a template."""

    type: InputType = "string"
    description: str = ""
    required: bool = False
    default: Template = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPlan:
    """One event of `on:` with its filters; an empty tuple is a filter that is not given."""

    event: str
    types: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    branches_ignore: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tags_ignore: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    paths_ignore: tuple[str, ...] = ()
    workflows: tuple[str, ...] = ()
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePlan:
    """One cron schedule; the time zone None is UTC."""

    cron: str
    timezone: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """Everything under `on:`; `call_*` describe the workflow when another one calls it."""

    events: tuple[EventPlan, ...] = ()
    schedules: tuple[SchedulePlan, ...] = ()
    dispatch_inputs: dict[str, InputPlan] = field(default_factory=dict)
    call_inputs: dict[str, InputPlan] = field(default_factory=dict)
    call_secrets: dict[str, bool] = field(default_factory=dict)
    call_outputs: dict[str, str] = field(default_factory=dict)

    def event(self, name: str) -> EventPlan | None:
        """The configuration of an event, or None when it is not listed."""
        return next((event for event in self.events if event.event == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyPlan:
    """A concurrency group; `cancel_in_progress` is a boolean or a template."""

    group: str
    cancel_in_progress: Template = False
    queue: Literal["single", "max"] = "single"
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPlan:
    """A strategy; every value may be a template, `matrix` as a whole too.

    `whole` is set when one expression stands for the entire strategy; `strategy.resolve` does it.
    """

    whole: str | None = None
    matrix: Template = None
    fail_fast: Template = True
    max_parallel: Template = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """Our `retry:` extension: how often a failed job is tried again, and after which causes."""

    max: int
    backoff_seconds: float = 0
    on: tuple[str, ...] = ("failure",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsPlan:
    """`defaults.run`, those of the workflow and of the job taken together."""

    shell: str | None = None
    working_directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentPlan:
    """The deployment environment of a job."""

    name: str
    url: str | None = None
    deployment: Template = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """The called workflow behind a job with `uses`; its jobs are in the plan with `parent` set.

    `inputs` and `secrets` (name to required) are what it declares, `outputs` templates over the
    `jobs` context, `env` its own workflow-level variables.
    """

    path: str
    name: str = ""
    inputs: dict[str, InputPlan] = field(default_factory=dict)
    secrets: dict[str, bool] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    env: dict[str, Template] = field(default_factory=dict)
    concurrency: ConcurrencyPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step; exactly one of `run` and `uses` is set."""

    id: str
    name: str | None = None
    condition: str | None = None
    run: str | None = None
    uses: str | None = None
    with_: dict[str, Template] = field(default_factory=dict)
    env: dict[str, Template] = field(default_factory=dict)
    shell: str | None = None
    working_directory: str | None = None
    continue_on_error: Template = False
    timeout_minutes: Template = None
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """One job. A job of a called workflow has the id `caller.inner` and `parent` = `caller`."""

    id: str
    name: str | None = None
    needs: tuple[str, ...] = ()
    condition: str | None = None
    runs_on: Template = None
    env: dict[str, Template] = field(default_factory=dict)
    defaults_run: DefaultsPlan = field(default_factory=DefaultsPlan)
    outputs: dict[str, str] = field(default_factory=dict)
    steps: tuple[StepPlan, ...] = ()
    strategy: StrategyPlan | None = None
    timeout_minutes: Template = None
    continue_on_error: Template = False
    concurrency: ConcurrencyPlan | None = None
    permissions: Permissions | None = None
    environment: EnvironmentPlan | None = None
    container: Template = None
    services: dict[str, Template] = field(default_factory=dict)
    uses: str | None = None
    with_: dict[str, Template] = field(default_factory=dict)
    secrets: Literal["inherit"] | dict[str, Template] | None = None
    call: CallPlan | None = None
    parent: str | None = None
    retry: RetryPlan | None = None
    queue_timeout_minutes: float | None = None
    priority: int = 0
    pool: str | None = None
    line: int = 0

    @property
    def local_id(self) -> str:
        """The id inside its own workflow: what `needs` and `jobs` contexts are keyed by."""
        return self.id.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowPlan:
    """A workflow ready to be triggered and scheduled; jobs are in file order, callers first."""

    path: str
    name: str
    run_name: str | None = None
    on: Triggers = field(default_factory=Triggers)
    env: dict[str, Template] = field(default_factory=dict)
    concurrency: ConcurrencyPlan | None = None
    jobs: tuple[JobPlan, ...] = ()

    def job(self, job_id: str) -> JobPlan:
        """The job with an id; KeyError when there is none."""
        for job in self.jobs:
            if job.id == job_id:
                return job
        raise KeyError(job_id)

    def children(self, parent: str | None) -> tuple[JobPlan, ...]:
        """The jobs of the workflow itself (None) or of the one that a job calls."""
        return tuple(job for job in self.jobs if job.parent == parent)

    def ancestors(self, job_id: str) -> tuple[str, ...]:
        """All jobs that must end before this one, in plan order; what `JobScope` looks at."""
        by_id = {job.id: job for job in self.jobs}
        found: set[str] = set()
        waiting = list(by_id[job_id].needs)
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(by_id[current].needs)
        return tuple(job.id for job in self.jobs if job.id in found)

    def workflow_env(self, job: JobPlan) -> dict[str, Template]:
        """The workflow-level `env` that holds for a job: that of the file it is written in."""
        if job.parent is None:
            return self.env
        call = self.job(job.parent).call
        return call.env if call is not None else {}
