"""YAML to nodes: the core schema, positions, limits and errors."""

from __future__ import annotations

import math

import pytest

from schemas.workflow.errors import WorkflowError
from schemas.workflow.expressions import Value
from schemas.workflow.reader import (
    BYTES_MAX,
    DEPTH_MAX,
    NODES_MAX,
    MappingNode,
    ScalarNode,
    plain,
    read_document,
    resolve,
)

PATH = "w.yml"


def problems(text: str | bytes) -> list[str]:
    """The problems of a text, as `line:column: message`."""
    with pytest.raises(WorkflowError) as caught:
        read_document(text, PATH)
    return [str(problem).removeprefix(f"{PATH}:") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("tRue", "tRue"),
        ("014", 14),
        ("0o14", 12),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2001-12-14", "2001-12-14"),
        ("+12", 12),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1e3", -1000.0),
        ("1e", "1e"),
        ("0b11", "0b11"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("TRUE", True),
        ("-.inf", -math.inf),
        ("inf", "inf"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_a_plain_scalar_has_its_meaning_in_the_core_schema(text: str, expected: Value) -> None:
    """What YAML 1.1 made of words, dates and colons does not happen."""
    value = resolve(text)

    assert value == expected
    assert type(value) is type(expected)


def test_nan_is_a_number() -> None:
    """`.nan` is not the word."""
    value = resolve(".NaN")

    assert isinstance(value, float)
    assert math.isnan(value)


def test_quoted_texts_stay_texts() -> None:
    """Quotes and blocks are never numbers or booleans."""
    node = read_document("a: 'true'\nb: \"1\"\nc: |\n  2\nd: !!str 3\ne: ! 4\n", PATH)

    assert plain(node) == {"a": "true", "b": "1", "c": "2\n", "d": "3", "e": "4"}


def test_every_node_knows_where_it_starts() -> None:
    """Lines and columns count from 1."""
    node = read_document("a:\n  - b: 1\n    c: [x, y]\n", PATH)

    assert isinstance(node, MappingNode)
    items = node.get("a")
    inner = items.items[0] if items is not None and not isinstance(items, MappingNode) else None  # type: ignore[union-attr]
    assert isinstance(inner, MappingNode)
    value = inner.get("b")
    assert isinstance(value, ScalarNode)
    assert (inner.line, inner.column, value.line, value.column) == (2, 5, 2, 8)


def test_an_alias_is_the_node_of_its_anchor() -> None:
    """Anchors and aliases work; merge keys are keys like others."""
    node = read_document("a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n", PATH)

    assert plain(node) == {"a": {"b": 1}, "c": {"b": 1}, "d": {"<<": {"b": 1}}}


def test_numbers_as_keys_become_their_text() -> None:
    """A key is a name, whatever it looks like."""
    assert plain(read_document("1.0: a\ntrue: b\n0x10: c\n", PATH)) == {
        "1": "a",
        "true": "b",
        "16": "c",
    }


def test_all_problems_of_a_document_are_reported_at_once() -> None:
    """Duplicate keys, unknown tags and unreadable keys do not hide each other."""
    found = problems("a: 1\na: 2\nb: !foo bar\n[c]: 3\n")

    assert found == [
        "2:1: the key 'a' is already defined on line 1",
        "3:4: the tag '!foo' is not supported",
        "4:1: a key must be a plain text",
    ]


def test_a_condition_that_starts_with_a_bang_gets_the_advice_to_quote_it() -> None:
    """`if: !cancelled()` is a YAML tag, which nobody means."""
    with pytest.raises(WorkflowError) as caught:
        read_document("if: !cancelled()\n", PATH)

    assert caught.value.problems[0].hint == (
        '`!` starts a YAML tag; put the value in quotes: "!cancelled()"'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: the file is empty"),
        ("# nothing\n", "1:1: the file is empty"),
        ("a: b: c", "1:5: this is not valid YAML: mapping values are not allowed in this context"),
        ("a: *x", "1:4: the alias '*x' has no anchor '&x' before it"),
        ("a: &x [*x]", "1:8: the alias '*x' stands inside its own anchor of line 1"),
        ("a: 1\n---\nb: 2\n", "2:1: only one document is allowed"),
        (b"a: \xff", "1:1: the file is not UTF-8 text"),
        ("a: !!int '1'", "1:4: a quoted or block text cannot have the tag '!!int'"),
        ("a: !!float x", "1:4: 'x' is not of the type '!!float'"),
    ],
)
def test_a_bad_document_says_what_and_where(text: str | bytes, message: str) -> None:
    """The first problem has the place and the reason."""
    assert problems(text)[0] == message


def test_sizes_are_limited_before_anything_is_built() -> None:
    """Bytes, depth, nodes and the expansion of aliases each have their limit."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )

    assert f"more than the {BYTES_MAX} allowed" in problems("a" * (BYTES_MAX + 1))[0]
    assert f"nested deeper than {DEPTH_MAX} levels" in problems("[" * 60 + "]" * 60)[0]
    assert f"more than {NODES_MAX} values" in problems("[" + "a," * (NODES_MAX + 1) + "]")[0]
    assert f"more than {NODES_MAX} values" in problems(bomb)[0]
