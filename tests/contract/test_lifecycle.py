"""The table of what may follow what in the life of an attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import events
from schemas.lifecycle import REPORTS, TRANSITIONS, Phase, after, token_matches

KINDS = sorted({kind for table in TRANSITIONS.values() for kind in table})


def test_every_phase_has_its_row_and_every_kind_its_class() -> None:
    """No phase is forgotten, no kind is misspelt."""
    known = {kind.__name__ for kind in events.KINDS}
    assert set(TRANSITIONS) == set(Phase)
    assert known >= set(KINDS)
    assert known >= REPORTS


def test_the_end_is_the_end() -> None:
    """Nothing follows ENDED, whatever comes."""
    assert TRANSITIONS[Phase.ENDED] == {}
    assert all(after(Phase.ENDED, kind.__name__) is None for kind in events.KINDS)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ENDED])
def test_every_phase_can_end(phase: Phase) -> None:
    """No attempt is stuck for want of a transition."""
    reached, left = {phase}, [phase]
    while left:
        for following in TRANSITIONS[left.pop()].values():
            if following not in reached:
                reached.add(following)
                left.append(following)
    assert Phase.ENDED in reached


@pytest.mark.parametrize("phase", [Phase.ASSIGNED, Phase.STARTED, Phase.LOST])
def test_a_finish_counts_wherever_the_runner_may_be(phase: Phase) -> None:
    """Also when its start was spooled behind an outage, also inside the grace of a loss."""
    assert after(phase, "JobFinished") is Phase.ENDED


@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        (Phase.QUEUED, "JobStarted"),
        (Phase.QUEUED, "JobFinished"),
        (Phase.STARTED, "JobStarted"),
        (Phase.STARTED, "JobAssigned"),
        (Phase.ASSIGNED, "JobAssigned"),
        (Phase.LOST, "JobStarted"),
    ],
)
def test_duplicates_and_late_facts_are_refused(phase: Phase, kind: str) -> None:
    """A fact that has happened, or that can't have, has no transition."""
    assert after(phase, kind) is None


@given(st.lists(st.sampled_from(KINDS), max_size=30))
def test_an_attempt_ends_once_in_any_history(history: list[str]) -> None:
    """Whatever is read in whatever order, there is one accepted end at most."""
    phase, ends = Phase.QUEUED, 0
    for kind in history:
        following = after(phase, kind)
        if following is not None:
            phase = following
            ends += phase is Phase.ENDED
    assert ends <= 1


def test_a_report_counts_only_with_the_whole_token() -> None:
    """Attempt, runner and boot: each of them alone makes a report stale."""
    live = (2, "box", "boot")
    assert token_matches(live, (2, "box", "boot"))
    for stale in [(1, "box", "boot"), (2, "other", "boot"), (2, "box", "old"), (None, None, None)]:
        assert not token_matches(live, stale)
