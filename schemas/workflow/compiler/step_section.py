"""`steps:` to StepPlans."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from schemas.workflow.compiler.check import Check, Field
from schemas.workflow.contexts import AVAILABILITY
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import StepPlan
from schemas.workflow.reader import MappingNode, Node, ScalarNode, SequenceNode

_COMMON = frozenset({"id", "if", "name", "env", "continue-on-error", "timeout-minutes"})
RUN_KEYS = _COMMON | {"run", "shell", "working-directory"}
USES_KEYS = _COMMON | {"uses", "with"}
# Blanks are odd, and GitHub lets them pass.
ACTION = re.compile(r"[^/@]+/[^/@]+(?:/[^@]*)?@\S+\Z")
_OTHER_THAN_ID = re.compile(r"[^A-Za-z0-9_-]")
_ID_CHARACTERS_MAX = 100
_KINDS_CACHED = 1024
BUILT_IN_SHELLS = ("bash", "sh", "pwsh", "powershell", "cmd", "python", "node")


def read_steps(check: Check, node: Node) -> tuple[StepPlan, ...]:
    """The steps of a job, each with an id of its own."""
    if not isinstance(node, SequenceNode):
        check.report(node, "steps must be a list", hint="each step begins with '- '")
        return ()
    ids: dict[str, int] = {}
    found = [_read_step(check, item, ids) for item in node.items]
    made = _Ids(ids)
    steps: list[StepPlan] = []
    for item, (step_id, fields) in zip(node.items, found, strict=True):
        if fields is not None:
            check.step = len(steps)
            steps.append(_plan(check, item, step_id, fields, made))
    check.step = None
    return tuple(steps)


def _read_step(
    check: Check, node: Node, ids: dict[str, int]
) -> tuple[str, dict[str, Field] | None]:
    """The id as written and the fields; None when it is no step at all."""
    if not isinstance(node, MappingNode):
        nothing = isinstance(node, ScalarNode) and node.value is None
        check.report(
            node,
            "a step is empty" if nothing else "a step must be a mapping with `run` or `uses`",
            rule="steps",
        )
        return "", None
    names = [name_node.text for name_node, _ in node.entries]
    first = None
    for name in names:
        if name in ("run", "uses"):
            first = name
            break
    else:
        if "with" in names and "shell" not in names:
            first = "uses"
    allowed = USES_KEYS if first == "uses" else RUN_KEYS
    what = "a step that uses an action" if first == "uses" else "a step that runs a script"
    if "run" in names and "uses" in names:
        what += " (a step does one of the two: make two steps of it)"
    fields = check.fields(node, what, allowed if first else RUN_KEYS | USES_KEYS)
    if "run" not in fields and "uses" not in fields:
        missing = first or "run"
        either = "" if first or "shell" in names else " (or uses)"
        check.report(node, f"Required property is missing: {missing}{either}", rule="steps")
    step_id = ""
    if "id" in fields:
        place = fields["id"][1]
        step_id = check.text_of(place, "id", empty=False)
        if step_id:
            check.identifier(place, step_id, "step id")
        if step_id.lower() in ids:
            check.report(
                place,
                f"the step id '{step_id}' is already used on line {ids[step_id.lower()]}",
                rule="id",
            )
        ids.setdefault(step_id.lower(), place.line)
    return step_id, fields


def _plan(check: Check, node: Node, step_id: str, fields: dict[str, Field], made: _Ids) -> StepPlan:
    get, row = fields.get, check.steps_row
    run = uses = name = shell = directory = condition = None
    if (entry := get("run")) and isinstance(entry[1], SequenceNode):
        check.report(
            entry[1], "run must be a text, not a list", hint="write `run: |` and the lines below it"
        )
    elif entry:
        run = check.text_of(entry[1], "run", key=row + "run")
    if entry := get("uses"):
        uses = _uses(check, entry[1])
    if entry := get("name"):
        name = check.text_of(entry[1], "name", key=row + "name")
    if entry := get("shell"):
        # a job's step has a shell of its own choice, an action may take it from an input
        shell = read_shell(
            check, entry[1], row + "shell" if row + "shell" in AVAILABILITY else None
        )
    if entry := get("working-directory"):
        directory = check.text_of(entry[1], "working-directory", key=row + "working-directory")
    if entry := get("if"):
        condition = check.condition(entry[1], "if", key=row + "if")
    return StepPlan(
        id=step_id or made.make(uses),
        name=name,
        condition=condition,
        run=run,
        uses=uses,
        with_=_texts(check, get("with"), "with"),
        env=_texts(check, get("env"), "env"),
        shell=shell,
        working_directory=directory,
        continue_on_error=check.boolean(
            entry[1], "continue-on-error", key=row + "continue-on-error"
        )
        if (entry := get("continue-on-error"))
        else False,
        timeout_minutes=read_timeout(check, get("timeout-minutes"), row + "timeout-minutes"),
        line=node.line,
    )


def _texts(check: Check, entry: Field | None, name: str) -> dict[str, Value]:
    if entry is None:
        return {}
    return check.mapping_of_texts(entry[1], name, key=check.steps_row + name, whole=False)


def read_timeout(check: Check, entry: Field | None, key: str) -> Value:
    """`timeout-minutes`: minutes or an expression; None when it is not given."""
    if entry is None:
        return None
    minutes = check.number(entry[1], "timeout-minutes", key=key)
    if isinstance(minutes, (int, float)) and not minutes > 0:
        check.warn(entry[1], "timeout-minutes should be above 0", rule="timeout")
    return minutes


def read_shell(check: Check, node: Node, key: str | None) -> str:
    """A shell: a name, or a command line with `{0}` for the script."""
    shell = check.text_of(node, "shell", key=key, empty=False)
    known = shell.lower() in BUILT_IN_SHELLS or "{0}" in shell or OPEN in shell
    if shell and not known:
        check.warn(
            node,
            f"'{shell}' is not a built-in shell ({', '.join(BUILT_IN_SHELLS)})",
            hint="a command of your own needs {0} where the script's path belongs",
            rule="shell",
        )
    return shell


def _uses(check: Check, node: Node) -> str:
    uses = check.text_of(node, "uses", empty=False)
    if not uses or OPEN in uses or uses.startswith(("./", ".\\", "docker://")):
        return uses
    if not ACTION.match(uses):
        hint = None
        if "@" not in uses:
            hint = "add a version: owner/repository@v1; an action of this repository starts with ./"
        check.report(
            node,
            f"'{uses}' names no action: expected owner/repository@ref, "
            "owner/repository/path@ref, ./path or docker://image",
            hint=hint,
            rule="action",
        )
    return uses


class _Ids:
    """The ids of a job's steps: those written, and those made by GitHub's rule for the others.

    A step without an id is `__run`, `__owner_repository` and so on; the second one `__run_2`.
    """

    def __init__(self, written: Iterable[str]) -> None:
        self._taken = set(written)
        self._last_number: dict[str, int] = {}

    def make(self, uses: str | None) -> str:
        """A new id for a step that uses this action, or runs a script."""
        base = f"__{_kind(uses)}"[:_ID_CHARACTERS_MAX]
        # Counting on from the last one of this kind keeps thousands of steps linear.
        number = self._last_number.get(base, 0) + 1
        candidate = base if number == 1 else _numbered(base, number)
        while candidate.lower() in self._taken:
            number += 1
            candidate = _numbered(base, number)
        self._last_number[base] = number
        self._taken.add(candidate.lower())
        return candidate


def _numbered(base: str, number: int) -> str:
    suffix = f"_{number}"
    return base[: _ID_CHARACTERS_MAX - len(suffix)] + suffix


@lru_cache(maxsize=_KINDS_CACHED)
def _kind(uses: str | None) -> str:
    if not uses:
        return "run"
    if uses.startswith("docker://"):
        return _OTHER_THAN_ID.sub("_", uses.removeprefix("docker://"))
    if uses.startswith(("./", ".\\")):
        return "self"
    parts = [part for part in re.split(r"[\\/]", uses.partition("@")[0]) if part]
    return _OTHER_THAN_ID.sub("_", "_".join(parts[:2])) if len(parts) > 1 else "run"
