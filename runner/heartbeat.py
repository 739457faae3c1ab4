"""The runner's sign of life, the clock of its lost contact, and the feeding of its guards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from infra.clock import Clock
from infra.log import Append, LogWriter

logger = logging.getLogger(__name__)

PERIOD_MS = 3_000
CUT_OFF_MS = 12_000
_TICK_MS = 500
_GOODBYE_MS = 1_000


class Message(Protocol):
    """Makes the heartbeat of this moment."""

    def __call__(self, *, leaving: bool) -> Append:
        """Return the record."""
        ...


class Heart:
    """Beats every `PERIOD_MS` from a thread of its own.

    The contact is as old as the sending of the last heartbeat that was acknowledged, by
    CLOCK_BOOTTIME: a suspended machine was out of contact too. While one is on its way no other
    follows, so that an outage leaves no queue of old ones.
    """

    def __init__(
        self,
        writer: LogWriter,
        clock: Clock,
        *,
        message: Message,
        on_cut_off: Callable[[], None],
        feed: Callable[[], None],
        on_fatal: Callable[[Exception], None],
    ) -> None:
        """Call `on_cut_off` at each tick without contact, `feed` at each beat.

        `on_fatal` is told what stopped the heart: a runner without one must end.
        """
        self._on_fatal = on_fatal
        self._writer = writer
        self._clock = clock
        self._message = message
        self._on_cut_off = on_cut_off
        self._feed = feed
        self._contact_ms = clock.steady_ms()
        self._sent_ms: int | None = None
        self._under_way: int | None = None
        self._fed_ms = 0
        self._cut_off = False
        self._stopping = threading.Event()
        self._acked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        """Beat at once, then regularly."""
        self._contact_ms = self._clock.steady_ms()
        self._thread.start()

    def stop(self, *, goodbye: bool) -> None:
        """Beat no more; with `goodbye` say so, that nobody waits for this boot."""
        self._stopping.set()
        if self._thread.ident is None:
            return
        self._thread.join(2)
        if goodbye:
            self._acked.clear()
            self._beat(leaving=True)
            self._acked.wait(_GOODBYE_MS / 1000)

    def in_contact(self) -> bool:
        """Say whether heartbeats are being acknowledged."""
        return self._clock.steady_ms() - self._contact_ms < CUT_OFF_MS

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:
            logger.exception("the heartbeat failed")
            self._on_fatal(error)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            now_ms = self._clock.steady_ms()
            if self._under_way is None and (
                self._sent_ms is None or now_ms - self._sent_ms >= PERIOD_MS
            ):
                self._beat(leaving=False)
            if now_ms - self._fed_ms >= PERIOD_MS:
                self._fed_ms = now_ms
                self._feed()
            self._watch(now_ms)
            self._stopping.wait(_TICK_MS / 1000)

    def _watch(self, now_ms: int) -> None:
        if now_ms - self._contact_ms < CUT_OFF_MS:
            if self._cut_off:
                self._cut_off = False
                logger.info("in contact again")
            return
        if not self._cut_off:
            self._cut_off = True
            logger.warning("no heartbeat was acknowledged for %d ms", now_ms - self._contact_ms)
        self._on_cut_off()

    def _beat(self, *, leaving: bool) -> None:
        sent_ms = self._sent_ms = self._under_way = self._clock.steady_ms()

        def acked(error: Exception | None) -> None:
            self._under_way = None
            if error is None:
                self._contact_ms = sent_ms
                self._acked.set()

        try:
            self._writer.append(self._message(leaving=leaving), acked)
        except BufferError:
            self._under_way = None
