"""What is over goes: time, quota, use; and what another entry needs stays."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from infra.clock import ManualClock
from infra.objects import FileStore, NoSuchObjectError
from runner.depot import PIECE_BYTES, DepotError, Entry, load, store
from runner.gateway.shelf import DAY_MS, Limits, Objects, Owner, Shelf, ShelfDepot, TakenError
from runner.gateway.sweep import Sweeper, Swept
from schemas.stored import EPOCH_MS, hashed, piece_key
from tests.support.eventually import eventually

REPOSITORY = "demo/hello"
OWNER = Owner(repository=REPOSITORY, run_id="r1", job_id="r1.build", attempt=1)
MAIN = "refs/heads/main"
SETTLED_MS = 4 * EPOCH_MS


@dataclass
class Place:
    """A shelf of two gateways, their sweepers, and a clock."""

    folder: Path
    limits: Limits = field(default_factory=Limits)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        """Open the store."""
        self.objects = FileStore(self.folder)
        self.shelf = Shelf(self.objects, self.clock, self.limits)
        self.other = Shelf(self.objects, self.clock, self.limits)

    def stored(self, name: str, content: bytes) -> Entry:
        """Send a file and return its entry, which nobody keeps yet."""
        size, sha256, pieces = store(ShelfDepot(self.shelf, OWNER), io.BytesIO(content))
        return Entry(name=name, size_bytes=size, sha256=sha256, pieces=pieces)

    def artifact(self, name: str, content: bytes, days: int = 0) -> Entry:
        """Keep an artifact."""
        entry = self.stored(name, content)
        return self.shelf.save_artifact(OWNER, entry, overwrite=False, retention_days=days).entry

    def cache(self, name: str, content: bytes) -> str:
        """Save a cache and return the note."""
        saved = self.shelf.save_cache(OWNER, self.stored(name, content), version="v", scope=MAIN)
        assert saved.saved
        return saved.note

    def find(self, name: str, shelf: Shelf | None = None) -> Entry | None:
        """Look for a cache."""
        return (shelf or self.shelf).find_cache(OWNER, [name], version="v", scopes=[MAIN])

    def sweep(self) -> tuple[int, int, int]:
        """Sweep as a gateway that has just started."""
        swept = Sweeper(self.objects, self.clock, self.limits).sweep()
        return swept.artifacts, swept.caches, swept.pieces

    def has(self, entry: Entry) -> list[bool]:
        """Say of each piece of an entry whether it is there."""
        return [self.objects.exists(piece_key(REPOSITORY, name)) for name in entry.pieces]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a place of its own."""
    return Place(tmp_path)


def test_an_artifact_is_over_at_its_time_and_then_removed(place: Place) -> None:
    """Nobody gets it from that instant on; the sweep removes the entry, a later one the bytes."""
    entry = place.artifact("a", b"one", days=2)
    assert entry.expires_at == place.clock.now_ms() + 2 * DAY_MS

    place.clock.advance(2 * DAY_MS - 1)
    assert place.sweep() == (0, 0, 0)
    assert [found.name for found in place.shelf.artifacts(OWNER)] == ["a"]
    place.clock.advance(1)
    assert place.shelf.artifacts(OWNER) == []
    assert place.sweep() == (1, 0, 0)
    assert place.has(entry) == [True], "whoever reads it now can end"
    place.clock.advance(EPOCH_MS)
    assert place.sweep() == (0, 0, 1)
    assert place.has(entry) == [False]
    assert list(place.objects.list()) == []


def test_a_piece_that_another_artifact_or_cache_has_stays(place: Place) -> None:
    """Equal bytes are one piece; it goes with the last that needs it."""
    first = place.artifact("a", b"same", days=1)
    place.artifact("b", b"same", days=3)
    place.cache("c", b"same")
    assert len(list(place.objects.list("pieces/"))) == 1

    place.clock.advance(DAY_MS + SETTLED_MS)
    place.sweep()
    assert place.has(first) == [True]
    place.clock.advance(2 * DAY_MS + SETTLED_MS)
    place.sweep()
    assert place.has(first) == [True], "the cache needs it"
    place.clock.advance(7 * DAY_MS)
    place.sweep()
    place.clock.advance(EPOCH_MS)
    place.sweep()
    assert place.has(first) == [False]


def test_two_gateways_sweep_as_one_does(place: Place) -> None:
    """A sweep that finds everything done does nothing, and none fails."""
    kept = place.artifact("kept", b"kept", days=90)
    place.artifact("gone", b"gone", days=1)
    place.clock.advance(DAY_MS)
    place.sweep()
    place.clock.advance(SETTLED_MS)
    assert place.sweep() == (0, 0, 1)
    assert place.sweep() == (0, 0, 0)
    assert place.has(kept) == [True]


def test_what_nobody_ended_to_upload_goes(place: Place) -> None:
    """A piece of an upload that was given up stays until it can't be resumed any more."""
    entry = place.stored("never", b"orphan")
    place.clock.advance(2 * EPOCH_MS)
    assert place.sweep() == (0, 0, 0)
    place.clock.advance(2 * EPOCH_MS)
    assert place.sweep() == (0, 0, 1)
    assert place.has(entry) == [False]


def test_a_new_entry_is_never_made_of_pieces_that_may_go(place: Place) -> None:
    """An old piece is sent again, into an epoch of its own; an old upload is refused."""
    late = place.stored("late", b"old")
    place.clock.advance(2 * EPOCH_MS)
    fresh = place.stored("fresh", b"old")

    assert late.pieces != fresh.pieces
    assert late.sha256 == fresh.sha256
    with pytest.raises(DepotError, match="took longer than 6 hours"):
        place.shelf.save_artifact(OWNER, late, overwrite=False, retention_days=0)
    place.shelf.save_artifact(OWNER, fresh, overwrite=False, retention_days=0)
    place.clock.advance(2 * EPOCH_MS)
    place.sweep()
    assert (place.has(late), place.has(fresh)) == ([False], [True])


def test_the_retention_is_capped_and_said(place: Place) -> None:
    """More than the setting is a note that names it; nothing asked for is the setting."""
    entry = place.stored("a", b"x")
    kept = place.shelf.save_artifact(OWNER, entry, overwrite=False, retention_days=400)

    assert kept.entry.expires_at == place.clock.now_ms() + 90 * DAY_MS
    assert "90 days at most" in kept.note
    assert "`artifact_retention_days`" in kept.note
    assert place.artifact("b", b"x").expires_at == kept.entry.expires_at


def test_a_repeated_request_has_the_answer_of_the_first(place: Place) -> None:
    """An answer that was lost makes no second artifact, and no "taken"; another upload does."""
    first = replace(place.stored("a", b"x"), upload_id="u1")

    def keep(shelf: Shelf, entry: Entry) -> str:
        kept = shelf.save_artifact(OWNER, entry, overwrite=False, retention_days=0)
        return kept.entry.artifact_id

    assert keep(place.shelf, first) == keep(place.other, first)
    with pytest.raises(TakenError):
        keep(place.shelf, replace(first, upload_id="u2"))


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_repeated_request_ends_what_a_killed_gateway_began(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    """What the new artifact replaces goes, also when its entry was written and nothing else."""
    old = place.artifact("a", b"old")
    job = OWNER if overwrite else replace(OWNER, attempt=2)
    new = replace(place.stored("a", b"new"), upload_id="u1")
    place.clock.advance(1)

    def keep() -> Entry:
        return place.shelf.save_artifact(job, new, overwrite=overwrite, retention_days=0).entry

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "retire", killed)
        with pytest.raises(KeyboardInterrupt):
            keep()
    both = list(place.objects.list("artifacts/"))

    kept = keep()

    assert both == [old.uri, kept.uri]
    assert list(place.objects.list("artifacts/")) == [kept.uri]


def test_the_caches_used_least_recently_make_room(tmp_path: Path) -> None:
    """By use, not by age; the note names what went; other repositories keep theirs."""
    place = Place(tmp_path, Limits(cache_bytes=100))
    other = Owner(repository="demo/other", run_id="r", job_id="r.j", attempt=1)
    place.shelf.save_cache(other, place.stored("theirs", b"x" * 90), version="v", scope=MAIN)
    for name in ("a", "b", "c"):
        assert place.cache(name, name.encode() * 30) == ""
        place.clock.advance(120_000)
    assert place.find("a", place.other) is not None
    place.clock.advance(120_000)

    note = place.cache("d", b"d" * 30)

    assert [place.find(name) is not None for name in "abcd"] == [True, False, True, True]
    assert note.endswith("is removed: b")
    assert "`cache_quota_mb`" in note
    found = place.shelf.find_cache(other, ["theirs"], version="v", scopes=[MAIN])
    assert found is not None


def test_a_cache_that_can_never_fit_is_refused(tmp_path: Path) -> None:
    """It would only throw out the others."""
    place = Place(tmp_path, Limits(cache_bytes=100))
    place.cache("a", b"a" * 50)

    with pytest.raises(DepotError, match="`cache_quota_mb`"):
        place.cache("b", b"b" * 101)
    assert place.find("a") is not None


def test_a_cache_goes_after_a_week_without_use(place: Place) -> None:
    """A use in between begins the week again, whichever gateway noted it."""
    place.cache("used", b"used")
    place.cache("unused", b"unused")
    place.clock.advance(6 * DAY_MS)
    assert place.find("used", place.other) is not None
    place.clock.advance(DAY_MS)

    assert place.find("unused") is None
    assert place.sweep() == (0, 1, 0)
    assert place.find("used") is not None
    place.clock.advance(7 * DAY_MS)
    assert place.find("used") is None
    assert place.sweep()[1] == 1
    place.clock.advance(EPOCH_MS)
    place.sweep()
    assert list(place.objects.list()) == []


def test_a_piece_that_is_there_is_not_sent_again(place: Place) -> None:
    """An upload that broke off goes on behind the pieces that came; the file comes back whole."""

    class Cut(ShelfDepot):
        """Loses the connection at the third piece, once."""

        sent: list[str]
        broken = False

        def put_piece(self, data: bytes) -> str:
            if len(self.sent) == 2 and not self.broken:
                self.broken = True
                raise DepotError("cut")
            self.sent.append(hashlib.sha256(data).hexdigest())
            return super().put_piece(data)

    depot = Cut(place.shelf, OWNER)
    depot.sent = []
    content = b"".join(bytes([n]) * PIECE_BYTES for n in range(4))
    with pytest.raises(DepotError, match="cut"):
        store(depot, io.BytesIO(content))

    size, sha256, pieces = store(depot, io.BytesIO(content))

    assert len(depot.sent) == len(set(depot.sent)) == 4
    entry = Entry(name="a", size_bytes=size, sha256=sha256, pieces=pieces)
    load(depot, entry, place.folder / "out")
    assert (place.folder / "out").read_bytes() == content


def test_a_repository_has_no_piece_of_another(place: Place) -> None:
    """Whoever knows the sha256 of foreign bytes gets nothing by it."""
    entry = place.stored("a", b"private")
    other = Owner(repository="demo/other", run_id="r", job_id="r.j", attempt=1)

    assert place.shelf.find_piece(other, entry.sha256) is None
    with pytest.raises(DepotError):
        place.shelf.get_piece(other, entry.pieces[0])
    with pytest.raises(NoSuchObjectError):
        place.objects.get(piece_key("demo/other", entry.pieces[0]))


def test_objects_with_foreign_names_are_left_alone(place: Place) -> None:
    """Neither the sweep nor a look for a cache fails by them."""
    place.cache("c", b"c")
    folder = f"used/{hashed(REPOSITORY)}"
    foreign = ["used/x", f"{folder}/y", f"{folder}/a/z", f"{folder}/a/1/2", "retired/x",
               "retired/1x-y", "pieces/x"]  # fmt: skip
    for key in foreign:
        place.objects.put(key, b"")

    assert place.find("c") is not None
    assert place.sweep() == (0, 0, 0)
    assert {key for key in foreign if place.objects.exists(key)} == set(foreign)


def test_a_sweep_that_fails_is_not_the_last(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it meets is said in the log, and the next one goes on."""
    monkeypatch.setattr("runner.gateway.sweep.FIRST_SWEEP_S", 0.0)
    monkeypatch.setattr("runner.gateway.sweep.SWEEP_EVERY_S", 0.001)
    sweeps: list[int] = []

    class Failing(Sweeper):
        """Fails by what nobody thought of."""

        def sweep(self) -> Swept:
            sweeps.append(1)
            raise IndexError

    sweeper = Failing(place.objects, place.clock, place.limits)
    sweeper.start()
    eventually(lambda: len(sweeps) > 1, what="another sweep")
    sweeper.close()

    assert "a sweep of the object store did not end" in caplog.text


def test_a_damaged_entry_keeps_every_piece(place: Place) -> None:
    """What it needs can't be known, so the sweep ends and names it."""
    entry = place.stored("orphan", b"orphan")
    place.objects.put("artifacts/r9/x/1-y", b'{"pieces": 7}')
    place.clock.advance(SETTLED_MS)

    with pytest.raises(DepotError, match="artifacts/r9/x/1-y"):
        place.sweep()
    assert place.has(entry) == [True]
