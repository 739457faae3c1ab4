"""JavaScript actions, run by the node of this machine: pre, main and post."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Mapping
from dataclasses import replace

from runner.actions import ActionContext, ActionError, Source
from runner.actions.inputs import input_values, input_variables
from runner.steps import Hook, StepEnd


class Javascript:
    """One use of a JavaScript action: its main stage."""

    def __init__(self, source: Source) -> None:
        """Run the main script of `source`."""
        self._source = source

    def run(self, context: ActionContext) -> StepEnd:
        """Run the main script; the post script is asked for whatever becomes of it."""
        source = self._source
        if source.plan.pre and not source.repository:
            context.say(
                f"##[warning]`pre` of {source.uses} is not run: an action of the workspace is "
                "there only after checkout"
            )
        inputs = input_values(context, source)
        end = Stage(source, source.plan.main, inputs).run(context)
        return replace(end, posts=post_hooks(source, inputs, context))


def post_hooks(
    source: Source, inputs: Mapping[str, str], context: ActionContext
) -> tuple[Hook, ...]:
    """Return what is to run after the job's steps."""
    if not source.plan.post:
        return ()
    step = context.step
    return (
        Hook(
            name=f"Post {step.name}",
            condition=source.plan.post_if,
            payload=Stage(source, source.plan.post, inputs),
            key=step.key,
            step_id=step.id,
            own=step.own,
        ),
    )


class Stage:
    """One script of an action."""

    def __init__(
        self,
        source: Source,
        script: str,
        inputs: Mapping[str, str] | None,
        *,
        given: Mapping[str, str] | None = None,
    ) -> None:
        """Run `script` of the action's folder; without `inputs`, with what was `given`."""
        self._source = source
        self._script = script
        self._inputs = inputs
        self._given = given or {}

    def run(self, context: ActionContext) -> StepEnd:
        """Run it."""
        source = self._source
        inputs = self._inputs
        if inputs is None:
            step = replace(context.step, inputs=self._given)
            inputs = input_values(replace(context, step=step), source)
        env = {
            **context.env,
            **input_variables(inputs),
            **{f"STATE_{name}": value for name, value in context.state.items()},
        }
        if source.repository:
            env["GITHUB_ACTION_REPOSITORY"] = source.repository
            env["GITHUB_ACTION_REF"] = source.ref
        command = context.command(
            argv=[_node(source, context), posixpath.join(source.folder, self._script)],
            env=env,
            cwd=str(context.folders.workspace),
        )
        return context.ended(context.run(command))


def _node(source: Source, context: ActionContext) -> str:
    """Return the node that runs it: of the job's container, where steps run in one."""
    inside = context.workplace.inside
    if inside is not None:
        if "node" in inside.programs:
            return "node"
        raise ActionError(
            f"{source.uses} needs Node.js, and the image of the job's container has no `node` on "
            "its PATH: choose an image that has it",
            "user.unsupported_action",
        )
    node = shutil.which("node", path=context.env.get("PATH"))
    if node is None:
        raise ActionError(
            f"{source.uses} needs Node.js, and there is no `node` on the job's PATH: install "
            "it on this machine, or choose a runner that has it",
            "user.unsupported_action",
        )
    return node
