"""The shelf: names of artifacts, keys and scopes of caches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.clock import ManualClock, SystemClock
from infra.objects import FileStore
from runner.depot import DepotDamagedError, DepotError, Entry, load, store
from runner.gateway.shelf import Owner, Shelf, ShelfDepot, TakenError

SHA = "0" * 64
OWNER = Owner(repository="demo/hello", run_id="r1", job_id="r1.build", attempt=1)
MAIN = "refs/heads/main"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Return a shelf of its own."""
    return Shelf(FileStore(tmp_path), SystemClock())


def entry(name: str, sha: str = SHA) -> Entry:
    """Return an entry without pieces."""
    return Entry(name=name, size_bytes=0, sha256=sha, pieces=())


def save(shelf: Shelf, owner: Owner, name: str, *, overwrite: bool = False) -> None:
    """Keep an artifact."""
    shelf.save_artifact(owner, entry(name), overwrite=overwrite, retention_days=0)


def test_a_file_goes_in_pieces_and_comes_back_whole(shelf: Shelf, tmp_path: Path) -> None:
    """The sum proves that it is the same."""
    depot = ShelfDepot(shelf, OWNER)
    (tmp_path / "in").write_bytes(b"x" * 20_000_000)
    with (tmp_path / "in").open("rb") as file:
        size, sha256, pieces = store(depot, file)

    load(depot, Entry(name="a", size_bytes=size, sha256=sha256, pieces=pieces), tmp_path / "out")

    assert (size, len(pieces)) == (20_000_000, 3)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    with pytest.raises(DepotDamagedError, match="differs"):
        load(depot, Entry(name="a", size_bytes=1, sha256=SHA, pieces=pieces), tmp_path / "other")


def test_an_artifact_name_is_taken_once_a_run(shelf: Shelf) -> None:
    """Other runs have names of their own; `overwrite` and a job's next attempt replace."""
    save(shelf, OWNER, "a")

    with pytest.raises(TakenError):
        save(shelf, OWNER, "a")
    save(shelf, OWNER, "a", overwrite=True)
    save(shelf, Owner(repository="demo/hello", run_id="r1", job_id="r1.build", attempt=2), "a")
    save(shelf, Owner(repository="demo/hello", run_id="r2", job_id="r2.build", attempt=1), "a")
    with pytest.raises(TakenError):
        save(shelf, Owner(repository="demo/hello", run_id="r1", job_id="r1.x", attempt=1), "a")
    assert [found.name for found in shelf.artifacts(OWNER)] == ["a"]


class HookedStore(FileStore):
    """Calls `before_artifact` once, before the first entry of an artifact is written."""

    before_artifact: Callable[[], None] | None = None

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        if self.before_artifact is not None and key.startswith("artifacts/"):
            hook, self.before_artifact = self.before_artifact, None
            hook()
        super().put(key, data)


def test_of_two_jobs_at_once_one_gets_the_name(tmp_path: Path) -> None:
    """Also when the second begins and ends between the first one's look and its write."""
    objects, clock = HookedStore(tmp_path), ManualClock()
    shelf = Shelf(objects, clock)
    other = Owner(repository="demo/hello", run_id="r1", job_id="r1.test", attempt=1)
    taken: list[Owner] = []

    def keep(owner: Owner) -> None:
        try:
            save(shelf, owner, "a")
        except TakenError:
            taken.append(owner)

    second = threading.Thread(target=keep, args=(other,))

    def interleave() -> None:
        clock.advance(1)
        second.start()
        second.join(0.2)  # it waits for the first, and must not be waited for any longer

    objects.before_artifact = interleave
    keep(OWNER)
    second.join(10)

    assert taken == [other]
    assert len(list(objects.list("artifacts/"))) == 1


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "x" * 600, "a\nb"])
def test_a_bad_artifact_name_is_refused(shelf: Shelf, name: str) -> None:
    """Names become file names where they are unpacked."""
    with pytest.raises(DepotError):
        save(shelf, OWNER, name)


def test_caches_are_found_by_key_then_by_beginning(tmp_path: Path) -> None:
    """An exact first key wins over a newer one that begins with it; others are beginnings."""
    clock = ManualClock()
    shelf = Shelf(FileStore(tmp_path), clock)
    for name in ("npm-a", "npm-ab", "npm-b"):
        clock.advance(1)
        assert shelf.save_cache(OWNER, entry(name), version="v", scope=MAIN).saved

    def find(*keys: str, version: str = "v", scope: str = MAIN) -> str | None:
        found = shelf.find_cache(OWNER, keys, version=version, scopes=[scope])
        return found.name if found is not None else None

    assert find("npm-a") == "npm-a"
    assert find("npm-c", "npm-a", "npm-") == "npm-ab", "the newest that begins with the second"
    assert find("npm-c", "npm-b", "npm-") == "npm-b", "the order of the keys comes before age"
    assert find("npm-c", "np") == "npm-b", "a second key that is none by itself"
    assert find("np", "npm-a") == "npm-b", "also the first key may be a beginning"
    assert find("npm-c") is None
    assert find("npm-a", version="w") is None
    assert find("npm-a", scope="refs/heads/other") is None
    assert not shelf.save_cache(OWNER, entry("npm-a"), version="v", scope=MAIN).saved


def test_the_first_scope_with_any_match_wins(shelf: Shelf) -> None:
    """A branch's own cache comes before that of the default branch."""
    shelf.save_cache(OWNER, entry("k-main"), version="v", scope=MAIN)
    shelf.save_cache(OWNER, entry("k-side"), version="v", scope="refs/heads/side")

    found = shelf.find_cache(OWNER, ["k-main", "k-"], version="v", scopes=["refs/heads/side", MAIN])

    assert found is not None
    assert found.name == "k-side"


def test_a_fork_writes_only_caches_of_its_pull_request(shelf: Shelf) -> None:
    """Nothing of a stranger gets into the cache of a branch."""
    fork = Owner(repository="demo/hello", run_id="r", job_id="r.j", attempt=1, fork=True)

    with pytest.raises(DepotError, match="fork"):
        shelf.save_cache(fork, entry("k"), version="v", scope=MAIN)
    assert shelf.save_cache(fork, entry("k"), version="v", scope="refs/pull/1/merge").saved


def test_a_run_writes_only_caches_of_its_own_ref(shelf: Shelf) -> None:
    """One pull request's cache is closed to another's, whatever its runner says."""
    own = "refs/pull/1/merge"
    run = Owner(repository="demo/hello", run_id="r", job_id="r.j", attempt=1, fork=True, ref=own)

    with pytest.raises(DepotError, match="refs/pull/1/merge can't write the caches of refs/pull/2"):
        shelf.save_cache(run, entry("k"), version="v", scope="refs/pull/2/merge")
    assert shelf.save_cache(run, entry("k"), version="v", scope=own).saved


def test_caches_of_repositories_are_apart(shelf: Shelf) -> None:
    """The same key elsewhere is another cache."""
    shelf.save_cache(OWNER, entry("k"), version="v", scope=MAIN)
    other = Owner(repository="demo/other", run_id="r", job_id="r.j", attempt=1)

    assert shelf.find_cache(other, ["k"], version="v", scopes=[MAIN]) is None
