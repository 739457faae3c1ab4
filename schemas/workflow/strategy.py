"""A job's strategy in the contexts of its run: the legs and how they may run together."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.late import dataclass
from schemas.workflow.expressions.template import evaluate_value
from schemas.workflow.expressions.values import Value, kind
from schemas.workflow.matrix import Leg, MatrixError, expand_matrix
from schemas.workflow.plan import StrategyPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """An evaluated strategy; without a matrix there is one leg of None."""

    legs: tuple[Leg | None, ...] = (None,)
    fail_fast: bool = True
    max_parallel: int | None = None


def resolve_strategy(plan: StrategyPlan | None, contexts: Mapping[str, Value]) -> Strategy:
    """Evaluates a strategy. Raises MatrixError or ExpressionError, which fail the job."""
    if plan is None:
        return Strategy()
    matrix, fail_fast, parallel = plan.matrix, plan.fail_fast, plan.max_parallel
    if plan.whole is not None:
        whole = evaluate_value(plan.whole, contexts)
        if not isinstance(whole, dict):
            raise MatrixError(f"the strategy must be an object, not {kind(whole)}")
        matrix = whole.get("matrix")
        fail_fast, parallel = whole.get("fail-fast", True), whole.get("max-parallel")
    return Strategy(
        legs=(None,) if matrix is None else expand_matrix(evaluate_value(matrix, contexts)),
        fail_fast=_boolean(evaluate_value(fail_fast, contexts)),
        max_parallel=_parallel(evaluate_value(parallel, contexts)),
    )


def _boolean(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    raise MatrixError(f"fail-fast must be true or false, not {kind(value)}")


def _parallel(value: Value) -> int | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1:
        return int(min(value, 1 << 31))
    raise MatrixError("max-parallel must be a number above 0")
