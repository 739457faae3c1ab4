"""`strategy:` to a StrategyPlan, with the matrix checked as far as it is known."""

from __future__ import annotations

from schemas.workflow.compiler.check import Check
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value
from schemas.workflow.matrix import MatrixError, expand_matrix
from schemas.workflow.plan import StrategyPlan
from schemas.workflow.reader import MappingNode, Node, ScalarNode, SequenceNode

_ROW = "jobs.<job_id>.strategy"
STRATEGY_KEYS = ("matrix", "fail-fast", "max-parallel")


def read_strategy(check: Check, node: Node) -> StrategyPlan:
    """The strategy of a job."""
    if isinstance(node, ScalarNode) and isinstance(node.value, str) and OPEN in node.value:
        check.parsed(node, node.value, "strategy", _ROW)
        return StrategyPlan(whole=node.value)
    found = check.fields(node, "strategy", STRATEGY_KEYS)
    parallel = None
    if "max-parallel" in found:
        place = found["max-parallel"][1]
        parallel = check.number(place, "max-parallel", key=_ROW)
        if isinstance(parallel, (int, float)) and (parallel < 1 or parallel != int(parallel)):
            check.warn(place, "max-parallel should be a whole number above 0", rule="strategy")
    return StrategyPlan(
        matrix=_matrix(check, found["matrix"][1]) if "matrix" in found else None,
        fail_fast=check.boolean(found["fail-fast"][1], "fail-fast", key=_ROW)
        if "fail-fast" in found
        else True,
        max_parallel=parallel,
    )


def _matrix(check: Check, node: Node) -> Value:
    if isinstance(node, ScalarNode) and isinstance(node.value, str) and OPEN in node.value:
        check.parsed(node, node.value, "matrix", _ROW)
        return node.value
    matrix: dict[str, Value] = {}
    before = len(check.problems)
    for name, name_node, value in check.pairs(node, "matrix", key=_ROW):
        if name in ("include", "exclude"):
            matrix[name] = _filter(check, value, name)
        else:
            matrix[name] = _vector(check, name, name_node, value)
    if len(check.problems) == before and not _dynamic(matrix):
        try:
            expand_matrix(matrix)
        except MatrixError as error:
            check.report(node, str(error), rule="matrix")
    return matrix


def _vector(check: Check, name: str, name_node: ScalarNode, node: Node) -> Value:
    what = f"'{name}' of the matrix"
    if isinstance(node, SequenceNode):
        if not node.items:
            check.report(node, f"Matrix vector '{name}' does not contain any values", rule="matrix")
        return [check.anything(item, what, key=_ROW) for item in node.items]
    value = check.anything(node, what, key=_ROW)
    if not (isinstance(value, str) and OPEN in value):
        check.report(
            node if isinstance(node, MappingNode) else name_node,
            f"{what} must be a list",
            hint=f"{name}: [{value}]" if isinstance(value, (str, int, float)) else None,
            rule="matrix",
        )
    return value


def _filter(check: Check, node: Node, name: str) -> Value:
    if isinstance(node, ScalarNode):
        value = check.anything(node, name, key=_ROW)
        if not (isinstance(value, str) and OPEN in value):
            check.report(node, f"{name} must be a list of mappings", rule="matrix")
        return value
    if not isinstance(node, SequenceNode):
        check.report(node, f"{name} must be a list of mappings", rule="matrix")
        return []
    items: list[Value] = []
    for item in node.items:
        value = check.anything(item, name, key=_ROW)
        if not isinstance(value, dict) and not (isinstance(value, str) and OPEN in value):
            check.report(item, f"an entry of {name} must be a mapping", rule="matrix")
            value = {}
        items.append(value)
    return items


def _dynamic(value: Value) -> bool:
    """Whether there is a template anywhere in a value."""
    if isinstance(value, str):
        return OPEN in value
    if isinstance(value, list):
        return any(map(_dynamic, value))
    if isinstance(value, dict):
        return any(OPEN in key or _dynamic(item) for key, item in value.items())
    return False
