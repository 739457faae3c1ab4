"""Expressions hold their promises for any text and any values."""

from __future__ import annotations

import contextlib
import json
import math

from hypothesis import given
from hypothesis import strategies as st

from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions import (
    Value,
    evaluate,
    evaluate_template,
    parse_expression,
    parse_template,
)
from schemas.workflow.expressions.lexer import tokenize
from schemas.workflow.expressions.values import equal, greater, is_number, to_number, to_string
from tests.property.workflow.strategies import EXPRESSIONS, NEAR_EXPRESSIONS, VALUES

CONTEXTS = st.fixed_dictionaries({"a": VALUES, "b": VALUES})


@given(text=st.one_of(st.text(max_size=60), NEAR_EXPRESSIONS, EXPRESSIONS), contexts=CONTEXTS)
def test_only_the_languages_own_error_comes_out(text: str, contexts: dict[str, Value]) -> None:
    """Whatever the text, it has a value or an ExpressionError."""
    with contextlib.suppress(ExpressionError):
        evaluate(text, contexts)
    with contextlib.suppress(ExpressionError):
        evaluate_template(f"x ${{{{ {text} }}}} y", contexts)
    with contextlib.suppress(ExpressionError):
        parse_template(text)


@given(text=EXPRESSIONS, contexts=CONTEXTS)
def test_the_same_expression_has_the_same_value(text: str, contexts: dict[str, Value]) -> None:
    """Evaluation neither remembers nor changes anything."""
    before = repr(contexts)
    with contextlib.suppress(ExpressionError):
        assert repr(evaluate(text, contexts)) == repr(evaluate(text, contexts))
    assert repr(contexts) == before


@given(value=VALUES)
def test_json_there_and_back_is_the_same_value(value: Value) -> None:
    """toJSON and fromJSON are inverse, but for what JSON cannot say."""
    text = evaluate("toJSON(v)", {"v": value})
    assert isinstance(text, str)
    plain = json.loads(text)

    back = evaluate("fromJSON(v)", {"v": text})
    if _unambiguous(plain):
        assert evaluate("toJSON(v)", {"v": back}) == text


def _unambiguous(value: Value) -> bool:
    """No object with names that differ only in case: of these the first one stays."""
    if isinstance(value, dict):
        upper = [name.upper() for name in value]
        return len(set(upper)) == len(upper) and all(map(_unambiguous, value.values()))
    return not isinstance(value, list) or all(map(_unambiguous, value))


@given(left=VALUES, right=VALUES)
def test_comparison_is_symmetric_and_never_both(left: Value, right: Value) -> None:
    """`==` does not care about sides, `<` and `>` exclude each other."""
    assert equal(left, right) == equal(right, left)
    assert not (greater(left, right) and greater(right, left))
    if is_number(left) and is_number(right):
        numbers = to_number(left), to_number(right)
        assert equal(left, right) == (numbers[0] == numbers[1])


@given(value=VALUES)
def test_every_value_has_a_text_and_a_number(value: Value) -> None:
    """Coercion is total."""
    assert isinstance(to_string(value), str)
    assert isinstance(to_number(value), (int, float))
    assert math.isnan(to_number(value)) or to_number(value) == to_number(value)


@given(parts=st.lists(EXPRESSIONS, min_size=1, max_size=30))
def test_tokens_are_no_more_than_characters(parts: list[str]) -> None:
    """The lexer makes one pass: it never reads a character twice as a token."""
    text = " == ".join(f"({part})" for part in parts)
    with contextlib.suppress(ExpressionError):
        tokens = tokenize(text)
        ends = [token.offset + len(token.text) for token in tokens[:-1]]
        assert all(end <= token.offset for end, token in zip(ends, tokens[1:], strict=True))


def test_long_chains_do_not_use_up_the_stack() -> None:
    """Operators of one precedence are a list, not a tower."""
    assert evaluate(" == ".join(["1"] * 4000), {}) is True
    assert evaluate(" && ".join(["true"] * 2500), {}) is True
    assert parse_expression(" < ".join(["1"] * 5000)).contexts == frozenset()
