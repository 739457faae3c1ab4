"""Server-sent events as an ASGI response: no task groups, ends when the client does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.responses import Response

from infra.log import LogError
from projector.api.problems import ProblemError
from projector.segments import SegmentError
from schemas.loglines import LogLinesError

logger = logging.getLogger(__name__)

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    # a buffering proxy would hold events back until its buffer is full
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """Sends what an iterator yields, as it yields it."""

    def __init__(
        self, events: AsyncIterator[bytes], on_end: Callable[[], None], closing: asyncio.Event
    ) -> None:
        """`on_end` is called once, however the stream ends; `closing` ends it from our side."""
        super().__init__()
        self._closing = closing
        self._events = events
        self._on_end = on_end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        """Stream until the iterator ends or the client goes."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(until_gone(receive))
        closing = asyncio.ensure_future(self._closing.wait())
        ends = (sending, gone, closing)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in ends:
                task.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await task
            self._on_end()

    async def _send(self, send: Any) -> None:
        # the first bytes tell a client, and every proxy on the way, that the stream is open
        await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
        try:
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except (ProblemError, LogLinesError, SegmentError, LogError) as error:
            # the client comes back with the id of its last event and goes on from there
            logger.warning("a stream ends early: %s", error)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Any) -> None:
    """Return when the client of a request is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class ByteStream(Response):
    """Sends a body of unknown length in pieces."""

    def __init__(self, pieces: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        """`headers` come with the first piece."""
        super().__init__(headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        """Send all pieces."""
        headers = [(k, v) for k, v in self.raw_headers if k != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "HEAD":
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
