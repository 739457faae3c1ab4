"""Where artifacts and caches lie in the object store, and which of them an attempt gets.

`schemas/stored.py` has the places. What is over (`Limits`) is given to nobody from that instant
on; `runner.gateway.sweep` removes it later. An entry that is removed lies in `retired/` for an
epoch more, so that whoever is reading it can end.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from infra.clock import Clock, random_id
from infra.objects import NoSuchObjectError, ObjectStore, ObjectStoreError
from runner.depot import PIECE_BYTES, DepotError, Entry, Kept, Saved, read_entry
from schemas.late import dataclass
from schemas.stored import (
    EPOCH_MS,
    EntryError,
    epoch_of,
    hashed,
    is_digest,
    piece_key,
    piece_name,
    piece_parts,
)

PIECES_MAX = 4096
NAME_CHARACTERS_MAX = 512
ARTIFACTS = "artifacts/"
RETIRED = "retired/"
DAY_MS = 24 * 60 * 60 * 1000
_FORBIDDEN = frozenset('":<>|*?\r\n\\/')


class TakenError(DepotError):
    """The run has an artifact of that name; give another name, or set `overwrite: true`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much is kept; the defaults are GitHub's."""

    artifact_days: int = 90
    cache_bytes: int = 10 * 1024**3
    cache_unused_days: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose request it is; `fork` and `ref` are those of the run, "" where nobody knows it."""

    repository: str
    run_id: str
    job_id: str
    attempt: int
    fork: bool = False
    ref: str = ""


class Objects:
    """The object store as the shelf uses it: JSON objects, and DepotError for whatever fails."""

    def __init__(self, objects: ObjectStore) -> None:
        """Work on `objects`."""
        self._objects = objects

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes."""
        try:
            self._objects.put(key, data)
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(str(error)) from error

    def get(self, key: str) -> bytes:
        """Return bytes."""
        try:
            return bytes(self._objects.get(key))
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(str(error)) from error

    def exists(self, key: str) -> bool:
        """Say whether there is an object."""
        try:
            return self._objects.exists(key)
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(str(error)) from error

    def read(self, key: str) -> dict[str, Any] | None:
        """Return a JSON object, None when it is not there (any more)."""
        try:
            found = json.loads(self._objects.get(key))
        except NoSuchObjectError:
            return None
        except (ObjectStoreError, ValueError) as error:
            raise DepotError(f"{key}: {error}") from error
        return found if isinstance(found, dict) else None

    def write(self, key: str, content: dict[str, Any]) -> None:
        """Keep a JSON object."""
        self.put(key, json.dumps(content).encode())

    def delete(self, key: str) -> None:
        """Remove an object; harmless when there is none."""
        try:
            self._objects.delete(key)
        except (ObjectStoreError, OSError) as error:
            raise DepotError(str(error)) from error

    def list(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, sorted."""
        try:
            return list(self._objects.list(prefix))
        except (ObjectStoreError, OSError) as error:
            raise DepotError(str(error)) from error

    def tidy(self, now_ms: int) -> None:
        """Remove what writers that were killed left."""
        try:
            self._objects.tidy(now_ms)
        except (ObjectStoreError, OSError) as error:
            raise DepotError(str(error)) from error

    def retire(self, key: str, content: dict[str, Any], now_ms: int) -> None:
        """Take an entry away; its pieces stay for whoever is reading them."""
        self.write(f"{RETIRED}{now_ms:014d}-{hashed(key)}", content)
        self.delete(key)


class Shelf:
    """The artifacts and caches of an installation; calls block and raise DepotError.

    One a process, for all its threads.
    """

    def __init__(self, objects: ObjectStore, clock: Clock, limits: Limits | None = None) -> None:
        """Keep everything in `objects`."""
        from runner.gateway.caches import Caches

        self._objects = Objects(objects)
        self._clock = clock
        self._limits = limits or Limits()
        self._caches = Caches(self._objects, clock, self._limits)
        self._artifacts_lock = threading.Lock()

    # ----------------------------------------------------------------- pieces

    def find_piece(self, owner: Owner, sha256: str) -> str | None:
        """Return the name of a piece that is there and young enough for a new entry."""
        if not is_digest(sha256):
            raise DepotError("a piece is asked for by its sha256")
        now = epoch_of(self._clock.now_ms())
        for name in (piece_name(now, sha256), piece_name(now - 1, sha256)):
            if self._objects.exists(piece_key(owner.repository, name)):
                return name
        return None

    def put_piece(self, owner: Owner, data: bytes) -> str:
        """Keep a piece of the owner's repository; returns its name."""
        if len(data) > PIECE_BYTES:
            raise DepotError(f"a piece has {PIECE_BYTES} bytes at most, not {len(data)}")
        digest = hashlib.sha256(data).hexdigest()
        name = piece_name(epoch_of(self._clock.now_ms()), digest)
        self._objects.put(piece_key(owner.repository, name), data)
        return name

    def get_piece(self, owner: Owner, name: str) -> bytes:
        """Return a piece of the owner's repository."""
        try:
            key = piece_key(owner.repository, name)
        except EntryError as error:
            raise DepotError(str(error)) from error
        return self._objects.get(key)

    def _check(self, entry: Entry) -> None:
        if not entry.name.strip() or len(entry.name) > NAME_CHARACTERS_MAX:
            raise DepotError(f"a name has 1 to {NAME_CHARACTERS_MAX} characters")
        if len(entry.pieces) > PIECES_MAX:
            gib = PIECES_MAX * PIECE_BYTES >> 30
            raise DepotError(f"{entry.name!r} is larger than {gib} GiB: keep less of it")
        if not is_digest(entry.sha256):
            raise DepotError("an entry has the sha256 of its file")
        try:
            oldest = min((piece_parts(name)[0] for name in entry.pieces), default=None)
        except EntryError as error:
            raise DepotError(str(error)) from error
        if oldest is not None and oldest < epoch_of(self._clock.now_ms()) - 1:
            raise DepotError(
                f"the upload of {entry.name!r} took longer than {EPOCH_MS // 3_600_000} hours, and "
                "its first pieces may be gone: keep less of it, or run the job again"
            )

    # ----------------------------------------------------------------- artifacts

    def save_artifact(
        self, owner: Owner, entry: Entry, *, overwrite: bool, retention_days: int
    ) -> Kept:
        """Keep an artifact. A job that runs again replaces what its earlier attempt left.

        Of requests to one shelf for one name, one gets it: they go one after the other. Of those
        to two gateways in the same instant the one that writes last sees the other and gives way
        if it is the younger; if it is the older one both stay, and readers get the younger.
        """
        self._check(entry)
        if _FORBIDDEN & set(entry.name):
            raise DepotError(
                f'the artifact name {entry.name!r} has one of the characters " : < > | * ? \\ /'
            )
        with self._artifacts_lock:
            return self._save_artifact(owner, entry, overwrite=overwrite, days=retention_days)

    def _save_artifact(self, owner: Owner, entry: Entry, *, overwrite: bool, days: int) -> Kept:
        now_ms = self._clock.now_ms()
        folder = f"{ARTIFACTS}{owner.run_id}/{hashed(entry.name)}/"
        there = self._living(folder, now_ms)
        again = there.pop(_key_of_upload(there, entry.upload_id), None)
        replaced = there if overwrite else _of_earlier_attempt(there, owner)
        if again is not None:
            # the answer to this request was lost, or it was cut short before these were taken away
            self._retire(replaced, now_ms)
            return Kept(entry=read_entry(again))
        if len(replaced) < len(there):
            raise _taken(entry.name)
        days, note = self._days(days)
        artifact_id = hashed(f"{owner.run_id} {entry.name} {now_ms} {random_id()}")
        key = f"{folder}{now_ms:014d}-{artifact_id}"
        kept = replace(
            entry,
            created_at=now_ms,
            expires_at=now_ms + days * DAY_MS,
            uri=key,
            artifact_id=artifact_id,
        )
        about = {
            "repository": owner.repository,
            "run_id": owner.run_id,
            "job_id": owner.job_id,
            "attempt": owner.attempt,
        }
        content = {**kept.to_json(), **about}
        self._objects.write(key, content)
        rivals = set(self._living(folder, now_ms)) - set(there) - {key}
        if not overwrite and any(rival < key for rival in rivals):
            self._objects.retire(key, content, now_ms)
            raise _taken(entry.name)
        self._retire(replaced, now_ms)
        return Kept(entry=kept, note=note)

    def _retire(self, entries: dict[str, dict[str, Any]], now_ms: int) -> None:
        for key, found in entries.items():
            self._objects.retire(key, found, now_ms)

    def _days(self, wanted: int) -> tuple[int, str]:
        most = self._limits.artifact_days
        if wanted <= most:
            return wanted or most, ""
        return most, (
            f"retention-days is {wanted}, and artifacts are kept for {most} days at most here: "
            f"it will be removed after {most} days. The setting `artifact_retention_days` is the "
            "limit"
        )

    def _living(self, folder: str, now_ms: int) -> dict[str, dict[str, Any]]:
        """Return the entries of a folder whose time is not over, by key."""
        found = {key: self._objects.read(key) for key in self._objects.list(folder)}
        return {
            key: item
            for key, item in found.items()
            if item is not None and not read_entry(item).is_expired(now_ms)
        }

    def artifacts(self, owner: Owner) -> list[Entry]:
        """Return the artifacts of the run, by name; of each the newest."""
        now_ms = self._clock.now_ms()
        living = self._living(f"{ARTIFACTS}{owner.run_id}/", now_ms)
        newest = {str(item["name"]): item for _, item in sorted(living.items())}
        return [read_entry(newest[name]) for name in sorted(newest)]

    # ----------------------------------------------------------------- caches

    def save_cache(self, owner: Owner, entry: Entry, *, version: str, scope: str) -> Saved:
        """Keep a cache; see `Depot.save_cache`."""
        self._check(entry)
        return self._caches.save(owner, entry, version=version, scope=scope)

    def find_cache(
        self, owner: Owner, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache that fits best; see `Depot.find_cache`."""
        return self._caches.find(owner, keys, version=version, scopes=scopes)


def _key_of_upload(there: dict[str, dict[str, Any]], upload_id: str) -> str:
    found = (key for key, item in there.items() if item.get("upload_id") == upload_id)
    return next(found, "") if upload_id else ""


def _of_earlier_attempt(
    there: dict[str, dict[str, Any]], owner: Owner
) -> dict[str, dict[str, Any]]:
    return {
        key: found
        for key, found in there.items()
        if found.get("job_id") == owner.job_id and found.get("attempt") != owner.attempt
    }


def _taken(name: str) -> TakenError:
    return TakenError(
        f"the run has an artifact {name!r} already: give this one another name, or set "
        "`overwrite: true`"
    )


class ShelfDepot:
    """A depot right on a shelf, for whoever is no process of its own; see `Depot`."""

    def __init__(self, shelf: Shelf, owner: Owner) -> None:
        """Act for `owner`."""
        self._shelf = shelf
        self._owner = owner

    def find_piece(self, sha256: str) -> str | None:
        """Return the name of a piece that is there."""
        return self._shelf.find_piece(self._owner, sha256)

    def put_piece(self, data: bytes) -> str:
        """Keep a piece."""
        return self._shelf.put_piece(self._owner, data)

    def get_piece(self, name: str) -> bytes:
        """Return a piece."""
        return self._shelf.get_piece(self._owner, name)

    def save_artifact(self, entry: Entry, *, overwrite: bool, retention_days: int) -> Kept:
        """Keep an artifact."""
        return self._shelf.save_artifact(
            self._owner, entry, overwrite=overwrite, retention_days=retention_days
        )

    def artifacts(self) -> list[Entry]:
        """Return the artifacts of the run."""
        return self._shelf.artifacts(self._owner)

    def save_cache(self, entry: Entry, *, version: str, scope: str) -> Saved:
        """Keep a cache."""
        return self._shelf.save_cache(self._owner, entry, version=version, scope=scope)

    def find_cache(
        self, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache that fits best."""
        return self._shelf.find_cache(self._owner, keys, version=version, scopes=scopes)
