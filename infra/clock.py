"""The only place that reads a clock or draws a random id; everything else is told the time."""

from __future__ import annotations

import os
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, steady time for waiting."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch; may jump when the machine's clock is set."""
        ...

    def steady_ms(self) -> int:
        """Milliseconds that never go back and count suspended time (CLOCK_BOOTTIME)."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        """Milliseconds since boot, suspended time included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class ManualClock:
    """A clock that stands still until it is told to move; for tests and simulation."""

    def __init__(self, start_ms: int = 1_750_000_000_000) -> None:
        """Start at `start_ms` since the epoch."""
        self._now_ms = start_ms

    def now_ms(self) -> int:
        """Return the time that was set."""
        return self._now_ms

    def steady_ms(self) -> int:
        """Return the same line of time: nothing jumps unless `advance` is told to."""
        return self._now_ms

    def advance(self, by_ms: int) -> None:
        """Move forward by `by_ms`."""
        self._now_ms += by_ms


def random_id() -> str:
    """Return a new random UUID; only for ids that nothing could derive (a dispatch, a secret)."""
    return str(uuid.uuid4())  # noqa: TID251


def uuid7(now_ms: int, *, above: str | None = None) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7) of `now_ms` that sorts after `above`.

    A boot id must be higher than the last one even when the wall clock was set back: then the
    last one's time plus one millisecond is taken instead.
    """
    if above is not None:
        last_ms = uuid.UUID(above).int >> 80
        now_ms = max(now_ms, last_ms + 1)
    rand = int.from_bytes(os.urandom(10), "big")
    value = (now_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76
    value |= ((rand >> 62) & 0xFFF) << 64 | 0b10 << 62 | (rand & ((1 << 62) - 1))
    return str(uuid.UUID(int=value))
