"""Removes what is over: artifacts past their time, caches nobody uses, pieces nobody needs.

Every gateway does it, once an hour. It needs no lock and no event: *what* is over follows from
objects that never change and the clock, everybody who reads applies the same rule (the API says
"expired" from that instant on, whether or not the bytes are gone), and removing twice is the same
as once. A piece goes when it is settled (`schemas/stored.py`: no upload can begin to need it) and
no entry, living or retired, lists it; so one that another artifact or cache has stays.
"""

from __future__ import annotations

import logging
import re
import threading

from infra.clock import Clock
from infra.objects import ObjectStore
from runner.depot import DepotError, read_entry
from runner.gateway.caches import CACHES, USED, Cached, Caches, use_of
from runner.gateway.shelf import ARTIFACTS, RETIRED, Limits, Objects
from schemas.late import dataclass
from schemas.stored import (
    EPOCH_MS,
    SETTLED_EPOCHS,
    Entry,
    EntryError,
    epoch_of,
    hashed,
    piece_key,
)

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 3600.0
FIRST_SWEEP_S = 60.0
_PIECES = "pieces/"
_RETIRED_KEY = re.compile(rf"{RETIRED}([0-9]+)-[^/]+")
_PIECE_KEY = re.compile(r"pieces/[0-9a-f]+/([0-9]+)/[0-9a-f]{64}")


@dataclass(slots=True)
class Swept:
    """What one sweep removed."""

    artifacts: int = 0
    caches: int = 0
    pieces: int = 0

    def __bool__(self) -> bool:
        """Whether it removed anything."""
        return bool(self.artifacts or self.caches or self.pieces)


class Sweeper:
    """The sweeps of one object store; `start` repeats them in a thread until `close`."""

    def __init__(self, objects: ObjectStore, clock: Clock, limits: Limits) -> None:
        """Remove by `limits`."""
        self._objects = Objects(objects)
        self._clock = clock
        self._limits = limits
        self._caches = Caches(self._objects, clock, limits)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin a moment from now, so that a start is quick."""
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End at the next object."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        wait_s = FIRST_SWEEP_S
        while not self._closing.wait(wait_s):
            wait_s = SWEEP_EVERY_S
            try:
                swept = self.sweep()
            except Exception:  # whatever one sweep met: the thread must live for the next
                logger.exception("a sweep of the object store did not end; the next one goes on")
                continue
            if swept:
                logger.info(
                    "removed %d artifacts and %d caches that are over, and %d pieces",
                    swept.artifacts, swept.caches, swept.pieces,
                )  # fmt: skip

    def sweep(self) -> Swept:
        """Remove what is over now. Raises DepotError; what was done until then stays done."""
        now_ms, swept = self._clock.now_ms(), Swept()
        self._objects.tidy(now_ms)
        settled = self._settled_pieces(now_ms)
        needed: set[str] = set()
        self._sweep_artifacts(now_ms, needed, swept)
        self._sweep_caches(now_ms, needed, swept)
        # after the living: an entry that another gateway retires meanwhile is seen in one place
        self._sweep_retired(now_ms, needed)
        for key in settled:
            if self._closing.is_set():
                break
            if key not in needed:
                self._objects.delete(key)
                swept.pieces += 1
        return swept

    def _settled_pieces(self, now_ms: int) -> list[str]:
        last = epoch_of(now_ms) - SETTLED_EPOCHS
        found = (_PIECE_KEY.fullmatch(key) for key in self._objects.list(_PIECES))
        return [match[0] for match in found if match is not None and int(match[1]) <= last]

    def _sweep_artifacts(self, now_ms: int, needed: set[str], swept: Swept) -> None:
        for key in self._objects.list(ARTIFACTS):
            content = self._objects.read(key)
            if content is None or self._closing.is_set():
                continue
            needed |= _pieces_of(key, content)
            if read_entry(content).is_expired(now_ms):
                self._objects.retire(key, content, now_ms)
                swept.artifacts += 1

    def _sweep_caches(self, now_ms: int, needed: set[str], swept: Swept) -> None:
        by_repository: dict[str, str] = {}
        known: set[str] = set()
        for key in self._objects.list(CACHES):
            content = self._objects.read(key)
            if content is not None:
                needed |= _pieces_of(key, content)
                by_repository[str(content.get("repository", ""))] = key
                known.add(hashed(key))
        for repository in by_repository:
            living = self._caches.living(f"{CACHES}{hashed(repository)}/", repository, now_ms)
            kept = {found.key for found in living}
            kept -= {found.key for found in self._caches.over_quota(repository, now_ms)}
            for found in self._caches.all_of(f"{CACHES}{hashed(repository)}/", repository):
                if found.key not in kept and not self._closing.is_set():
                    self._retire(found, now_ms)
                    swept.caches += 1
        self._sweep_uses(known)

    def _retire(self, found: Cached, now_ms: int) -> None:
        self._objects.retire(found.key, found.content, now_ms)

    def _sweep_uses(self, known: set[str]) -> None:
        """Forget all uses but the last of a cache, and those of caches that are gone."""
        last: dict[str, str] = {}
        for key in self._objects.list(USED):
            use = use_of(key)
            if use is None:
                continue  # none of ours
            which, _ = use
            if which not in known:
                self._objects.delete(key)
                continue
            if which in last:
                self._objects.delete(last[which])
            last[which] = key

    def _sweep_retired(self, now_ms: int, needed: set[str]) -> None:
        for key in self._objects.list(RETIRED):
            found = _RETIRED_KEY.fullmatch(key)
            if found is None:
                continue  # none of ours
            if int(found[1]) <= now_ms - EPOCH_MS:
                self._objects.delete(key)
            elif (content := self._objects.read(key)) is not None:
                needed |= _pieces_of(key, content)


def _pieces_of(key: str, content: dict[str, object]) -> set[str]:
    """Return the keys of an entry's pieces; DepotError for a damaged one, which ends the sweep.

    What it needs can't be known then, so nothing more may be removed.
    """
    try:
        entry = Entry.from_json(content)
        return {piece_key(str(content.get("repository", "")), name) for name in entry.pieces}
    except EntryError as error:
        raise DepotError(
            f"object {key}: {error}. Until it is removed by hand no piece is, for this entry may "
            "need any of them"
        ) from error
