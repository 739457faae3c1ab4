"""Logs while they are written: an index of what `logs` holds and is not archived yet.

One follower thread reads every partition; this index lives in the event loop. Any number of
readers, each with a position of its own, share its blocks: a slow one reads older blocks again
from Kafka and delays nobody. Block memory is bounded.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from projector.segments import SegmentError, decompress
from schemas.ids import run_of
from schemas.loglines import STREAM_NAMES, LogLinesError, Run, runs
from schemas.streams import LogBatch

logger = logging.getLogger(__name__)

BLOCK_MEMORY_BYTES_MAX = 16 * 1024 * 1024

AttemptKey = tuple[str, int]
Place = tuple[int, int]  # partition, offset
Fetch = Callable[[int, int], Awaitable[list[tuple[int, LogBatch]]]]

_encoder = msgspec.json.Encoder()


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line as the stream sends it: number, time (ms), stream, step and text."""

    n: int
    t: int
    s: str
    step: int
    text: str


@dataclass(slots=True)
class Chunk:
    """Consecutive lines; `raw` is their block, `sse` the event of all of them once it is made."""

    first_line: int
    lines: int
    raw: bytes
    sse: bytes = b""

    @property
    def end(self) -> int:
        """The line after the last one."""
        return self.first_line + self.lines

    def event(self, from_line: int) -> bytes:
        """Return the SSE event of the lines from `from_line` on."""
        if from_line > self.first_line:
            return encode_event(from_line, self.structs(from_line))
        if not self.sse:
            self.sse = encode_event(self.first_line, self.structs(self.first_line))
        return self.sse

    def structs(self, from_line: int) -> list[Line]:
        """Return the lines from `from_line` on."""
        found: list[Line] = []
        number = self.first_line
        for run in runs(self.raw):
            if number + run.lines > from_line:
                found += _lines_of(run, number, max(0, from_line - number))
            number += run.lines
        return found

    def payload(self, from_line: int, to_line: int) -> bytes:
        """Return the texts, each with its newline, from `from_line` up to `to_line`."""
        from schemas.loglines import slice_payload

        parts: list[bytes] = []
        number = self.first_line
        for run in runs(self.raw):
            if number + run.lines > from_line and number < to_line:
                parts.append(slice_payload(run, from_line - number, to_line - number))
            number += run.lines
        return b"".join(parts)


def _lines_of(run: Run, number: int, skip: int) -> list[Line]:
    texts = run.payload.decode("utf-8", "replace").split("\n")
    texts.pop()
    if skip:
        texts = texts[skip:]
    stream = STREAM_NAMES.get(run.stream, "out")
    t_ms, step = run.t_ms, run.step
    return [Line(n, t_ms, stream, step, text) for n, text in enumerate(texts, number + skip)]


def encode_event(first_line: int, lines: Sequence[Line]) -> bytes:
    """Return an SSE event; its id is the number of the last line."""
    data = _encoder.encode({"first_line": first_line, "lines": lines})
    return b"id: %d\nevent: lines\ndata: %s\n\n" % (first_line + len(lines) - 1, data)


@dataclass(slots=True)
class LiveLog:
    """The index of one attempt's batches; three numbers a batch."""

    partition: int
    owner: tuple[str, str]
    next_seq: int = 0
    next_line: int = 0
    firsts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    ended: bool = False
    total_lines: int = 0
    sha256: str = ""
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def first_line(self) -> int:
        """The first line that is here."""
        return self.firsts[0] if self.firsts else 0


class LiveLogs:
    """Every attempt's unarchived lines; all methods belong to the event loop."""

    def __init__(self, *, memory_bytes_max: int = BLOCK_MEMORY_BYTES_MAX) -> None:
        """Start empty; `fetch` is set by whoever can read Kafka again."""
        self._logs: dict[AttemptKey, LiveLog] = {}
        self._blocks: OrderedDict[Place, Chunk] = OrderedDict()
        self._bytes = 0
        self._bytes_max = memory_bytes_max
        self._waiting: dict[AttemptKey, set[asyncio.Future[None]]] = {}
        self.fetch: Fetch | None = None

    def __contains__(self, key: AttemptKey) -> bool:
        """Say whether any batch of the attempt is here."""
        return key in self._logs

    def get(self, key: AttemptKey) -> LiveLog | None:
        """Return an attempt's index."""
        return self._logs.get(key)

    def keys(self) -> list[AttemptKey]:
        """Return every attempt that is here."""
        return list(self._logs)

    def wake_all(self) -> None:
        """Let everybody look again."""
        for key in [*self._waiting, *self._logs]:
            self.wake(key)

    def accept(self, batches: Sequence[tuple[int, int, LogBatch]]) -> None:
        """Take (partition, offset, batch) in the order of the log and wake who waits."""
        woken: dict[AttemptKey, None] = {}
        for partition, offset, batch in batches:
            key = (batch.job_id, batch.attempt)
            owner = (batch.runner_id, batch.boot_id)
            log = self._logs.get(key)
            if log is None:
                log = self._logs[key] = LiveLog(partition, owner)
                log.waiters = self._waiting.pop(key, set())
            if batch.seq < log.next_seq or log.owner != owner or log.ended:
                continue
            log.next_seq = batch.seq + 1
            if batch.lines:
                log.firsts.append(batch.first_line)
                log.ends.append(batch.first_line + batch.lines)
                log.offsets.append(offset)
                log.next_line = batch.first_line + batch.lines
                self._keep((partition, offset), batch)
            if batch.last:
                log.ended, log.total_lines = True, batch.total_lines
                log.sha256 = batch.total_sha256
            woken[key] = None
        for key in woken:
            self.wake(key)

    def forget(self, key: AttemptKey) -> None:
        """Drop an attempt that is archived; its readers go on there."""
        log = self._logs.pop(key, None)
        if log is None:
            return
        for offset in log.offsets:
            chunk = self._blocks.pop((log.partition, offset), None)
            if chunk is not None:
                self._bytes -= len(chunk.raw)
        _wake(log.waiters)

    def wake(self, key: AttemptKey) -> None:
        """Let everybody who waits for the attempt look again."""
        log = self._logs.get(key)
        _wake(log.waiters if log is not None else self._waiting.pop(key, set()))

    def wake_runs(self, run_ids: set[str]) -> None:
        """Let everybody look again who waits for an attempt of these runs."""
        waiting = [*self._waiting, *(key for key, log in self._logs.items() if log.waiters)]
        for key in waiting:
            if run_of(key[0]) in run_ids:
                self.wake(key)

    async def wait(self, key: AttemptKey, timeout_s: float) -> bool:
        """Wait for something new of an attempt; False when nothing came in time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        log = self._logs.get(key)
        waiters = log.waiters if log is not None else self._waiting.setdefault(key, set())
        waiters.add(future)
        done, _ = await asyncio.wait((future,), timeout=timeout_s)
        waiters.discard(future)
        if not waiters and self._waiting.get(key) is waiters:
            del self._waiting[key]
        return bool(done)

    async def chunk_at(self, key: AttemptKey, line: int) -> Chunk | None:
        """Return the lines that begin at or before `line`, or after a hole the next ones."""
        log = self._logs.get(key)
        if log is None or line >= log.next_line or line < log.first_line:
            return None
        place = bisect_right(log.firsts, line) - 1
        if line >= log.ends[place]:
            place += 1
        offset = log.offsets[place]
        chunk = self._blocks.get((log.partition, offset))
        if chunk is not None:
            self._blocks.move_to_end((log.partition, offset))
            return chunk
        return await self._fetched(log, offset)

    async def _fetched(self, log: LiveLog, offset: int) -> Chunk | None:
        """Read blocks that were evicted from Kafka again, this one and what follows it."""
        if self.fetch is None:
            return None
        found: Chunk | None = None
        for at, batch in await self.fetch(log.partition, offset):
            chunk = self._keep((log.partition, at), batch) if batch.lines else None
            if at == offset:
                found = chunk
        if found is None:
            raise LogLinesError(f"logs/{log.partition} offset {offset} is not kept any more")
        return found

    def _keep(self, place: Place, batch: LogBatch) -> Chunk:
        known = self._blocks.get(place)
        if known is not None:
            return known
        try:
            raw = decompress(batch.block)
        except SegmentError:
            logger.exception("log block at %s is damaged", place)
            raw = b""
        chunk = Chunk(batch.first_line, batch.lines, raw)
        self._blocks[place] = chunk
        # counted without the event that may be made of it, which is about as large again
        self._bytes += len(raw)
        while self._bytes > self._bytes_max and len(self._blocks) > 1:
            _, evicted = self._blocks.popitem(last=False)
            self._bytes -= len(evicted.raw)
        return chunk


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(None)
    waiters.clear()
