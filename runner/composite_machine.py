"""The step machine of a composite action: a step that has steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runner.steps import Ready, StepMachine
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import JobPlan, StepPlan
from schemas.workflow.status import CompositeScope, StatusScope


class CompositeMachine(StepMachine):
    """Goes through the steps of a composite action, which is itself the step of a machine.

    Variables, paths and post steps are the job's; steps, inputs and status are the action's own.
    """

    def __init__(
        self,
        parent: StepMachine,
        caller: Ready,
        steps: tuple[StepPlan, ...],
        contexts: Mapping[str, Value],
    ) -> None:
        """Begin before the first step; `caller` is the step that uses the action."""
        job = JobPlan(id=caller.id, steps=steps)
        super().__init__(job, contexts, hash_files=parent.hash_files)
        self.root = parent.root
        self.overlay = dict(caller.own)
        self._number = caller.number
        self._step_number = 0
        self._depth = caller.depth + 1
        self._key = f"{caller.key}/"

    def values(self, templates: Mapping[str, str]) -> dict[str, str]:
        """Return the action's outputs. Raises ExpressionError."""
        return self._variables(dict(templates), scope=self._scope(dict(self._variables_now())))

    def _status_scope(self) -> StatusScope:
        return CompositeScope(self.root.status, self.status)

    def _scope(self, env: dict[str, Value]) -> dict[str, Value]:
        found = super()._scope(env)
        github = found.get("github")
        if isinstance(github, dict):
            found["github"] = {**github, "action_status": self.status or "success"}
        return found
