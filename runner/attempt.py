"""One attempt on one slot, from the folders to JobFinished; runs in the slot's own thread.

The order of the end is fixed: every process is dead, the log's last batch is acknowledged, then
JobFinished is appended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import threading
from pathlib import Path
from typing import Any

from infra.metrics import JOBS_RUN, LOG_LINES
from runner.actions import ActionError, brings_steps
from runner.environment import github_context, runner_context
from runner.executors.containers.job import JobContainers
from runner.executors.containers.options import OptionError
from runner.executors.containers.place import ContainerSetupError
from runner.executors.containers.setup import (
    bring_up,
    containers_for,
    take_down,
    workplace_for,
)
from runner.executors.host import HostWorkplace
from runner.folders import JobFolders, Seat
from runner.gateway_client import GatewayError, Released
from runner.guards import Guard, GuardLostError
from runner.hashing import hash_files
from runner.logs import Batch, LogPacker
from runner.masking import Masker
from runner.patience import Patience
from runner.pump import AbandonedError, Ladder, Pump
from runner.reports import JobReport, Reports, StepReport
from runner.step_runner import StepRunner, step_name
from runner.steps import (
    Ended,
    Interruption,
    NotRun,
    OutputsTooLargeError,
    Ready,
    StepMachine,
)
from runner.tools import Tools
from schemas.events import Annotation, Conclusion, RunningAttempt
from schemas.lanes import Assignment, CancelOrder
from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError, LanguageError
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import JobPlan
from schemas.workflow.plan_json import job_from_json
from schemas.workflow.secrets import TOKEN_SECRET, reads_token, secrets_inside

logger = logging.getLogger(__name__)

TIMEOUT_GRACE_MS = 10_000
#: What `always()` and `cancelled()` steps have in all once a job is being ended, as on GitHub.
CLEANUP_MS = 300_000
SUMMARY_CHARACTERS_MAX = 1 << 20
STEP_DEBUG = "ACTIONS_STEP_DEBUG"
_MESSAGE_CHARACTERS_MAX = 2_000
_ACK_TURN_S = 0.5
_STRATEGY: dict[str, Value] = {
    "fail-fast": True, "job-index": 0.0, "job-total": 1.0, "max-parallel": 1.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stop:
    """The attempt must end this instant; `report` says whether JobFinished is still wanted."""

    reason: str
    report: bool


class CannotRunError(Exception):
    """The job can't be run here; the message says why, `reason` is its code."""

    def __init__(self, message: str, reason: str) -> None:
        """Fail the job with `reason`."""
        super().__init__(message)
        self.reason = reason


class Attempt:
    """One attempt. `run` is the slot's; `cancel` and `stop` may come from any thread."""

    def __init__(
        self, assignment: Assignment, reports: Reports, tools: Tools, *, started_ms: int
    ) -> None:
        """Take an accepted assignment; its JobStarted was appended at `started_ms`."""
        self.assignment = assignment
        self.key = (assignment.job_id or "", assignment.attempt or 0)
        self._reports = reports
        self._tools = tools
        self._started_ms = started_ms
        self._deadline_ms = tools.clock.steady_ms() + assignment.timeout_ms
        self._stop: Stop | None = None
        self._order: CancelOrder | None = None
        self._ladder: Ladder | None = None
        self._pump: Pump | None = None
        self._machine: StepMachine | None = None
        self._masker = Masker()
        self._packer = LogPacker(self._masker, self._ship)
        self._annotations: list[Annotation] = []
        self._summaries: list[str] = []
        self._unacked = 0
        self._acked = threading.Condition()
        self._patience = Patience(clock=tools.clock, say=self._say, given_up=self._is_ending)

    def running(self) -> RunningAttempt:
        """Return what heartbeats say of it."""
        return RunningAttempt(job_id=self.key[0], attempt=self.key[1])

    # ----------------------------------------------------------------- orders, from any thread

    def cancel(self, order: CancelOrder) -> None:
        """End the attempt with grace; the first order counts."""
        if self._order is None:
            self._order = order
            self._wake()

    def stop(self, reason: str, *, report: bool) -> None:
        """Kill the attempt now."""
        if self._stop is None:
            self._stop = Stop(reason, report)
            self._wake()
            with self._acked:
                self._acked.notify_all()

    def _wake(self) -> None:
        pump = self._pump
        if pump is not None:
            pump.wake()

    def _interrupted(self, now_ms: int) -> Ladder | None:
        """Return the ladder of the whole job once it is being ended; see `Pump`."""
        if self._stop is not None:
            raise AbandonedError(self._stop.reason)
        if self._ladder is None:
            if self._order is not None:
                reason = self._order.reason or "cancel.requested"
                self._interrupt(now_ms, self._order.grace_ms, Conclusion.CANCELLED, reason)
            elif now_ms >= self._deadline_ms:
                self._interrupt(now_ms, TIMEOUT_GRACE_MS, Conclusion.TIMED_OUT, "user.job_timeout")
        return self._ladder

    def _interrupt(self, now_ms: int, grace_ms: int, conclusion: Conclusion, reason: str) -> None:
        self._ladder = Ladder(now_ms, grace_ms, cleanup_ms=CLEANUP_MS)
        if self._machine is not None:
            self._machine.interrupt(Interruption(conclusion, reason))
        words = "is over its time limit" if conclusion is Conclusion.TIMED_OUT else "was cancelled"
        self._say(f"##[error]The job {words}.")

    # ----------------------------------------------------------------- the attempt

    def run(self, guard: Guard, seat: Seat) -> None:
        """Run the job to its end and report it; never raises."""
        ended, message = Ended(Conclusion.FAILURE, "infra.runner_error"), ""
        outputs: dict[str, str] = {}
        try:
            ended, message, outputs = self._job(guard, seat)
        except AbandonedError as error:
            ended = Ended(Conclusion.FAILURE, str(error))
        except GuardLostError as error:
            ended, message = Ended(Conclusion.FAILURE, "infra.guard_lost"), str(error)
        except Exception as error:  # the slot must live on, and the scheduler must hear
            logger.exception("attempt failed in the runner", extra=self._fields())
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "infra.disk_full" if full else "infra.runner_error"
            ended, message = Ended(Conclusion.FAILURE, reason), f"{type(error).__name__}: {error}"
        if message:
            self._say(f"##[error]{message}")
        self._finish(ended, message, outputs)

    def _job(self, guard: Guard, seat: Seat) -> tuple[Ended, str, dict[str, str]]:
        assignment, tools = self.assignment, self._tools
        try:
            plan = job_from_json(assignment.job_json)
            contexts: dict[str, Any] = json.loads(assignment.contexts_json)
            _check(plan, has_engine=self._tools.engine is not None)
        except CannotRunError as error:
            return Ended(Conclusion.FAILURE, error.reason), str(error), {}
        except (LanguageError, ValueError) as error:
            return Ended(Conclusion.FAILURE, "infra.bad_assignment"), str(error), {}
        folders = seat.take(assignment.repository)
        pump = self._pump = Pump(
            guard, self._packer, tools.clock,
            accepts=tools.spool.accepts, interrupted=self._interrupted,
            deadline_ms=self._deadline_ms,
        )  # fmt: skip
        try:
            workplace = workplace_for(plan, tools.engine, seat, folders, guard, pump)
        except ContainerSetupError as error:
            pump.close()
            seat.give_back(folders)
            return Ended(Conclusion.FAILURE, error.reason), str(error), {}
        containers = containers_for(
            tools.engine, workplace,
            mark=tools.identity.mark,
            key=f"{assignment.job_id}@{assignment.attempt}:{assignment.boot_id}",
            clock=tools.clock, say=self._say, is_ending=self._is_ending,
        )  # fmt: skip
        try:
            return self._steps(plan, contexts, workplace, containers)
        finally:
            self._pump = None
            take_down(workplace, containers)
            workplace.close()

    def _steps(
        self,
        plan: JobPlan,
        given: dict[str, Any],
        workplace: HostWorkplace,
        containers: JobContainers | None,
    ) -> tuple[Ended, str, dict[str, str]]:
        try:
            job: dict[str, Value] = {}
            contexts = {**self._contexts(plan, given, workplace.folders), "job": job}
            machine = self._machine = StepMachine(
                plan,
                contexts,
                env=given.get("env") or {},
                hash_files=lambda patterns: hash_files(workplace.folders.workspace, patterns),
            )
        except ExpressionError as error:
            return Ended(Conclusion.FAILURE, "user.bad_expression"), f"env or secrets: {error}", {}
        except GatewayError as error:
            return Ended(Conclusion.FAILURE, "infra.gateway"), str(error), {}
        runner = StepRunner(
            self.assignment, self._reports, self._tools, self._packer, workplace,
            annotations=self._annotations, summaries=self._summaries, look=self._look,
            patience=self._patience, containers=containers,
        )  # fmt: skip
        machine.next_files = runner.next_files
        with contextlib.closing(runner):
            try:
                job.update(bring_up(plan, machine, workplace, containers))
                runner.prepare(machine)
            except (ActionError, ContainerSetupError) as error:
                return self._not_set_up(machine, error.reason, str(error))
            except OptionError as error:
                return self._not_set_up(machine, "user.unsupported_option", str(error))
            except ExpressionError as error:
                return self._not_set_up(machine, "user.bad_expression", f"containers: {error}")
            while not isinstance(step := self._next(machine), Ended):
                if isinstance(step, NotRun):
                    self._not_run(step)
                else:
                    self._run_step(machine, runner, step)
            if self._tools.on_steps is not None:
                self._tools.on_steps(self.assignment, _masked(machine.steps, self._masker))
            take_down(workplace, containers)
            for pid, name in workplace.sweep():
                self._say(f"Ended process {pid} ({name}), which a step had left running")
        return self._concluded(machine, step)

    def _not_set_up(
        self, machine: StepMachine, reason: str, message: str
    ) -> tuple[Ended, str, dict[str, str]]:
        """Return how a job ends that has no place for its steps; a cancelled one is just that."""
        interruption = machine.interruption
        if interruption is not None:
            return Ended(interruption.conclusion, interruption.reason), "", {}
        return Ended(Conclusion.FAILURE, reason), message, {}

    def _next(self, machine: StepMachine) -> Ready | NotRun | Ended:
        self._look()
        return machine.next()

    def _look(self) -> bool:
        """Take orders that came; says whether the time for cleaning up is over too."""
        now_ms = self._tools.clock.steady_ms()
        ladder = self._interrupted(now_ms)
        return ladder is not None and now_ms >= ladder.over_ms()

    def _is_ending(self) -> bool:
        """Take orders that came; says whether the job is being ended."""
        return self._look() or self._ladder is not None

    def _run_step(self, machine: StepMachine, runner: StepRunner, step: Ready) -> None:
        clock = self._tools.clock
        began_ms, first_line = clock.now_ms(), self._packer.lines
        end = runner.run(step, machine)
        conclusion = machine.finished(end)
        ended_ms = clock.now_ms()
        report = StepReport(
            number=step.number,
            name=step_name(step.name, self._masker),
            outcome=end.outcome,
            conclusion=conclusion,
            exit_code=end.exit_code,
            started_at=began_ms,
            finished_at=ended_ms,
            first_line=first_line,
            lines=self._packer.lines - first_line,
            reason=end.reason,
            groups=self._packer.groups.ended(step.number, self._packer.lines),
        )
        self._tools.spool.append(self._reports.step_finished(ended_ms, report))

    def _not_run(self, step: NotRun) -> None:
        now_ms, first_line = self._tools.clock.now_ms(), self._packer.lines
        if step.message:
            self._packer.say(now_ms, step.number, f"##[error]{step.message}")
        report = StepReport(
            number=step.number,
            name=step_name(step.name, self._masker),
            outcome=step.outcome,
            conclusion=step.conclusion,
            started_at=now_ms,
            finished_at=now_ms,
            first_line=first_line,
            lines=self._packer.lines - first_line,
            reason="user.bad_expression" if step.message else "",
        )
        self._tools.spool.append(self._reports.step_finished(now_ms, report))

    def _concluded(self, machine: StepMachine, ended: Ended) -> tuple[Ended, str, dict[str, str]]:
        try:
            outputs = machine.outputs()
        except OutputsTooLargeError as error:
            return Ended(Conclusion.FAILURE, "user.outputs_too_large"), str(error), {}
        except ExpressionError as error:
            return Ended(Conclusion.FAILURE, "user.bad_expression"), f"outputs: {error}", {}
        for name in [name for name, text in outputs.items() if self._masker.contains(text)]:
            del outputs[name]
            self._say(
                f"##[warning]Output '{name}' is left out: it may contain a secret, and what jobs "
                "pass to each other is not secret"
            )
        return ended, "", outputs

    # ----------------------------------------------------------------- what the steps may read

    def _contexts(
        self, plan: JobPlan, given: dict[str, Any], folders: JobFolders
    ) -> dict[str, Value]:
        places = folders.places
        released = self._secrets(plan, given)
        payload = self._event(given)
        folders.write(Path(places.event_path), payload)
        token = released.get(TOKEN_SECRET, "")
        github = github_context(
            given.get("github") or {}, job_id=plan.local_id, places=places,
            facts=self._tools.facts, token=token,
        )  # fmt: skip
        common: dict[str, Value] = {
            "github": github,
            "needs": given.get("needs") or {},
            "matrix": given.get("matrix"),
            "strategy": given.get("strategy") or _STRATEGY,
            "inputs": given.get("inputs") or {},
            "vars": given.get("vars") or {},
        }
        return {
            **common,
            "secrets": self._inside(released, given, common["github"]),
            "runner": runner_context(
                self._tools.facts, places, debug=_wants_debug(released, given)
            ),
        }

    def _secrets(self, plan: JobPlan, given: dict[str, Any]) -> dict[str, str]:
        """Fetch the secrets that the job mentions, and mask them before anything can print one.

        An action that is not built in may take the token by itself: as an input's default, or in
        a step of its own.
        """
        assignment, tools = self.assignment, self._tools
        names = dict.fromkeys(assignment.secrets)
        if reads_token(plan, given.get("env"), given.get("secret_maps")):
            names[TOKEN_SECRET] = None
        is_needed = bool(names)
        if any(step.uses and brings_steps(step.uses) for step in plan.steps):
            names[TOKEN_SECRET] = None
        if not names or not assignment.secrets_allowed:
            return {}
        names[STEP_DEBUG] = None

        def ask() -> Released:
            return tools.gateway.secrets(assignment, names)

        try:  # a token that nobody has asked for is not waited for
            released = self._patience.ask(ask) if is_needed else ask()
        except GatewayError as error:
            if is_needed:
                raise
            self._say(f"##[warning]Actions get no token: {error}")
            return {}
        # "true" is no secret: masking it would blank half of the log
        self._masker.add(*(v for name, v in released.secrets.items() if name != STEP_DEBUG))
        for name, why in sorted(released.refused.items()):
            # a repository without a forge has no token, and needs none
            if name not in (TOKEN_SECRET, STEP_DEBUG):
                self._say(f"##[warning]Secret {name} is not available: {why}")
        return released.secrets

    def _inside(
        self, released: dict[str, str], given: dict[str, Any], github: Value
    ) -> dict[str, Value]:
        """Return the `secrets` context: in a called workflow what its callers hand on, masked."""
        found = secrets_inside(released, given.get("secret_maps") or (), github)
        # a caller may have put a secret together from several, or written one into its file
        self._masker.add(*found.values())
        return dict(found)

    def _event(self, given: dict[str, Any]) -> bytes:
        """Return the webhook's payload; one that was too big for its event comes from the gateway.

        It then becomes `github.event` too.
        """
        uri = self.assignment.payload_uri
        if uri:
            sha256 = uri.rpartition("/")[2].partition(".")[0]
            gateway, assignment = self._tools.gateway, self.assignment
            payload = self._patience.ask(lambda: gateway.payload(assignment, sha256))
            try:
                given.setdefault("github", {})["event"] = json.loads(payload)
            except ValueError as error:
                raise GatewayError(f"the event's payload is damaged: {error}") from error
            return payload
        event = (given.get("github") or {}).get("event") or {}
        return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace")

    # ----------------------------------------------------------------- the end

    def _finish(self, ended: Ended, message: str, outputs: dict[str, str]) -> None:
        if self._stop is not None and not self._stop.report:
            self._packer.flush(self._tools.clock.now_ms())
            return
        now_ms = self._tools.clock.now_ms()
        total = (self._packer.lines, self._packer.digest.hexdigest())
        self._append_log(
            self._reports.log_batch(now_ms, self._packer.take(), last=True, total=total)
        )
        summary = self._masker.mask_text("\n".join(self._summaries))[:SUMMARY_CHARACTERS_MAX]
        report = JobReport(
            conclusion=ended.conclusion,
            reason=ended.reason,
            message=self._masker.mask_text(message)[:_MESSAGE_CHARACTERS_MAX],
            outputs=outputs,
            started_at=self._started_ms,
            finished_at=now_ms,
            log_lines=total[0],
            log_sha256=total[1],
            summary=summary,
            annotations=tuple(self._annotations),
        )
        if not self._wait_for_log(report):
            return
        self._tools.spool.append(self._reports.finished(self._tools.clock.now_ms(), report))
        self._tools.meters.count(JOBS_RUN, ended.conclusion)
        self._tools.meters.count(LOG_LINES, by=total[0])

    def _wait_for_log(self, report: JobReport) -> bool:
        """Wait until every batch is durable; False when the attempt was taken away meanwhile.

        During an outage the report is promised, so that it survives this process.
        """
        promised = False
        with self._acked:
            while self._unacked:
                if self._stop is not None and not self._stop.report:
                    return False
                if not self._acked.wait(_ACK_TURN_S) and not promised:
                    record = self._reports.finished(self._tools.clock.now_ms(), report)
                    promised = self._tools.spool.promise(record)
        return True

    def _ship(self, batch: Batch) -> None:
        self._append_log(self._reports.log_batch(self._tools.clock.now_ms(), batch))

    def _append_log(self, record: Any) -> None:
        with self._acked:
            self._unacked += 1
        self._tools.spool.append(record, self._log_acked)

    def _log_acked(self) -> None:
        with self._acked:
            self._unacked -= 1
            if not self._unacked:
                self._acked.notify_all()

    def _say(self, text: str) -> None:
        with contextlib.suppress(ValueError):
            self._packer.say(self._tools.clock.now_ms(), 0, text)

    def _fields(self) -> dict[str, object]:
        return {
            "run_id": self.assignment.run_id,
            "job_id": self.key[0],
            "attempt": self.key[1],
            "repository": self.assignment.repository,
        }


def _wants_debug(released: dict[str, str], given: dict[str, Any]) -> bool:
    """Say whether debug lines are shown: as on GitHub by a secret or a variable of that name."""
    asked = released.get(STEP_DEBUG) or (given.get("vars") or {}).get(STEP_DEBUG)
    return str(asked or "").strip().lower() == "true"


def _masked(value: Value, masker: Masker) -> Any:
    """Return a value with every text in it masked."""
    if isinstance(value, str):
        return masker.mask_text(value)
    if isinstance(value, dict):
        return {key: _masked(item, masker) for key, item in value.items()}
    return [_masked(item, masker) for item in value] if isinstance(value, list) else value


def _check(plan: JobPlan, *, has_engine: bool) -> None:
    """Refuse what this runner can't do. Raises CannotRunError."""
    if (plan.container is not None or plan.services) and not has_engine:
        raise CannotRunError(
            f"job {plan.id!r} wants containers (`container` or `services`), and this runner has "
            "no container engine: give it labels of a runner that has one",
            "user.unsupported_container",
        )
