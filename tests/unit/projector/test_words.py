"""Codes, instants and durations as people read them."""

from __future__ import annotations

import pytest

from projector.api import words


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (0, 400, "0.4 s"),
        (0, 9_999, "10.0 s"),
        (0, 12_300, "12 s"),
        (0, 185_000, "3 min 05 s"),
        (0, 7_800_000, "2 h 10 min"),
        (5, 1, "0.0 s"),
        (None, 1, ""),
        (1, None, ""),
    ],
)
def test_durations_read_well(start: int | None, end: int | None, text: str) -> None:
    """Two units at most; clocks that disagree never give a negative one."""
    assert text == words.duration(start, end)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (40, "40 s ago"), (200, "3 min ago"), (7_300, "2 h ago"),
     (90_000, "1 day ago"), (200_000, "2 days ago")],
)  # fmt: skip
def test_relative_times_read_well(seconds: int, text: str) -> None:
    """One unit, rounded down."""
    assert text == words.ago(0, seconds * 1000)


def test_a_known_reason_is_a_sentence_and_an_unknown_one_its_words() -> None:
    """A reason that a newer scheduler invents is still readable."""
    assert words.reason("infra.runner_lost") == "Its runner was lost"
    assert words.reason("user.ran_out-of_luck") == "Ran out of luck"


@pytest.mark.parametrize(
    ("ref", "text"),
    [("refs/heads/a/b", "a/b"), ("refs/tags/v1", "v1"), ("refs/pull/17/merge", "#17"), ("x", "x")],
)
def test_refs_are_short(ref: str, text: str) -> None:
    """Without their namespace."""
    assert text == words.short_ref(ref)
