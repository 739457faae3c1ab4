"""Waiting for a condition instead of sleeping for a guess."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T | None], *, timeout_ms: int = 20_000, what: str = "condition"
) -> T:
    """Return the first truthy value of `condition`, polled with growing pauses.

    Raises AssertionError that names `what` and the last value or error once `timeout_ms` is over.
    An exception in `condition` counts as "not yet".
    """
    deadline = time.monotonic() + timeout_ms / 1000
    pause_s = 0.005
    last: object = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except Exception as error:  # noqa: BLE001 - reported when time is over
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come true in {timeout_ms} ms; last: {last!r}")
        threading.Event().wait(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)
