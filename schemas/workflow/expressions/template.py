"""Texts with `${{ }}` parts, values made of such texts, and `if:` conditions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions.evaluator import HashFiles, check_available, evaluate
from schemas.workflow.expressions.functions import RESULT_CHARACTERS_MAX
from schemas.workflow.expressions.lexer import EXPRESSION_CHARACTERS_MAX
from schemas.workflow.expressions.nodes import StatusScope
from schemas.workflow.expressions.parser import Expression, parse_expression
from schemas.workflow.expressions.values import Value, to_string, truthy

OPEN, CLOSE = "${{", "}}"
INSERT = "insert"
_CACHED_TEMPLATES = 8192


@dataclass(frozen=True, slots=True)
class Part:
    """An expression of a template; `offset` is where its text starts, after `${{` and blanks."""

    expression: Expression
    offset: int


@dataclass(frozen=True, slots=True)
class Template:
    """A text cut at its `${{ }}`: literals and expressions in order.

    `directive` is set for the one text that is no expression, `${{ insert }}`.
    """

    parts: tuple[str | Part, ...]
    directive: bool = False

    @property
    def expressions(self) -> tuple[Part, ...]:
        """The expressions only."""
        return tuple([part for part in self.parts if type(part) is Part])

    @property
    def single(self) -> Expression | None:
        """The expression when the whole text is one `${{ }}`: then it keeps its type."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Part):
            return self.parts[0].expression
        return None


@lru_cache(maxsize=_CACHED_TEMPLATES)
def parse_template(text: str) -> Template:
    """Cuts and parses a template. Raises ExpressionError with an offset into `text`."""
    parts: list[str | Part] = []
    position = size = 0
    directive = False
    while (start := text.find(OPEN, position)) >= 0:
        if start > position:
            parts.append(text[position:start])
            size += start - position
        end = _end_of_expression(text, start + len(OPEN))
        inner = text[start + len(OPEN) : end - len(CLOSE)]
        stripped = inner.strip()
        if stripped == INSERT or stripped.startswith(INSERT + " "):
            _check_directive(text, stripped, start, end)
            directive = True
        else:
            parts.append(_part(inner, stripped, start))
            size += len(stripped) + len("{0}, ")
        position = end
        _check_size(size, parts)
    if position < len(text):
        parts.append(text[position:])
        _check_size(size + len(text) - position, parts)
    return Template(tuple(parts), directive)


def _check_size(size: int, parts: list[str | Part]) -> None:
    """Several parts stand for one `format` expression, which is limited like any other."""
    if size > EXPRESSION_CHARACTERS_MAX and len(parts) > 1:
        raise ExpressionError(
            "parsing",
            f"Exceeded max expression length {EXPRESSION_CHARACTERS_MAX}: with an expression in "
            "it, all of a text counts; move it to a file, or pass the values through env",
        )


def _part(inner: str, stripped: str, start: int) -> Part:
    offset = start + len(OPEN) + len(inner) - len(inner.lstrip())
    if not stripped:
        raise ExpressionError("parsing", "An expression was expected", offset=start)
    try:
        return Part(parse_expression(stripped), offset)
    except ExpressionError as error:
        raise error.moved(offset) from None


def _check_directive(text: str, stripped: str, start: int, end: int) -> None:
    if stripped != INSERT:
        raise ExpressionError(
            "parsing", "No parameters are expected after the directive 'insert'", offset=start
        )
    if start > 0 or end < len(text):
        raise ExpressionError(
            "parsing",
            "The directive 'insert' is not allowed inside a text; it must be the whole key",
            offset=start,
        )


def _end_of_expression(text: str, position: int) -> int:
    """The offset after the closing braces; braces inside a string literal do not count."""
    close = text.find(CLOSE, position)
    while True:
        if 0 <= close < position:
            close = text.find(CLOSE, position)
        quote = text.find("'", position)
        if close >= 0 and (quote < 0 or close < quote):
            return close + len(CLOSE)
        end_quote = text.find("'", quote + 1) if quote >= 0 else -1
        if end_quote < 0:
            raise ExpressionError(
                "lexing",
                "The expression is not closed. An unescaped ${{ sequence was found, "
                "but the closing }} sequence was not found.",
                offset=text.rfind(OPEN, 0, position),
            )
        position = end_quote + 1


def evaluate_template(
    text: str,
    contexts: Mapping[str, Value],
    *,
    status: StatusScope | None = None,
    hash_files: HashFiles | None = None,
) -> str:
    """The text with every `${{ }}` replaced by its value."""
    if OPEN not in text:
        return text
    template = parse_template(text)
    if template.directive:
        raise ExpressionError("parsing", "The directive 'insert' may only stand as a name")
    for part in template.expressions:
        check_available(part.expression, contexts, status=status, hash_files=hash_files)
    texts = [
        part
        if isinstance(part, str)
        else to_string(evaluate(part.expression, contexts, status=status, hash_files=hash_files))
        for part in template.parts
    ]
    if sum(map(len, texts)) > RESULT_CHARACTERS_MAX:
        raise ExpressionError(
            "evaluation", f"The result has more than {RESULT_CHARACTERS_MAX} characters"
        )
    return "".join(texts)


def evaluate_value(
    value: Value,
    contexts: Mapping[str, Value],
    *,
    status: StatusScope | None = None,
    hash_files: HashFiles | None = None,
) -> Value:
    """A value with all templates in it evaluated, keys included.

    A string that is exactly one `${{ }}` becomes the value with its type. The key
    `${{ insert }}` is replaced by the entries of its value, which must be an object. An item of a
    list that is one `${{ }}` with a list as its value is replaced by the items of that list.
    """
    if isinstance(value, str):
        if OPEN not in value:
            return value
        single = parse_template(value).single
        if single is not None:
            return evaluate(single, contexts, status=status, hash_files=hash_files)
        return evaluate_template(value, contexts, status=status, hash_files=hash_files)
    if isinstance(value, list):
        found = [
            (item, evaluate_value(item, contexts, status=status, hash_files=hash_files))
            for item in value
        ]
        return [kept for item, result in found for kept in _items(item, result)]
    if isinstance(value, dict):
        entries: dict[str, Value] = {}
        for key, item in value.items():
            inner = evaluate_value(item, contexts, status=status, hash_files=hash_files)
            if OPEN not in key:
                entries[key] = inner
            elif parse_template(key).directive:
                entries.update(_inserted(inner))
            else:
                name = evaluate_template(key, contexts, status=status, hash_files=hash_files)
                entries[name] = inner
        return entries
    return value


def _items(item: Value, result: Value) -> list[Value]:
    """What stands in a list for an item that was evaluated."""
    return result if isinstance(item, str) and isinstance(result, list) else [result]


def _inserted(value: Value) -> dict[str, Value]:
    if isinstance(value, dict):
        return value
    raise ExpressionError("evaluation", "The value of ${{ insert }} must be an object")


def evaluate_condition(
    condition: str | None,
    contexts: Mapping[str, Value],
    status: StatusScope,
    *,
    hash_files: HashFiles | None = None,
) -> bool:
    """Whether an `if:` holds.

    Without a status function in it the condition also needs `success()`; None and a blank
    text are `success()` alone. A text around `${{ }}` makes a non-empty string, which is true.
    """
    parts = condition_expressions(condition)
    own_status = any(part.expression.has_status_function for part in parts.expressions)
    for part in parts.expressions:
        check_available(part.expression, contexts, status=status, hash_files=hash_files)
    if not own_status and not status.success():
        return False
    if not parts.parts:
        return True
    if parts.single is not None:
        return truthy(evaluate(parts.single, contexts, status=status, hash_files=hash_files))
    return bool(evaluate_template(condition or "", contexts, status=status, hash_files=hash_files))


def condition_expressions(condition: str | None) -> Template:
    """An `if:` text as a template; a text without `${{ }}` is an expression as a whole."""
    if condition is None or not condition.strip():
        return Template(())
    if OPEN in condition:
        return parse_template(condition)
    return Template((Part(parse_expression(condition.strip()), 0),))
