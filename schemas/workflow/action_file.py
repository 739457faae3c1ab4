"""`action.yml`: what an action is, read with positions, every problem at once."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Literal

from schemas.late import dataclass
from schemas.workflow.compiler.check import Check, Field
from schemas.workflow.compiler.step_section import read_steps
from schemas.workflow.errors import WorkflowError
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import StepPlan
from schemas.workflow.reader import MappingNode, Node, SequenceNode, read_with_problems

FILE_NAMES = ("action.yml", "action.yaml")
Using = Literal["composite", "node", "docker"]
_NODE = re.compile(r"node[0-9]+\Z", re.IGNORECASE)
_INPUT_KEYS = frozenset(
    {"description", "required", "default", "deprecationMessage", "type", "options"}
)
_OUTPUT_KEYS = frozenset({"description", "value"})
_RUNS_KEYS: dict[Using, frozenset[str]] = {
    "composite": frozenset({"using", "steps"}),
    "node": frozenset({"using", "main", "pre", "pre-if", "post", "post-if"}),
    "docker": frozenset(
        {"using", "image", "env", "args", "entrypoint", "pre-entrypoint", "post-entrypoint"}
        | {"pre-if", "post-if"}
    ),
}
_STEPS_ROW = "runs.steps."


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInput:
    """An input of an action; `default` is a template, None when there is none."""

    default: str | None = None
    required: bool = False
    deprecation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPlan:
    """An action; `steps` and the values of `outputs` are a composite one's only.

    `image` to `env` are a container's: `args` is None where the file has none, and `pre` and
    `post` are its further entry points.
    """

    path: str
    name: str = ""
    using: Using = "composite"
    inputs: dict[str, ActionInput] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    steps: tuple[StepPlan, ...] = ()
    main: str = ""
    pre: str = ""
    pre_if: str = "always()"
    post: str = ""
    post_if: str = "always()"
    image: str = ""
    entrypoint: str = ""
    args: tuple[str, ...] | None = None
    env: dict[str, str] = field(default_factory=dict)


def read_action(text: bytes | str, path: str) -> ActionPlan:
    """Read an action's file. Raises WorkflowError with all that is wrong."""
    node, problems = read_with_problems(text, path)
    source = text.decode("utf-8-sig", "replace") if isinstance(text, bytes) else text
    check = Check(path, source, list(problems), steps_row=_STEPS_ROW)
    plan = ActionPlan(path=path)
    if isinstance(node, MappingNode):
        plan = _read(check, node)
    elif node is not None:
        check.report(node, "an action must be a mapping with `runs`")
    errors = tuple(found for found in check.problems if found.severity == "error")
    if errors:
        raise WorkflowError(errors)
    return plan


def _read(check: Check, node: MappingNode) -> ActionPlan:
    # GitHub ignores what else stands at the top
    found = {key.text: (key, item) for key, item in node.entries}
    name = check.text_of(found["name"][1], "name") if "name" in found else ""
    inputs = _inputs(check, found["inputs"][1]) if "inputs" in found else {}
    outputs = _outputs(check, found["outputs"][1]) if "outputs" in found else {}
    if "runs" not in found:
        check.report(node, "Required property is missing: runs")
        return ActionPlan(path=check.path, name=name)
    return _runs(check, found["runs"][1], name, inputs, outputs)


def _inputs(check: Check, node: Node) -> dict[str, ActionInput]:
    inputs: dict[str, ActionInput] = {}
    for name, _, value in check.pairs(node, "inputs"):
        if not isinstance(value, MappingNode):
            inputs[name] = ActionInput()
            continue
        # GitHub ignores what else stands there
        fields = {key.text: (key, item) for key, item in value.entries if key.text in _INPUT_KEYS}
        default = fields.get("default")
        message = fields.get("deprecationMessage")
        required = fields.get("required")
        inputs[name] = ActionInput(
            default=check.text_of(default[1], f"the default of '{name}'", key="inputs.default")
            if default
            else None,
            required=bool(required and check.text_of(required[1], "required") == "true"),
            deprecation=check.text_of(message[1], "deprecationMessage") if message else "",
        )
    return inputs


def _outputs(check: Check, node: Node) -> dict[str, str]:
    outputs: dict[str, str] = {}
    for name, _, value in check.pairs(node, "outputs"):
        fields: dict[str, Field] = {}
        if isinstance(value, MappingNode):
            fields = {k.text: (k, item) for k, item in value.entries if k.text in _OUTPUT_KEYS}
        entry = fields.get("value")
        text = ""
        if entry is not None:
            text = check.text_of(entry[1], f"the output '{name}'", key="outputs.value")
        outputs[name] = text
    return outputs


def _runs(
    check: Check, node: Node, name: str, inputs: dict[str, ActionInput], outputs: dict[str, str]
) -> ActionPlan:
    using = _using(check, node)
    if using is None or not isinstance(node, MappingNode):
        return ActionPlan(path=check.path, name=name)
    found = check.fields(node, f"the `runs` of a {using} action", _RUNS_KEYS[using])
    needed = {"composite": "steps", "node": "main", "docker": "image"}[using]
    if needed not in found:
        check.report(node, f"Required property is missing: {needed}")

    def text(key: str, default: str = "") -> str:
        return check.text_of(found[key][1], key) if key in found else default

    def condition(key: str) -> str:
        if key not in found:
            return "always()"
        return check.condition(found[key][1], key, key="runs.if") or "always()"

    steps: tuple[StepPlan, ...] = ()
    if using == "composite" and "steps" in found:
        steps = read_steps(check, found["steps"][1])
        _check_shells(check, found["steps"][1])
    return ActionPlan(
        path=check.path,
        name=name,
        using=using,
        inputs=inputs,
        outputs=outputs,
        steps=steps,
        main=text("main") if using == "node" else "",
        pre=text("pre-entrypoint" if using == "docker" else "pre"),
        pre_if=condition("pre-if"),
        post=text("post-entrypoint" if using == "docker" else "post"),
        post_if=condition("post-if"),
        image=text("image"),
        entrypoint=text("entrypoint"),
        args=_arguments(check, found),
        env=_environment(check, found) if using == "docker" else {},
    )


def _arguments(check: Check, found: dict[str, Field]) -> tuple[str, ...] | None:
    entry = found.get("args")
    return None if entry is None else check.strings(entry[1], "args", key="runs.args", empty=True)


def _environment(check: Check, found: dict[str, Field]) -> dict[str, str]:
    entry = found.get("env")
    if entry is None:
        return {}
    texts = check.mapping_of_texts(entry[1], "env", key="runs.env", whole=False)
    return {name: str(text) for name, text in texts.items()}


def _using(check: Check, node: Node) -> Using | None:
    if not isinstance(node, MappingNode):
        check.report(node, "runs must be a mapping with `using`")
        return None
    entry = node.get("using")
    if entry is None:
        check.report(node, "Required property is missing: using")
        return None
    using = check.text_of(entry, "using").lower()
    if using == "composite":
        return "composite"
    if using == "docker":
        return "docker"
    if _NODE.match(using):
        return "node"
    check.report(
        entry,
        f"'using: {using}' is not known; expected composite, docker or node with a number, "
        "such as node20",
    )
    return None


def _check_shells(check: Check, node: Node) -> None:
    """A composite action knows no default shell: it can't know where it is used."""
    for item in node.items if isinstance(node, SequenceNode) else ():
        if not isinstance(item, MappingNode):
            continue
        if item.get("run") is not None and item.get("shell") is None:
            check.report(item, "Required property is missing: shell", rule="steps")
        limit = item.get("timeout-minutes")
        if limit is not None:
            check.report(limit, "a step of a composite action can't have timeout-minutes")


def default_inputs(plan: ActionPlan) -> dict[str, Value]:
    """Return the templates of the inputs that have a default."""
    return {name: item.default for name, item in plan.inputs.items() if item.default is not None}
