"""Cron ticks and workflow_run: a history, one more event, and what the scheduler then makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from scheduler.core.cell import Cell
from scheduler.core.index import Index
from scheduler.core.outputs import Output
from scheduler.core.state import CronEntry, dump_changes, forget_changes
from schemas import events as e
from schemas.events import Event
from schemas.workflow.plan_json import plan_to_json
from tests.support.cells import REPOSITORY, CellDriver
from tests.support.workflows import PATH, compiled

MINUTE = 60_000
NOW = int(datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC).timestamp() * 1000)
DUE = NOW + 30_000
NIGHTLY = ".github/workflows/nightly.yml"
AFTER = ".github/workflows/after.yml"
JOBS = "jobs: {a: {runs-on: linux, steps: [{run: 'true'}]}}"
EVERY_MINUTE = f"{{on: {{schedule: [{{cron: '* * * * *'}}]}}, {JOBS}}}"
EVERY_HOUR = f"{{on: {{schedule: [{{cron: '0 * * * *'}}]}}, {JOBS}}}"
BERLIN = f"{{on: {{schedule: [{{cron: '0 9 * * *', timezone: Europe/Berlin}}]}}, {JOBS}}}"
PUSH = f"{{name: CI, on: push, {JOBS}}}"


def after(**settings: object) -> str:
    """Return a workflow that waits for another one."""
    return f"{{name: After, on: {{workflow_run: {json.dumps(settings)}}}, {JOBS}}}"


def driver() -> CellDriver:
    """Return a cell with a repository and a runner."""
    made = CellDriver()
    made.configure()
    made.join(labels=("linux",))
    return made


def words(outputs: list[Output]) -> list[str]:
    """Say what was made: kind, event and action of deliveries, else the kind."""
    said = []
    for output in outputs:
        if isinstance(output, e.DeliveryReceived):
            said.append(f"{output.event} {output.action or output.schedule}")
        elif isinstance(output, Event):
            said.append(type(output).__name__)
    return said


# --------------------------------------------------------------------------- cron

Play = Callable[[CellDriver], list[Output]]


@dataclass(frozen=True)
class Scenario:
    """What happens after `* * * * *` was indexed at 12:00:30, what is made, what is armed then."""

    claim: str
    play: Play
    made: tuple[str, ...]
    armed: tuple[int, ...]


def tick(d: CellDriver, late_ms: int = 0) -> list[Output]:
    """The first armed tick passes."""
    armed = d.ticks()[0]
    return d.pass_deadline(armed, int(armed.rpartition(":")[2]) + late_ms)


def _twice(d: CellDriver) -> list[Output]:
    armed = d.ticks()[0]
    d.pass_deadline(armed, DUE)
    return d.pass_deadline(armed, DUE + 5)


def _index_again_after_the_tick(d: CellDriver) -> list[Output]:
    tick(d)
    d.index({}, DUE + 1)
    d.index({NIGHTLY: EVERY_MINUTE}, NOW)
    return tick(d)


def _remove(d: CellDriver) -> list[Output]:
    return d.feed(e.RepositoryRemoved(event_id="removed", repository=REPOSITORY))


def _remove_and_index(d: CellDriver) -> list[Output]:
    _remove(d)
    return d.index({NIGHTLY: EVERY_MINUTE}, NOW + 9)


SCENARIOS = (
    Scenario("an index arms the next tick", lambda _: [], (), (DUE,)),
    Scenario("a tick is a delivery, and arms the next", tick, ("schedule * * * * *",),
             (DUE + MINUTE,)),
    Scenario("a tick that passes twice is one delivery", _twice, (), (DUE + MINUTE,)),
    Scenario("a tick a little late still counts", lambda d: tick(d, 4_000),
             ("schedule * * * * *",), (DUE + MINUTE,)),
    Scenario("ticks of a long gap are not made up for", lambda d: tick(d, 10 * MINUTE + 7), (),
             (DUE + 11 * MINUTE,)),
    Scenario("an index with the same entry leaves its tick alone",
             lambda d: d.index({NIGHTLY: EVERY_MINUTE}, DUE + 5), (), (DUE,)),
    Scenario("an index without the entry disarms it", lambda d: d.index({}, NOW + 9), (), ()),
    Scenario("an index with another entry arms that one",
             lambda d: d.index({NIGHTLY: EVERY_HOUR}, NOW + 9), (), (DUE + 59 * MINUTE,)),
    Scenario("an index that arms a tick that was made makes none again",
             _index_again_after_the_tick, (), (DUE + MINUTE,)),
    Scenario("a removed repository waits for nothing", _remove, (), ()),
    Scenario("an index that comes after the removal arms nothing", _remove_and_index, (), ()),
)  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.claim.replace(" ", "_"))
def test_cron(scenario: Scenario) -> None:
    """Each tick once, at its instant, for as long as the default branch lists it."""
    d = driver()
    d.index({NIGHTLY: EVERY_MINUTE}, NOW)
    assert tuple(words(scenario.play(d))) == scenario.made
    assert tuple(int(armed.rpartition(":")[2]) for armed in d.ticks()) == scenario.armed


def test_a_ticks_delivery_names_workflow_commit_and_branch() -> None:
    """What the planner reads: the indexed commit, so that nothing is resolved again."""
    d = driver()
    d.index({NIGHTLY: EVERY_MINUTE}, NOW, sha="d" * 40)
    [made] = tick(d)
    assert isinstance(made, e.DeliveryReceived)
    assert (made.source, made.event, made.workflow, made.schedule) == (
        "cron", "schedule", NIGHTLY, "* * * * *",
    )  # fmt: skip
    assert (made.sha, made.ref, made.occurred_at) == ("d" * 40, "refs/heads/main", DUE)
    assert made.delivery_id == f"cron:{REPOSITORY}:{NIGHTLY}:* * * * *:{DUE}"
    assert json.loads(made.payload_json or "")["schedule"] == "* * * * *"
    assert d.cell.state.deliveries[made.delivery_id or ""].repository == REPOSITORY


def test_a_ticks_delivery_becomes_a_run_like_any_other() -> None:
    """The planner's answer to a decision of the scheduler's own starts the run."""
    d = driver()
    d.index({NIGHTLY: EVERY_MINUTE}, NOW)
    [made] = tick(d)
    assert isinstance(made, e.DeliveryReceived)
    outputs = d.plan(EVERY_MINUTE, made.delivery_id or "", NIGHTLY, event="schedule")
    assert words(outputs) == ["RunPlanned", "JobScheduled", "JobAssigned"]


def test_a_time_zone_moves_the_instant() -> None:
    """9 o'clock in Berlin is 8 o'clock UTC in winter; the zone is part of the id."""
    d = driver()
    d.index({NIGHTLY: BERLIN}, NOW)
    [armed] = d.ticks()
    due = datetime.fromtimestamp(int(armed.rpartition(":")[2]) / 1000, tz=UTC)
    assert (due.day, due.hour) == (2, 8)
    assert "0 9 * * *@Europe/Berlin" in armed


def test_an_unknown_zone_or_a_damaged_index_arms_nothing_and_stops_nothing() -> None:
    """The core takes what the planner wrote, whatever it is."""
    d = driver()
    broken = {"schedules": [{"cron": "* * * * *", "timezone": "Mars/Base"}, {"cron": "x"}, 5]}
    for triggers in (json.dumps(broken), "{", "[]"):
        d.feed(
            e.WorkflowsIndexed(
                event_id=triggers, repository=REPOSITORY, sha="c", ref="refs/heads/main",
                workflows=(e.IndexedWorkflow(path="p", name="p", triggers_json=triggers),),
            )
        )  # fmt: skip
        assert d.ticks() == []


def test_a_file_with_mistakes_does_not_tick() -> None:
    """Its author was told at the push; a rejected run a minute would say it for ever."""
    d = driver()
    index = e.IndexedWorkflow(
        path="p", name="p", triggers_json='{"schedules":[{"cron":"* * * * *"}]}',
        problems=(e.PlanProblem(path="p", line=1, column=1, message="no"),),
    )  # fmt: skip
    d.feed(
        e.WorkflowsIndexed(
            event_id="i", repository=REPOSITORY, sha="c", ref="m", workflows=(index,)
        )
    )
    assert d.ticks() == []


def test_ids_stay_short_whatever_the_expression() -> None:
    """An id is a key in the log, in the state and in the read models."""
    d = driver()
    long = ",".join(["0"] * 2_000)
    d.index({NIGHTLY: EVERY_MINUTE.replace("* * * * *", f"{long} * * * *")}, NOW)
    [armed] = d.ticks()
    assert len(armed.encode()) < 1_000
    assert words(tick(d)) == [f"schedule {long} * * * *"]


# --------------------------------------------------------------------------- workflow_run


def told(d: CellDriver) -> list[e.DeliveryReceived]:
    """Return the workflow_run deliveries that were made."""
    return [event for event in d.of(e.DeliveryReceived) if isinstance(event, e.DeliveryReceived)]


def test_a_run_tells_when_it_is_requested_begins_and_ends() -> None:
    """Three activities, once each, with the run's conclusion at the end."""
    d = driver()
    d.index({AFTER: after(workflows=["CI"])}, NOW)
    d.receive()
    assert words(d.plan(PUSH))[:2] == ["RunPlanned", "workflow_run requested"]
    assert words(d.start("a")) == ["workflow_run in_progress"]
    assert words(d.finish("a", "failure")) == ["RunFinished", "workflow_run completed"]
    payload = json.loads(told(d)[-1].payload_json or "")
    assert payload["workflow_run"]["conclusion"] == "failure"
    assert payload["workflow_run"]["head_branch"] == told(d)[-1].head_ref == "main"
    assert (told(d)[-1].sha, told(d)[-1].workflow) == ("c" * 40, "CI")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"workflows": ["CI"], "types": ["completed"]}, ["completed"]),
        ({"workflows": ["Other"]}, []),
        ({"workflows": ["CI"], "types": ["requested"]}, ["requested"]),
    ],
)
def test_only_what_a_workflow_waits_for_is_told(
    settings: dict[str, object], expected: list[str]
) -> None:
    """No delivery that nothing could run for."""
    d = driver()
    d.index({AFTER: after(**settings)}, NOW)
    d.push(PUSH)
    d.start("a")
    d.finish("a")
    assert [event.action for event in told(d)] == expected


def test_a_chain_of_workflow_runs_ends() -> None:
    """As on GitHub: what three workflow_run events led to tells nobody, not even itself."""
    d = driver()
    d.index({PATH: after(workflows=["After"], types=["requested"])}, NOW)
    d.receive()
    d.plan(PUSH.replace("CI", "After"))
    for _ in range(10):
        waiting = [x for x in d.cell.state.deliveries if not x.answered]
        if not waiting:
            break
        d.plan(after(workflows=["After"]), waiting[0].delivery_id, event="workflow_run")
    assert [event.chain for event in told(d)] == [1, 2, 3]


def test_a_forks_run_does_not_pass_for_one_of_the_repository() -> None:
    """Workflows compare `head_repository` before they trust what a run left behind."""
    d = driver()
    d.index({AFTER: after(workflows=["CI"], types=["requested"])}, NOW)
    d.receive(event="pull_request", action="opened", number=7, fork=True, head_ref="topic")
    d.plan(PUSH)
    run = json.loads(told(d)[0].payload_json or "")["workflow_run"]
    assert run["head_repository"]["full_name"] != REPOSITORY
    assert (run["head_branch"], run["pull_requests"]) == ("topic", [{"number": 7}])


# --------------------------------------------------------------------------- pull_request_target


def _both(d: CellDriver, policy: str) -> list[Event]:
    d.configure(fork_pull_requests=policy)
    d.receive(event="pull_request", action="opened", number=7, fork=True)
    d.plan(PUSH, "d1")
    d.receive("d2", event="pull_request", action="reopened", number=7, fork=True)
    outcome = d.inputs[-2][1]
    assert isinstance(outcome, e.DeliveryPlanned)
    [first] = outcome.workflows
    d.answer(
        tuple(
            e.WorkflowOutcome(
                path=first.path, outcome="planned", name="CI", plan_json=first.plan_json,
                event=event, sha="a" * 40, ref=ref,
            )
            for event, ref in (
                ("pull_request", "refs/pull/7/merge"), ("pull_request_target", "refs/heads/main"),
            )
        ),
        "d2",
    )  # fmt: skip
    return [event for event in d.of(e.RunPlanned) if event.delivery_id == "d2"]


def test_a_workflow_for_both_pull_request_events_has_a_run_of_each() -> None:
    """Two runs with ids, commits and trust of their own: the target's runs the base's code."""
    runs = _both(driver(), "approve")
    assert len({run.run_id for run in runs}) == 2
    found = [(r.event, r.ref, r.fork, r.approval_required) for r in runs
             if isinstance(r, e.RunPlanned)]  # fmt: skip
    assert found == [
        ("pull_request", "refs/pull/7/merge", True, True),
        ("pull_request_target", "refs/heads/main", False, False),
    ]


def test_a_repository_that_runs_no_forks_still_runs_its_own_code_for_them() -> None:
    """`fork_pull_requests: never` is about code of forks, which pull_request_target has none of."""
    runs = _both(driver(), "never")
    assert [run.event for run in runs if isinstance(run, e.RunPlanned)] == ["pull_request_target"]


def _refolded(recorded: CellDriver, policy: str) -> CellDriver:
    """Fold a history whose repository was set otherwise, with the decisions that were made then."""
    again, twin = CellDriver(), CellDriver()
    for _, event in recorded.inputs:
        outputs = twin.feed(event)
        if isinstance(event, e.RepositoryConfigured):
            event = replace(event, fork_pull_requests=policy)  # noqa: PLW2901
        again.cell.refold(event)
        for output in outputs:
            if isinstance(output, Event):
                again.cell.replay(output)
    return again


@pytest.mark.parametrize("events", [
    ("pull_request",),
    ("pull_request", "pull_request_target"),
    ("pull_request_target", "pull_request"),
    ("pull_request", "pull_request_review"),
])  # fmt: skip
def test_a_recorded_run_of_a_fork_finds_its_outcome_under_another_policy(
    events: tuple[str, ...],
) -> None:
    """What a rule withholds today was planned when it was recorded: the cell can be restored."""
    d = driver()
    d.receive(event="pull_request", action="opened", number=7, fork=True)
    plan = plan_to_json(compiled(PUSH, PATH, {}))
    outcomes = tuple(
        e.WorkflowOutcome(path=PATH, outcome="planned", name="CI", plan_json=plan, event=event)
        for event in events
    )
    d.answer(outcomes)
    again = _refolded(d, "never")
    assert again.cell.state.runs.rows == d.cell.state.runs.rows
    assert set(again.cell.state.runs.rows) == {run.run_id for run in d.of(e.RunPlanned)}
    assert not again.cell.index.pending[REPOSITORY], "the delivery holds up those behind it"
    again.offset = d.offset
    again.receive("d2")
    again.plan(PUSH, "d2")
    assert len(again.of(e.RunPlanned)) == 1
    assert not len(again.cell.state.deliveries), "a delivery is kept for ever"
    assert Index.of(again.cell.state).closed == {}


def test_a_tick_writes_nothing_of_other_entries() -> None:
    """A repository may have a thousand schedules; each tick is about one."""
    written = []
    for count in (2, 200):
        d = driver()
        files = {f"{n}.yml": EVERY_MINUTE for n in range(count)}
        d.index(files, NOW)
        forget_changes(d.cell.state)
        d.pass_deadline(d.ticks()[0], DUE)
        written.append(sum(len(key) + len(row or b"") for key, row in dump_changes(d.cell.state)))
    assert written[1] - written[0] < 20, written


def test_an_entry_without_an_instant_is_asked_anew_with_the_next_index() -> None:
    """A zone that an older version did not know ticks once a version does."""
    d = driver()
    d.index({NIGHTLY: EVERY_MINUTE}, NOW)
    [key] = d.cell.state.crons.rows
    d.cell.state.disarm(d.ticks()[0])
    d.cell.state.crons[key].due = 0
    assert d.ticks() == []
    d.index({NIGHTLY: EVERY_MINUTE}, NOW, "d" * 40)
    assert d.ticks() == [f"{key}:{DUE}"]


def test_a_replayed_tick_is_the_same_state() -> None:
    """Inputs and recorded decisions, folded without deciding, arm the same instants."""
    d = driver()
    d.index({NIGHTLY: EVERY_MINUTE}, NOW)
    tick(d)
    tick(d, 3 * MINUTE)
    again, twin = Cell(), CellDriver()
    for _, event in d.inputs:
        outputs = twin.feed(event)
        again.refold(event)
        for output in outputs:
            if isinstance(output, Event):
                again.replay(output)
    assert again.state.known[REPOSITORY] == d.cell.state.known[REPOSITORY]
    assert again.state.armed.rows == d.cell.state.armed.rows
    assert again.state.crons.rows == d.cell.state.crons.rows
    [entry] = again.state.crons
    assert entry == CronEntry(NIGHTLY, "* * * * *", None, DUE + 5 * MINUTE)


# --------------------------------------------------------------------------- what runs are told

DISPATCH = f"""
name: Release
run-name: >-
  ${{{{ github.workflow }}}} #${{{{ github.run_number }}}} by ${{{{ github.event.inputs.n }}}}
on: {{workflow_dispatch: {{inputs: {{n: {{type: number, default: 3}}, dry: {{type: boolean}}}}}}}}
{JOBS}
"""


def test_a_dispatch_shows_every_input_twice() -> None:
    """`inputs` has the values typed, `github.event.inputs` all of them as text, as on GitHub."""
    d = driver()
    d.receive(event="workflow_dispatch", payload_json='{"inputs":{"dry":true},"ref":"r"}')
    plan = compiled(DISPATCH, PATH)
    d.answer(
        (
            e.WorkflowOutcome(
                path=PATH, outcome="planned", name=plan.name, plan_json=plan_to_json(plan),
                event="workflow_dispatch", sha="a" * 40, ref="refs/tags/v1",
                inputs_json='{"n":3,"dry":true}',
            ),
        )
    )  # fmt: skip
    [run] = d.of(e.RunPlanned)
    contexts = json.loads(d.live()["a"].contexts_json)
    assert isinstance(run, e.RunPlanned)
    assert run.run_name == "Release #1 by 3"
    assert contexts["inputs"] == {"n": 3, "dry": True}
    assert contexts["github"]["event"] == {
        "inputs": {"n": "3", "dry": "true"}, "ref": "r", "workflow": PATH,
    }  # fmt: skip
    assert (contexts["github"]["workflow_ref"], contexts["github"]["workflow_sha"]) == (
        f"{REPOSITORY}/{PATH}@refs/tags/v1", "a" * 40,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        (("merge_conflict: aaa does not merge into main",), "merge_conflict"),
        (("merge_conflict: no", "trigger: no workflow lists pull_request_target"),
         "merge_conflict"),
        (("unreadable: `ref` is None",), "unreadable"),
        (("trigger: on: does not list push",), "no_workflow"),
        (("deleted: the push deleted the ref",), "no_workflow"),
    ],
)  # fmt: skip
def test_a_delivery_that_starts_nothing_has_a_code_and_a_sentence(
    reasons: tuple[str, ...], code: str
) -> None:
    """What somebody has to act on has a code of its own."""
    d = driver()
    d.receive()
    d.answer(
        tuple(
            e.WorkflowOutcome(path="", outcome=e.Outcome.IGNORED, reason=reason)
            for reason in reasons
        )
    )
    [ignored] = d.of(e.DeliveryIgnored)
    assert isinstance(ignored, e.DeliveryIgnored)
    assert (ignored.reason, ignored.detail) == (code, "; ".join(reasons))
