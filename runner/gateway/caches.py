"""The caches of repositories: who reads and writes which, and which go when there are too many.

Caches belong to a repository and a ref: a job reads those of its own ref, of the base of its pull
request and of the default branch, and writes only its own, so that a branch can't put anything
into another one's cache.

When a cache was used is an empty object below `used/` whose name is the instant: objects never
change, and two gateways can note the same use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from infra.clock import Clock
from runner.depot import DepotError, Entry, Saved, read_entry
from runner.gateway.shelf import DAY_MS, Limits, Objects, Owner
from schemas.late import dataclass
from schemas.stored import hashed

CACHES = "caches/"
USED = "used/"
#: A use within this time of the last noted one is not noted again.
USE_NOTED_EVERY_MS = 60_000
_USE_KEY = re.compile(r"used/[^/]+/([^/]+)/([0-9]+)")
_FORK_SCOPE = "refs/pull/"
_REMEMBERED_MAX = 10_000
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Cached:
    """A cache of a repository, and when it was used last."""

    key: str
    content: dict[str, Any]
    used_at: int

    @property
    def size_bytes(self) -> int:
        """What it counts for."""
        return int(self.content.get("size_bytes", 0))


class Caches:
    """The caches in one object store."""

    def __init__(self, objects: Objects, clock: Clock, limits: Limits) -> None:
        """Keep them in `objects`."""
        self._objects = objects
        self._clock = clock
        self._limits = limits
        self._remembered: dict[str, dict[str, Any]] = {}
        self._noted: dict[str, int] = {}

    def save(self, owner: Owner, entry: Entry, *, version: str, scope: str) -> Saved:
        """Keep a cache, and let those go that were used least recently when it is too much."""
        if owner.fork and not scope.startswith(_FORK_SCOPE):
            raise DepotError(f"a run of a fork can't write the caches of {scope}")
        if owner.ref and scope != owner.ref:
            raise DepotError(f"a run of {owner.ref} can't write the caches of {scope}")
        most = self._limits.cache_bytes
        if entry.size_bytes > most:
            raise DepotError(
                f"the cache {entry.name!r} has {mebibytes(entry.size_bytes)}, and a repository's "
                f"caches together have {mebibytes(most)} at most: cache fewer paths, or raise the "
                "setting `cache_quota_mb`"
            )
        now_ms = self._clock.now_ms()
        folder = _folder(owner.repository, scope, version)
        if any(
            found.content["name"] == entry.name
            for found in self.living(folder, owner.repository, now_ms)
        ):
            return Saved(saved=False)
        key = f"{folder}{now_ms:014d}-{hashed(entry.name)}"
        about = {"repository": owner.repository, "scope": scope, "job_id": owner.job_id}
        kept = replace(entry, created_at=now_ms, expires_at=0, uri=key)
        self._objects.write(key, {**kept.to_json(), **about})
        return Saved(saved=True, note=self._make_room(owner.repository, key, now_ms))

    def _make_room(self, repository: str, newest: str, now_ms: int) -> str:
        gone = [found for found in self.over_quota(repository, now_ms) if found.key != newest]
        for found in gone:
            self._objects.retire(found.key, found.content, now_ms)
        if not gone:
            return ""
        names = ", ".join(str(found.content["name"]) for found in gone[:_NAMED_MAX])
        more = f" and {len(gone) - _NAMED_MAX} more" if len(gone) > _NAMED_MAX else ""
        return (
            f"The caches of {repository} reached {mebibytes(self._limits.cache_bytes)} (setting "
            f"`cache_quota_mb`); what was used least recently is removed: {names}{more}"
        )

    def over_quota(self, repository: str, now_ms: int) -> list[Cached]:
        """Return the caches that must go so that the rest fits, the least recently used first."""
        living = self.living(f"{CACHES}{hashed(repository)}/", repository, now_ms)
        left = sum(found.size_bytes for found in living)
        gone = []
        for found in sorted(living, key=lambda found: (found.used_at, found.key)):
            if left <= self._limits.cache_bytes:
                break
            left -= found.size_bytes
            gone.append(found)
        return gone

    def find(
        self, owner: Owner, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache that fits best, and note that it was used."""
        now_ms = self._clock.now_ms()
        for scope in scopes:
            folder = _folder(owner.repository, scope, version)
            newest_first = self.living(folder, owner.repository, now_ms)[::-1]
            found = _best(newest_first, keys)
            if found is not None:
                self._note_use(owner.repository, found.key, now_ms)
                return read_entry(found.content)
        return None

    def living(self, prefix: str, repository: str, now_ms: int) -> list[Cached]:
        """Return the caches below a prefix that are not over, the oldest of a folder first."""
        oldest = now_ms - self._limits.cache_unused_days * DAY_MS
        return [found for found in self.all_of(prefix, repository) if found.used_at > oldest]

    def all_of(self, prefix: str, repository: str) -> list[Cached]:
        """Return all caches below a prefix."""
        keys = self._objects.list(prefix)
        if not keys:
            return []
        uses = self._uses(repository)
        found = []
        for key in keys:
            content = self._read(key)
            if content is not None:
                used_at = max(int(content.get("created_at", 0)), uses.get(hashed(key), 0))
                found.append(Cached(key, content, used_at))
        return found

    def _uses(self, repository: str) -> dict[str, int]:
        """Return when each cache of a repository was used last, by the hash of its key."""
        uses: dict[str, int] = {}
        for key in self._objects.list(f"{USED}{hashed(repository)}/"):
            use = use_of(key)
            if use is not None:
                which, at = use
                uses[which] = max(uses.get(which, 0), at)
        return uses

    def _note_use(self, repository: str, key: str, now_ms: int) -> None:
        if now_ms - self._noted.get(key, -USE_NOTED_EVERY_MS) < USE_NOTED_EVERY_MS:
            return
        if len(self._noted) >= _REMEMBERED_MAX:
            self._noted.clear()
        self._noted[key] = now_ms
        self._objects.put(f"{USED}{hashed(repository)}/{hashed(key)}/{now_ms:014d}", b"")

    def _read(self, key: str) -> dict[str, Any] | None:
        """Return an entry; what was read once is remembered, for none ever changes."""
        found = self._remembered.get(key)
        if found is None:
            found = self._objects.read(key)
            if found is None:
                return None
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[key] = found
        return found


def _best(newest_first: Sequence[Cached], keys: Sequence[str]) -> Cached | None:
    for found in newest_first:
        if keys and found.content["name"] == keys[0]:
            return found
    for key in keys:
        for found in newest_first:
            if str(found.content["name"]).startswith(key):
                return found
    return None


def use_of(key: str) -> tuple[str, int] | None:
    """Return which cache was used and when, by an object's key; None when it says no such thing."""
    found = _USE_KEY.fullmatch(key)
    return (found[1], int(found[2])) if found is not None else None


def _folder(repository: str, scope: str, version: str) -> str:
    return f"{CACHES}{hashed(repository)}/{hashed(scope)}/{hashed(version)}/"


def mebibytes(size_bytes: int) -> str:
    """Return a size for people: `812 MiB`, `10.0 GiB`."""
    mib = size_bytes / 1024**2
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"  # noqa: PLR2004
