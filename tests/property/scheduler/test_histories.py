"""Whatever happens, in whatever order and how often: what must be true of a cell after each step.

Histories are generated: pushes of several workflows, runners that join, vanish and come back,
reports that are repeated, late or of the wrong attempt, cancels and deadlines at any moment, cron
ticks and runs that begin others.
"""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.core import deadlines
from scheduler.core.cell import Cell
from scheduler.core.index import Index, wants_of
from scheduler.core.state import LIVE, JobPhase, State, dump_changes, load_row
from schemas import events as e
from schemas.events import Event
from schemas.lanes import Assignment
from tests.support.cells import REPOSITORY, CellDriver

WORKFLOWS: tuple[str, ...] = (
    """
    on: push
    jobs:
      one: {runs-on: linux, steps: [{run: 'true'}]}
    """,
    """
    on: push
    jobs:
      a: {runs-on: linux, outputs: {x: '1'}, steps: [{run: 'true'}]}
      b: {needs: a, runs-on: linux, steps: [{run: 'true'}]}
      c: {needs: a, if: failure(), runs-on: gpu, steps: [{run: 'true'}]}
      d: {needs: [b, c], if: always(), runs-on: linux, steps: [{run: 'true'}]}
    """,
    """
    on: push
    jobs:
      m:
        runs-on: linux
        strategy: {max-parallel: 2, matrix: {n: [1, 2, 3, 4]}}
        steps: [{run: 'true'}]
      after: {needs: m, runs-on: linux, steps: [{run: 'true'}]}
    """,
    """
    on: push
    jobs:
      m:
        runs-on: linux
        continue-on-error: ${{ matrix.n == 2 }}
        strategy: {fail-fast: false, matrix: {n: [1, 2]}}
        steps: [{run: 'true'}]
      cleanup: {needs: m, if: cancelled(), runs-on: linux, steps: [{run: 'true'}]}
    """,
)
CALLED = """
    on:
      workflow_call:
        inputs: {n: {type: number}}
    jobs:
      x: {runs-on: linux, steps: [{run: 'true'}]}
      y: {needs: x, if: always(), runs-on: linux, steps: [{run: 'true'}]}
    """
CALLS = {"./.github/workflows/called.yml": CALLED, ".github/workflows/called.yml": CALLED}
CALLER = """
    on: push
    jobs:
      call:
        strategy: {matrix: {n: [1, 2]}}
        uses: ./.github/workflows/called.yml
        with: {n: "${{ matrix.n }}"}
      once: {uses: ./.github/workflows/called.yml, if: github.ref != 'x'}
      after: {needs: [call, once], if: always(), runs-on: linux, steps: [{run: 'true'}]}
    """
WORKFLOWS += (CALLER,)
JOBS = "jobs: {a: {runs-on: linux, steps: [{run: 'true'}]}}"
TICKING = f"{{on: {{schedule: [{{cron: '* * * * *'}}, {{cron: '*/2 * * * *'}}]}}, {JOBS}}}"
HOURLY = f"{{on: {{schedule: [{{cron: '0 * * * *', timezone: Europe/Berlin}}]}}, {JOBS}}}"
LISTENING = f"{{on: {{workflow_run: {{types: [requested, completed]}}}}, {JOBS}}}"
#: What the default branch may have: nothing, ticks, or a workflow that waits for every run.
INDEXES: tuple[dict[str, str], ...] = (
    {},
    {"tick.yml": TICKING},
    {"tick.yml": TICKING, "hour.yml": HOURLY},
    {"hour.yml": HOURLY, "after.yml": LISTENING},
)
MINUTE_MS = 60_000
CONCLUSIONS = ("success", "failure", "cancelled", "timed_out")
RUNNERS = ("r1", "r2")


class History:
    """A driver with the choices that a generated history makes."""

    def __init__(self) -> None:
        """Begin with a repository and no runner."""
        self.driver = CellDriver()
        self.driver.configure()
        self.boots = dict.fromkeys(RUNNERS, 0)
        self.deliveries = 0
        self.reports: list[Event] = []
        self.terminal: dict[str, str] = {}
        self.now_ms = 1_750_000_000_000

    def do(self, action: str, which: int) -> None:
        """Let something happen; the planner answers what the scheduler made of it."""
        getattr(self, action)(which)
        for _ in range(100):
            made = [d for d in self.driver.cell.state.deliveries if not d.answered]
            if not made:
                return
            which = len(made[0].delivery_id) % len(WORKFLOWS)
            event = made[0].event
            self.driver.plan(WORKFLOWS[which], made[0].delivery_id, files=CALLS, event=event)
        raise AssertionError("deliveries beget deliveries without an end")

    def index(self, which: int) -> None:
        """The planner has read the default branch."""
        self.now_ms += which * 1_000
        self.driver.index(INDEXES[which % len(INDEXES)], self.now_ms, sha=f"{which:040x}")

    def tick(self, which: int) -> None:
        """A cron deadline passes, now and then long after its time."""
        ticks = self.driver.ticks()
        if ticks:
            due = int(ticks[which % len(ticks)].rpartition(":")[2])
            self.now_ms = max(self.now_ms, due + (which % 5 == 0) * which * MINUTE_MS)
            self.driver.pass_deadline(ticks[which % len(ticks)], self.now_ms)

    def remove(self, which: int) -> None:
        """The repository goes, and mostly comes back."""
        if which % 3 == 0:
            self.driver.feed(
                e.RepositoryRemoved(event_id=f"removed-{which}", repository=REPOSITORY)
            )
        else:
            self.driver.configure()

    def push(self, which: int) -> None:
        """A new delivery is received and planned."""
        self.deliveries += 1
        self.driver.push(WORKFLOWS[which % len(WORKFLOWS)], f"d{self.deliveries}", CALLS)

    def join(self, which: int) -> None:
        """A runner starts (again)."""
        runner = RUNNERS[which % len(RUNNERS)]
        self.boots[runner] += 1
        labels = ("linux", "gpu") if runner == "r2" else ("linux",)
        self.driver.join(
            runner, boot=f"b{self.boots[runner]:03}", slots=1 + which % 3, labels=labels
        )

    def rejoin_old(self, which: int) -> None:
        """An old boot of a runner shows itself again."""
        runner = RUNNERS[which % len(RUNNERS)]
        if self.boots[runner] > 1:
            self.driver.join(runner, boot=f"b{self.boots[runner] - 1:03}", labels=("linux",))

    def lose(self, which: int) -> None:
        """The fleet calls a runner lost."""
        runner = RUNNERS[which % len(RUNNERS)]
        self.driver.lose(runner, f"b{self.boots[runner]:03}")

    def _order(self, which: int) -> Assignment | None:
        live = list(self.driver.live().values())
        return live[which % len(live)] if live else None

    def start(self, which: int) -> None:
        """A runner accepts."""
        order = self._order(which)
        if order is not None:
            self.driver.report(e.JobStarted, order)
            self.reports.append(self.driver.inputs[-1][1])

    def decline(self, which: int) -> None:
        """A runner gives an assignment back."""
        order = self._order(which)
        if order is not None:
            self.driver.report(e.AssignmentDeclined, order, reason="leaving")
            self.reports.append(self.driver.inputs[-1][1])

    def finish(self, which: int) -> None:
        """A runner ends a job, now and then for a reason of the infrastructure's."""
        order = self._order(which)
        if order is not None:
            conclusion = CONCLUSIONS[which % len(CONCLUSIONS)]
            reason = "infra.disk_full" if which % 7 == 6 else ""
            self.driver.report(
                e.JobFinished,
                order,
                conclusion="failure" if reason else conclusion,
                reason=reason,
                outputs={"x": str(which)},
            )
            self.reports.append(self.driver.inputs[-1][1])

    def succeed(self, _: int) -> None:
        """A runner does what it should."""
        order = next(iter(self.driver.live().values()))
        self.driver.report(e.JobFinished, order, conclusion="success")

    def repeat(self, which: int) -> None:
        """Any earlier input comes once more."""
        inputs = self.driver.inputs
        self.driver.feed(inputs[which % len(inputs)][1])

    def cancel(self, which: int) -> None:
        """Someone cancels a run, or one job of it."""
        runs = list(self.driver.cell.state.runs)
        if runs:
            run = runs[which % len(runs)]
            self.driver.cancel(run.run_id, run.jobs[0] if which % 3 == 0 else None)

    def deadline(self, which: int) -> None:
        """An armed deadline passes."""
        armed = sorted(d for d in self.driver.cell.state.armed.rows if not d.startswith("cron:"))
        if armed:
            self.driver.pass_deadline(armed[which % len(armed)])


ACTIONS = ("push", "join", "rejoin_old", "lose", "start", "start", "finish", "finish", "finish",
           "decline", "repeat", "cancel", "deadline", "index", "index", "tick", "tick",
           "remove")  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 41)), max_size=60)


def check(history: History) -> None:
    """Assert what holds after every step."""
    state = history.driver.cell.state
    jobs = list(state.jobs)
    for runner in state.runners:
        assert len(runner.leases) <= runner.slots, f"{runner.runner_id} has too many leases"
        for job_id, attempt in runner.leases.items():
            job = state.jobs[job_id]
            assert job.attempt == attempt, "a lease outlived its attempt"
            assert job.phase in (JobPhase.ASSIGNED, JobPhase.STARTED), "a slot leaked"
            assert (job.runner_id, job.boot_id) == (runner.runner_id, runner.boot_id)
    for job in jobs:
        if job.phase is JobPhase.QUEUED:
            fitting = [
                r for r in state.runners
                if r.live and len(r.leases) < r.slots and set(r.labels) >= set(job.labels)
            ]  # fmt: skip
            assert not fitting, f"{job.job_id} waits beside a free slot"
    for run in state.runs:
        open_nodes = [j for j in run.jobs if state.jobs[j].phase is not JobPhase.DONE]
        assert len(open_nodes) == run.open_jobs > 0
        for matrix in (state.jobs[j] for j in run.jobs if state.jobs[j].legs):
            legs = [state.jobs[leg] for leg in matrix.legs]
            active = sum(leg.phase in LIVE or leg.phase is JobPhase.QUEUED for leg in legs)
            if len(legs) == 4:
                assert active <= 2, "max-parallel was passed"
    armed = {
        deadlines.cron(key, state.crons[key].due)
        for known in state.known for key in known.crons if state.crons[key].due
    }  # fmt: skip
    assert sum(len(known.crons) for known in state.known) == len(state.crons)
    assert armed == set(history.driver.ticks()), "what is known and what is armed differ"
    made = [event.delivery_id for event in history.driver.of(e.DeliveryReceived)]
    assert len(made) == len(set(made)), "a tick or a run was told twice"
    _check_terminal(history)


def _check_terminal(history: History) -> None:
    """A terminal job stays as it is, and has one accepted end an attempt."""
    for job in history.driver.cell.state.jobs:
        before = history.terminal.get(job.job_id)
        if before is not None:
            assert (job.phase, job.conclusion) == (JobPhase.DONE, before)
        if job.phase is JobPhase.DONE:
            history.terminal[job.job_id] = job.conclusion


def play(steps: list[tuple[str, int]]) -> History:
    """Run a generated history, checking after each step."""
    history = History()
    for action, which in steps:
        history.do(action, which)
        check(history)
    return history


SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(STEPS)
def test_invariants_hold_after_every_step(steps: list[tuple[str, int]]) -> None:
    """Slots, leases, queues, max-parallel and terminal jobs are right at every moment."""
    play(steps)


@SLOW
@given(STEPS)
def test_every_job_ends_once_faults_stop(steps: list[tuple[str, int]]) -> None:
    """With runners that work, every run that was ever planned reaches RunFinished, once."""
    history = play(steps)
    driver = history.driver
    for which in range(len(RUNNERS)):
        history.join(which + 2)
    for _ in range(2_000):
        if not len(driver.cell.state.runs):
            break
        live = driver.live()
        if live:
            history.do("succeed", 0)
        else:
            history.do("deadline", 0)
        check(history)
    assert not len(driver.cell.state.runs), "a run is stuck"
    planned = [event.run_id for event in driver.of(e.RunPlanned)]
    finished = [event.run_id for event in driver.of(e.RunFinished)]
    assert sorted(planned, key=str) == sorted(finished, key=str)
    assert not len(driver.cell.state.jobs)
    assert not len(driver.cell.state.plans)


@SLOW
@given(STEPS)
def test_derived_indexes_are_what_the_rows_say(steps: list[tuple[str, int]]) -> None:
    """Queues, live runners and remembered deliveries can be made again from the rows alone."""
    cell = play(steps).driver.cell
    again = Index.of(cell.state)
    assert {k: v for k, v in again.seen.items() if v} == {
        k: v for k, v in cell.index.seen.items() if v
    }
    assert {k: v for k, v in again.pending.items() if v} == {
        k: v for k, v in cell.index.pending.items() if v
    }
    for name, pool in again.pools.items():
        assert pool.runners == cell.index.pools[name].runners
        for wants, queue in pool.queues.items():
            queued = [job.job_id for job in cell.state.jobs
                      if job.phase is JobPhase.QUEUED and wants_of(job) == wants]  # fmt: skip
            assert {job_id for _, job_id in queue.heap} == set(queued)
            assert cell.index.pools[name].queues[wants].first(cell.state) == queue.first(cell.state)


@SLOW
@given(STEPS, STEPS)
def test_a_restored_cell_decides_as_the_one_that_went_on(
    before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    """Rows written to the changelog and read back lead to the same decisions and orders."""
    history = play(before)
    state = State()
    for key, value in dump_changes(history.driver.cell.state):
        if value is not None:
            load_row(state, key, value)
    start = len(history.driver.inputs)
    made = len(history.driver.outputs)
    twin = CellDriver(Cell(0, state))
    twin.offset = history.driver.offset
    for action, which in after:
        history.do(action, which)
    for _, event in history.driver.inputs[start:]:
        twin.feed(event)
    assert twin.outputs == history.driver.outputs[made:]


@SLOW
@given(STEPS)
def test_replaying_recorded_decisions_gives_the_same_rows(steps: list[tuple[str, int]]) -> None:
    """Inputs with their recorded decisions, folded without deciding, end in the same state."""
    history = play(steps)
    again = Cell()
    twin = CellDriver()
    for _, event in history.driver.inputs:
        outputs = twin.feed(event)
        again.refold(event)
        for output in outputs:
            if isinstance(output, Event):
                again.replay(output)
    assert _rows(again.state) == _rows(history.driver.cell.state)


def _rows(state: State) -> dict[str, bytes]:
    return {
        f"{table.prefix}/{key}": msgspec.json.encode(row)
        for table in state.tables
        for key, row in table.rows.items()
    }
