"""What a batch of orders means for one boot."""

from __future__ import annotations

from typing import Any

from runner.lane import Begin, Cancel, Decline, Dismiss, LaneState, Welcomed, read_batch
from schemas.lanes import Assignment, CancelOrder, Dismissed, LaneRecord, Welcome, Withdraw

WHO: dict[str, Any] = {"runner_id": "r", "boot_id": "b"}


def assignment(job: str = "j", **changed: str) -> Assignment:
    """Return an assignment to this boot."""
    return Assignment(
        order_id="o", job_id=job, attempt=1, repository="x/y", run_id="run", delivery_id=None,
        name=job, job_json="{}", contexts_json="{}", **{**WHO, **changed},
    )  # fmt: skip


def withdraw(job: str = "j") -> Withdraw:
    """Return a withdrawal."""
    return Withdraw(order_id="w", job_id=job, attempt=1, reason="late", **WHO)


def cancel(job: str = "j") -> CancelOrder:
    """Return an order to end a job."""
    return CancelOrder(order_id="c", job_id=job, attempt=1, **WHO)


def names(state: LaneState, *records: LaneRecord) -> list[str]:
    """Return the kinds of what is to be done."""
    return [type(action).__name__ for action in read_batch(state, records)]


def test_an_assignment_is_begun_once() -> None:
    """A repeat, in the same batch or later, is nothing new."""
    state = LaneState("r", "b")

    assert names(state, assignment(), assignment()) == ["Begin"]
    assert names(state, assignment()) == []


def test_a_withdrawal_in_the_same_batch_declines() -> None:
    """Whichever way the others lie; one that comes later finds the job begun."""
    state = LaneState("r", "b")
    batch = read_batch(state, (assignment("j"), assignment("k"), withdraw("j")))

    assert [type(action) for action in batch] == [Decline, Begin]
    assert isinstance(batch[0], Decline)
    assert (batch[0].order_id, batch[0].reason) == ("w", "late")
    assert names(state, withdraw("k")) == []


def test_orders_to_others_are_ignored() -> None:
    """Another runner's, and an older or newer boot's."""
    state = LaneState("r", "b")

    assert names(state, assignment(runner_id="s"), assignment(boot_id="a")) == []


def test_a_cancellation_goes_with_its_assignment_or_alone() -> None:
    """In one batch the job begins cancelled, so that its cleanup steps run; later it is ended."""
    state = LaneState("r", "b")
    [begin] = read_batch(state, (assignment(), cancel()))

    assert isinstance(begin, Begin)
    assert begin.cancelled == cancel()
    assert [type(a) for a in read_batch(state, (cancel(),))] == [Cancel]


def test_a_dismissal_outweighs_everything_else() -> None:
    """Nothing is begun by a boot that is over."""
    state = LaneState("r", "b")
    dismissed = Dismissed(order_id="d", reason="silent", **WHO)

    assert read_batch(state, (assignment(), dismissed)) == [Dismiss("silent")]
    assert read_batch(state, (Welcome(order_id="x", slots=1, **WHO),)) == [Welcomed()]
