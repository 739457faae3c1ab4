"""One log for readers: its live part from `logs`, its archived part from the object store.

A reader has a line number and asks for what comes next; whether the archive took over in between
does not show.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from infra.objects import ObjectStore, ObjectStoreError
from projector.api.livelogs import AttemptKey, Chunk, LiveLogs
from projector.api.problems import ProblemError
from projector.api.queries import Queries
from projector.segments import TAIL_BYTES, Block, SegmentError, block_at, decompress, read_index

logger = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
HEARTBEAT = b": alive\n\n"
CONCLUSION_WAIT_S = 10.0
_INDEXES_MAX = 256
_BLOCKS_MAX = 24


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """What the tables know of an attempt's log."""

    key: AttemptKey
    phase: str
    conclusion: str | None
    lines: int
    sha256: str
    complete: bool | None
    detail: str
    archived: bool
    segments: tuple[dict[str, Any], ...]

    @property
    def over(self) -> bool:
        """Whether the attempt ended."""
        return self.phase == "ended"


class Archive:
    """Reads lines of archived logs; keeps indexes and a few blocks at hand."""

    def __init__(self, objects: ObjectStore) -> None:
        """Read from `objects`."""
        self._objects = objects
        self._indexes: OrderedDict[str, list[Block]] = OrderedDict()
        self._chunks: OrderedDict[tuple[str, int], Chunk] = OrderedDict()

    async def chunk_at(self, log: AttemptLog, line: int) -> Chunk | None:
        """Return the block that holds a line, None when the log has no such line."""
        for segment in log.segments:
            if segment["first_line"] <= line < segment["first_line"] + segment["lines"]:
                return await self._chunk(segment, line)
        return None

    async def _chunk(self, segment: dict[str, Any], line: int) -> Chunk | None:
        key = segment["key"]
        index = self._indexes.get(key)
        if index is None:
            index = await asyncio.to_thread(self._read_index, key, segment["size_bytes"])
            _remember(self._indexes, key, index, _INDEXES_MAX)
        block = block_at(index, line)
        if block is None:
            return None
        place = (key, block.position)
        chunk = self._chunks.get(place)
        if chunk is None:
            raw = await asyncio.to_thread(self._read_block, key, block)
            chunk = Chunk(block.first_line, block.lines, raw)
            _remember(self._chunks, place, chunk, _BLOCKS_MAX)
        return chunk

    def _read_index(self, key: str, size_bytes: int) -> list[Block]:
        length = min(TAIL_BYTES, size_bytes)
        found = read_index(self._objects.get(key, size_bytes - length, length), size_bytes)
        if isinstance(found, int):
            found = read_index(self._objects.get(key, size_bytes - found, found), size_bytes)
        if isinstance(found, int):
            raise SegmentError(f"the index of {key} says twice that it is longer")
        return found

    def _read_block(self, key: str, block: Block) -> bytes:
        return decompress(self._objects.get(key, block.position, block.size_bytes))


def _remember(cache: OrderedDict[Any, Any], key: Any, value: Any, count_max: int) -> None:
    cache[key] = value
    while len(cache) > count_max:
        cache.popitem(last=False)


class LogSource:
    """Lines of any attempt, wherever they are."""

    def __init__(self, queries: Queries, live: LiveLogs, archive: Archive) -> None:
        """Join the three places that know about a log."""
        self._queries = queries
        self._live = live
        self._archive = archive

    async def find(self, key: AttemptKey) -> AttemptLog:
        """Return what is known of an attempt's log; ProblemError 404 when there is no attempt."""
        values = {"job_id": key[0], "attempt": key[1]}
        found = await self._queries.value("attempt_log", values=values)
        if found is not None:
            return AttemptLog(
                key=key,
                phase=found["phase"],
                conclusion=found["conclusion"],
                lines=found["lines"],
                sha256=found["sha256"],
                complete=found["complete"],
                detail=found["detail"],
                archived=found["archived"],
                segments=tuple(found["segments"]),
            )
        live = self._live.get(key)
        if live is not None:
            return AttemptLog(key, "started", None, 0, "", None, "", archived=False, segments=())
        raise ProblemError(
            404,
            f"There is no attempt {key[1]} of the job {key[0]}.",
            code="no-such-attempt",
        )

    async def chunk_at(self, log: AttemptLog, line: int) -> Chunk | None:
        """Return lines from `line` on (or, after a hole, the next ones); None: nothing yet."""
        if log.archived:
            return await self._archive.chunk_at(log, line)
        return await self._live.chunk_at(log.key, line)

    async def read(self, log: AttemptLog, line: int, limit: int) -> tuple[bytes, int, bool]:
        """Return (texts with newlines, next line, whether the log ends there)."""
        parts: list[bytes] = []
        to_line = line + limit
        while line < to_line:
            chunk = await self.chunk_at(log, line)
            if chunk is None:
                break
            parts.append(chunk.payload(line, to_line))
            line = min(chunk.end, to_line)
        return b"".join(parts), line, self._ends_at(log, line)

    async def whole(self, log: AttemptLog) -> AsyncIterator[bytes]:
        """Yield the texts of everything there is now."""
        line = 0
        while True:
            chunk = await self.chunk_at(log, line)
            if chunk is None:
                return
            yield chunk.payload(line, chunk.end)
            line = chunk.end

    def _ends_at(self, log: AttemptLog, line: int) -> bool:
        if log.archived:
            return line >= log.lines
        live = self._live.get(log.key)
        if live is not None:
            return live.ended and line >= live.next_line
        # a job that never ran has no log, one that printed nothing an empty one
        return log.over and log.lines == 0

    async def follow(self, key: AttemptKey, line: int) -> AsyncIterator[bytes]:
        """Yield SSE events of all lines from `line` on, until the log's end."""
        log = await self.find(key)
        while True:
            try:
                chunk = await self.chunk_at(log, line)
            except ObjectStoreError as error:
                yield _event("problem", {"detail": str(error)})
                return
            if chunk is not None:
                if chunk.first_line > line:
                    missing = chunk.first_line - line
                    yield _event("hole", {"first_line": line, "lines": missing})
                    line = chunk.first_line
                yield chunk.event(line)
                line = chunk.end
                continue
            if self._ends_at(log, line):
                yield await self._end(log)
                return
            if not log.archived and self._live.get(key) is None:
                # nothing was printed yet, or the archive has taken over
                fresh = await self.find(key)
                if fresh.archived or fresh.over != log.over:
                    log = fresh
                    continue
            if not await self._live.wait(key, HEARTBEAT_S):
                yield HEARTBEAT
                log = await self.find(key)

    async def _end(self, log: AttemptLog) -> bytes:
        """Return the end event; its conclusion is a moment behind the last line."""
        live = self._live.get(log.key)
        lines = live.total_lines if live is not None else log.lines
        sha256 = live.sha256 if live is not None else log.sha256
        deadline = asyncio.get_running_loop().time() + CONCLUSION_WAIT_S
        while not log.over and asyncio.get_running_loop().time() < deadline:
            await self._live.wait(log.key, 0.25)
            log = await self.find(log.key)
        content = {
            "lines": lines,
            "sha256": sha256 or log.sha256,
            "conclusion": log.conclusion,
            "complete": log.complete if log.complete is not None else True,
            "detail": log.detail,
        }
        return _event("end", content)


def _event(name: str, content: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(content))
