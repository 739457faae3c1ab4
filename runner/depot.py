"""An attempt's way to artifacts and caches: pieces of bytes, and entries that list them.

A file of any size goes as pieces that are named by their sha256, so that a repeated upload costs
what is new, an interrupted one goes on where it was, and nobody holds a large file in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from schemas.late import dataclass
from schemas.stored import PIECE_BYTES, Entry, EntryError, piece_parts

__all__ = [
    "PIECE_BYTES",
    "Depot",
    "DepotAwayError",
    "DepotDamagedError",
    "DepotError",
    "Entry",
    "Kept",
    "Saved",
]


class DepotError(Exception):
    """The depot refuses, or what it keeps is damaged; the message says what to do."""


class DepotAwayError(DepotError):
    """The depot did not answer for as long as it is waited for; the job may be run again."""


class DepotDamagedError(DepotError):
    """What the depot gave is not what was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An artifact as it was kept, and where people get it.

    `note` tells the user of a limit that was applied.
    """

    entry: Entry
    note: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Whether a cache was saved (its key may be taken); `note` tells what went for it."""

    saved: bool
    note: str = ""


def read_entry(found: Any) -> Entry:
    """Return the entry of an answer. Raises DepotError."""
    try:
        return Entry.from_json(found)
    except EntryError as error:
        raise DepotError(str(error)) from error


class Depot(Protocol):
    """Artifacts of the run and caches of the repository, for one attempt; calls block.

    Everything raises DepotError. What is away is waited for here (`patience.py`): whoever calls
    asks once.
    """

    def find_piece(self, sha256: str) -> str | None:
        """Return the name of a piece that is there and may be used for a new entry."""
        ...

    def put_piece(self, data: bytes) -> str:
        """Keep a piece; returns its name."""
        ...

    def get_piece(self, name: str) -> bytes:
        """Return a piece."""
        ...

    def save_artifact(self, entry: Entry, *, overwrite: bool, retention_days: int) -> Kept:
        """Keep an artifact of the run under a name that is free, unless `overwrite`.

        0 days: as long as the installation keeps artifacts.
        """
        ...

    def artifacts(self) -> Sequence[Entry]:
        """Return the artifacts of the run, by name."""
        ...

    def save_cache(self, entry: Entry, *, version: str, scope: str) -> Saved:
        """Keep a cache for a ref; not when its key is taken, for caches never change."""
        ...

    def find_cache(
        self, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache of the first key; then the newest that begins with one, in order.

        The scopes are asked one after the other, each with all keys.
        """
        ...


def store(
    depot: Depot, file: BinaryIO, check: Callable[[], None] = lambda: None
) -> tuple[int, str, tuple[str, ...]]:
    """Put a file into a depot; returns its size, its sha256 and its pieces.

    A piece that the depot has is not sent. `check` is called before each piece and may raise.
    """
    whole, size, pieces = hashlib.sha256(), 0, []
    while data := file.read(PIECE_BYTES):
        whole.update(data)
        size += len(data)
        check()
        pieces.append(_kept(depot, data))
    return size, whole.hexdigest(), tuple(pieces)


def _kept(depot: Depot, data: bytes) -> str:
    found = depot.find_piece(hashlib.sha256(data).hexdigest())
    return found if found is not None else depot.put_piece(data)


def load(depot: Depot, entry: Entry, path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Write an entry's file to a new `path`. Raises DepotDamagedError when it is another one."""
    whole = hashlib.sha256()
    with path.open("xb") as file:
        for piece in entry.pieces:
            check()
            data = depot.get_piece(piece)
            if hashlib.sha256(data).hexdigest() != _digest_of(piece):
                raise DepotDamagedError(
                    f"{entry.name}: piece {piece} is damaged in the object store"
                )
            whole.update(data)
            file.write(data)
    if whole.hexdigest() != entry.sha256:
        raise DepotDamagedError(f"{entry.name} is not the file that was kept: its sha256 differs")


def _digest_of(piece: str) -> str:
    try:
        return piece_parts(piece)[1]
    except EntryError as error:
        raise DepotError(str(error)) from error


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values that are not empty, each once."""
    return tuple(dict.fromkeys(value for value in values if value))
