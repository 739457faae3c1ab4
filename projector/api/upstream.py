"""Forwards requests to ingest over kept-alive connections, body and answer as they come.

A small HTTP/1.1 client of its own: a forwarded request costs a fraction of a millisecond, and
nothing is buffered whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httptools

from projector.api.problems import problem

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 60.0
IDLE_MAX = 16
DISCARD_BYTES_MAX = 64 * 1024 * 1024
DISCARD_TIMEOUT_S = 5.0
#: uvicorn closes an idle connection after 5 s; one that is about to be closed is not used.
IDLE_FRESH_S = 3.0
READ_BYTES = 64 * 1024
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
     b"trailer", b"transfer-encoding", b"upgrade", b"host", b"cookie", b"expect",
     b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
)  # fmt: skip

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BodyTooLargeError(Exception):
    """The client sent more than the limit."""


class ClientGoneError(Exception):
    """The client closed its connection before its request was whole."""


class _Answer:
    """Collects a response as httptools parses it."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.head_done = False
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.done = True


class Upstream:
    """A server to forward to; connections are kept and used again."""

    def __init__(self, url: str) -> None:
        """Forward to `http://host:port`."""
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._idle: deque[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop()[2].close()

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body_bytes_max: int,
        query: bytes | None = None,
        authorization: bytes | None = None,
    ) -> None:
        """Send the request on and its answer back; problems 413, 503 and 504 are our own."""
        length = _content_length(scope)
        if length is not None and length > body_bytes_max:
            await _refuse_too_large(scope, receive, send, body_bytes_max)
            return
        try:
            reader, writer = await self._connection()
        except (OSError, TimeoutError):
            await _away()(scope, receive, send)
            return
        keep = False
        try:
            writer.write(_head(scope, self._host, self._port, length, query, authorization))
            keep = await self._exchange(
                scope, receive, send, reader, writer, length, body_bytes_max
            )
        finally:
            if keep and len(self._idle) < IDLE_MAX:
                self._idle.append((asyncio.get_running_loop().time(), reader, writer))
            else:
                writer.close()

    async def call(
        self, method: str, path: str, body: bytes, *, query: bytes, authorization: bytes
    ) -> tuple[int, bytes]:
        """Send a small JSON request of our own; returns status and body of the answer."""
        scope: Scope = {
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "type": "http",
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
        status = 0
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self.forward(
            scope, receive, send, body_bytes_max=len(body), authorization=authorization
        )
        return status, b"".join(parts)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, reader, writer = self._idle.pop()
            if now - since < IDLE_FRESH_S and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.wait_for(
            asyncio.open_connection(self._host, self._port), CONNECT_TIMEOUT_S
        )

    async def _exchange(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        length: int | None,
        body_bytes_max: int,
    ) -> bool:
        """Return whether the connection can be used again."""
        has_body = length != 0 and scope["method"] not in ("GET", "HEAD")
        sending = asyncio.ensure_future(
            _send_body(receive, writer, chunked=length is None, limit=body_bytes_max)
            if has_body
            else writer.drain()
        )
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        began = False
        try:
            reading = asyncio.ensure_future(_read_head(reader, parser, answer))
            await asyncio.wait((sending, reading), return_when=asyncio.FIRST_EXCEPTION)
            if sending.done() and sending.exception() is not None:
                reading.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await reading
                sending.result()
            await asyncio.wait_for(reading, ANSWER_TIMEOUT_S)
            began = True
            await send(_start(parser, answer))
            await _pass_body(reader, parser, answer, send)
            whole = sending.done() and sending.exception() is None
            return whole and bool(parser.should_keep_alive())
        except BodyTooLargeError:
            await _refuse_too_large(scope, receive, send, body_bytes_max)
        except ClientGoneError:
            pass
        except TimeoutError:
            detail = f"Ingest did not answer within {ANSWER_TIMEOUT_S:.0f} s."
            await problem(504, detail, code="ingest-slow")(scope, receive, send)
        except (OSError, httptools.HttpParserError, asyncio.IncompleteReadError) as error:
            logger.warning("forwarding to ingest failed: %r", error)
            if began:
                raise  # the answer is cut off: so is the client's connection
            await _away()(scope, receive, send)
        finally:
            if not sending.done():
                sending.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await sending
        return False


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    return None if chunked else 0


def _head(
    scope: Scope,
    host: str,
    port: int,
    length: int | None,
    query: bytes | None,
    authorization: bytes | None,
) -> bytes:
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"] if query is None else query
    target = path + (b"?" + query if query else b"")
    lines = [b"%s %s HTTP/1.1" % (scope["method"].encode(), target)]
    lines.append(f"host: {host}:{port}".encode())
    for name, value in scope["headers"]:
        if name in _HOP_BY_HOP or name == b"content-length":
            continue
        if name == b"authorization" and authorization is not None:
            continue
        lines.append(name + b": " + value)
    if authorization is not None:
        lines.append(b"authorization: " + authorization)
    client = scope.get("client")
    if client:
        lines.append(f"x-forwarded-for: {client[0]}".encode())
    original = next((value for name, value in scope["headers"] if name == b"host"), b"")
    lines.append(b"x-forwarded-host: " + original)
    lines.append(
        b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _send_body(
    receive: Receive, writer: asyncio.StreamWriter, *, chunked: bool, limit: int
) -> None:
    sent = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body = message.get("body", b"")
        sent += len(body)
        if sent > limit:
            raise BodyTooLargeError
        if body:
            writer.write(b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)
        if not message.get("more_body", False):
            if chunked:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return
        await writer.drain()


async def _read_head(reader: asyncio.StreamReader, parser: Any, answer: _Answer) -> None:
    while not answer.head_done:
        data = await reader.read(READ_BYTES)
        if not data:
            raise ConnectionResetError("ingest closed the connection without an answer")
        parser.feed_data(data)
        if answer.done and parser.get_status_code() == 100:  # noqa: PLR2004
            answer.head_done = answer.done = False
            answer.headers.clear()


async def _pass_body(
    reader: asyncio.StreamReader, parser: Any, answer: _Answer, send: Send
) -> None:
    while True:
        body = b"".join(answer.body)
        answer.body.clear()
        if body or answer.done:
            await send({"type": "http.response.body", "body": body, "more_body": not answer.done})
        if answer.done:
            return
        data = await reader.read(READ_BYTES)
        if not data:
            raise ConnectionResetError("ingest closed the connection within its answer")
        parser.feed_data(data)


def _start(parser: Any, answer: _Answer) -> dict[str, Any]:
    headers = [(name, value) for name, value in answer.headers
               if name not in _HOP_BY_HOP and name not in (b"date", b"server")]  # fmt: skip
    return {
        "type": "http.response.start",
        "status": parser.get_status_code(),
        "headers": headers,
    }


def _away() -> Any:
    return problem(
        503,
        "Ingest, which accepts webhooks and commands, does not answer. Nothing was accepted; "
        "send the request again. `tailrace status` shows what is down.",
        code="ingest-away",
        headers={"retry-after": "1"},
    )


async def _refuse_too_large(scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    """Answer 413, after the rest of the body: a client that still sends would not see it."""
    with suppress(TimeoutError):
        await asyncio.wait_for(_discard(receive), DISCARD_TIMEOUT_S)
    detail = f"The body is larger than {limit} bytes."
    answer = problem(413, detail, code="body-too-large", limit_bytes=limit)
    await answer(scope, receive, send)


async def _discard(receive: Receive) -> None:
    left = DISCARD_BYTES_MAX
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
