"""The planner's fold: what waits for an answer, and where to start again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ingest.planner import checkpoint
from ingest.planner.ledger import Ledger
from schemas.codec import event_id
from schemas.events import (
    DeliveryPlanned,
    DeliveryReceived,
    IndexedWorkflow,
    RepositoryConfigured,
    RepositoryRemoved,
    WorkflowsIndexed,
)


def received(name: str) -> DeliveryReceived:
    """Return a delivery."""
    return DeliveryReceived(
        event_id=event_id("DeliveryReceived", name), repository="a/b", delivery_id=name,
        source="webhook", provider="git", event="push",
    )  # fmt: skip


def planned(delivery: DeliveryReceived) -> DeliveryPlanned:
    """Return a delivery's answer."""
    return DeliveryPlanned(
        event_id=event_id("DeliveryPlanned", delivery.delivery_id),
        delivery_id=delivery.delivery_id,
        caused_by=delivery.event_id,
        workflows=(),
    )


CONFIGURED = RepositoryConfigured(
    event_id="c", repository="a/b", provider="git", clone_url="/srv/a.git"
)
INDEXED = WorkflowsIndexed(
    event_id="i", repository="a/b", caused_by="c", sha="s", ref="refs/heads/main",
    workflows=(IndexedWorkflow(path="w.yml", name="w",
                               triggers_json='{"events":[{"event":"push"}]}'),),
)  # fmt: skip


def test_what_has_no_answer_waits_in_the_logs_order() -> None:
    """Deliveries and configurations alike; an answer takes its cause off."""
    ledger = Ledger()
    first, second = received("1"), received("2")

    for offset, event in enumerate([CONFIGURED, first, second, planned(first)]):
        ledger.fold(event, 0, offset)

    assert ledger.in_order() == [CONFIGURED, second]
    assert ledger.positions() == {0: 0}
    ledger.fold(INDEXED, 0, 4)
    assert ledger.in_order() == [second]
    assert ledger.positions() == {0: 2}
    assert ledger.listed == {"a/b": frozenset({"push"})}


def test_the_index_that_a_push_brings_about_is_not_the_pushs_answer() -> None:
    """It comes before the answer, so that whoever ends between the two makes both again."""
    ledger = Ledger()
    push = received("1")
    ledger.fold(push, 0, 0)
    ledger.fold(dataclasses.replace(INDEXED, caused_by=push.event_id), 0, 1)

    assert ledger.in_order() == [push]
    ledger.fold(planned(push), 0, 2)
    assert ledger.in_order() == []


def test_a_forge_agrees_once_it_names_the_default_branch_that_we_know(tmp_path: Path) -> None:
    """Kept in the checkpoint; another configuration asks anew."""
    ledger = Ledger()
    ledger.fold(CONFIGURED, 0, 0)
    ledger.fold(dataclasses.replace(received("1"), default_branch="trunk"), 0, 1)
    assert ledger.agreed == set()
    ledger.fold(dataclasses.replace(received("2"), default_branch="main"), 0, 2)
    assert ledger.agreed == {"a/b"}
    checkpoint.save(tmp_path / "c", ledger, "log")
    assert checkpoint.load(tmp_path / "c", "log").agreed == {"a/b"}
    ledger.fold(dataclasses.replace(CONFIGURED, event_id="d", default_branch="trunk"), 0, 3)
    assert ledger.agreed == set()


def test_nothing_waiting_starts_at_the_end() -> None:
    """Records of no interest move the position too."""
    ledger = Ledger()
    delivery = received("1")

    for offset, event in enumerate([delivery, planned(delivery), None, None]):
        ledger.fold(event, 0, offset)

    assert ledger.positions() == {0: 4}


def test_a_delivery_sent_twice_waits_once() -> None:
    """Both records have one event id; one answer is enough."""
    ledger = Ledger()

    assert ledger.fold(received("1"), 0, 0) is not None
    assert ledger.fold(received("1"), 0, 1) is None
    assert ledger.positions() == {0: 0}


def test_a_removed_repository_is_forgotten() -> None:
    """What comes after it finds no configuration."""
    ledger = Ledger()
    ledger.fold(CONFIGURED, 0, 0)
    ledger.fold(RepositoryRemoved(event_id="r", repository="a/b"), 0, 1)

    assert ledger.repositories == {}


def test_the_checkpoint_gives_repositories_and_the_restart_position(tmp_path: Path) -> None:
    """A checkpoint is the fold as of the first unanswered record."""
    path, ledger = tmp_path / "planner.json", Ledger()
    for offset, event in enumerate([CONFIGURED, INDEXED, received("1"), received("2")]):
        ledger.fold(event, 0, offset)

    checkpoint.save(path, ledger, "log-1")
    loaded = checkpoint.load(path, "log-1")

    assert loaded.repositories == {"a/b": CONFIGURED}
    assert loaded.next_offsets == {0: 2}
    assert checkpoint.load(path, "log-2") == Ledger()


def test_a_damaged_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    """The planner folds from the beginning instead."""
    path = tmp_path / "planner.json"
    for text in ("", "{", "[]", '{"format": 1}', '{"format": 1, "log": "l", "repositories": [1]}'):
        path.write_text(text, encoding="utf-8")

        assert checkpoint.load(path, "l") == Ledger()
