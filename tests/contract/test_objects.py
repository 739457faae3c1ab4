"""One suite for every object store: a folder and an S3 bucket."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.objects import (
    FileStore,
    NoSuchObjectError,
    ObjectStore,
    ObjectStoreError,
    content_key,
    open_store,
)
from tests.support.s3 import S3Server

DAY_MS = 24 * 60 * 60 * 1000
DATA = bytes(range(256)) * 40


class ObjectStoreContract:
    """What every store does; `store` is supplied by the class below."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return an empty store."""
        raise NotImplementedError

    def test_what_was_put_is_got(self, store: ObjectStore) -> None:
        """All of it, byte for byte."""
        store.put("logs/a@1/0", DATA)
        store.put("empty", b"")

        assert store.get("logs/a@1/0") == DATA
        assert store.get("empty") == b""
        assert store.size("logs/a@1/0") == len(DATA)

    @pytest.mark.parametrize(
        ("first", "length"), [(0, 10), (5, 1), (100, None), (len(DATA) - 3, 100), (0, 0)]
    )
    def test_a_part_is_got_by_its_bytes(
        self, store: ObjectStore, first: int, length: int | None
    ) -> None:
        """Less than asked for at the end."""
        store.put("x", DATA)

        expected = DATA[first:] if length is None else DATA[first : first + length]
        assert store.get("x", first, length) == expected

    def test_a_part_beyond_the_end_is_empty(self, store: ObjectStore) -> None:
        """As a file's would be."""
        store.put("x", b"abc")

        assert store.get("x", 3, 5) == b""
        assert store.get("x", 10) == b""

    def test_an_object_never_changes(self, store: ObjectStore) -> None:
        """Putting again is harmless: the first one stays."""
        store.put("x", b"first")
        store.put("x", b"second")

        assert store.get("x") == b"first"

    def test_what_is_not_there_has_an_error_of_its_own(self, store: ObjectStore) -> None:
        """Absent is told from broken."""
        for ask in (store.get, store.size):
            with pytest.raises(NoSuchObjectError, match="none/at"):
                ask("none/at/all")
        assert not store.exists("none/at/all")

    def test_a_deleted_object_is_gone(self, store: ObjectStore) -> None:
        """Deleting again is harmless; then the key is free."""
        store.put("x", b"first")
        store.delete("x")
        store.delete("x")
        assert not store.exists("x")
        store.put("x", b"second")

        assert store.get("x") == b"second"

    def test_keys_are_listed_by_prefix_in_order(self, store: ObjectStore) -> None:
        """Page by page where the store has pages."""
        for key in ("logs/b/1", "logs/b/0", "logs/a/0", "logs/ab/0", "other/x", "logs/c"):
            store.put(key, b"")

        assert list(store.list("logs/a")) == ["logs/a/0", "logs/ab/0"]
        assert list(store.list("logs/")) == [
            "logs/a/0", "logs/ab/0", "logs/b/0", "logs/b/1", "logs/c",
        ]  # fmt: skip
        assert len(list(store.list())) == 6
        assert list(store.list("none/")) == []

    @pytest.mark.parametrize(
        "key", ["", "/x", "../x", "a/../x", "a//b", ".hidden", "a/.b", "a b", "a\\b", "x\n", "é"]
    )
    def test_a_key_can_leave_no_folder(self, store: ObjectStore, key: str) -> None:
        """Whoever made it up."""
        with pytest.raises(ValueError, match="object key"):
            store.put(key, b"")
        with pytest.raises(ValueError, match="object key"):
            store.get(key)


class TestFileStore(ObjectStoreContract):
    """A folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """Return a store in a folder that does not exist yet."""
        return open_store(f"file://{tmp_path}/with%20space/objects")

    def test_a_write_that_was_cut_short_is_never_seen(self, tmp_path: Path) -> None:
        """Objects are linked into place; what a killed process left is not listed."""
        store = FileStore(tmp_path)
        store.put("a/x", b"1")
        (tmp_path / "a" / ".99.abc.part").write_bytes(b"half")

        assert list(store.list()) == ["a/x"]
        assert [p.name for p in tmp_path.rglob("*.part")] == [".99.abc.part"]

    def test_drafts_of_killed_writers_go_after_a_day(self, tmp_path: Path) -> None:
        """With the folders that have nothing else; a younger one may still be written."""
        store, now_ms = FileStore(tmp_path), 10 * DAY_MS
        store.put("a/x", b"1")
        for name, days in {
            "a/.1.old.part": 2.0,
            "b/c/.2.old.part": 1.1,
            "d/.3.new.part": 0.9,
        }.items():
            draft = tmp_path / name
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(b"half")
            os.utime(draft, (0, (now_ms - days * DAY_MS) / 1000))
        os.utime(tmp_path / "a/x", (0, 0))

        store.tidy(now_ms)

        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
        assert left == ["a", "a/x", "d", "d/.3.new.part"]

    def test_the_last_object_of_a_folder_takes_it_along(self, tmp_path: Path) -> None:
        """Up to the store itself; a folder with another object stays."""
        store = FileStore(tmp_path / "store")
        store.put("a/b/c/x", b"1")
        store.put("a/y", b"2")

        store.delete("a/b/c/x")
        assert sorted(path.name for path in (tmp_path / "store").rglob("*")) == ["a", "y"]
        store.delete("a/y")
        assert list((tmp_path / "store").iterdir()) == []

    def test_writers_and_removers_of_one_folder_do_not_meet(self, tmp_path: Path) -> None:
        """No writer is left without its folder, and no list fails by one that went."""
        stores = [FileStore(tmp_path) for _ in range(3)]

        def work(number: int) -> None:
            for _ in range(150):
                stores[number].put(f"a/b/{number}", b"x")
                list(stores[number].list("a/"))
                stores[number].delete(f"a/b/{number}")

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))

        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_an_error_with_its_path(
        self, tmp_path: Path
    ) -> None:
        """The message says where."""
        (tmp_path / "a").write_bytes(b"a file, not a folder")

        with pytest.raises(ObjectStoreError, match=str(tmp_path)):
            FileStore(tmp_path).put("a/x", b"1")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Yield an S3 server."""
    made = S3Server()
    yield made
    made.close()


class TestS3Store(ObjectStoreContract):
    """A bucket."""

    @pytest.fixture
    def store(self, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
        """Return a store below a prefix of an empty bucket."""
        server.objects.clear()
        server.objects["/bucket/elsewhere"] = b"not ours"
        for name, value in {
            "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        return open_store("s3://bucket/some/prefix")


@pytest.mark.parametrize(
    "uri", ["", "/srv/x", "file:relative", "file://host/x", "s3://", "ftp://x/y"]
)
def test_another_uri_is_refused(uri: str) -> None:
    """The message shows both forms."""
    with pytest.raises(ObjectStoreError, match="s3://bucket/prefix"):
        open_store(uri)


def test_content_is_named_by_its_sha256() -> None:
    """The same bytes have one key."""
    assert content_key("payloads", b"x") == f"payloads/{hashlib.sha256(b'x').hexdigest()}"
