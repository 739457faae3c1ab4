"""Computes a parsed expression in given contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from schemas.workflow.errors import ExpressionError, located
from schemas.workflow.expressions.nodes import Scope, StatusScope
from schemas.workflow.expressions.parser import Expression, parse_expression
from schemas.workflow.expressions.values import FilteredArray, Value

HashFiles = Callable[[list[str]], str]


def evaluate(
    expression: Expression | str,
    contexts: Mapping[str, Value],
    *,
    status: StatusScope | None = None,
    hash_files: HashFiles | None = None,
) -> Value:
    """The value of an expression.

    `contexts` holds every context that exists here, by lower-case name; reading another one is
    an error. Without `status` there are no status functions, without `hash_files` no hashFiles.
    """
    if isinstance(expression, str):
        expression = parse_expression(expression)
    check_available(expression, contexts, status=status, hash_files=hash_files)
    try:
        value = expression.root.evaluate(Scope(contexts, status, hash_files))
    except RecursionError:
        raise ExpressionError(
            "evaluation", "The value is nested too deeply", expression=expression.text
        ) from None
    except ExpressionError as error:
        if error.expression is None:
            error.expression = expression.text
        raise
    return list(value) if isinstance(value, FilteredArray) else value


def check_available(
    expression: Expression,
    contexts: Mapping[str, Value],
    *,
    status: StatusScope | None,
    hash_files: HashFiles | None,
) -> None:
    """Raises for a context or function that does not exist where the expression stands."""
    for name in expression.contexts:
        if name not in contexts and not any(key.lower() == name for key in contexts):
            offset = next(r.offset for r in expression.references if r.context == name)
            spelt = expression.text[offset : offset + len(name)]
            raise ExpressionError(
                "parsing",
                located(f"Unrecognized named-value: '{spelt}'", offset, expression.text),
                offset=offset,
                expression=expression.text,
            )
    missing = (status is None and expression.has_status_function) or (
        hash_files is None and "hashfiles" in expression.functions
    )
    if missing:
        use = next(
            use
            for use in expression.uses
            if (use.function == "hashfiles" and hash_files is None)
            or (use.function in ("success", "failure", "always", "cancelled") and status is None)
        )
        spelt = expression.text[use.offset : use.offset + len(use.function)]
        raise ExpressionError(
            "parsing",
            located(f"Unrecognized function: '{spelt}'", use.offset, expression.text),
            offset=use.offset,
            expression=expression.text,
        )
