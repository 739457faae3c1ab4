"""Runs one step that is ready: a script or an action, to the StepEnd that the machine takes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from runner.actions import ActionContext, ActionError, find
from runner.commands import Effects, StepCommands
from runner.environment import default_variables, file_variables, step_variables
from runner.executors import Command, Workplace
from runner.gateway_client import Clone, GatewayError
from runner.logs import LogPacker
from runner.masking import Masker
from runner.pump import Ending
from runner.reports import Reports
from runner.shells import ShellError, script_for
from runner.steps import Ready, StepEnd, StepMachine
from runner.tools import Tools
from schemas.events import Annotation
from schemas.lanes import Assignment
from schemas.workflow.expressions.values import Value

_SIGNAL_BASE = 128
_NAME_CHARACTERS_MAX = 1_000
_MINUTE_MS = 60_000


class StepRunner:
    """Runs the steps of one attempt, one after the other."""

    def __init__(
        self,
        assignment: Assignment,
        reports: Reports,
        tools: Tools,
        packer: LogPacker,
        workplace: Workplace,
        contexts: Mapping[str, Value],
        *,
        annotations: list[Annotation],
        summaries: list[str],
    ) -> None:
        """Run in `workplace`; remarks and summaries are added to the lists."""
        self._assignment = assignment
        self._reports = reports
        self._tools = tools
        self._packer = packer
        self._workplace = workplace
        self._contexts = contexts
        self._annotations = annotations
        self._summaries = summaries

    def run(self, step: Ready, machine: StepMachine) -> StepEnd:
        """Run a step. Failing is a StepEnd; AbandonedError and GuardLostError go through."""
        folders = self._workplace.folders
        files = folders.make_command_files(step.number)
        env = self._environment(step, machine, files)
        masker = self._packer.masker
        commands = StepCommands(masker, self._annotations, step=step.number, env=env)
        try:
            if step.run is not None:
                end = self._script(step, env, commands)
            else:
                end = self._action(step, env, commands)
        except ShellError as error:
            end = self._failed(step, str(error), "user.bad_shell")
        except ActionError as error:
            end = self._failed(step, str(error), error.reason)
        except GatewayError as error:
            end = self._failed(step, str(error), "infra.gateway")
        return self._with_effects(step, end, commands.effects(folders, files))

    def not_begun(self) -> StepEnd:
        """Return the end of a step for which no grace was left."""
        return StepEnd("cancelled", reason="cancel.grace_over")

    def interrupted(self, end: StepEnd) -> StepEnd:
        """Return the end of a step in whose middle the job was cancelled or ran out of time."""
        return replace(end, outcome="cancelled", reason="cancel.interrupted")

    # ----------------------------------------------------------------- scripts

    def _script(self, step: Ready, env: dict[str, str], commands: StepCommands) -> StepEnd:
        folders = self._workplace.folders
        text = step.run or ""
        script = script_for(text, step.shell, lambda name: _which(name, env["PATH"]))
        path = folders.files / f"step_{step.number}{script.suffix}"
        folders.write(path, script.text.encode("utf-8", "surrogateescape"))
        cwd = Path(folders.workspace, step.working_directory or "")
        self._say(step, f"##[group]{step.name}\n{text.rstrip()}\nshell: {script.shown}\n"
                        "##[endgroup]")  # fmt: skip
        command = Command(
            argv=script.command(str(path)),
            env=env,
            cwd=str(cwd),
            step=step.number,
            on_command=commands.on_command,
            timeout_ms=step.timeout_ms,
        )
        self._workplace.start(command)
        self._report_start(step)
        return self._ended(step, self._workplace.wait())

    def _ended(self, step: Ready, ending: Ending) -> StepEnd:
        code = ending.code if ending.code >= 0 else _SIGNAL_BASE - ending.code
        if ending.timed_out:
            minutes = (step.timeout_ms or 0) / _MINUTE_MS
            text = f"The step ran longer than its limit of {minutes:g} minutes and was ended."
            return self._failed(step, text, "user.step_timeout", code)
        if not ending.started:
            return self._failed(step, ending.message, "user.not_started", code)
        if ending.code < 0:
            name = _signal_name(-ending.code)
            return self._failed(step, f"Process was ended by {name}.", "user.signal", code)
        if ending.code > 0:
            text = f"Process completed with exit code {ending.code}."
            return self._failed(step, text, "user.exit_code", code)
        return StepEnd("success", exit_code=0)

    def _failed(self, step: Ready, text: str, reason: str, code: int | None = None) -> StepEnd:
        self._say(step, f"##[error]{text}")
        return StepEnd("failure", reason=reason, exit_code=code)

    # ----------------------------------------------------------------- actions

    def _action(self, step: Ready, env: dict[str, str], commands: StepCommands) -> StepEnd:
        self._report_start(step)
        uses = step.uses or ""
        context = self._action_context(step, env, commands)
        if step.post is not None:
            payload = step.post.payload
            if not isinstance(payload, tuple):
                raise ActionError(f"{step.name}: nothing to do")
            uses, own = payload
            return find(uses).post(context, own)
        shown = "".join(f"\n  {name}: {value}" for name, value in step.inputs.items())
        with_ = f"\nwith:{shown}" if shown else ""
        self._say(step, f"##[group]Run {uses}{with_}\n##[endgroup]")
        return find(uses).run(context)

    def _action_context(
        self, step: Ready, env: dict[str, str], commands: StepCommands
    ) -> ActionContext:
        def command(**given: object) -> Command:
            return Command(
                step=step.number,
                on_command=commands.on_command,
                timeout_ms=step.timeout_ms,
                **given,  # type: ignore[arg-type]
            )

        def run(wanted: Command) -> Ending:
            self._workplace.start(wanted)
            return self._workplace.wait()

        def clone(repository: str) -> Clone:
            found = self._tools.gateway.clone(self._assignment, repository)
            self._packer.masker.add(found.password)
            return found

        github = self._contexts["github"]
        return ActionContext(
            step=step,
            env=env,
            folders=self._workplace.folders,
            workplace=self._workplace,
            github=github if isinstance(github, dict) else {},
            masker=self._packer.masker,
            mirrors=self._tools.mirrors,
            clone=clone,
            say=lambda text: self._say(step, text),
            run=run,
            command=command,
        )

    # ----------------------------------------------------------------- around both

    def _environment(
        self, step: Ready, machine: StepMachine, files: Mapping[str, str]
    ) -> dict[str, str]:
        github, runner = self._contexts["github"], self._contexts["runner"]
        defaults = default_variables(
            github if isinstance(github, dict) else {},
            runner if isinstance(runner, dict) else {},
            action=step.id or "__run",
        )
        places = self._workplace.folders.places
        user = self._workplace.folders.user
        base = {
            **self._tools.environment,
            "HOME": places.home,
            "TMPDIR": places.tmp,
            **({} if user is None else {"USER": user.name, "LOGNAME": user.name}),
        }
        defaults |= file_variables(files)
        return step_variables(base, step.env, defaults, machine.paths)

    def _with_effects(self, step: Ready, end: StepEnd, effects: Effects) -> StepEnd:
        for text in effects.warnings:
            self._say(step, f"##[warning]{text}")
        outcome, reason = end.outcome, end.reason
        for text in effects.errors:
            self._say(step, f"##[error]{text}")
            if outcome == "success":
                outcome, reason = "failure", "user.bad_command"
        if effects.summary:
            self._summaries.append(effects.summary)
        return replace(
            end,
            outcome=outcome,
            reason=reason,
            outputs={**end.outputs, **effects.outputs},
            env={**end.env, **effects.env},
            paths=(*end.paths, *reversed(effects.paths)),
        )

    def _report_start(self, step: Ready) -> None:
        now_ms = self._tools.clock.now_ms()
        name = step_name(step.name, self._packer.masker)
        record = self._reports.step_started(now_ms, number=step.number, name=name)
        self._tools.spool.append(record)

    def _say(self, step: Ready, text: str) -> None:
        self._packer.say(self._tools.clock.now_ms(), step.number, text)


def step_name(name: str, masker: Masker) -> str:
    """Return a step's name as reports carry it: masked, then cut to size."""
    return masker.mask_text(name)[:_NAME_CHARACTERS_MAX]


def _which(program: str, path: str) -> bool:
    return shutil.which(program, path=path) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
