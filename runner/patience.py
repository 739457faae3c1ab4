"""Asking the gateway again while it is away: an outage of a service is no failure of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from infra.clock import Clock
from runner.gateway_client import GatewayAwayError
from schemas.late import dataclass

T = TypeVar("T")

#: How long an attempt waits for the gateway before it fails with `infra.gateway`, which is retried.
PATIENCE_MS = 60_000
_FIRST_PAUSE_MS = 50
_PAUSE_MS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How one attempt waits: `say` writes to its log, `given_up` says that its time is over.

    `given_up` may raise, and is asked before each repetition.
    """

    clock: Clock
    say: Callable[[str], None]
    given_up: Callable[[], bool]
    pause: Callable[[float], object] = threading.Event().wait

    def ask(self, question: Callable[[], T]) -> T:
        """Return the answer, asking again while nobody answers. Raises GatewayError.

        A refusal is an answer.
        """
        try:
            return question()
        except GatewayAwayError as error:
            self.say(f"##[warning]{error}; asked again for up to {PATIENCE_MS // 1000} s")
            began_ms, away = self.clock.steady_ms(), error
        pause_ms = _FIRST_PAUSE_MS
        while not self.given_up():
            waited_ms = self.clock.steady_ms() - began_ms
            if waited_ms >= PATIENCE_MS:
                raise GatewayAwayError(f"{away}, for {PATIENCE_MS // 1000} s") from away
            self.pause(min(pause_ms, PATIENCE_MS - waited_ms) / 1000)
            pause_ms = min(pause_ms * 2, _PAUSE_MS_MAX)
            try:
                found = question()
            except GatewayAwayError as error:
                away = error
                continue
            waited_s = (self.clock.steady_ms() - began_ms) / 1000
            self.say(f"The gateway answers again, after {waited_s:.1f} s")
            return found
        raise away
