"""Characters to tokens, in one pass over the text."""

from __future__ import annotations

import math
import re
from typing import Literal

from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError, located
from schemas.workflow.expressions.values import parse_number

EXPRESSION_CHARACTERS_MAX = 21_000

TokenKind = Literal["number", "string", "name", "literal", "op", "end"]

# Most of a text: blanks, then a name up to a boundary, a string, or an operator but the dot.
_COMMON = re.compile(
    r"""\s*(?:([A-Za-z_][A-Za-z0-9_-]*)(?![^\s(\[)\],.!<>=&|])|('(?:[^']|'')*')"""
    r"""|(&&|\|\||==|!=|<=|>=|[()\[\],!<>*]))"""
)
_SPACE = re.compile(r"\s*")
# A run up to a boundary character: what an illegal symbol swallows, as in GitHub's messages.
_RUN = re.compile(r"[^\s(\[)\],.!<>=&|]+")
_NUMBER_RUN = re.compile(r"[^\s(\[)\],!<>=&|]+")
KEYWORDS: dict[str, bool | float | None] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": math.nan,
    "Infinity": math.inf,
}
_BEFORE_DOT = frozenset({")", "]", "*"})
_NUMBER_STARTS = frozenset("0123456789+-.")
_STRING_GROUP, _OPERATOR_GROUP = 2, 3


@dataclass(slots=True)
class Token:
    """A piece of an expression; `value` is set for literals."""

    kind: TokenKind
    text: str
    offset: int
    value: bool | int | float | str | None = None


def tokenize(text: str) -> list[Token]:
    """The tokens of an expression, ending with one of kind `end`."""
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        raise ExpressionError(
            "lexing",
            f"Exceeded max expression length {EXPRESSION_CHARACTERS_MAX}",
            expression=text[:80],
        )
    tokens: list[Token] = []
    previous: Token | None = None
    offset, length = 0, len(text)
    while True:
        match = _COMMON.match(text, offset)
        if match is not None:
            previous = _common(match, previous)
        else:
            space = _SPACE.match(text, offset)
            offset = space.end() if space else offset
            if offset >= length:
                break
            previous = _rare(text, offset, previous)
        tokens.append(previous)
        offset = previous.offset + len(previous.text)
    tokens.append(Token("end", "EOF", length))
    return tokens


def _common(match: re.Match[str], previous: Token | None) -> Token:
    kind = match.lastindex
    word = match[kind or 0]
    offset = match.start(kind or 0)
    if kind == _OPERATOR_GROUP:
        return Token("op", word, offset)
    if kind == _STRING_GROUP:
        return Token("string", word, offset, word[1:-1].replace("''", "'"))
    if word in KEYWORDS and not (previous and previous.text == "." and previous.kind == "op"):
        return Token("literal", word, offset, KEYWORDS[word])
    return Token("name", word, offset)


def _rare(text: str, offset: int, previous: Token | None) -> Token:
    """A dot, a number, or what does not belong in an expression."""
    character = text[offset]
    if character == "." and _dereferences(previous):
        return Token("op", ".", offset)
    if character == "'":
        raise _unexpected(text, offset, text[offset:])
    if character in _NUMBER_STARTS:
        return _number(text, offset, previous)
    run = _RUN.match(text, offset + 1)
    raise _unexpected(text, offset, text[offset : run.end() if run else offset + 1])


def _dereferences(previous: Token | None) -> bool:
    return previous is not None and (
        previous.kind == "name" or (previous.kind == "op" and previous.text in _BEFORE_DOT)
    )


def _number(text: str, offset: int, previous: Token | None) -> Token:
    match = _NUMBER_RUN.match(text, offset)
    run = match.group() if match else text[offset]
    if previous is not None and previous.kind == "op" and previous.text == ".":
        # `a.1` is no property: report the digits themselves.
        raise ExpressionError(
            "parsing",
            located(f"Unexpected symbol: '{run}'", offset, text),
            offset=offset,
            expression=text,
        )
    value = parse_number(run)
    if value != value:  # noqa: PLR0124 -- NaN is the value unlike itself
        raise _unexpected(text, offset, run)
    return Token("number", run, offset, value)


def _unexpected(text: str, offset: int, symbol: str) -> ExpressionError:
    return ExpressionError(
        "lexing",
        located(f"Unexpected symbol: '{symbol}'", offset, text),
        offset=offset,
        expression=text,
    )
