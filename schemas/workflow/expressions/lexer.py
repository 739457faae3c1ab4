"""Characters to tokens, in one pass over the text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from schemas.workflow.errors import ExpressionError, located
from schemas.workflow.expressions.values import parse_number

EXPRESSION_CHARACTERS_MAX = 21_000

TokenKind = Literal["number", "string", "name", "literal", "op", "end"]

_SPACE = re.compile(r"\s+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# A run up to a boundary character: what an illegal symbol swallows, as in GitHub's messages.
_RUN = re.compile(r"[^\s(\[)\],.!<>=&|]+")
_NUMBER_RUN = re.compile(r"[^\s(\[)\],!<>=&|]+")
_STRING = re.compile(r"'((?:[^']|'')*)'")
_OPERATOR = re.compile(r"&&|\|\||==|!=|<=|>=|[()\[\],.!<>*]")
_KEYWORDS: dict[str, bool | float | None] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": math.nan,
    "Infinity": math.inf,
}
_BEFORE_DOT = frozenset({")", "]", "*"})
_DIGITS_AND_SIGNS = frozenset("0123456789+-")


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
    offset, length = 0, len(text)
    while offset < length:
        space = _SPACE.match(text, offset)
        if space:
            offset = space.end()
            continue
        token = _next_token(text, offset, tokens[-1] if tokens else None)
        tokens.append(token)
        offset += len(token.text)
    tokens.append(Token("end", "EOF", length))
    return tokens


def _next_token(text: str, offset: int, previous: Token | None) -> Token:
    character = text[offset]
    if character == "'":
        return _string(text, offset)
    if character in _DIGITS_AND_SIGNS or (character == "." and not _dereferences(previous)):
        return _number(text, offset, previous)
    name = _NAME.match(text, offset)
    if name:
        run = _RUN.match(text, offset)
        if run and run.end() > name.end():
            raise _unexpected(text, offset, run.group())
        word = name.group()
        if word in _KEYWORDS and not (previous and previous.text == "." and previous.kind == "op"):
            return Token("literal", word, offset, _KEYWORDS[word])
        return Token("name", word, offset)
    operator = _OPERATOR.match(text, offset)
    if operator:
        return Token("op", operator.group(), offset)
    run = _RUN.match(text, offset + 1)
    raise _unexpected(text, offset, text[offset : run.end() if run else offset + 1])


def _dereferences(previous: Token | None) -> bool:
    return previous is not None and (
        previous.kind == "name" or (previous.kind == "op" and previous.text in _BEFORE_DOT)
    )


def _string(text: str, offset: int) -> Token:
    match = _STRING.match(text, offset)
    if match is None:
        raise _unexpected(text, offset, text[offset:])
    return Token("string", match.group(), offset, match.group(1).replace("''", "'"))


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
