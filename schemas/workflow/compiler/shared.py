"""Sections that workflows and jobs have alike: concurrency, defaults, permissions."""

from __future__ import annotations

from typing import Literal, cast

from schemas.workflow.compiler.check import Check
from schemas.workflow.compiler.step_section import read_shell
from schemas.workflow.plan import ConcurrencyPlan, DefaultsPlan, Permissions
from schemas.workflow.reader import MappingNode, Node, ScalarNode

_ANY, _NO_WRITE, _NO_READ = ("read", "write", "none"), ("read", "none"), ("write", "none")
PERMISSION_LEVELS: dict[str, tuple[str, ...]] = {
    "actions": _ANY,
    "artifact-metadata": _ANY,
    "attestations": _ANY,
    "checks": _ANY,
    "contents": _ANY,
    "copilot-requests": _NO_READ,
    "deployments": _ANY,
    "discussions": _ANY,
    "id-token": _NO_READ,
    "issues": _ANY,
    "models": _NO_WRITE,
    "packages": _ANY,
    "pages": _ANY,
    "pull-requests": _ANY,
    "repository-projects": _ANY,
    "security-events": _ANY,
    "statuses": _ANY,
    "vulnerability-alerts": _NO_WRITE,
}
PERMISSIONS_FOR_ALL = ("read-all", "write-all")
CONCURRENCY_KEYS = ("group", "cancel-in-progress", "queue")
QUEUES = ("single", "max")
DEFAULTS_KEYS = ("run",)
DEFAULTS_RUN_KEYS = ("shell", "working-directory")


def read_permissions(check: Check, node: Node) -> Permissions:
    """`permissions:`: a level for all scopes, or a level by scope."""
    if not isinstance(node, MappingNode):
        text = check.text_of(node, "permissions")
        if text not in PERMISSIONS_FOR_ALL:
            check.report(
                node,
                f"'{text}' is no permission; expected read-all, write-all or a mapping",
                hint=check.guess(text, PERMISSIONS_FOR_ALL),
                rule="permissions",
            )
        return text
    levels: dict[str, str] = {}
    for scope, scope_node, value in check.pairs(node, "permissions"):
        if scope not in PERMISSION_LEVELS:
            check.unknown_key(scope_node, scope, "permissions", PERMISSION_LEVELS)
            continue
        level = check.text_of(value, f"the permission '{scope}'")
        if level not in PERMISSION_LEVELS[scope]:
            check.report(
                value,
                f"'{level}' is no level of '{scope}'; expected one of: "
                f"{', '.join(PERMISSION_LEVELS[scope])}",
                hint=check.guess(level, PERMISSION_LEVELS[scope]),
                rule="permissions",
            )
        levels[scope] = level
    return levels


def read_concurrency(check: Check, node: Node, key: str) -> ConcurrencyPlan | None:
    """`concurrency:`: a group by name, or with what happens to those before."""
    check.warn(
        node,
        "concurrency is not applied yet: all with this group run side by side",
        rule="not-applied",
    )
    if not isinstance(node, MappingNode):
        # A job's group must have a name; a workflow's empty one means none.
        group = check.text_of(node, "concurrency", key=key, empty=key == "concurrency")
        return ConcurrencyPlan(group=group, line=node.line) if group else None
    found = check.fields(node, "concurrency", CONCURRENCY_KEYS)
    if "group" not in found:
        check.report(node, "Required property is missing: group", rule="concurrency")
        return None
    cancel: bool | str = False
    if "cancel-in-progress" in found:
        cancel = check.boolean(found["cancel-in-progress"][1], "cancel-in-progress", key=key)
    queue = "single"
    if "queue" in found:
        queue = check.text_of(found["queue"][1], "queue")
        if queue not in QUEUES:
            check.report(found["queue"][1], f"queue must be single or max, not '{queue}'")
        elif queue == "max" and cancel is True:
            check.report(
                found["queue"][0],
                "'queue: max' keeps everything that waits and 'cancel-in-progress: true' ends "
                "what runs: use one of them",
                rule="concurrency",
            )
    return ConcurrencyPlan(
        group=check.text_of(found["group"][1], "group", key=key, empty=False),
        cancel_in_progress=cancel,
        queue=cast("Literal['single', 'max']", queue if queue == "max" else "single"),
        line=node.line,
    )


def read_defaults(check: Check, node: Node, key: str | None) -> DefaultsPlan:
    """`defaults:`; `key` is the availability row, None where no expression may stand."""
    found = check.fields(node, "defaults", DEFAULTS_KEYS)
    if "run" not in found:
        return DefaultsPlan()
    run = check.fields(found["run"][1], "defaults.run", DEFAULTS_RUN_KEYS)
    return DefaultsPlan(
        shell=read_shell(check, run["shell"][1], key) if "shell" in run else None,
        working_directory=check.text_of(
            run["working-directory"][1], "working-directory", key=key, empty=False
        )
        if "working-directory" in run
        else None,
    )


def is_null(node: Node) -> bool:
    """Whether nothing is written after a key."""
    return isinstance(node, ScalarNode) and node.value is None
