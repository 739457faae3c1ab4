"""Runs one step that is ready: a script or an action, to the StepEnd that the machine takes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from runner.actions import Action, ActionContext, ActionError, find
from runner.actions.composite import Composite
from runner.actions.javascript import Javascript, Stage
from runner.actions.local import read_below
from runner.actions.remote import Fetcher
from runner.commands import Effects, StepCommands
from runner.composite_machine import CompositeMachine
from runner.environment import (
    default_variables,
    file_contexts,
    file_variables,
    search_path,
    step_variables,
)
from runner.executors import Command, Inside, Workplace
from runner.executors.containers.job import JobContainers
from runner.executors.containers.place import HOME
from runner.gateway_client import Clone, GatewayError
from runner.logs import LogPacker
from runner.masking import Masker
from runner.matchers import JobMatchers
from runner.patience import Patience
from runner.pump import Ending
from runner.reports import Reports
from runner.shells import ShellError, script_for
from runner.steps import Ended, NotRun, Ready, StepEnd, StepMachine
from runner.tools import Tools
from schemas.events import Annotation
from schemas.lanes import Assignment

#: Actions whose processes are the job's: they run where its steps do.
JOBS_OWN = (Composite, Javascript, Stage)
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
        *,
        annotations: list[Annotation],
        summaries: list[str],
        look: Callable[[], bool],
        patience: Patience,
        containers: JobContainers | None = None,
    ) -> None:
        """Run in `workplace`; remarks and summaries are added to the lists.

        `look` takes orders that came for the job and says whether its grace is over.
        """
        self._assignment = assignment
        self._reports = reports
        self._tools = tools
        self._packer = packer
        self._workplace = workplace
        self._annotations = annotations
        self._summaries = summaries
        self._look = look
        self._patience = patience
        self._containers = containers
        self._serial = 0
        self._deadline_ms: int | None = None
        self._limit_ms = 0
        self._state: dict[str, dict[str, str]] = {}
        self._matchers = JobMatchers(
            packer.masker,
            workspace=str(workplace.folders.workspace),
            say=lambda text: packer.say(tools.clock.now_ms(), 0, text),
        )
        self._fetcher = Fetcher(
            tools.remote,
            workplace,
            say=lambda text: packer.say(tools.clock.now_ms(), 0, text),
            run=self._process,
            command=self._plain_command,
            has_engine=containers is not None,
        )

    def prepare(self, machine: StepMachine) -> None:
        """Bring the actions of other repositories. Raises ActionError."""
        machine.prepare(self._fetcher.hooks(machine))

    def close(self) -> None:
        """End what this has begun for itself."""
        self._packer.on_lines = None
        self._matchers.close()

    def _matcher_file(self, path: str) -> bytes | None:
        """Return a file that the job named, out of a folder that the job may fill."""
        folders = self._workplace.folders
        wanted = folders.workspace / path
        for root in (*folders.parts(), Path(folders.places.tool_cache)):
            data = read_below(root, wanted)
            if data is not None:
                return data
        return None

    def next_files(self) -> Mapping[str, str]:
        """Return what `github` says of the command files of the step that runs next."""
        return file_contexts(self._workplace.folders.command_files(self._serial + 1))

    def run(self, step: Ready, machine: StepMachine) -> StepEnd:
        """Run a step. Failing is a StepEnd; AbandonedError and GuardLostError go through."""
        if step.depth == 0:
            now_ms = self._tools.clock.steady_ms()
            self._limit_ms = step.timeout_ms or 0
            self._deadline_ms = now_ms + self._limit_ms if step.timeout_ms else None
        before = machine.root.interruption
        if self._look():
            return StepEnd("cancelled", reason="cancel.grace_over")
        end = self._run(step, machine)
        if machine.root.interruption is not None and before is None:
            return replace(end, outcome="cancelled", reason="cancel.interrupted")
        return end

    def _run(self, step: Ready, machine: StepMachine) -> StepEnd:
        folders = self._workplace.folders
        self._serial += 1
        serial = self._serial
        files = folders.make_command_files(serial)
        env = self._environment(step, machine, files, inside=self._workplace.inside)
        masker = self._packer.masker
        commands = StepCommands(
            masker, self._annotations, step=step.number, env=env, debug="RUNNER_DEBUG" in env,
            matchers=self._matchers, read_matcher=self._matcher_file,
        )  # fmt: skip
        self._packer.on_lines = commands.on_lines
        try:
            if step.run is not None:
                end = self._script(step, serial, env, commands, machine.root.paths)
            else:
                end = self._action(step, machine, serial, env, commands, files)
        except ShellError as error:
            end = self._failed(step, str(error), "user.bad_shell")
        except ActionError as error:
            end = self._failed(step, str(error), error.reason)
        except GatewayError as error:
            end = self._failed(step, str(error), "infra.gateway")
        return self._with_effects(step, end, commands.effects(folders, files))

    def _run_steps(self, machine: CompositeMachine) -> Ended:
        """Run the steps of a composite action, whose step is running."""
        while True:
            self._look()
            step = machine.next()
            if isinstance(step, Ended):
                return step
            if isinstance(step, NotRun):
                if step.message:
                    self._packer.say(
                        self._tools.clock.now_ms(), step.number, f"##[error]{step.message}"
                    )
            else:
                machine.finished(self.run(step, machine))

    # ----------------------------------------------------------------- scripts

    def _script(
        self,
        step: Ready,
        serial: int,
        env: dict[str, str],
        commands: StepCommands,
        added: tuple[str, ...],
    ) -> StepEnd:
        folders = self._workplace.folders
        text = step.run or ""
        # a PATH in `env:` is for what the script starts: its shell is found without it
        path_of_shells = search_path(self._base_environment().get("PATH", ""), added)
        inside = self._workplace.inside

        def has(program: str) -> bool:
            if inside is not None:
                return program in inside.programs
            return _which(program, path_of_shells)

        script = script_for(text, step.shell, has, in_container=inside is not None)
        path = folders.files / f"step_{serial}{script.suffix}"
        folders.write(path, script.text.encode("utf-8", "surrogateescape"))
        cwd = Path(folders.workspace, step.working_directory or "")  # one path inside and outside
        self._say(step, f"##[group]{step.name}\n{text.rstrip()}\nshell: {script.shown}\n"
                        "##[endgroup]")  # fmt: skip
        argv = script.command(str(path))
        if inside is None and env.get("PATH") != path_of_shells:
            argv[0] = shutil.which(argv[0], path=path_of_shells) or argv[0]
        command = Command(
            argv=argv,
            env=env,
            cwd=str(cwd),
            step=step.number,
            on_command=commands.on_command,
            timeout_ms=self._left_ms(),
        )
        self._workplace.start(command)
        self._report_start(step)
        return self._ended(step, self._workplace.wait())

    def _ended(self, step: Ready, ending: Ending) -> StepEnd:
        code = ending.code if ending.code >= 0 else _SIGNAL_BASE - ending.code
        if ending.timed_out:
            minutes = self._limit_ms / _MINUTE_MS
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

    def _action(
        self,
        step: Ready,
        machine: StepMachine,
        serial: int,
        env: dict[str, str],
        commands: StepCommands,
        files: Mapping[str, str],
    ) -> StepEnd:
        self._report_start(step)
        context = self._action_context(step, machine, serial, env, commands)
        if step.hook is not None:
            hook = cast("Action", step.hook.payload)
            return hook.run(self._for(hook, context, machine, files))
        uses = step.uses or ""
        shown = "".join(f"\n  {name}: {value}" for name, value in step.inputs.items())
        with_ = f"\nwith:{shown}" if shown else ""
        self._say(step, f"##[group]Run {uses}{with_}\n##[endgroup]")
        action = find(uses, context)
        return action.run(self._for(action, context, machine, files))

    def _for(
        self, action: Action, context: ActionContext, machine: StepMachine, files: Mapping[str, str]
    ) -> ActionContext:
        """Return the context with what the runner does by itself done on the machine."""
        if self._workplace.inside is None or isinstance(action, JOBS_OWN):
            return context
        step = context.step
        return replace(
            context,
            env=self._environment(step, machine, files, inside=None),
            command=lambda **given: context.command(**{"place": "machine", **given}),
        )

    def _action_context(
        self,
        step: Ready,
        machine: StepMachine,
        serial: int,
        env: dict[str, str],
        commands: StepCommands,
    ) -> ActionContext:
        def command(**given: Any) -> Command:
            return Command(
                step=step.number,
                on_command=commands.on_command,
                timeout_ms=self._left_ms(),
                **given,
            )

        def clone(repository: str) -> Clone:
            gateway, assignment = self._tools.gateway, self._assignment
            found = self._patience.ask(lambda: gateway.clone(assignment, repository))
            self._packer.masker.add(found.password)
            return found

        github = machine.contexts["github"]
        return ActionContext(
            step=step,
            serial=serial,
            env=env,
            bare_env=self._bare_environment(step, env),
            state=self._state.get(step.key, {}),
            machine=machine,
            folders=self._workplace.folders,
            workplace=self._workplace,
            github=github if isinstance(github, dict) else {},
            masker=self._packer.masker,
            mirrors=self._tools.mirrors,
            depot=self._tools.depot(self._assignment, self._patience_of(step, machine.root)),
            containers=self._containers,
            clone=clone,
            fetch=self._fetcher.source,
            check=lambda: self._check(machine.root),
            say=lambda text: self._say(step, text),
            run=self._process,
            ended=lambda ending: self._ended(step, ending),
            run_steps=self._run_steps,
            command=command,
        )

    def _patience_of(self, step: Ready, root: StepMachine) -> Patience:
        """Return the attempt's patience as a step has it: it ends with the step's time as well."""

        def given_up() -> bool:
            self._check(root)
            return False

        return replace(self._patience, say=lambda text: self._say(step, text), given_up=given_up)

    def _check(self, root: StepMachine) -> None:
        """End what the runner does itself in a step once its job or its time is over."""
        self._look()
        if root.interruption is not None:
            raise ActionError("the job is being ended", "cancel.interrupted")
        if self._deadline_ms is not None and self._left_ms() == 1:
            raise ActionError("the step ran longer than its limit", "user.step_timeout")

    def _process(self, wanted: Command) -> Ending:
        self._workplace.start(wanted)
        return self._workplace.wait()

    def _plain_command(self, **given: Any) -> Command:
        """Return a command of the job's set-up, before the first step."""
        folders = self._workplace.folders
        env = step_variables(self._base_environment(), {}, {}, ())
        return Command(
            step=0, on_command=lambda line: line, env=env, cwd=str(folders.workspace),
            place="machine", **given,
        )  # fmt: skip

    def _left_ms(self) -> int | None:
        """Return what is left of the step's limit, which is one for all that it does."""
        if self._deadline_ms is None:
            return None
        return max(1, self._deadline_ms - self._tools.clock.steady_ms())

    # ----------------------------------------------------------------- around both

    def _environment(
        self, step: Ready, machine: StepMachine, files: Mapping[str, str], *, inside: Inside | None
    ) -> dict[str, str]:
        github, runner = machine.contexts["github"], machine.contexts["runner"]
        defaults = default_variables(
            github if isinstance(github, dict) else {},
            runner if isinstance(runner, dict) else {},
            action=step.id or "__run",
        )
        defaults |= file_variables(files)
        base = self._base_environment() if inside is None else self._inside_environment(inside)
        return step_variables(base, step.env, defaults, machine.root.paths)

    def _bare_environment(self, step: Ready, env: Mapping[str, str]) -> dict[str, str]:
        """Return of a step's variables those that the machine and its folders did not add."""
        base = self._base_environment()
        return {k: v for k, v in env.items() if k in step.env or k not in base}

    def _inside_environment(self, inside: Inside) -> dict[str, str]:
        """Return what a step in the job's container has beside what the image says."""
        own = self._containers.env if self._containers is not None else {}
        return {"PATH": inside.path, **own, "HOME": HOME}

    def _base_environment(self) -> dict[str, str]:
        places = self._workplace.folders.places
        user = self._workplace.folders.user
        return {
            **self._tools.environment,
            "HOME": places.home,
            "TMPDIR": places.tmp,
            **({} if user is None else {"USER": user.name, "LOGNAME": user.name}),
        }

    def _with_effects(self, step: Ready, end: StepEnd, effects: Effects) -> StepEnd:
        for text in effects.warnings:
            self._say(step, f"##[warning]{text}")
        for text in effects.issues:
            self._say(step, f"##[error]{text}")
        if effects.state:
            self._state.setdefault(step.key, {}).update(effects.state)
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
        if step.depth > 0:
            return  # a step within a step is none of its own
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
