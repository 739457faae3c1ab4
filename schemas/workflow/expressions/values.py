"""Values of the expression language: kinds, coercion, comparison and formatting.

A value is None, bool, int or float, str, list or dict. The rules are those of GitHub's
"Evaluate expressions" page: loose comparison casts to a number, strings ignore case.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeAlias, cast

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

NAN = math.nan
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_PREFIXED = {"0x": 16, "0o": 8, "0b": 2}
_PREFIXED_DIGITS = {
    16: re.compile(r"[0-9a-fA-F]+\Z"),
    8: re.compile(r"[0-7]+\Z"),
    2: re.compile(r"[01]+\Z"),
}
_INFINITE = {"Infinity": math.inf, "+Infinity": math.inf, "-Infinity": -math.inf}
_DIGITS_EXACT_MAX = 15
# JavaScript writes out a number below 1e21, and one from 1e-6 on.
_JS_FIXED_DIGITS_MAX = 21
_JS_ZEROS_MAX = -6
_EXACT_MAX = 1 << 53


class FilteredArray(list[Value]):
    """The result of `.*`: a further index applies to each element, not to the array."""

    __slots__ = ()


def kind(value: Value) -> str:
    """GitHub's name for the type of a value."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, (int, float)):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Array" if isinstance(value, list) else "Object"


def is_number(value: Value) -> bool:
    """True for int and float, false for bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_primitive(value: Value) -> bool:
    """True for everything but arrays and objects."""
    return not isinstance(value, (list, dict))


def parse_number(text: str) -> float | int:
    """A string as a number: blank is 0, hexadecimal and octal count, nonsense is NaN."""
    text = text.strip()
    if not text:
        return 0
    if _DECIMAL.match(text):
        if text.isdigit() and len(text) <= _DIGITS_EXACT_MAX:
            return int(text)
        return float(text)
    base = _PREFIXED.get(text[:2].lower())
    if base is not None and _PREFIXED_DIGITS[base].match(text[2:]):
        return _from_digits(text[2:], base)
    return _INFINITE.get(text, NAN)


def _from_digits(digits: str, base: int) -> float | int:
    number = int(digits, base)
    try:
        return number if number < 1 << 53 else float(number)
    except OverflowError:
        return math.inf


def to_number(value: Value) -> float | int:
    """A value as a number; arrays and objects are NaN."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1 if value else 0
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return parse_number(value)
    return NAN


def format_number(number: float) -> str:
    """A number as text, with 15 significant digits as the runner prints it."""
    if isinstance(number, int) and -(10**_DIGITS_EXACT_MAX) < number < 10**_DIGITS_EXACT_MAX:
        return str(number)
    number = float(number)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return "0" if number == 0 else f"{number:.15G}"


def to_string(value: Value) -> str:
    """A value as it appears inside a text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return format_number(value)
    return "Array" if isinstance(value, list) else "Object"


def truthy(value: Value) -> bool:
    """False are null, false, 0, NaN and the empty string; everything else is true."""
    if isinstance(value, (list, dict)):
        return True
    return bool(value) and value == value  # noqa: PLR0124 -- NaN is the value unlike itself


def fold_case(text: str) -> str:
    """Upper case, one character for one, and never from outside ASCII into it.

    So is the runner's ordinal comparison: the dotless i is not an I, nor the sharp s SS.
    """
    if text.isascii():
        return text.upper()
    return "".join(map(_fold_character, text))


def _fold_character(character: str) -> str:
    upper = character.upper()
    if len(upper) != 1 or (upper.isascii() and not character.isascii()):
        return character
    return upper


def equal(left: Value, right: Value) -> bool:
    """The `==` of the language: numbers when the kinds differ, identity for collections."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right or fold_case(left) == fold_case(right)
    if isinstance(left, (list, dict)) or isinstance(right, (list, dict)):
        return left is right
    if left is None and right is None:
        return True
    return to_number(left) == to_number(right)


def greater(left: Value, right: Value) -> bool:
    """The `>` of the language; `a < b` is `greater(b, a)`."""
    if isinstance(left, str) and isinstance(right, str):
        return fold_case(left) > fold_case(right)
    if isinstance(left, (list, dict)) or isinstance(right, (list, dict)):
        return False
    return to_number(left) > to_number(right)


def property_of(container: dict[str, Value], name: str) -> Value:
    """A property by name, the exact spelling first, else ignoring case; null when absent."""
    if name in container:
        return container[name]
    folded = fold_case(name)
    for key, value in container.items():
        if len(key) == len(name) and fold_case(key) == folded:
            return value
    return None


def has_property(container: dict[str, Value], name: str) -> bool:
    """Whether the property exists, ignoring case."""
    if name in container:
        return True
    folded = fold_case(name)
    return any(fold_case(key) == folded for key in container)


def to_json(value: Value, indent: str = "\n") -> str:
    """JSON indented by two spaces, as `toJSON` prints it, numbers by JavaScript's rule."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and value:
        inner = indent + "  "
        items = ",".join(inner + to_json(item, inner) for item in value)
        return f"[{items}{indent}]"
    if isinstance(value, dict) and value:
        inner = indent + "  "
        items = ",".join(
            f"{inner}{json.dumps(name, ensure_ascii=False)}: {to_json(item, inner)}"
            for name, item in value.items()
        )
        return f"{{{items}{indent}}}"
    if isinstance(value, (list, dict)):
        return "[]" if isinstance(value, list) else "{}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and -_EXACT_MAX <= value <= _EXACT_MAX:
        return str(value)
    number = float(value)  # all numbers of the language are doubles
    return _js_number(number) if math.isfinite(number) else "null"


def _js_number(number: float) -> str:
    """A finite number by JavaScript's rule: the shortest digits, an exponent from 1e21 on."""
    if number == 0:
        return "0"
    mantissa, _, exponent = float.__repr__(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    text = digits.rstrip("0")
    if 0 < point <= _JS_FIXED_DIGITS_MAX:
        text = text.ljust(point, "0")
        text = text if len(text) == point else f"{text[:point]}.{text[point:]}"
    elif _JS_ZEROS_MAX < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        text = f"{text[0]}{fraction}e{point - 1:+d}"
    return f"-{text}" if number < 0 else text


def merged_pairs(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    """An object from JSON pairs.

    Of equal names the last one counts; of names that differ only in case the first one stays.
    """
    result = dict(pairs)
    if len({fold_case(name) for name in result}) == len(pairs):
        return result
    first: dict[str, Value] = {}
    seen: set[str] = set()
    for name, value in result.items():
        folded = fold_case(name)
        if folded not in seen:
            seen.add(folded)
            first[name] = value
    return first


def as_value(value: object) -> Value:
    """Marks JSON-like data from outside as a value; nothing is copied."""
    return cast("Value", value)
