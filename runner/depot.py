"""An attempt's way to artifacts and caches: pieces of bytes, and entries that list them.

A file of any size goes as pieces that are named by their sha256, so that a repeated upload costs
what is new, and nobody holds a large file in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

PIECE_BYTES = 8 * 1024 * 1024
_DIGITS = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64


class DepotError(Exception):
    """The depot can't be reached, refuses, or what it keeps is damaged; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A kept file: its name (an artifact's) or key (a cache's), and the pieces that make it up."""

    name: str
    size_bytes: int
    sha256: str
    pieces: tuple[str, ...]
    files: int = 0
    created_at: int = 0
    uri: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "pieces": list(self.pieces)}

    @classmethod
    def from_json(cls, found: Any) -> Entry:
        """Return it back. Raises DepotError for anything else."""
        try:
            return cls(
                name=str(found["name"]),
                size_bytes=int(found["size_bytes"]),
                sha256=str(found["sha256"]),
                pieces=tuple(map(str, found["pieces"])),
                files=int(found.get("files", 0)),
                created_at=int(found.get("created_at", 0)),
                uri=str(found.get("uri", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DepotError(f"the entry is damaged: {error!r}") from error


class Depot(Protocol):
    """Artifacts of the run and caches of the repository, for one attempt; calls block.

    Everything raises DepotError.
    """

    def put_piece(self, data: bytes) -> str:
        """Keep a piece; returns its sha256."""
        ...

    def get_piece(self, sha256: str) -> bytes:
        """Return a piece."""
        ...

    def save_artifact(self, entry: Entry, *, overwrite: bool, retention_days: int) -> Entry:
        """Keep an artifact of the run under a name that is free, unless `overwrite`."""
        ...

    def artifacts(self) -> Sequence[Entry]:
        """Return the artifacts of the run, by name."""
        ...

    def save_cache(self, entry: Entry, *, version: str, scope: str) -> bool:
        """Keep a cache for a ref; False when its key is taken, for caches never change."""
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

    `check` is called before each piece and may raise.
    """
    whole, size, pieces = hashlib.sha256(), 0, []
    while data := file.read(PIECE_BYTES):
        check()
        whole.update(data)
        size += len(data)
        pieces.append(depot.put_piece(data))
    return size, whole.hexdigest(), tuple(pieces)


def load(depot: Depot, entry: Entry, path: Path, check: Callable[[], None] = lambda: None) -> None:
    """Write an entry's file to a new `path`. Raises DepotError when it is not what was kept."""
    whole = hashlib.sha256()
    with path.open("xb") as file:
        for piece in entry.pieces:
            check()
            data = depot.get_piece(piece)
            if hashlib.sha256(data).hexdigest() != piece:
                raise DepotError(f"{entry.name}: piece {piece[:12]} is damaged")
            whole.update(data)
            file.write(data)
    if whole.hexdigest() != entry.sha256:
        raise DepotError(f"{entry.name} is not the file that was kept: its sha256 differs")


def is_digest(text: str) -> bool:
    """Say whether a text is a sha256 in lower-case digits."""
    return len(text) == _SHA256_DIGITS and _DIGITS.issuperset(text)


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Return the values that are not empty, each once."""
    return tuple(dict.fromkeys(value for value in values if value))
