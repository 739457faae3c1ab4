"""Artifacts out of the object store: a file in pieces, read and checked piece by piece.

At most two pieces (16 MiB) are in memory for a download, however large it is and however slowly it
is read, and at most `DOWNLOADS_MAX` run at once. What does not match its sha256 is never sent: the
answer ends before it, and the length that was promised tells the client.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from infra.objects import NoSuchObjectError, ObjectStore, ObjectStoreError
from projector.api.problems import ProblemError
from projector.api.sse import until_gone
from schemas.stored import PIECE_BYTES, Entry, EntryError, piece_key, piece_parts

logger = logging.getLogger(__name__)

#: Downloads at once; each may hold two pieces.
DOWNLOADS_MAX = 8
#: A client that does not take 256 KiB within this has stopped reading, and gives its place free.
STALLED_S = 60.0
_RETRY_AFTER_S = 5
_SENT_BYTES = 256 * 1024
# 18 digits say more than a file can have; what is no range is ignored
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_PLAIN = re.compile(r"[A-Za-z0-9._ -]+")
_FILE_NAME_MAX = 200


class DamagedError(Exception):
    """A piece is not what was stored; the download ends early."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `first` up to, not including, `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the object store."""

    objects: ObjectStore
    repository: str
    entry: Entry

    def piece(self, number: int) -> bytes:
        """Return a piece that was checked. Raises ObjectStoreError and DamagedError; blocks."""
        name = self.entry.pieces[number]
        try:
            data = self.objects.get(piece_key(self.repository, name))
            expected = piece_parts(name)[1]
        except EntryError as error:
            raise DamagedError(str(error)) from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise DamagedError(f"piece {number} ({name}) of {self.entry.uri} is damaged")
        return data

    async def stream(self, span: Span) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a span; of the whole file only what its sha256 proves."""
        whole = hashlib.sha256() if span == Span(0, self.entry.size_bytes) else None
        first, last = span.first // PIECE_BYTES, -(-span.end // PIECE_BYTES)
        for number in range(first, last):
            data = await asyncio.to_thread(self.piece, number)
            begin = number * PIECE_BYTES
            if whole is not None:
                whole.update(data)
                if number == last - 1 and whole.hexdigest() != self.entry.sha256:
                    raise DamagedError(f"{self.entry.uri} is not the file that was stored")
            part = memoryview(data)[max(0, span.first - begin) : span.end - begin]
            for at in range(0, len(part), _SENT_BYTES):
                yield bytes(part[at : at + _SENT_BYTES])


async def open_file(objects: ObjectStore, place: Mapping[str, Any]) -> StoredFile:
    """Return the file of an artifact's row. ProblemError when it can't be had."""
    try:
        content = await asyncio.to_thread(objects.get, str(place["uri"]))
        entry = Entry.from_json(msgspec.json.decode(content))
    except NoSuchObjectError as error:
        raise _gone(str(place["name"])) from error
    except ObjectStoreError as error:
        raise ProblemError(503, str(error), code="object-store-away") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise _damaged(str(place["name"])) from error
    if entry.sha256 != place["sha256"] or entry.size_bytes != place["size_bytes"]:
        raise _damaged(str(place["name"]))
    return StoredFile(objects, str(place["repository"]), entry)


def _gone(name: str) -> ProblemError:
    return ProblemError(
        410,
        f"The artifact {name!r} is in the log, but its file is not in the object store any more. "
        "Run the job again to upload it anew.",
        code="artifact-gone",
    )


def _busy() -> ProblemError:
    return ProblemError(
        503,
        f"{DOWNLOADS_MAX} artifacts are being downloaded, which is all that this server does at "
        f"once. Ask again in {_RETRY_AFTER_S} s.",
        code="too-many-downloads",
        headers={"Retry-After": str(_RETRY_AFTER_S)},
    )


def _damaged(name: str) -> ProblemError:
    return ProblemError(
        500,
        f"The artifact {name!r} in the object store is not the one that was uploaded. Run the job "
        "again to upload it anew.",
        code="artifact-damaged",
    )


def span_of(header: str | None, size_bytes: int) -> Span | None:
    """Return the span that a Range header asks for, None for the whole file.

    Several ranges, and what is no range, give the whole file, as RFC 9110 allows. ProblemError 416
    for one that lies beyond the end.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        first, end = int(found[1]), int(found[2]) + 1 if found[2] else size_bytes
        if found[2] and end <= first:
            return None
    else:
        first, end = max(0, size_bytes - int(found[2])), size_bytes
    end = min(end, size_bytes)
    if first >= end:
        raise ProblemError(
            416,
            f"The file has {size_bytes} bytes; {header} is beyond its end.",
            code="range-not-satisfiable",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return Span(first, end)


def headers_of(entry: Entry) -> dict[str, str]:
    """Return the headers of a download: nothing of it may run, whatever a browser makes of it."""
    return {
        "Content-Type": "application/zip",
        "Content-Disposition": disposition(f"{entry.name}.zip"),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "private, no-cache",
        "Accept-Ranges": "bytes",
        "ETag": f'"{entry.sha256}"',
    }


def disposition(name: str) -> str:
    """Return a Content-Disposition of RFC 6266 that saves as `name`, in any script.

    Old clients get the plain form, in which what is not plain is `_`; no name can add a header,
    begin with a dot, or lead to another folder.
    """
    kept = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)
    # the cut may lay bare a dot or a blank again
    kept = kept.strip(" .")[-_FILE_NAME_MAX:].strip(" .") or "artifact"
    if kept == "zip" != name.strip():
        kept = "artifact.zip"
    plain = "".join(c if _PLAIN.fullmatch(c) else "_" for c in kept)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(kept, safe='')}"


class Download(Response):
    """Sends a span of a stored file; `HEAD` gets the headers alone."""

    def __init__(
        self,
        file: StoredFile,
        span: Span,
        headers: dict[str, str],
        places: asyncio.Semaphore,
        *,
        status: int = 200,
        stalled_s: float = STALLED_S,
    ) -> None:
        """Promise the span's length; of `places` it takes one while it has pieces in memory."""
        super().__init__(status_code=status, headers=headers)
        self._file = file
        self._span = span
        self._places = places
        self._stalled_s = stalled_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it; a damaged piece cuts the connection, which no client takes for the end.

        ProblemError 503 when all places are taken.
        """
        if scope["method"] == "HEAD":
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if self._places.locked():
            raise _busy()
        async with self._places, aclosing(self._file.stream(self._span)) as parts:
            # the first piece is read and checked before the status is said
            first = await self._first(parts)
            await self._start(send)
            if first and not await self._send(first, parts, receive, send):
                return
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Any) -> None:
        length = str(self._span.end - self._span.first).encode()
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        headers.append((b"content-length", length))
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})

    async def _first(self, parts: AsyncIterator[bytes]) -> bytes:
        name = self._file.entry.name
        try:
            return await anext(parts, b"")
        except NoSuchObjectError as error:
            raise _gone(name) from error
        except ObjectStoreError as error:
            raise ProblemError(503, str(error), code="object-store-away") from error
        except DamagedError as error:
            logger.error("%s", error)  # noqa: TRY400 - where it was found tells nothing
            raise _damaged(name) from error

    async def _send(
        self, first: bytes, parts: AsyncIterator[bytes], receive: Any, send: Any
    ) -> bool:
        """Send everything; False when the client went, or there is no more that may be sent."""
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await self._pass_on(first, send)
            async for part in parts:
                if gone.done():
                    return False
                await self._pass_on(part, send)
        except TimeoutError:
            logger.warning("a download of %s ends: its client did not read", self._file.entry.uri)
            return False
        except (ObjectStoreError, DamagedError) as error:
            logger.error("a download ends early: %s", error)  # noqa: TRY400 - see above
            return False
        finally:
            gone.cancel()
        return True

    async def _pass_on(self, part: bytes, send: Any) -> None:
        async with asyncio.timeout(self._stalled_s):
            await send({"type": "http.response.body", "body": part, "more_body": True})
