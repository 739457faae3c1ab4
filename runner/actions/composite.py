"""Composite actions: steps of their own, run as the one step that uses them."""

from __future__ import annotations

from runner.actions import ActionContext, ActionError, Source
from runner.actions.inputs import input_values, shared_contexts
from runner.composite_machine import CompositeMachine
from runner.steps import StepEnd
from schemas.events import Conclusion
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions.values import Value
from schemas.workflow.status import StepResult

DEPTH_MAX = 10
_OUTCOMES: dict[Conclusion, StepResult] = {
    Conclusion.SUCCESS: "success",
    Conclusion.SKIPPED: "success",
    Conclusion.FAILURE: "failure",
}


class Composite:
    """One use of a composite action."""

    def __init__(self, source: Source) -> None:
        """Run the steps of `source`."""
        self._source = source

    def run(self, context: ActionContext) -> StepEnd:
        """Run the steps; the outputs are evaluated whatever became of them, as on GitHub."""
        source = self._source
        if context.step.depth >= DEPTH_MAX:
            raise ActionError(
                f"{source.uses}: actions use each other more than {DEPTH_MAX} levels deep",
                "user.bad_action",
            )
        machine = CompositeMachine(
            context.machine, context.step, source.plan.steps, self._contexts(context)
        )
        ended = context.run_steps(machine)
        outcome = _OUTCOMES.get(ended.conclusion, "cancelled")
        try:
            outputs = machine.values(source.plan.outputs)
        except ExpressionError as error:
            text = f"{source.plan.path}: outputs: {error}"
            raise ActionError(text, "user.bad_expression") from error
        return StepEnd(outcome, reason=ended.reason, outputs=outputs)

    def _contexts(self, context: ActionContext) -> dict[str, Value]:
        source = self._source
        inputs: dict[str, Value] = dict(input_values(context, source))
        shared = shared_contexts(context)
        github = shared["github"]
        own: dict[str, Value] = {"action_path": source.folder}
        if source.repository:
            own |= {"action_repository": source.repository, "action_ref": source.ref}
        return {
            **shared,
            "github": {**(github if isinstance(github, dict) else {}), **own},
            "inputs": inputs,
        }
