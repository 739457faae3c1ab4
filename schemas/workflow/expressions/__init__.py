"""The expression language: parse once, evaluate often; linear in the text, never `eval`."""

from __future__ import annotations

from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions.evaluator import evaluate
from schemas.workflow.expressions.nodes import StatusScope
from schemas.workflow.expressions.parser import Expression, parse_expression
from schemas.workflow.expressions.template import (
    Template,
    evaluate_condition,
    evaluate_template,
    evaluate_value,
    parse_template,
)
from schemas.workflow.expressions.values import Value, to_string

__all__ = [
    "Expression",
    "ExpressionError",
    "StatusScope",
    "Template",
    "Value",
    "evaluate",
    "evaluate_condition",
    "evaluate_template",
    "evaluate_value",
    "parse_expression",
    "parse_template",
    "to_string",
]
