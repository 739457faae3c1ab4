"""The planner's shell on a log in memory: what it appends, in which order, and after which end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.clock import ManualClock
from infra.log import Append, MemoryLog
from infra.metrics import Meters
from ingest.mirrors import Mirrors
from ingest.planner.plan import Planner
from ingest.planner.service import PlannerService
from schemas import codec
from schemas.events import (
    DeliveryPlanned,
    DeliveryReceived,
    Event,
    RepositoryConfigured,
    WorkflowsIndexed,
)
from schemas.topics import EVENTS
from tests.support.eventually import eventually
from tests.support.gitrepo import GitRepo, workflow

CI = ".github/workflows/ci.yml"
NAME = "ada/demo"


class Shell:
    """A planner in a thread, on a log that tests write to and read from."""

    def __init__(self, folder: Path) -> None:
        """Register an empty repository."""
        (folder / "git").mkdir()
        self.git = GitRepo(folder / "git")
        self.home = folder / "home"
        self.log = MemoryLog(waits=True)
        self.told: list[tuple[str, str]] = []
        self.service: PlannerService | None = None
        self.thread: threading.Thread | None = None
        self.put(self.configured("configured", "main"))

    def configured(self, event_id: str, branch: str) -> RepositoryConfigured:
        """Return a configuration of the repository."""
        return RepositoryConfigured(
            event_id=event_id, repository=NAME, provider="gitea", clone_url=str(self.git.bare),
            default_branch=branch, variables={"A": "1"},
        )  # fmt: skip

    def put(self, event: Event) -> None:
        """Append an event as another process does."""
        headers = codec.event_headers(event, source="test", occurred_at=0)
        self.log.put(Append(EVENTS, 0, b"k", codec.EVENTS.encode(event), headers))

    def deliver(self, name: str, event: str = "issues", **facts: Any) -> None:
        """A webhook comes in."""
        self.put(
            DeliveryReceived(
                event_id=f"e-{name}", repository=NAME, delivery_id=name, source="webhook",
                provider="gitea", event=event, payload_json="{}", **facts,
            )
        )  # fmt: skip

    def push(self, name: str, sha: str, **facts: Any) -> None:
        """The webhook of a push to main comes in."""
        self.deliver(name, "push", sha=sha, ref="refs/heads/main", before="0" * 40, **facts)

    def start(self, planner: Planner | None = None) -> None:
        """Start a planner with the checkpoint of the one before."""
        clock, meters = ManualClock(), Meters()
        self.service = PlannerService(
            log=self.log, writer=self.log.writer(), mirrors=Mirrors(self.home, meters, clock),
            planner=planner or Planner(), token_of=lambda _: "", clock=clock,
            meters=meters, cells=1,
            checkpoint_path=self.home / "planner.json", log_id="log",
            tell_default_branch=lambda name, branch: self.told.append((name, branch)),
        )  # fmt: skip
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()

    def stop(self) -> None:
        """End the planner."""
        if self.service is not None and self.thread is not None:
            self.service.stop()
            self.thread.join(10)
            self.service.close()
            self.service = None

    def events(self) -> list[Event]:
        """Return everything in the log."""
        records = list(self.log.records[(EVENTS, 0)])
        return [codec.EVENTS.decode(record.value or b"") for record in records]

    def answers(self, name: str) -> list[DeliveryPlanned]:
        """Wait for a delivery's answer and return all that there are."""

        def found() -> list[DeliveryPlanned]:
            return [
                event for event in self.events()
                if isinstance(event, DeliveryPlanned) and event.delivery_id == name
            ]  # fmt: skip

        eventually(lambda: bool(found()), timeout_ms=10_000)
        return found()

    def indexes(self) -> list[tuple[str, str]]:
        """Return ref and commit of what was indexed so far."""
        return [(e.ref, e.sha) for e in self.events() if isinstance(e, WorkflowsIndexed)]

    def default_branches(self) -> list[str]:
        """Return the default branch of each configuration so far."""
        return [e.default_branch for e in self.events() if isinstance(e, RepositoryConfigured)]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Yield a planner that is not started."""
    made = Shell(tmp_path)
    yield made
    made.stop()


def test_the_index_of_a_push_comes_before_its_answer(shell: Shell) -> None:
    """A planner that ends between the two makes both again: cron never misses a change."""
    shell.start()
    sha = shell.git.commit({CI: workflow()})
    shell.push("p1", sha)
    shell.answers("p1")

    made = [type(event) for event in shell.events()]
    assert made.index(WorkflowsIndexed) < made.index(DeliveryPlanned)
    assert shell.indexes() == [("refs/heads/main", sha)]


def test_an_index_without_its_answer_leaves_the_push_unanswered(shell: Shell) -> None:
    """As the log is when the planner was killed between the two."""
    sha = shell.git.commit({CI: workflow()})
    shell.push("p1", sha)
    shell.put(
        WorkflowsIndexed(
            event_id="i", repository=NAME, caused_by="e-p1", sha=sha, ref="refs/heads/main",
            workflows=(),
        )
    )  # fmt: skip
    shell.start()

    [answer] = shell.answers("p1")
    assert [w.outcome for w in answer.workflows] == ["planned"]


def test_a_default_branch_that_was_renamed_is_followed(shell: Shell) -> None:
    """By the first delivery that says so: for itself, for the index, and for commands."""
    old = shell.git.commit({CI: workflow("issues", "Old")})
    shell.start()
    eventually(lambda: bool(shell.indexes()), timeout_ms=10_000)
    new = shell.git.commit({CI: workflow("issues", "New")}, branch="trunk", since=old)
    shell.git.run("-C", str(shell.git.bare), "symbolic-ref", "HEAD", "refs/heads/trunk")
    shell.git.run("push", "-q", "origin", ":main")
    for name in ("d1", "d2"):
        shell.deliver(name, default_branch="trunk")
    for name in ("d1", "d2"):
        [answer] = shell.answers(name)
        assert [(w.name, w.sha, w.ref) for w in answer.workflows] == [
            ("New", new, "refs/heads/trunk")
        ]
    eventually(lambda: len(shell.indexes()) > 1, timeout_ms=10_000)

    assert set(shell.indexes()[1:]) == {("refs/heads/trunk", new)}
    assert set(shell.default_branches()) == {"main", "trunk"}
    # they are set and removed apart from it: what was there at the start must not come back
    configured = [e for e in shell.events() if isinstance(e, RepositoryConfigured)]
    assert {e.default_branch: e.variables for e in configured} == {"main": {"A": "1"}, "trunk": {}}
    assert set(shell.told) == {(NAME, "trunk")}


class SlowPlanner(Planner):
    """Plans when it is let."""

    def __init__(self) -> None:
        """Hold the first plan."""
        super().__init__()
        self.reached, self.let = threading.Event(), threading.Event()

    def plan(self, *arguments: Any, **named: Any) -> DeliveryPlanned:
        """Plan as ever, later."""
        self.reached.set()
        assert self.let.wait(10)
        return super().plan(*arguments, **named)


def test_a_configuration_that_came_while_a_delivery_was_planned_is_not_taken_back(
    shell: Shell,
) -> None:
    """The new default branch waits for the next delivery, and then keeps what was set."""
    old = shell.git.commit({CI: workflow("issues")})
    shell.git.commit({CI: workflow("issues")}, branch="trunk", since=old)
    shell.git.run("-C", str(shell.git.bare), "symbolic-ref", "HEAD", "refs/heads/trunk")
    shell.git.run("push", "-q", "origin", ":main")
    planner = SlowPlanner()
    shell.start(planner)
    shell.deliver("d1", default_branch="trunk")
    assert planner.reached.wait(10)
    newer = replace(shell.configured("again", "main"), fork_secrets="base", pools=("p",))
    shell.put(newer)
    service = shell.service
    assert service is not None
    # folded: as far as this process can know, the log has nothing newer
    eventually(
        lambda: service._ledger.repositories[NAME].event_id == "again",  # noqa: SLF001
        timeout_ms=10_000,
    )
    planner.let.set()
    shell.answers("d1")
    assert shell.default_branches() == ["main", "main"]
    assert shell.told == []

    shell.deliver("d2", default_branch="trunk")
    shell.answers("d2")
    assert shell.default_branches() == ["main", "main", "trunk"]
    last = [e for e in shell.events() if isinstance(e, RepositoryConfigured)][-1]
    assert (last.fork_secrets, last.pools) == ("base", ("p",))
    assert shell.told == [(NAME, "trunk")]


class FailingPlanner(Planner):
    """Fails to make the first index, as a fault of ours would."""

    failed = False

    def index(self, *arguments: Any, **named: Any) -> WorkflowsIndexed | None:
        """Index as ever, but for the first time."""
        if not self.failed:
            self.failed = True
            raise RuntimeError("a fault")
        return super().index(*arguments, **named)


def test_an_index_that_failed_is_made_with_the_next_delivery(shell: Shell) -> None:
    """Whatever it failed of: cron and workflow_run would miss the repository until a push."""
    sha = shell.git.commit({CI: workflow("issues")})
    planner = FailingPlanner()
    shell.start(planner)
    eventually(lambda: planner.failed, timeout_ms=10_000)
    shell.deliver("d1")
    shell.answers("d1")

    assert shell.indexes() == [("refs/heads/main", sha)]


def test_another_default_branch_is_followed_where_the_forge_said_the_old_one(
    shell: Shell,
) -> None:
    """Both branches are there; that it agreed is known after a restart, too."""
    base = shell.git.commit({CI: workflow("issues")})
    shell.start()
    shell.deliver("d1", default_branch="main")
    shell.answers("d1")
    shell.stop()
    shell.git.commit({"a": "1"}, branch="develop", since=base)
    shell.git.run("-C", str(shell.git.bare), "symbolic-ref", "HEAD", "refs/heads/develop")
    shell.start()
    shell.deliver("d2", default_branch="develop")

    assert [w.ref for w in shell.answers("d2")[0].workflows] == ["refs/heads/develop"]
    assert shell.default_branches() == ["main", "develop"]


@pytest.mark.parametrize("head", ["main", "develop"])
def test_a_default_branch_that_was_chosen_here_stays(shell: Shell, head: str) -> None:
    """The forge never named it, and it is there; and an old delivery's word is not believed."""
    base = shell.git.commit({CI: workflow("issues")})
    shell.git.commit({"a": "1"}, branch="develop", since=base)
    shell.git.run("-C", str(shell.git.bare), "symbolic-ref", "HEAD", f"refs/heads/{head}")
    shell.start()
    shell.deliver("d1", default_branch="develop")

    assert [w.ref for w in shell.answers("d1")[0].workflows] == ["refs/heads/main"]
    assert shell.default_branches() == ["main"]


def test_what_cannot_be_read_starts_nothing_and_says_so(shell: Shell) -> None:
    """Its answer is the error of the webhook."""
    shell.git.commit({CI: workflow()})
    shell.start()
    shell.deliver("d1", "push", inert="unreadable: `ref` is None; expected the name of a ref")

    [outcome] = shell.answers("d1")[0].workflows
    assert (outcome.outcome, outcome.reason) == (
        "ignored", "unreadable: `ref` is None; expected the name of a ref",
    )  # fmt: skip
