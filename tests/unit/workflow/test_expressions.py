"""Expressions, templates and conditions beyond the shared cases."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from schemas.workflow.errors import Stage
from schemas.workflow.expressions import (
    ExpressionError,
    Value,
    evaluate,
    evaluate_condition,
    evaluate_template,
    evaluate_value,
    parse_expression,
    parse_template,
)
from schemas.workflow.expressions.functions import RESULT_CHARACTERS_MAX
from schemas.workflow.expressions.values import format_number, parse_number
from schemas.workflow.status import StepScope

CONTEXTS: Mapping[str, Value] = {
    "github": {"Ref": "refs/heads/main", "labels": [{"name": "bug"}, {"name": "ui"}, 3]},
    "matrix": None,
    "env": {"A": "1", "deep": {"x": [10, 20]}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("github.ref", "refs/heads/main"),
        ("GITHUB['REF']", "refs/heads/main"),
        ("github.labels.*.name", ["bug", "ui"]),
        ("github.labels.*.name[0]", []),
        ("github.labels[1].name", "ui"),
        ("github.labels['1'].name", "ui"),
        ("github.labels[1.9].name", "ui"),
        ("github.labels[-1]", None),
        ("matrix.os", None),
        ("matrix.*.os", []),
        ("env.deep.x[env.A]", 20),
        ("1 < 2 == true", True),
        ("!env.none && 'x' || 'y'", "x"),
        ("null == 0", True),
        ("null == ''", True),
        ("'' == false", True),
        ("'1e1' == 10", True),
        ("'0x1f' == 31", True),
        ("'a' == 0", False),
        ("NaN == NaN", False),
        ("'Straße' == 'STRASSE'", False),
        ("github.labels == github.labels", True),
        ("fromJSON('[1]') == fromJSON('[1]')", False),
        ("contains('Hello', 'ELL')", True),
        ("contains(github.labels.*.name, 'BUG')", True),
        ("join(github.labels.*.name, ', ')", "bug, ui"),
        ("join('a')", "a"),
        ("format('{{{0}}}-{1}', 'a', null)", "{a}-"),
        ("format('{00}', 'a')", "a"),
        ("format('{0:x}', 'a')", "a"),
        ('toJSON(fromJSON(\'{"a": [1.50, true, null], "b": {}}\'))', None),
        ("case(false, 1, true, 2, fromJSON('x'))", 2),
        ('fromJSON(\'{"a": 1, "A": 2}\').A', 1),
    ],
)
def test_an_expression_has_this_value(text: str, expected: Value) -> None:
    """One expression, one value; the type counts."""
    value = evaluate(text, CONTEXTS)

    if text.startswith("toJSON"):
        expected = '{\n  "a": [\n    1.5,\n    true,\n    null\n  ],\n  "b": {}\n}'
    assert value == expected
    assert isinstance(value, bool) == isinstance(expected, bool)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("a.b", "parsing"),
        ("false && a.b", "parsing"),
        ("success()", "parsing"),
        ("hashFiles('x')", "parsing"),
        ("github.", "parsing"),
        ("format('x',)", "parsing"),
        ("contains('x')", "parsing"),
        ("1 +", "lexing"),
        ("'open", "lexing"),
        ('"x"', "lexing"),
        ("fromJSON('[NaN]')", "evaluation"),
        ("fromJSON(format('{0}{0}', '['))", "evaluation"),
        ("format('{0', 1)", "evaluation"),
        ("'" + "x" * 21_000 + "'", "lexing"),
        ("(" * 50 + "1" + ")" * 50, "parsing"),
    ],
)
def test_a_bad_expression_fails_in_this_stage(text: str, stage: Stage) -> None:
    """Nothing but the language's own error comes out, with its stage."""
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, CONTEXTS)

    assert caught.value.stage == stage


def test_a_misspelt_function_gets_a_suggestion() -> None:
    """The message names the nearest function."""
    with pytest.raises(ExpressionError, match=r"did you mean startsWith\?"):
        parse_expression("startWith('a', 'b')")


@pytest.mark.parametrize(
    "text",
    [
        "format('" + "{0}" * 1000 + "', format('" + "{0}" * 2000 + "', 'aaaaaaaaaa'))",
        "join(fromJSON(format('[{0}1]', format('"
        + "{0}" * 900
        + "', '1,1,1,1,1,1,'))), '"
        + "x" * 5000
        + "')",
    ],
)
def test_results_are_limited(text: str) -> None:
    """A short text cannot make a huge value."""
    with pytest.raises(ExpressionError, match=str(RESULT_CHARACTERS_MAX)):
        evaluate(text, {})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.1", "0.1"),
        ("-0", "0"),
        ("1e21", "1e+21"),
        ("123456789012345680000", "123456789012345680000"),
        ("-1.5e300", "-1.5e+300"),
        ("0.00001", "0.00001"),
        ("0.000001", "0.000001"),
        ("1.25e-7", "1.25e-7"),
        ("9007199254740993", "9007199254740992"),
        ("12.50", "12.5"),
        ("1e400", "null"),
    ],
)
def test_a_number_in_json_is_that_of_javascript(number: str, text: str) -> None:
    """Also where Python would write an exponent, or all digits of a double."""
    assert evaluate(f"toJSON(fromJSON('[{number}]'))", {}) == f"[\n  {text}\n]"


@pytest.mark.parametrize("text", ["(x)", "(x).a", "((x)).a", "toJSON((x).a) && (x).a", "(x)['a']"])
def test_a_context_may_stand_in_parentheses(text: str) -> None:
    """Alone or with what it is asked for outside of them."""
    assert evaluate(text, {"x": {"a": 1}}) in ({"a": 1}, 1)
    assert next(reference.context for reference in parse_expression(text).references) == "x"


def test_of_equal_names_in_json_the_last_counts_and_of_like_ones_the_first() -> None:
    """A name keeps its first place and spelling."""
    text = """toJSON(fromJSON('{"a": 1, "b": 2, "a": 3, "A": 4}'))"""

    assert evaluate(text, {}) == '{\n  "a": 3,\n  "b": 2\n}'


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    """No file and no message can hold one; whole pairs are one character."""
    value = evaluate(r"""fromJSON('{"a\ud800": ["x\uDC00y", "\ud83d\ude00"]}')""", {})

    assert value == {"a\ufffd": ["x\ufffdy", "\U0001f600"]}


def test_deep_json_is_refused() -> None:
    """A value nested without end would break whoever walks it."""
    with pytest.raises(ExpressionError, match="nested deeper"):
        evaluate("fromJSON(env.x)", {"env": {"x": "[" * 200 + "]" * 200}})
    with pytest.raises(ExpressionError):
        evaluate("fromJSON(env.x)", {"env": {"x": "[" * 100_000}})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (-0.0, "0"),
        (1e15, "1E+15"),
        (123456789012345, "123456789012345"),
        (0.1 + 0.2, "0.3"),
        (1e-5, "1E-05"),
        (12345678901234567890.0, "1.23456789012346E+19"),
        (math.inf, "Infinity"),
        (math.nan, "NaN"),
    ],
)
def test_a_number_is_printed_like_this(number: float, text: str) -> None:
    """Fifteen significant digits, as the runner does."""
    assert format_number(number) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" 12 ", 12),
        ("", 0),
        ("0o17", 15),
        ("+Infinity", math.inf),
        (".5e1", 5),
        ("5.", 5),
        ("0x" + "f" * 500, math.inf),
    ],
)
def test_a_text_is_this_number(text: str, number: float) -> None:
    """Blanks count as nothing; other bases and infinities are known."""
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["1_000", "nan", "inf", "1e", "x", "0x", "--1", "\uff11"])
def test_a_text_that_is_no_number_is_nan(text: str) -> None:
    """Python's own ideas of numbers do not leak in."""
    assert math.isnan(parse_number(text))


def test_the_directive_insert_has_no_value_of_its_own() -> None:
    """It stands as a name in an object, nowhere else."""
    for text in ("${{ insert }}", "${{insert}}"):
        with pytest.raises(ExpressionError, match="may only stand as a name"):
            evaluate_template(text, {})
        with pytest.raises(ExpressionError, match="may only stand as a name"):
            evaluate_value([text], {})


def test_a_template_replaces_each_expression() -> None:
    """Braces in strings do not end an expression, and there may be several."""
    text = "a ${{ '}}' }} b ${{ github.ref }}${{env.A}} $ {{ x }}"

    assert evaluate_template(text, CONTEXTS) == "a }} b refs/heads/main1 $ {{ x }}"


def test_a_value_keeps_the_type_of_a_single_expression() -> None:
    """Only a text around it makes a text."""
    value = evaluate_value(
        {"a": "${{ env.deep.x }}", "b": ["x${{ 1 }}", 2], "c-${{ env.A }}": True}, CONTEXTS
    )

    assert value == {"a": [10, 20], "b": ["x1", 2], "c-1": True}


def test_insert_puts_in_the_entries_of_an_object() -> None:
    """The key disappears, and its value must be an object."""
    assert evaluate_value({"${{ insert }}": "${{ env.deep }}", "y": 1}, CONTEXTS) == {
        "x": [10, 20],
        "y": 1,
    }
    with pytest.raises(ExpressionError, match="must be an object"):
        evaluate_value({"${{ insert }}": "${{ 1 }}"}, CONTEXTS)


def test_templates_are_limited_as_one_expression() -> None:
    """All of a text counts when there is an expression in it, and none of it when there is not."""
    assert evaluate_template("x" * 30_000, {}) == "x" * 30_000
    for text in ("${{ 1 }}" + "x" * 21_000, "${{ 1 }}" * 5000, "x${{ 1 }}" + "y" * 21_000):
        with pytest.raises(ExpressionError, match="Exceeded max expression length"):
            parse_template(text)


@pytest.mark.parametrize(
    "text",
    ["${{" + "'a'" * 300_000, "${{ '" + "''" * 400_000, "${{ " * 200_000, "${{ 1" + "1" * 900_000],
    ids=["strings", "quotes", "openings", "digits"],
)
def test_hostile_templates_are_refused_at_once(text: str) -> None:
    """Nothing is searched again and again."""
    with pytest.raises(ExpressionError):
        parse_template(text)


def test_hostile_numbers_are_read_at_once() -> None:
    """A long run of digits that ends in something else is no number."""
    assert math.isnan(parse_number("1" * 1_000_000 + "x"))


@pytest.mark.parametrize(
    "text", ["${{", "${{ 'x }}", "${{ }}", "x ${{ insert }}", "${{ insert a }}", "${{ a..b }}"]
)
def test_a_malformed_template_is_an_error_with_an_offset(text: str) -> None:
    """The offset lies inside the text."""
    with pytest.raises(ExpressionError) as caught:
        parse_template(text)

    assert 0 <= caught.value.offset <= len(text)


@pytest.mark.parametrize(
    ("condition", "status", "expected"),
    [
        (None, None, True),
        ("", "failure", False),
        ("  ", None, True),
        ("true", "failure", False),
        ("failure()", "failure", True),
        ("${{ failure() }}", "success", False),
        ("always() && false", "success", False),
        ("!cancelled()", "failure", True),
        ("'success()'", "failure", False),
        ("env.A == '1' || failure()", "failure", True),
        ("${{ env.A }} == 2", "success", True),
        ("0", "success", False),
        ("${{ env.none }}", "success", False),
        ("${{ env.none }}\n", "success", True),
        ("env.none\n", "success", False),
    ],
)
def test_a_condition_holds_or_not(
    condition: str | None, status: str | None, *, expected: bool
) -> None:
    """success() is implied unless the condition speaks about the status itself."""
    assert evaluate_condition(condition, CONTEXTS, StepScope(status)) is expected


def test_references_name_the_property_where_it_is_written() -> None:
    """What a template reads can be known without evaluating it."""
    expression = parse_expression("secrets.A || secrets['b'] || secrets[env.x] || toJSON(Secrets)")

    assert [(item.context, item.property) for item in expression.references] == [
        ("secrets", "A"),
        ("secrets", "b"),
        ("env", "x"),
        ("secrets", None),
        ("secrets", None),
    ]


def test_an_item_with_a_list_as_its_value_becomes_the_items_of_that_list() -> None:
    """Only an item that is one expression: a list that is written as one stays one."""
    value: Value = ["${{ env.deep.x }}", "${{ env.A }}", ["${{ env.deep.x }}"], "n${{ env.A }}"]

    assert evaluate_value(value, CONTEXTS) == [10, 20, "1", [10, 20], "n1"]
