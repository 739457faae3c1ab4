"""What artifacts and caches are in the object store: entries, and the pieces they list; pure.

    pieces/<repository>/<epoch>/<sha256>                    at most 8 MiB each
    artifacts/<run_id>/<name>/<time>-<artifact_id>          an entry as JSON
    caches/<repository>/<scope>/<version>/<time>-<key>      an entry as JSON

Names are written as the first digits of their sha256. No object ever changes.

A piece belongs to the *epoch* in which it came. An entry is made only of pieces of its own epoch
and of the one before, so that once two more have passed nobody can begin to need an old piece:
whoever removes it needs no lock, and no upload in another process can lose what it counts on.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from typing import Any

from schemas.late import dataclass

PIECE_BYTES = 8 * 1024 * 1024
EPOCH_MS = 6 * 60 * 60 * 1000
#: Pieces of this many epochs ago, and older ones, are in nobody's upload any more. By the rule 2;
#: one more allows for clocks that differ.
SETTLED_EPOCHS = 3

_PIECE = re.compile(r"([0-9]{6,12})-([0-9a-f]{64})")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class EntryError(ValueError):
    """The object is no entry, or names no piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A kept file: its name (an artifact's) or key (a cache's), and the pieces that make it up.

    `expires_at` is 0 for a cache, which goes when nobody uses it. `upload_id` tells a request that
    is repeated, since its answer was lost, from another upload.
    """

    name: str
    size_bytes: int
    sha256: str
    pieces: tuple[str, ...]
    files: int = 0
    created_at: int = 0
    expires_at: int = 0
    uri: str = ""
    artifact_id: str = ""
    upload_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "pieces": list(self.pieces)}

    @classmethod
    def from_json(cls, found: Any) -> Entry:
        """Return it back. Raises EntryError for anything else."""
        try:
            return cls(
                name=str(found["name"]),
                size_bytes=int(found["size_bytes"]),
                sha256=str(found["sha256"]),
                pieces=tuple(map(str, found["pieces"])),
                files=int(found.get("files", 0)),
                created_at=int(found.get("created_at", 0)),
                expires_at=int(found.get("expires_at", 0)),
                uri=str(found.get("uri", "")),
                artifact_id=str(found.get("artifact_id", "")),
                upload_id=str(found.get("upload_id", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EntryError(f"the entry is damaged: {error!r}") from error

    def is_expired(self, now_ms: int) -> bool:
        """Say whether its time is over."""
        return 0 < self.expires_at <= now_ms


def epoch_of(at_ms: int) -> int:
    """Return the epoch of an instant."""
    return at_ms // EPOCH_MS


def piece_name(epoch: int, sha256: str) -> str:
    """Return a piece's name in an entry."""
    return f"{epoch:06d}-{sha256}"


def piece_parts(name: str) -> tuple[int, str]:
    """Return (epoch, sha256) of a piece. Raises EntryError."""
    found = _PIECE.fullmatch(name)
    if found is None:
        raise EntryError(f"{name[:80]!r} names no piece")
    return int(found[1]), found[2]


def pieces_folder(repository: str) -> str:
    """Return where the pieces of a repository lie; those of others are never looked at for it."""
    return f"pieces/{hashed(repository)}"


def piece_key(repository: str, name: str) -> str:
    """Return where a piece lies. Raises EntryError for what names none."""
    epoch, sha256 = piece_parts(name)
    return f"{pieces_folder(repository)}/{epoch:06d}/{sha256}"


def is_digest(text: str) -> bool:
    """Say whether a text is a sha256 in lower-case digits."""
    return _DIGEST.fullmatch(text) is not None


def hashed(text: str) -> str:
    """Return a name as a part of a key: 32 digits of its sha256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
