"""Groups of a log: where they begin and end, whatever the cuts between chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.groups import GROUPS_A_STEP_MAX, TITLE_CHARACTERS_MAX, LogGroups
from runner.logs import LogPacker
from runner.masking import Masker
from schemas.events import LogGroup


def found(*lines: str, step: int = 1) -> list[tuple[str, int, int]]:
    """Return (title, first line, lines) of the groups of a step whose log is these lines."""
    groups = LogGroups()
    groups.take(step, 0, "".join(f"{line}\n" for line in lines).encode())
    return [(g.title, g.first_line, g.lines) for g in groups.ended(step, len(lines))]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("a", "##[group]T", "b", "##[endgroup]", "c"), [("T", 1, 2)]),
        (("##[group]A", "b", "##[group]B", "c", "##[endgroup]"), [("A", 0, 2), ("B", 2, 2)]),
        (("##[group]A", "b"), [("A", 0, 2)]),
        (("##[endgroup]", "a"), []),
        (("a ##[group]no", " ##[group]no"), []),
        (("##[group]", "a"), [("", 0, 2)]),
        (("##[group]\x1b[32mgreen\x1b[0m \x07", "a"), [("green", 0, 2)]),
        (("##[group]" + "x" * 500,), [("x" * TITLE_CHARACTERS_MAX, 0, 1)]),
    ],
)
def test_groups_are_flat(lines: tuple[str, ...], expected: list[tuple[str, int, int]]) -> None:
    """A new one ends the one before, as on GitHub; the step's end ends the last."""
    assert found(*lines) == expected


_LINES = st.lists(st.sampled_from(["x", "##[group]G", "##[endgroup]", "##[error]e"]), max_size=20)


@given(_LINES, st.lists(st.integers(0, 20), max_size=5))
def test_chunks_do_not_matter(lines: list[str], cuts: list[int]) -> None:
    """However the lines come, the groups are those of the whole."""
    groups, at = LogGroups(), 0
    for end in [*sorted(cut for cut in cuts if cut <= len(lines)), len(lines)]:
        if end > at:
            groups.take(1, at, "".join(f"{line}\n" for line in lines[at:end]).encode())
            at = end
    assert [(g.title, g.first_line, g.lines) for g in groups.ended(1, len(lines))] == found(*lines)


def test_the_rest_of_a_long_line_begins_no_group() -> None:
    """Only the beginning of a line does."""
    groups = LogGroups()
    groups.take(1, 5, b"##[group]no\nx\n##[group]yes\n", continues=True)
    assert groups.ended(1, 9) == (LogGroup(title="yes", first_line=7, lines=2),)


def test_steps_have_groups_of_their_own_and_not_too_many() -> None:
    """A background process of an earlier step closes nobody else's group."""
    groups = LogGroups()
    groups.take(2, 0, b"##[group]two\n")
    groups.take(1, 1, b"##[endgroup]\n")
    groups.take(1, 2, b"##[group]g\n" * (GROUPS_A_STEP_MAX + 5))

    assert groups.ended(2, 9) == (LogGroup(title="two", first_line=0, lines=9),)
    assert len(groups.ended(1, 2000)) == GROUPS_A_STEP_MAX


def test_a_title_is_masked() -> None:
    """It is taken from what the log shows."""
    masker = Masker()
    masker.add("hunter2-hunter2")
    packer = LogPacker(masker, lambda _: None)
    packer.say(0, 3, "##[group]with hunter2-hunter2\nx\n##[endgroup]")
    [group] = packer.groups.ended(3, packer.lines)
    assert group == LogGroup(title="with ***", first_line=0, lines=2)
