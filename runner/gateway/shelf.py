"""Where artifacts and caches lie in the object store, and which of them an attempt gets.

    pieces/<sha256>                                         at most 8 MiB each
    artifacts/<run_id>/<sha256 of the name>                 an entry as JSON
    caches/<repository>/<scope>/<version>/<time>-<key>      an entry as JSON; names as sha256

Caches belong to a repository and a ref: a job reads those of its own ref, of the base of its pull
request and of the default branch, and writes only its own, so that a branch can't put anything
into another one's cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infra.clock import Clock
from infra.objects import NoSuchObjectError, ObjectStore, ObjectStoreError
from runner.depot import PIECE_BYTES, DepotError, Entry, is_digest

PIECES_MAX = 4096
NAME_CHARACTERS_MAX = 512
RETENTION_DAYS_MAX = 90
_REMEMBERED_MAX = 10_000
_FORBIDDEN = frozenset('":<>|*?\r\n\\/')
_FORK_SCOPE = "refs/pull/"


class TakenError(DepotError):
    """The run has an artifact of that name; give another name, or set `overwrite: true`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose request it is; `fork` is that of the run."""

    repository: str
    run_id: str
    job_id: str
    attempt: int
    fork: bool = False


class Shelf:
    """The artifacts and caches of an installation; calls block and raise DepotError."""

    def __init__(self, objects: ObjectStore, clock: Clock) -> None:
        """Keep everything in `objects`."""
        self._objects = objects
        self._clock = clock
        self._caches: dict[str, dict[str, Any]] = {}

    def put_piece(self, data: bytes) -> str:
        """Keep a piece."""
        if len(data) > PIECE_BYTES:
            raise DepotError(f"a piece has {PIECE_BYTES} bytes at most, not {len(data)}")
        digest = hashlib.sha256(data).hexdigest()
        self._put(f"pieces/{digest}", data)
        return digest

    def get_piece(self, sha256: str) -> bytes:
        """Return a piece."""
        if not is_digest(sha256):
            raise DepotError("a piece is named by its sha256")
        return self._get(f"pieces/{sha256}")

    # ----------------------------------------------------------------- artifacts

    def save_artifact(
        self, owner: Owner, entry: Entry, *, overwrite: bool, retention_days: int
    ) -> Entry:
        """Keep an artifact. A job that runs again replaces what its earlier attempt left."""
        _check(entry)
        if _FORBIDDEN & set(entry.name):
            raise DepotError(
                f'the artifact name {entry.name!r} has one of the characters " : < > | * ? \\ /'
            )
        key = f"artifacts/{owner.run_id}/{_hashed(entry.name)}"
        there = self._read(key)
        if there is not None:
            mine = there.get("job_id") == owner.job_id and there.get("attempt") != owner.attempt
            if not overwrite and not mine:
                raise TakenError(
                    f"the run has an artifact {entry.name!r} already: give this one another "
                    "name, or set `overwrite: true`"
                )
            self._delete(key)
        kept = replace(entry, created_at=self._clock.now_ms(), uri=key)
        days = retention_days if 0 < retention_days <= RETENTION_DAYS_MAX else RETENTION_DAYS_MAX
        about = {
            "repository": owner.repository,
            "run_id": owner.run_id,
            "job_id": owner.job_id,
            "attempt": owner.attempt,
            "retention_days": days,
        }
        self._put(key, json.dumps({**kept.to_json(), **about}).encode())
        return kept

    def artifacts(self, owner: Owner) -> list[Entry]:
        """Return the artifacts of the run, by name."""
        found = (self._read(key) for key in self._list(f"artifacts/{owner.run_id}/"))
        entries = [Entry.from_json(item) for item in found if item is not None]
        return sorted(entries, key=lambda entry: entry.name)

    # ----------------------------------------------------------------- caches

    def save_cache(self, owner: Owner, entry: Entry, *, version: str, scope: str) -> bool:
        """Keep a cache; False when its key is taken."""
        _check(entry)
        if owner.fork and not scope.startswith(_FORK_SCOPE):
            raise DepotError(f"a run of a fork can't write the caches of {scope}")
        folder = _folder(owner.repository, scope, version)
        if any(found["name"] == entry.name for found in self._entries(folder)):
            return False
        now_ms = self._clock.now_ms()
        key = f"{folder}/{now_ms:014d}-{_hashed(entry.name)}"
        about = {"repository": owner.repository, "scope": scope, "job_id": owner.job_id}
        kept = replace(entry, created_at=now_ms, uri=key)
        self._put(key, json.dumps({**kept.to_json(), **about}).encode())
        return True

    def find_cache(
        self, owner: Owner, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache that fits best; see `Depot.find_cache`."""
        for scope in scopes:
            folder = _folder(owner.repository, scope, version)
            newest_first = list(self._entries(folder))[::-1]
            for found in newest_first:
                if keys and found["name"] == keys[0]:
                    return Entry.from_json(found)
            for key in keys:
                for found in newest_first:
                    if str(found["name"]).startswith(key):
                        return Entry.from_json(found)
        return None

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        """Yield a folder's entries, the oldest first; what was read once is remembered."""
        for key in self._list(f"{folder}/"):
            found = self._caches.get(key)
            if found is None:
                found = self._read(key)
                if found is None:
                    continue
                if len(self._caches) >= _REMEMBERED_MAX:
                    self._caches.clear()
                self._caches[key] = found
            yield found

    # ----------------------------------------------------------------- the store

    def _put(self, key: str, data: bytes) -> None:
        try:
            self._objects.put(key, data)
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(str(error)) from error

    def _get(self, key: str) -> bytes:
        try:
            return bytes(self._objects.get(key))
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(str(error)) from error

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            found = json.loads(self._objects.get(key))
        except NoSuchObjectError:
            return None
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(f"{key}: {error}") from error
        return found if isinstance(found, dict) else None

    def _delete(self, key: str) -> None:
        try:
            self._objects.delete(key)
        except ObjectStoreError as error:
            raise DepotError(str(error)) from error

    def _list(self, prefix: str) -> list[str]:
        try:
            return list(self._objects.list(prefix))
        except ObjectStoreError as error:
            raise DepotError(str(error)) from error


class ShelfDepot:
    """A depot right on a shelf, for whoever is no process of its own; see `Depot`."""

    def __init__(self, shelf: Shelf, owner: Owner) -> None:
        """Act for `owner`."""
        self._shelf = shelf
        self._owner = owner

    def put_piece(self, data: bytes) -> str:
        """Keep a piece."""
        return self._shelf.put_piece(data)

    def get_piece(self, sha256: str) -> bytes:
        """Return a piece."""
        return self._shelf.get_piece(sha256)

    def save_artifact(self, entry: Entry, *, overwrite: bool, retention_days: int) -> Entry:
        """Keep an artifact."""
        return self._shelf.save_artifact(
            self._owner, entry, overwrite=overwrite, retention_days=retention_days
        )

    def artifacts(self) -> list[Entry]:
        """Return the artifacts of the run."""
        return self._shelf.artifacts(self._owner)

    def save_cache(self, entry: Entry, *, version: str, scope: str) -> bool:
        """Keep a cache."""
        return self._shelf.save_cache(self._owner, entry, version=version, scope=scope)

    def find_cache(
        self, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache that fits best."""
        return self._shelf.find_cache(self._owner, keys, version=version, scopes=scopes)


def _check(entry: Entry) -> None:
    if not entry.name.strip() or len(entry.name) > NAME_CHARACTERS_MAX:
        raise DepotError(f"a name has 1 to {NAME_CHARACTERS_MAX} characters")
    if len(entry.pieces) > PIECES_MAX:
        gib = PIECES_MAX * PIECE_BYTES >> 30
        raise DepotError(f"{entry.name!r} is larger than {gib} GiB")
    if not all(map(is_digest, (*entry.pieces, entry.sha256))):
        raise DepotError("pieces are named by their sha256")


def _folder(repository: str, scope: str, version: str) -> str:
    return f"caches/{_hashed(repository)}/{_hashed(scope)}/{_hashed(version)}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
