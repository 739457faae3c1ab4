"""Which signed requests were seen: the memory that makes each count once. Pure, and bounded."""

from __future__ import annotations

from enum import StrEnum

ENTRIES_MAX = 250_000


class Verdict(StrEnum):
    """What is to become of a request."""

    FRESH = "fresh"
    SEEN = "seen"
    #: Older than what was forgotten: whether it was seen can't be known any more.
    TOO_OLD = "too_old"
    FULL = "full"


class Nonces:
    """Remembers for `lifetime_ms` at least, in two generations of which the older is dropped.

    Ages are counted on a clock that never goes back. What was signed at or before the latest time
    of a forgotten nonce is refused, so that a wall clock that is set back lets nothing in twice.
    """

    def __init__(self, lifetime_ms: int, *, entries_max: int = ENTRIES_MAX) -> None:
        """Hold `entries_max` at most; more are refused until older ones were dropped."""
        self._lifetime_ms = lifetime_ms
        self._entries_max = entries_max
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._young_latest_ms = self._old_latest_ms = self._forgotten_ms = 0
        self._since_ms: int | None = None

    def take(self, nonce: bytes, time_ms: int, *, steady_ms: int) -> Verdict:
        """Remember a nonce that was signed with `time_ms`; say whether it is a new one."""
        self._age(steady_ms)
        if time_ms <= self._forgotten_ms:
            return Verdict.TOO_OLD
        if nonce in self._young or nonce in self._old:
            return Verdict.SEEN
        if len(self) >= self._entries_max:
            return Verdict.FULL
        self._young.add(nonce)
        self._young_latest_ms = max(self._young_latest_ms, time_ms)
        return Verdict.FRESH

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._young) + len(self._old)

    def _age(self, steady_ms: int) -> None:
        if self._since_ms is None:
            self._since_ms = steady_ms
        passed = (steady_ms - self._since_ms) // self._lifetime_ms
        if passed <= 0:
            return
        self._since_ms = steady_ms
        for _ in range(min(passed, 2)):
            self._forgotten_ms = max(self._forgotten_ms, self._old_latest_ms)
            self._old, self._old_latest_ms = self._young, self._young_latest_ms
            self._young, self._young_latest_ms = set(), 0
