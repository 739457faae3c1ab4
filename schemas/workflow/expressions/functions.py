"""The functions of the language, by lower-case name, with how many operands they take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions.nodes import Node, Scope
from schemas.workflow.expressions.values import (
    Value,
    equal,
    fold_case,
    merged_pairs,
    parse_number,
    to_json,
    to_string,
)

OPERANDS_MAX = 255
RESULT_CHARACTERS_MAX = 1 << 20
JSON_DEPTH_MAX = 100
_DIGITS = re.compile(r"[0-9]+")
_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
STATUS_FUNCTIONS = frozenset({"success", "failure", "always", "cancelled"})


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its spelling in messages, its arity and what it does."""

    name: str
    operands_min: int
    operands_max: int
    run: Callable[[Scope, list[Node]], Value]


def failed(message: str) -> ExpressionError:
    """An error while computing a value."""
    return ExpressionError("evaluation", message)


def limited(text: str) -> str:
    """The text, or an error when it is larger than a result may be."""
    if len(text) > RESULT_CHARACTERS_MAX:
        raise failed(f"The result has more than {RESULT_CHARACTERS_MAX} characters")
    return text


def _contains(scope: Scope, operands: list[Node]) -> Value:
    where, what = operands[0].evaluate(scope), operands[1].evaluate(scope)
    if isinstance(where, list):
        return any(equal(item, what) for item in where)
    if isinstance(where, dict) or isinstance(what, (list, dict)):
        return False
    return fold_case(to_string(what)) in fold_case(to_string(where))


def _starts_with(scope: Scope, operands: list[Node]) -> Value:
    text, prefix = operands[0].evaluate(scope), operands[1].evaluate(scope)
    if isinstance(text, (list, dict)) or isinstance(prefix, (list, dict)):
        return False
    return fold_case(to_string(text)).startswith(fold_case(to_string(prefix)))


def _ends_with(scope: Scope, operands: list[Node]) -> Value:
    text, suffix = operands[0].evaluate(scope), operands[1].evaluate(scope)
    if isinstance(text, (list, dict)) or isinstance(suffix, (list, dict)):
        return False
    return fold_case(to_string(text)).endswith(fold_case(to_string(suffix)))


def _join(scope: Scope, operands: list[Node]) -> Value:
    items = operands[0].evaluate(scope)
    if isinstance(items, dict):
        return ""
    if not isinstance(items, list):
        return to_string(items)
    separator: Value = operands[1].evaluate(scope) if len(operands) > 1 else ","
    joint = "," if isinstance(separator, (list, dict)) else to_string(separator)
    texts = [to_string(item) for item in items]
    if sum(map(len, texts)) + len(joint) * len(texts) > RESULT_CHARACTERS_MAX + len(joint):
        raise failed(f"The result has more than {RESULT_CHARACTERS_MAX} characters")
    return joint.join(texts)


def _to_json(scope: Scope, operands: list[Node]) -> Value:
    return limited(to_json(operands[0].evaluate(scope)))


def _from_json(scope: Scope, operands: list[Node]) -> Value:
    text = to_string(operands[0].evaluate(scope))
    try:
        value: Value = json.loads(
            text,
            parse_int=_json_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=merged_pairs,
        )
    except (ValueError, RecursionError) as error:
        raise failed(f"Error parsing fromJSON input: {error}") from None
    _check_depth(value)
    return _without_halves(value) if _HALF.search(text) else value


def _without_halves(value: Value) -> Value:
    """The value with U+FFFD for each half of a surrogate pair: no text can be written with one."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_halves(item) for item in value]
    if isinstance(value, dict):
        return {str(_without_halves(name)): _without_halves(item) for name, item in value.items()}
    return value


def _json_integer(digits: str) -> Value:
    return parse_number(digits)


def _refuse_constant(name: str) -> Value:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Value) -> None:
    level: list[Value] = [value]
    for _ in range(JSON_DEPTH_MAX + 1):
        inner: list[Value] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return
        level = inner
    raise failed(f"Error parsing fromJSON input: nested deeper than {JSON_DEPTH_MAX} levels")


def _format(scope: Scope, operands: list[Node]) -> Value:
    values = [operand.evaluate(scope) for operand in operands]
    return format_text(to_string(values[0]), values[1:])


def format_text(template: str, values: list[Value]) -> str:
    """The `format` function: `{0}` inserts, doubled braces are literal."""
    parts: list[str] = []
    size = position = 0
    while position < len(template):
        opening, closing = template.find("{", position), template.find("}", position)
        if opening < 0 and closing < 0:
            part, position = template[position:], len(template)
        elif opening >= 0 and (closing < 0 or opening < closing):
            part, position = _opened(template, position, opening, closing, values)
        elif template[closing + 1 : closing + 2] == "}":
            part, position = template[position : closing + 1], closing + 2
        else:
            raise failed(f"The following format string is invalid: {template}")
        size += len(part)
        if size > RESULT_CHARACTERS_MAX:
            raise failed(f"The result has more than {RESULT_CHARACTERS_MAX} characters")
        parts.append(part)
    return "".join(parts)


def _opened(
    template: str, position: int, opening: int, closing: int, values: list[Value]
) -> tuple[str, int]:
    """The text up to and with what starts at an opening brace, and where to go on."""
    if template[opening + 1 : opening + 2] == "{":
        return template[position : opening + 1], opening + 2
    # What follows the digits was once a format of the value; it is read over.
    number = _DIGITS.match(template, opening + 1)
    if closing < 0 or number is None:
        raise failed(f"The following format string is invalid: {template}")
    significant = number.group().lstrip("0") or "0"
    if len(significant) > len(str(OPERANDS_MAX)) or int(significant) >= len(values):
        raise failed(
            "The following format string references more arguments than were supplied: " + template
        )
    return template[position:opening] + to_string(values[int(significant)]), closing + 1


def _case(scope: Scope, operands: list[Node]) -> Value:
    for position in range(0, len(operands) - 1, 2):
        predicate = operands[position].evaluate(scope)
        if not isinstance(predicate, bool):
            raise failed("case predicate must evaluate to a boolean value")
        if predicate:
            return operands[position + 1].evaluate(scope)
    return operands[-1].evaluate(scope)


def _hash_files(scope: Scope, operands: list[Node]) -> Value:
    patterns = [to_string(operand.evaluate(scope)) for operand in operands]
    if scope.hash_files is None:
        raise failed("hashFiles() needs the files of a job; it is not available here")
    return scope.hash_files(patterns)


def _names(scope: Scope, operands: list[Node]) -> tuple[str, ...]:
    return tuple(to_string(operand.evaluate(scope)) for operand in operands)


def _success(scope: Scope, operands: list[Node]) -> Value:
    return scope.status is not None and scope.status.success(_names(scope, operands))


def _failure(scope: Scope, operands: list[Node]) -> Value:
    return scope.status is not None and scope.status.failure(_names(scope, operands))


def _cancelled(scope: Scope, operands: list[Node]) -> Value:  # noqa: ARG001
    return scope.status is not None and scope.status.cancelled()


def _always(scope: Scope, operands: list[Node]) -> Value:  # noqa: ARG001
    return True


FUNCTIONS: dict[str, Function] = {
    function.name.lower(): function
    for function in (
        Function("contains", 2, 2, _contains),
        Function("startsWith", 2, 2, _starts_with),
        Function("endsWith", 2, 2, _ends_with),
        Function("format", 1, OPERANDS_MAX, _format),
        Function("join", 1, 2, _join),
        Function("toJSON", 1, 1, _to_json),
        Function("fromJSON", 1, 1, _from_json),
        Function("case", 3, OPERANDS_MAX, _case),
        Function("hashFiles", 1, OPERANDS_MAX, _hash_files),
        Function("success", 0, OPERANDS_MAX, _success),
        Function("failure", 0, OPERANDS_MAX, _failure),
        Function("always", 0, 0, _always),
        Function("cancelled", 0, 0, _cancelled),
    )
}
