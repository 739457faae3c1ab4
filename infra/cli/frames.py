"""A line of a file with a mark under a place in it."""

from __future__ import annotations

import re
import unicodedata

from infra.cli.output import clean

# The line breaks of YAML 1.1, by which the parser counts lines.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WORD = re.compile(r"[\w.-]+")
_COLUMNS_MAX = 100
_BEFORE = 40
_TAB = "    "


def split_lines(text: bytes) -> list[str]:
    """Return the lines of a file as the parser counts them."""
    return _BREAK.split(text.decode("utf-8-sig", "replace"))


def code_frame(lines: list[str], line: int, column: int) -> tuple[str, str] | None:
    """Return a numbered line and the line with the mark below it; None when there is no such one.

    Of a long line only the part around the place is shown.
    """
    if not 1 <= line <= len(lines):
        return None
    whole = lines[line - 1]
    place = min(column - 1, len(whole))
    start = place - _BEFORE if len(whole) > _COLUMNS_MAX and place > _BEFORE else 0
    shown = whole[start : start + _COLUMNS_MAX]
    lead, tail = ("…" if start else ""), ("…" if start + len(shown) < len(whole) else "")
    before = lead + _printable(whole[start:place])
    word = _WORD.match(shown, place - start)
    width = max(1, _width(_printable(word[0]))) if word else 1
    gutter = f"{line:>5} | "
    code = gutter + lead + _printable(shown) + tail
    mark = " " * (len(gutter) - 2) + "| " + " " * _width(before) + "^" + "~" * (width - 1)
    return code.rstrip(), mark


def _printable(text: str) -> str:
    return clean(text.replace("\t", _TAB))


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
