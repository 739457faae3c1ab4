"""Takes secrets out of bytes: the only place that knows how a secret can be written.

One Aho-Corasick automaton over bytes holds every secret in every usual encoding. All matches,
overlapping ones too, are merged and replaced by `***`, so that no pattern is left whole, whatever
else it shares bytes with.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick

MASK = b"***"
#: A line of a multi-line secret that is shorter hides nothing and would blank whole logs.
LINE_BYTES_MIN = 4
#: Shorter encodings are left out: they would match by chance.
ENCODED_BYTES_MIN = 6
#: `base64` breaks its output there.
_BASE64_WRAP = 76


class Masker:
    """Masks what it was told to; `add` may be called at any time, from the job's own thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Start with these secrets."""
        self._patterns: set[bytes] = set()
        self._automaton: BytesAhoCorasick | None = None
        self.pattern_bytes_max = 0
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Mask these from now on; blank ones are ignored."""
        fresh = {pattern for secret in secrets for pattern in patterns_of(secret)} - self._patterns
        if not fresh:
            return
        self._patterns |= fresh
        self.pattern_bytes_max = max(map(len, self._patterns))
        self._automaton = BytesAhoCorasick(sorted(self._patterns))

    def mask(self, data: bytes) -> bytes:
        """Return the bytes with every secret in them replaced."""
        if self._automaton is None:
            return data
        found = self._automaton.find_matches_as_indexes(data, overlapping=True)
        return _replace(data, merged(found)) if found else data

    def mask_text(self, text: str) -> str:
        """Return the text with every secret in it replaced."""
        if self._automaton is None:
            return text
        return self.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def contains(self, text: str) -> bool:
        """Say whether there is a secret in the text."""
        if self._automaton is None:
            return False
        data = text.encode("utf-8", "surrogateescape")
        return bool(self._automaton.find_matches_as_indexes(data))

    def safe_cut(self, data: bytes, at: int) -> int:
        """Return the last place at or before `at` where `data` can be cut in two.

        Whatever follows `data`, no secret then lies across the cut; 0 when there is no such place.
        """
        if self._automaton is None:
            return at
        cut = min(at, len(data) - self.pattern_bytes_max + 1)
        if cut <= 0:
            return 0
        found = self._automaton.find_matches_as_indexes(data, overlapping=True)
        for start, end in reversed(merged(found)):
            if start < cut < end:
                return start
        return cut


def merged(found: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the matches as disjoint (start, end), in order."""
    spans: list[tuple[int, int]] = []
    for _, start, end in sorted(found, key=lambda match: match[1]):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def _replace(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    parts: list[bytes] = []
    position = 0
    for start, end in spans:
        parts += (data[position:start], MASK)
        position = end
    parts.append(data[position:])
    return b"".join(parts)


def patterns_of(secret: str) -> set[bytes]:
    """Return every byte string that must not appear because of this secret."""
    if not secret.strip():
        return set()
    texts = {secret}
    parts = [part.strip("\r") for part in secret.split("\n")]
    whole = [part for part in parts if part]
    if len(whole) == 1:
        texts.add(whole[0])
    else:
        texts |= {part for part in whole if len(part.encode()) >= LINE_BYTES_MIN}
    raw = {text.encode("utf-8", "surrogateescape") for text in texts}
    found = {data.strip(b"\n") for data in raw}
    for data in (*raw, *(text.strip().encode("utf-8", "surrogateescape") for text in texts)):
        found |= {encoded for encoded in _encodings(data) if len(encoded) >= ENCODED_BYTES_MIN}
    # lines are masked one by one: a pattern with a newline in it could never match
    return {pattern for pattern in found if pattern and b"\n" not in pattern}


def _encodings(data: bytes) -> set[bytes]:
    text = data.decode("utf-8", "replace")
    encoded = _base64s(data)
    for inner in tuple(encoded):
        encoded |= _base64s(inner)
    encoded |= _base64s(base64.b64encode(data)) | _wrapped(data) | _wrapped(data + b"\n")
    encoded |= {data.hex().encode(), data.hex().upper().encode()}
    encoded |= {
        json.dumps(text)[1:-1].encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
    }
    encoded |= {quote(data, safe="").encode(), quote(data).encode(), quote_plus(data).encode()}
    encoded |= {quote(data, safe="").lower().encode()} if "%" in quote(data, safe="") else set()
    encoded |= {shlex.quote(text).encode(), text.replace("'", "'\"'\"'").encode()}
    encoded |= {text.replace("'", "'\\''").encode(), text.replace('"', '\\"').encode()}
    return encoded


def _base64s(data: bytes) -> set[bytes]:
    """Return what is the same in any base64 text around `data`, at each of the three shifts."""
    found: set[bytes] = set()
    for shift in range(3):
        padded = bytes(shift) + data
        skip = (0, 2, 3)[shift]
        keep = (len(padded) // 3) * 4 + (0, 1, 2)[len(padded) % 3]
        core = base64.b64encode(padded)[skip:keep]
        found |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def _wrapped(data: bytes) -> set[bytes]:
    """Return the lines that the `base64` command prints for `data` alone."""
    text = base64.b64encode(data).rstrip(b"=")
    if len(text) <= _BASE64_WRAP:
        return set()
    return {text[i : i + _BASE64_WRAP] for i in range(0, len(text), _BASE64_WRAP)}
