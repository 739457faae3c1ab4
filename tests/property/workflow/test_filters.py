"""The matcher agrees with a slow reference, and its work is linear."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.workflow.filters import compile_pattern, matches_refs, selects, validate_pattern
from tests.property.workflow.strategies import PATH_NAMES, PATTERNS


def reference(pattern: str) -> re.Pattern[str]:
    """A well-formed pattern as a regular expression: slow in the worst case, but plain to read."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/") and (position == 0 or pattern[position - 1] == "/"):
            parts.append("(?:.*/)?")
            position += 3
        elif rest.startswith("**"):
            parts.append(".*")
            position += 2
        elif rest[0] == "*":
            parts.append("[^/]*")
            position += 1
        elif rest[0] in "?+":
            parts.append(rest[0])
            position += 1
        elif rest[0] == "[":
            end = rest.index("]")
            parts.append("[" + rest[1:end].replace("\\", "\\\\").replace("[", "\\[") + "]")
            position += end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            parts.append(re.escape(rest[1]))
            position += 2
        else:
            parts.append(re.escape(rest[0]))
            position += 1
    return re.compile("".join(parts), re.DOTALL)


def well_formed(pattern: str) -> bool:
    """Patterns whose meaning is not in doubt."""
    problems = validate_pattern(pattern, is_ref=False)
    return (
        not pattern.startswith("!")
        and not any(problem.severity == "error" for problem in problems)
        and not any(part.startswith(("[^", "[!", "[-")) for part in (pattern, pattern[1:]))
        and not re.search(r"\[[^\]]*[\^&~|\\\[-][^\]]*\]|\*\*\*|[?+][?+*]|\*[?+]", pattern)
    )


@given(pattern=PATTERNS.filter(well_formed), name=PATH_NAMES)
@example(pattern="**/a", name="ba")
@example(pattern="a/**/b", name="a/b")
@example(pattern="[ab]+/a?", name="abab/")
def test_the_matcher_agrees_with_the_reference(pattern: str, name: str) -> None:
    """On every small pattern and name."""
    assert matches_refs([pattern], name) == bool(reference(pattern).fullmatch(name))


@given(pattern=st.text(max_size=30), name=st.text(max_size=30))
def test_any_text_is_a_pattern_that_matches_or_not(pattern: str, name: str) -> None:
    """Malformed patterns never raise."""
    assert selects([pattern], name) in (True, False)
    for is_ref in (True, False):
        assert all(problem.message for problem in validate_pattern(pattern, is_ref=is_ref))


@given(name=st.text(alphabet="ab*?+[]!\\/", min_size=1, max_size=12))
def test_an_escaped_name_matches_itself(name: str) -> None:
    """A backslash makes every character ordinary."""
    pattern = "".join("\\" + character for character in name)

    assert matches_refs([pattern], name)
    assert not matches_refs([pattern], name + "x")


def test_the_work_is_the_length_of_the_name() -> None:
    """What makes a backtracking matcher take for ever costs one mask a character here."""
    pattern = compile_pattern("*a" * 40 + "*b")
    assert not pattern.matches("a" * 20_000)

    assert len(pattern.accepted) == 1
    assert pattern.places
    assert len(pattern.places) == 82
