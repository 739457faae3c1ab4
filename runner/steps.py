"""The step machine of one job: which step runs next, with what, and what the job comes to. Pure.

It is told what happened (`finished`, `interrupt`) and asked what to do (`next`); it starts nothing
and reads no clock. Contexts are GitHub's; what the runner alone knows of them (folders, the job's
own state) is given when the machine is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Literal

from schemas.events import Conclusion
from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions import evaluate_condition, evaluate_template, evaluate_value
from schemas.workflow.expressions.values import Value, to_number, to_string, truthy
from schemas.workflow.plan import JobPlan, StepPlan
from schemas.workflow.status import (
    JobStatus,
    StatusScope,
    StepResult,
    StepScope,
    conclude_step,
    status_after,
)

OUTPUT_BYTES_MAX = 64 * 1024
_HIDDEN = "__"  # ids that the plan made up are in no context
_MINUTE_MS = 60_000

HashFiles = Callable[[list[str]], str]
NextFiles = Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Hook:
    """What an action wants run before the job's steps, or after them: the last one runs first.

    `payload` is the action's own, the machine only carries it; `key` and `step_id` are those of
    the step whose hook it is, `own` the variables of that step alone.
    """

    name: str
    condition: str = "always()"
    payload: object = None
    key: str = ""
    step_id: str = ""
    own: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """A step to run now, with everything evaluated; one of `run`, `uses` and `hook` is set.

    `env` is all that workflow, job and step say, `own` what the step (and the actions around it)
    say alone. `key` tells steps apart, those inside composite actions too, which have their
    caller's `number` and a `depth` above 0.
    """

    number: int
    id: str
    name: str
    run: str | None = None
    uses: str | None = None
    shell: str | None = None
    working_directory: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    continue_on_error: bool = False
    timeout_ms: int | None = None
    hook: Hook | None = None
    own: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class NotRun:
    """A step that does not run: skipped by its condition, or failed because it can't be read."""

    number: int
    id: str
    name: str
    outcome: StepResult
    conclusion: StepResult
    message: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """Every step is behind: the job's conclusion and the reason beside it."""

    conclusion: Conclusion
    reason: str = ""


Next = Ready | NotRun | Ended


@dataclass(frozen=True, slots=True)
class StepEnd:
    """What became of a step that ran; `env` and `paths` hold from the next step on."""

    outcome: StepResult
    reason: str = ""
    exit_code: int | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    posts: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why the job is being ended from outside; decides its conclusion whatever the steps do."""

    conclusion: Conclusion
    reason: str


class OutputsTooLargeError(Exception):
    """A job's outputs are over the limit; write less to GITHUB_OUTPUT, or use an artifact."""


Phase = Literal["pre", "main", "post"]


class StepMachine:
    """Goes through the steps of one job."""

    def __init__(
        self,
        job: JobPlan,
        contexts: Mapping[str, Value],
        *,
        env: Mapping[str, Value] | None = None,
        hash_files: HashFiles | None = None,
    ) -> None:
        """Begin before the first step.

        `contexts` holds github, needs, matrix, strategy, inputs, vars, secrets, runner and job;
        `env` is the workflow's, the job's comes after it. Raises ExpressionError when either
        can't be evaluated.
        """
        self.job = job
        self.root: StepMachine = self
        self.overlay: dict[str, str] = {}
        self.status: JobStatus | None = None
        self.reason = ""
        self.interruption: Interruption | None = None
        self.steps: dict[str, Value] = {}
        self.paths: tuple[str, ...] = ()
        self.hash_files = hash_files
        #: Says where the step that comes next finds its command files.
        self.next_files: NextFiles | None = None
        self._contexts: dict[str, Value] = {**contexts, "steps": self.steps}
        self.env: dict[str, str] = {}
        for variables in (env or {}, job.env):
            self.env.update(self._variables(variables, scope={**contexts, "env": {**self.env}}))
        defaults = job.defaults_run
        scope: dict[str, Value] = {**contexts, "env": {**self.env}}
        self._default_shell = _optional(defaults.shell, scope)
        self._default_directory = _optional(defaults.working_directory, scope)
        self._pres: list[Hook] = []
        self.posts: list[Hook] = []
        self._phase: Phase = "pre"
        self._index = 0
        self._number = 0
        self._running: Ready | None = None
        self._key = ""
        self._depth = 0
        self._step_number = 1
        self._of_step: dict[str, Value] = {}

    @property
    def contexts(self) -> Mapping[str, Value]:
        """The contexts of the step that runs, without `env`."""
        found = self._scope({})
        del found["env"]
        return found

    # ----------------------------------------------------------------- what to do

    def next(self) -> Next:
        """Return the next step to run or to pass over, or the end."""
        if self._running is not None:
            raise RuntimeError("the step before has not finished")
        if self._phase == "pre":
            if self._pres:
                self._number += 1
                return self._hook_step(self._pres.pop(0))
            self._phase = "main"
        if self._phase == "main":
            if self._index < len(self.job.steps):
                step = self.job.steps[self._index]
                self._index += 1
                self._number += self._step_number
                return self._main_step(step)
            self._phase = "post"
        if self.posts:
            self._number += 1
            return self._hook_step(self.posts.pop())
        return self._end()

    def prepare(self, hooks: Sequence[Hook]) -> None:
        """Run these before the first step."""
        self._pres.extend(hooks)

    def _main_step(self, step: StepPlan) -> Next:
        now = self._variables_now()
        self._begin(step.id)
        contexts = self._scope(dict(now))
        shown = display_name(step)
        try:
            # The step's own variables come first: its condition may read them.
            own = self._variables(step.env, scope=contexts)
            contexts = self._scope({**now, **own})
            if not evaluate_condition(
                step.condition, contexts, self._status_scope(), hash_files=self.hash_files
            ):
                self._record(step.id, "skipped", "skipped", {})
                return NotRun(self._number, step.id, shown, "skipped", "skipped")
        except ExpressionError as error:
            return self._unreadable(step, shown, error, continue_on_error=False)
        continue_on_error = False
        try:
            shown = self._text(step.name, contexts) if step.name else shown
            continue_on_error = truthy(self._value(step.continue_on_error, contexts))
            ready = self._ready(step, shown, own, contexts, continue_on_error=continue_on_error)
        except ExpressionError as error:
            return self._unreadable(step, shown, error, continue_on_error=continue_on_error)
        self._running = ready
        return ready

    def _ready(
        self,
        step: StepPlan,
        name: str,
        own: dict[str, str],
        contexts: Mapping[str, Value],
        *,
        continue_on_error: bool,
    ) -> Ready:
        is_script = step.run is not None
        shell = self._text(step.shell, contexts) if step.shell else self._default_shell
        directory = (
            self._text(step.working_directory, contexts)
            if step.working_directory
            else self._default_directory
        )
        return Ready(
            number=self._number,
            id=step.id,
            name=name,
            run=self._text(step.run, contexts) if step.run is not None else None,
            uses=step.uses,
            shell=shell if is_script else None,
            working_directory=directory if is_script else None,
            env={**self._variables_now(), **own},
            inputs=self._variables(step.with_, scope=contexts),
            continue_on_error=continue_on_error,
            timeout_ms=self._timeout_ms(step.timeout_minutes, contexts),
            own={**self.overlay, **own},
            key=f"{self._key}{self._index - 1}",
            depth=self._depth,
        )

    def _hook_step(self, hook: Hook) -> Next:
        env = {**self.env, **hook.own}
        self._begin(hook.step_id)
        try:
            holds = evaluate_condition(
                hook.condition,
                self._scope(dict(env)),
                StepScope(self.status),
                hash_files=self.hash_files,
            )
        except ExpressionError as error:
            self._conclude("failure", reason="user.bad_expression")
            return NotRun(self._number, "", hook.name, "failure", "failure", str(error))
        if not holds:
            return NotRun(self._number, "", hook.name, "skipped", "skipped")
        self._running = Ready(
            number=self._number,
            id=hook.step_id,
            name=hook.name,
            env=env,
            own=hook.own,
            hook=hook,
            key=hook.key,
        )
        return self._running

    # ----------------------------------------------------------------- what happened

    def finished(self, end: StepEnd) -> StepResult:
        """Take how the running step ended; returns its conclusion."""
        step = self._running
        if step is None:
            raise RuntimeError("no step is running")
        self._running = None
        root = self.root
        root.env.update(end.env)
        for path in end.paths:
            root.paths = (path, *(kept for kept in root.paths if kept != path))
        root.posts.extend(end.posts)
        conclusion = conclude_step(end.outcome, continue_on_error=step.continue_on_error)
        if step.hook is None:
            self._record(step.id, end.outcome, conclusion, end.outputs)
        self._conclude(conclusion, reason=end.reason)
        return conclusion

    def interrupt(self, interruption: Interruption) -> None:
        """The job is being cancelled or its time is over: from now on `cancelled()` holds."""
        if self.interruption is None:
            self.interruption = interruption
        self.status = "cancelled"

    def outputs(self) -> dict[str, str]:
        """Return the job's outputs. Raises ExpressionError or OutputsTooLargeError."""
        contexts = self._scope(dict(self.env))
        found = {name: self._text(text, contexts) for name, text in self.job.outputs.items()}
        size = sum(len(name.encode()) + len(text.encode()) for name, text in found.items())
        if size > OUTPUT_BYTES_MAX:
            raise OutputsTooLargeError(
                f"the outputs of the job are {size} bytes together, the limit is "
                f"{OUTPUT_BYTES_MAX}: pass less, or pass it in an artifact"
            )
        return {name: text for name, text in found.items() if text}

    def evaluate(self, text: str) -> str:
        """Return a template of the job evaluated as it stands now."""
        return self._text(text, self._scope(dict(self.env)))

    # ----------------------------------------------------------------- inside

    def _end(self) -> Ended:
        interruption = self.root.interruption
        if interruption is not None:
            return Ended(interruption.conclusion, interruption.reason)
        conclusion = Conclusion(self.status or "success")
        return Ended(conclusion, "" if conclusion is Conclusion.SUCCESS else self.reason)

    def _unreadable(
        self, step: StepPlan, name: str, error: ExpressionError, *, continue_on_error: bool
    ) -> NotRun:
        conclusion = conclude_step("failure", continue_on_error=continue_on_error)
        self._record(step.id, "failure", conclusion, {})
        self._conclude(conclusion, reason="user.bad_expression")
        return NotRun(
            self._number, step.id, name, "failure", conclusion, f"line {step.line}: {error}"
        )

    def _record(
        self, step_id: str, outcome: StepResult, conclusion: StepResult, outputs: Mapping[str, str]
    ) -> None:
        if not step_id.startswith(_HIDDEN):
            shown: dict[str, Value] = dict(outputs)
            self.steps[step_id] = {
                "outputs": shown,
                "outcome": outcome,
                "conclusion": conclusion,
            }

    def _conclude(self, conclusion: StepResult, *, reason: str) -> None:
        before = self.status
        self.status = status_after(self.status, conclusion)
        if self.status not in (before, "success"):
            self.reason = reason

    def _variables_now(self) -> dict[str, str]:
        return {**self.root.env, **self.overlay}

    def _status_scope(self) -> StatusScope:
        return StepScope(self.status)

    def _begin(self, step_id: str) -> None:
        """Let `github` say what is the step's own: its name, and where its command files lie."""
        files = self.root.next_files() if self.root.next_files is not None else {}
        self._of_step = {"action": step_id, **files}

    def _scope(self, env: dict[str, Value]) -> dict[str, Value]:
        job, github = self._contexts.get("job"), self._contexts.get("github")
        status = self.root.status or "success"
        now: Value = {**(job if isinstance(job, dict) else {}), "status": status}
        here: Value = {**(github if isinstance(github, dict) else {}), **self._of_step}
        return {**self._contexts, "github": here, "env": env, "job": now}

    def _text(self, template: str, contexts: Mapping[str, Value]) -> str:
        return evaluate_template(template, contexts, hash_files=self.hash_files)

    def _value(self, template: Value, contexts: Mapping[str, Value]) -> Value:
        return evaluate_value(template, contexts, hash_files=self.hash_files)

    def _variables(
        self, variables: Mapping[str, Value], *, scope: Mapping[str, Value]
    ) -> dict[str, str]:
        found = self._value({**variables}, scope)  # as a whole: an entry may be `${{ insert }}`
        return {n: to_string(v) for n, v in (found if isinstance(found, dict) else {}).items()}

    def _timeout_ms(self, minutes: Value, contexts: Mapping[str, Value]) -> int | None:
        if minutes is None:
            return None
        number = to_number(self._value(minutes, contexts))
        return int(number * _MINUTE_MS) if 0 < number < float("inf") else None


def _optional(template: str | None, contexts: Mapping[str, Value]) -> str | None:
    return evaluate_template(template, contexts) if template else None


def display_name(step: StepPlan) -> str:
    """Return a step's name when it has none of its own, as GitHub shows it."""
    if step.name:
        return step.name
    if step.uses:
        return f"Run {step.uses}"
    first = next((line.strip() for line in (step.run or "").splitlines() if line.strip()), "")
    return f"Run {first}"
