"""The projector on a real Kafka and PostgreSQL: once each, side by side, killed, poisoned."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from infra.kafka import KafkaReader
from infra.log import Append, Record
from infra.postgres import DatabaseError, Migration, migrate
from projector import store
from tests.support.eventually import eventually
from tests.support.histories import History, to_append
from tests.support.read_side import ReadSide, read_side, running


@pytest.fixture
def side(kafka: str, database_url: str, tmp_path: Path) -> Iterator[ReadSide]:
    """Yield topics and a schema of this test's own."""
    with read_side(kafka, database_url, tmp_path) as found:
        yield found


def _history(runs: int) -> History:
    history = History().configured()
    for number in range(runs):
        history.whole_run(conclusion="failure" if number % 5 == 0 else "success")
    return history


def _fold_again(side: ReadSide, batch_records_max: int = 2_000) -> dict[str, tuple[int, str]]:
    with side.connect() as database:
        store.unfold(database)
    with running(side.projector(batch_records_max=batch_records_max)):
        side.await_folded()
    return side.checksum()


def test_folding_again_gives_identical_tables(side: ReadSide) -> None:
    """The tables depend on the log alone: not on batches, restarts or the clock."""
    side.append(_history(30).events)
    with running(side.projector()):
        side.await_folded()
    first = side.checksum()

    assert first["run"][0] == 30
    assert first == _fold_again(side)
    assert first == _fold_again(side, batch_records_max=7)


def test_two_projectors_side_by_side_write_everything_once(side: ReadSide) -> None:
    """The compare-and-set lets one of them write each batch; the other goes on behind it."""
    history = _history(10)
    side.append(history.events)
    with running(
        side.projector("one", batch_records_max=20), side.projector("two", batch_records_max=33)
    ):
        for _ in range(20):
            known = len(history.events)
            history.whole_run()
            side.append(history.events[known:])
        side.await_folded()
    together = side.checksum()

    assert together["event"][0] == len(history.events)
    assert together == _fold_again(side)


_CHILD = """
import json, sys, threading, pathlib
from tests.support.read_side import ReadSide
given = json.loads(sys.argv[1])
folder = pathlib.Path(given.pop("folder"))
side = ReadSide(folder=folder, **given)
projector = side.projector("killed", batch_records_max=50)
print("up", flush=True)
projector.run(threading.Event())
"""


def _child(side: ReadSide) -> subprocess.Popen[str]:
    given = {
        "bootstrap": side.bootstrap,
        "database_url": side.database_url,
        "folder": str(side.folder),
        "prefix": side.prefix,
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(given)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


def test_a_projector_killed_in_the_middle_loses_and_repeats_nothing(side: ReadSide) -> None:
    """kill -9 while it folds, five times; the tables end as if nothing had happened."""
    history = _history(120)
    side.append(history.events)
    total = side.ends()[0]

    def position() -> int:
        with side.connect() as database:
            row = database.execute(
                "SELECT coalesce(max(next_offset), 0) FROM position WHERE topic = 'events'"
            ).fetchone()
        return int(row[0]) if row else 0

    for kill in range(1, 6):
        child = _child(side)
        goal = total * kill // 7
        eventually(lambda goal=goal: position() >= goal, what="some progress")  # type: ignore[misc]
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    with running(side.projector()):
        side.await_folded()

    assert side.checksum() == _fold_again(side)


def _dead_letters(side: ReadSide, count: int) -> list[Record]:
    reader = KafkaReader(side.bootstrap, f"{side.prefix}-dead")
    reader.assign({(side.dead_letters_topic, 0): 0})
    found: list[Record] = []

    def all_there() -> bool:
        found.extend(reader.read(timeout_ms=200, records_max=100))
        return len(found) >= count

    eventually(all_there, what="dead letters")
    reader.close()
    return found


def test_damaged_records_are_set_aside_and_stop_nobody(side: ReadSide) -> None:
    """They lie in `dead-letters` byte for byte, with where they came from."""
    history = _history(1)
    good = [to_append(event, topic=side.events_topic) for event in history.events]
    whole = good[3].value or b""
    poison = [b"", b"\x01nonsense", whole[:-4], whole + b"x", os.urandom(200)]
    damaged = [Append(side.events_topic, 0, b"k", value) for value in poison]
    side.append_raw([*good[:8], *damaged, *good[8:]])
    with running(side.projector()):
        side.await_folded()

    letters = _dead_letters(side, len(poison))

    assert poison == [letter.value for letter in letters]
    assert [str(8 + n).encode() for n in range(len(poison))] == [
        letter.header("x-origin-offset") for letter in letters
    ]
    assert side.checksum()["event"][0] == len(good)


def test_texts_with_nul_and_huge_ids_do_not_stop_the_fold(side: ReadSide) -> None:
    """What PostgreSQL can't hold is replaced or set aside."""
    history = History().configured()
    history.pushed("a\0b")
    history.planned()
    history.pushed("after")
    huge = dataclasses.replace(history.events[-2], delivery_id="x" * 5_000, event_id="huge")
    side.append([*history.events, huge])
    with running(side.projector()):
        side.await_folded()

    with side.connect() as database:
        messages = {row[0] for row in database.execute("SELECT message FROM delivery")}

    assert messages == {"a\ufffdb", "after"}


def test_a_record_of_a_newer_version_holds_its_partition_and_says_so(side: ReadSide) -> None:
    """Nothing is skipped: an upgraded projector goes on exactly there."""
    history = _history(1)
    records = [to_append(event, topic=side.events_topic) for event in history.events]
    newer = Append(side.events_topic, 0, b"k", b"\x00\x00\x0f\xff\xff" + b"later")
    side.append_raw([*records[:5], newer, *records[5:]])
    projector = side.projector()
    with running(projector):
        eventually(lambda: projector.readiness()["held"], what="holding the partition")

    assert projector.readiness()["status"] == "degraded"
    assert "offset 5" in str(projector.readiness()["held"])
    assert side.checksum()["event"][0] == 5


def test_a_topic_made_anew_is_refused(side: ReadSide) -> None:
    """Folding a new topic onto the rows of the old one would give nonsense."""
    side.append(_history(1).events)
    with running(side.projector()):
        side.await_folded()
    before = threading.active_count()
    with side.connect() as database:
        database.execute("UPDATE position SET topic_id = 'another' WHERE topic = 'events'")

    with (
        pytest.raises(store.OtherTopicError, match="database of its own"),
        running(side.projector()),
    ):
        eventually(lambda: threading.active_count() == before, what="the projector's end")


def test_the_projector_waits_for_a_database_that_is_away(side: ReadSide) -> None:
    """Its connections are cut in the middle; it says so, connects again and loses nothing."""
    history = _history(3)
    side.append(history.events)
    with running(side.projector()):
        side.await_folded()
        with psycopg.connect(side.database_url, autocommit=True) as database:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        known = len(history.events)
        history.whole_run()
        side.append(history.events[known:])
        side.await_folded()

    assert side.checksum() == _fold_again(side)


def test_migrating_side_by_side_applies_everything_once(
    make_database: Callable[[], str],
) -> None:
    """Copies that start together do not get in each other's way."""
    from concurrent.futures import ThreadPoolExecutor

    url = make_database()
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: store.migrate_schema(url), range(4)))

    assert sorted(map(len, applied)) == [0, 0, 0, len(store.migrations())]


def test_an_edited_or_unknown_migration_is_refused(make_database: Callable[[], str]) -> None:
    """A schema that this version did not make is not touched."""
    url = make_database()
    first = Migration(name="0001.sql", text="CREATE TABLE a (b int)")
    migrate(url, "some", [first])

    with pytest.raises(DatabaseError, match="another text"):
        migrate(url, "some", [Migration(name="0001.sql", text="CREATE TABLE a (b text)")])
    with pytest.raises(DatabaseError, match="newer Tailrace"):
        migrate(url, "some", [])


def test_cells_fold_apart(kafka: str, database_url: str, tmp_path: Path) -> None:
    """Each cell has a position of its own; the tables do not depend on which is read first."""
    with read_side(kafka, database_url, tmp_path, cells=3) as side:
        for name in ("acme/one", "acme/two", "other/three", "other/four"):
            history = History(repository=name, runner_id=f"runner-{name[-3:]}")
            for _ in range(5):
                history.whole_run()
            side.append(history.events)
        with running(side.projector()):
            side.await_folded()
        first = side.checksum()

        assert first["run"][0] == 20
        assert first == _fold_again(side, batch_records_max=11)
