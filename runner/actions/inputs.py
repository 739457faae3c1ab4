"""The inputs of an action: what the step gives, over the defaults of the action's file."""

from __future__ import annotations

from collections.abc import Mapping

from runner.actions import ActionContext, ActionError, Source
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions import evaluate_template
from schemas.workflow.expressions.values import Value

#: What an action's file may read beside its own inputs, steps and variables.
CONTEXTS = ("github", "strategy", "matrix", "job", "runner")


def shared_contexts(context: ActionContext) -> dict[str, Value]:
    """Return those contexts of the calling step that an action's file may read."""
    found = context.machine.contexts
    return {name: found.get(name) for name in CONTEXTS}


def input_values(context: ActionContext, source: Source) -> dict[str, str]:
    """Return every input of an action by the name that its file gives it.

    What the step gives beyond is kept as well, with a warning. Raises ActionError for a default
    that can't be evaluated.
    """
    given = {name.lower(): (name, value) for name, value in context.step.inputs.items()}
    contexts = shared_contexts(context)
    found: dict[str, str] = {}
    for name, item in source.plan.inputs.items():
        own = given.pop(name.lower(), None)
        if own is not None:
            found[name] = own[1]
            if item.deprecation:
                context.say(f"##[warning]Input '{name}' is deprecated: {item.deprecation}")
        elif item.default is not None:
            try:
                found[name] = evaluate_template(
                    item.default, contexts, hash_files=context.machine.hash_files
                )
            except ExpressionError as error:
                text = f"{source.plan.path}: the default of input {name!r}: {error}"
                raise ActionError(text, "user.bad_expression") from error
        else:
            found[name] = ""
    _warn(context, source, [name for name, _ in given.values()])
    return {**found, **dict(given.values())}


def _warn(context: ActionContext, source: Source, unknown: list[str]) -> None:
    if unknown:
        valid = ", ".join(source.plan.inputs) or "none"
        context.say(
            f"##[warning]Unexpected input(s) {', '.join(unknown)}; {source.uses} has: {valid}"
        )


def input_variables(inputs: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in which a program finds its inputs."""
    return {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()}
