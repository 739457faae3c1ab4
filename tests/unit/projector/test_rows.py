"""The fold of events into rows, as histories and the rows they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector import rows
from projector.rows import UnfoldableError, WorkingSet
from projector.tables import ENTITIES, Attempt, Delivery, Job, Row, Run, Runner, Step, Variable
from schemas import events as e
from schemas.events import KINDS
from tests.support.histories import BOOT, History


def folded(events: Iterable[e.Event]) -> WorkingSet:
    """Return the rows after these events, looked up in nothing but themselves."""
    working = WorkingSet()
    for offset, event in enumerate(events):
        for table, key in rows.missing(working, event):
            working.known[table][key] = None
        rows.project(working, event, 0, offset)
    return working


def only(working: WorkingSet, table: type[Any]) -> Any:
    """Return the one row of a table."""
    [row] = [row for row in working.known[table].values() if row is not None]
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A history after `build` was started, and what the rows then say."""

    claim: str
    then: Callable[[History, str], object]
    job: dict[str, object]
    attempt: dict[str, object]


def _started() -> tuple[History, str]:
    history = History()
    history.pushed()
    history.planned([("build", ())])
    job = history.job("build")
    history.scheduled(job)
    history.assigned(job)
    history.started(job)
    return history, job


def _stale(history: History, job: str) -> None:
    history.boot_id = BOOT[:-1] + "9"
    history.finished(job)


def _lost_then_again(history: History, job: str) -> None:
    history.add(e.AttemptLost, job, job_id=job, attempt=1, reason="infra.runner_lost")
    history.scheduled(job, 2, reason="infra.runner_lost")


def _lost_then_finished(history: History, job: str) -> None:
    history.add(e.AttemptLost, job, job_id=job, attempt=1, reason="infra.runner_lost")
    history.finished(job)


def _cancelled_late(history: History, job: str) -> None:
    history.finished(job)
    history.add(e.JobCancelled, job, job_id=job, attempt=1, reason="cancel.late")


def _reopened(history: History, job: str) -> None:
    history.finished(job, conclusion="failure")
    history.scheduled(job, 2, reason="retry")


def _older_report(history: History, job: str) -> None:
    _reopened(history, job)
    history.finished(job, 1)


def _finished_twice(history: History, job: str) -> None:
    history.finished(job, conclusion="failure")
    history.finished(job)


EXAMPLES = [
    Example(
        claim="a started attempt runs",
        then=lambda _history, _job: None,
        job={"status": "running", "conclusion": None, "live_attempt": 1},
        attempt={"phase": "started", "runner_id": "runner-a", "conclusion": None},
    ),
    Example(
        claim="a finished attempt ends its job",
        then=lambda history, job: history.finished(job, outputs={"v": "1"}),
        job={"status": "completed", "conclusion": "success", "outputs": {"v": "1"}},
        attempt={"phase": "ended", "conclusion": "success", "log_lines": 6},
    ),
    Example(
        claim="a report of another boot changes nothing",
        then=_stale,
        job={"status": "running", "conclusion": None},
        attempt={"phase": "started", "conclusion": None},
    ),
    Example(
        claim="a lost attempt fails when the next one is queued",
        then=_lost_then_again,
        job={"status": "queued", "live_attempt": 2, "conclusion": None, "started_at": None},
        attempt={"phase": "ended", "conclusion": "failure", "reason": "infra.runner_lost"},
    ),
    Example(
        claim="a finish within the grace of a loss counts",
        then=_lost_then_finished,
        job={"status": "completed", "conclusion": "success"},
        attempt={"phase": "ended", "conclusion": "success", "reason": ""},
    ),
    Example(
        claim="the scheduler's word on a job outranks its attempt's",
        then=_cancelled_late,
        job={"status": "completed", "conclusion": "cancelled", "reason": "cancel.late"},
        attempt={"phase": "ended", "conclusion": "success"},
    ),
    Example(
        claim="a higher attempt opens a job again",
        then=_reopened,
        job={"status": "queued", "conclusion": None, "live_attempt": 2, "finished_at": None},
        attempt={"phase": "ended", "conclusion": "failure"},
    ),
    Example(
        claim="a report of an earlier attempt changes nothing",
        then=_older_report,
        job={"status": "queued", "conclusion": None},
        attempt={"phase": "ended", "conclusion": "failure"},
    ),
    Example(
        claim="the first of two finishes counts",
        then=_finished_twice,
        job={"status": "completed", "conclusion": "failure"},
        attempt={"phase": "ended", "conclusion": "failure"},
    ),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.claim)
def test_jobs_and_attempts_follow_the_lifecycle(example: Example) -> None:
    """After a started job and the example's events, its rows say what the example says."""
    history, job = _started()

    example.then(history, job)

    working = folded(history.events)
    found_job = working.known[Job][(job,)]
    found_attempt = working.known[Attempt][(job, 1)]
    assert example.job == {name: getattr(found_job, name) for name in example.job}
    assert example.attempt == {name: getattr(found_attempt, name) for name in example.attempt}


def test_every_kind_is_handled_or_named_as_trail_only() -> None:
    """A new kind of event must be given a place in the read models on purpose."""
    handled = set(rows._HANDLERS) | rows.TRAIL_ONLY  # noqa: SLF001 - the table is what is tested

    assert set(KINDS) == handled


def test_a_run_goes_from_waiting_to_completed() -> None:
    """The run's status follows its jobs; its end is the scheduler's word."""
    history = History()
    history.pushed()
    history.planned([("build", ())])
    job = history.job("build")
    statuses = []
    for step in (history.scheduled, history.assigned, history.started, history.finished):
        statuses.append(only(folded(history.events), Run).status)
        step(job)
    history.run_finished()

    assert [*statuses, only(folded(history.events), Run).status] == [
        "waiting", "queued", "queued", "running", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize("beside", [True, False], ids=["something_runs", "nothing_runs"])
def test_a_merge_conflict_is_seen_with_its_delivery(*, beside: bool) -> None:
    """Also where a workflow for pull_request_target runs all the same."""
    history = History()
    history.pushed()
    history.events.pop()  # its answer
    reason = "merge_conflict: aaa does not merge into main"
    outcomes = [e.WorkflowOutcome(path="", outcome=e.Outcome.IGNORED, reason=reason)]
    if beside:
        outcomes.append(e.WorkflowOutcome(path="w.yml", outcome=e.Outcome.PLANNED, name="W"))
    history.add(e.DeliveryPlanned, "planned", delivery_id=history.delivery_id,
                workflows=tuple(outcomes))  # fmt: skip
    if not beside:
        history.add(e.DeliveryIgnored, "ignored", delivery_id=history.delivery_id,
                    reason="merge_conflict", detail=reason)  # fmt: skip
    row = only(folded(history.events), Delivery)

    assert (row.status, row.detail) == ("planned" if beside else "ignored", reason)


def test_a_repeated_delivery_is_counted_and_stays_what_it_was() -> None:
    """A forge that delivers twice does not turn the delivery that was acted on into ignored."""
    history = History()
    history.pushed()
    first = history.events[0]
    history.planned()
    history.events.append(replace(first))
    history.add(e.DeliveryIgnored, "again", reason="duplicate_delivery")

    delivery = only(folded(history.events), Delivery)

    assert (delivery.status, delivery.duplicates, len(delivery.run_ids)) == ("planned", 1, 1)


def test_a_declined_assignment_ends_its_attempt_and_not_its_job() -> None:
    """The next try is an attempt of its own."""
    history = History()
    history.pushed()
    history.planned([("build", ())])
    job = history.job("build")
    history.scheduled(job)
    history.assigned(job)
    token = {"runner_id": history.runner_id, "boot_id": history.boot_id}
    history.add(e.AssignmentDeclined, job, job_id=job, attempt=1, reason="full", **token)

    working = folded(history.events)

    assert (only(working, Attempt).phase, only(working, Attempt).reason) == ("ended", "full")
    assert (only(working, Job).status, only(working, Job).conclusion) == ("queued", None)


def test_a_refused_job_has_its_message_on_job_and_attempt() -> None:
    """What the scheduler says of a job that no runner can do is there for people to read."""
    history = History()
    history.pushed()
    history.planned([("build", ())])
    job = history.job("build")
    history.scheduled(job)
    history.add(e.JobFailed, job, job_id=job, attempt=1, reason="user.x", message="no engine")

    working = folded(history.events)

    for row in (only(working, Job), only(working, Attempt)):
        assert (row.conclusion, row.reason, row.message) == ("failure", "user.x", "no engine")


def test_a_lower_or_lost_boot_of_a_runner_is_ignored() -> None:
    """A zombie's announcement does not bring its runner back."""
    history = History()
    higher = BOOT[:-1] + "5"
    history.joined(higher)
    history.joined(BOOT)
    history.add(e.RunnerLost, 1, runner_id=history.runner_id, boot_id=higher, reason="infra.silent")
    history.joined(higher)

    runner = only(folded(history.events), Runner)

    assert (runner.boot_id, runner.status) == (higher, "lost")


def test_an_expanded_matrix_gives_its_legs_its_place() -> None:
    """A leg has the node's key, needs and position, and its own matrix."""
    history = History()
    history.pushed()
    history.planned([("lint", ()), ("test", ("lint",))])
    node = history.job("test")
    legs = tuple(
        e.Leg(
            job_id=history.job("test", i), name=f"test ({i})", index=i, matrix_json=f'{{"n":{i}}}'
        )
        for i in range(2)
    )
    history.add(e.MatrixExpanded, node, job_id=node, legs=legs)

    working = folded(history.events)

    leg = working.known[Job][(legs[1].job_id,)]
    assert isinstance(leg, Job)
    assert (leg.key, leg.needs, leg.position, leg.matrix) == ("test", ["lint"], 1, {"n": 1})
    parent = working.known[Job][(node,)]
    assert isinstance(parent, Job)
    assert parent.expanded


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (e.RunFinished(event_id="x", conclusion="success"), "no run_id"),
        (e.JobSkipped(event_id="x", run_id="r"), "no job_id"),
        (e.JobStarted(event_id="x", run_id="r", job_id="j"), "no attempt"),
        (e.RunFinished(event_id="x", run_id="r" * 2000, conclusion="success"), "id of 2000"),
        (e.RunFinished(event_id="x", run_id="r\0", conclusion="success"), "no NUL"),
    ],
)
def test_an_event_that_no_row_can_hold_is_refused(event: e.Event, message: str) -> None:
    """What would stop PostgreSQL is found before it gets there, so that it can be set aside."""
    with pytest.raises(UnfoldableError, match=message):
        rows.check(event)


def test_long_texts_are_in_the_trail_as_their_length() -> None:
    """The trail points to the record for what is large."""
    history = History()
    history.pushed("m" * 10_000)

    data = folded(history.events).trail[0].data

    assert data["message"] == {"omitted_chars": 10_000}


# --------------------------------------------------------------------------- properties

_KINDS = st.sampled_from(
    ["scheduled", "assigned", "started", "finished", "failed", "lost", "cancelled", "declined",
     "blocked", "stepped", "zombie", "run_finished"]
)  # fmt: skip
_MOVES = st.lists(st.tuples(_KINDS, st.integers(0, 1), st.integers(1, 3)), max_size=40)


def _history_of(moves: list[tuple[str, int, int]]) -> list[e.Event]:
    """Return any order of things that may be said about two jobs, sensible or not."""
    history = History().configured()
    history.pushed()
    history.planned()
    for kind, number, attempt in moves:
        job = history.job(("build", "test")[number])
        own: dict[str, object] = {"job_id": job, "attempt": attempt}
        token = {**own, "runner_id": history.runner_id, "boot_id": history.boot_id}
        match kind:
            case "scheduled" | "assigned" | "started" | "finished" | "stepped":
                getattr(history, kind)(job, attempt)
            case "failed":
                history.finished(job, attempt, conclusion="failure")
            case "lost":
                history.add(e.AttemptLost, job, **own, reason="infra.runner_lost")
            case "cancelled":
                history.add(e.JobCancelled, job, **own, reason="cancel.user")
            case "declined":
                history.add(e.AssignmentDeclined, job, **token, reason="full")
            case "blocked":
                history.add(e.JobBlocked, job, job_id=job, reason="pool_full")
            case "zombie":
                history.add(e.JobFinished, job, **token | {"boot_id": "0"}, conclusion="failure")
            case _:
                history.run_finished()
    return history.events


def _everything(working: WorkingSet) -> dict[type[Row], dict[Any, Row | None]]:
    return {table: {k: r for k, r in working.known[table].items() if r} for table in ENTITIES}


@settings(max_examples=200, deadline=None)
@given(_MOVES)
def test_folding_the_same_events_again_gives_the_same_rows(
    moves: list[tuple[str, int, int]],
) -> None:
    """The fold depends on events alone."""
    events = _history_of(moves)

    assert _everything(folded(events)) == _everything(folded(events))


@settings(max_examples=200, deadline=None)
@given(_MOVES)
def test_an_ended_attempt_never_changes_its_conclusion(moves: list[tuple[str, int, int]]) -> None:
    """Terminal stays terminal, in whatever order reports and decisions come."""
    working = WorkingSet()
    ended: dict[Any, str | None] = {}
    for offset, event in enumerate(_history_of(moves)):
        for table, key in rows.missing(working, event):
            working.known[table][key] = None
        rows.project(working, event, 0, offset)
        for key, row in working.known[Attempt].items():
            if isinstance(row, Attempt) and row.phase == "ended":
                assert ended.setdefault(key, row.conclusion) == row.conclusion
                assert row.conclusion is not None


@settings(max_examples=200, deadline=None)
@given(_MOVES)
def test_a_job_has_one_live_attempt_and_it_is_the_highest(
    moves: list[tuple[str, int, int]],
) -> None:
    """No two attempts of a job are open at a time."""
    working = folded(_history_of(moves))
    for job in working.known[Job].values():
        assert isinstance(job, Job)
        attempts = [
            row
            for row in working.known[Attempt].values()
            if isinstance(row, Attempt) and row.job_id == job.job_id
        ]
        assert job.live_attempt == max((row.attempt for row in attempts), default=0)


def test_steps_keep_what_they_were_told() -> None:
    """A step's end has its conclusion, its exit code and its lines."""
    history, job = _started()
    history.stepped(job, number=2, name="Run make", conclusion="failure")

    step = only(folded(history.events), Step)

    assert (step.name, step.conclusion, step.exit_code, step.first_line) == (
        "Run make", "failure", 2, 3,
    )  # fmt: skip


def _everywhere(at: int, value: str = "", repository: str = "") -> e.Event:
    """Return that the variable A was set, or without a value removed, at a time."""
    kind = "set" if value else "removed"
    if value:
        return e.VariableSet(event_id=f"{kind}-{at}", occurred_at=at, repository=repository,
                             name="A", value=value)  # fmt: skip
    return e.VariableRemoved(event_id=f"{kind}-{at}", occurred_at=at, repository=repository,
                             name="A")  # fmt: skip


@pytest.mark.parametrize(
    ("events", "value", "removed"),
    [
        ((_everywhere(2, "new"), _everywhere(1, "old")), "new", False),
        ((_everywhere(1, "old"), _everywhere(2, "new")), "new", False),
        ((_everywhere(2), _everywhere(1, "old")), "", True),
        ((_everywhere(2, "new"), _everywhere(1)), "new", False),
        ((_everywhere(2, "a", "o/r"), _everywhere(1, "b", "o/r")), "b", False),
        ((_everywhere(2, "a", "o/r"), _everywhere(1, "", "o/r")), "", True),
    ],
)
def test_a_variable_of_the_installation_is_what_was_said_last(
    events: tuple[e.Event, ...], value: str, *, removed: bool
) -> None:
    """Cells are read each at its own pace; a repository's has the order of its log."""
    row = only(folded(events), Variable)

    assert (row.value, row.removed) == (value, removed)
