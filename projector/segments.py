"""The format of an archived log: immutable segments of compressed blocks with a line index.

    block …           zstd frames; each holds lines in the format of `schemas/loglines.py`
    index             zstd frame of JSON: [[first_line, lines, position, bytes], …], one a block
    trailer           position of the index (8 bytes), its bytes (4), `TLS1`; big-endian

The same batches give the same segments, byte for byte, so that archiving again after a crash
stores nothing twice. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import zstandard

from schemas.loglines import LogDigest, runs

BLOCK_BYTES = 256 * 1024
SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENT_BYTES_MAX = 8 * 1024 * 1024
BLOCK_BYTES_MAX = 32 * 1024 * 1024
TAIL_BYTES = 64 * 1024
_TRAILER = struct.Struct(">QI4s")
_MAGIC = b"TLS1"
_LEVEL = 3
_UNSAFE = re.compile(r"[^A-Za-z0-9._=+@~,-]")
_KEY_CHARS_MAX = 160


class SegmentError(ValueError):
    """A segment is damaged; `tailrace logs verify` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A finished segment: its bytes and the lines that it holds."""

    first_line: int
    lines: int
    data: bytes

    @property
    def sha256(self) -> str:
        """The digest of its bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies within its segment and which lines it holds."""

    first_line: int
    lines: int
    position: int
    size_bytes: int


def decompress(frame: bytes) -> bytes:
    """Return what a zstd frame holds; SegmentError when it is damaged or far too large."""
    try:
        # the library's own limit is not looked at where a frame names its size
        if zstandard.frame_content_size(frame) > BLOCK_BYTES_MAX:
            raise SegmentError(f"a block of {len(frame)} bytes holds more than {BLOCK_BYTES_MAX}")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=BLOCK_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise SegmentError(
            f"a block of {len(frame)} bytes can't be decompressed: {error}"
        ) from error


def object_key(run_id: str, job_id: str, attempt: int, segment: Segment) -> str:
    """Return the key of a segment in the object store; it holds a digest of the content."""
    return (
        f"logs/{_part(run_id)}/{_part(f'{job_id}@{attempt}')}/"
        f"{segment.first_line:012d}-{segment.sha256[:16]}.tls"
    )


def _part(name: str) -> str:
    safe = _UNSAFE.sub("_", name).lstrip(".") or "_"
    if safe == name and len(safe) <= _KEY_CHARS_MAX:
        return safe
    return f"{safe[:_KEY_CHARS_MAX]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


class SegmentWriter:
    """Takes the blocks of a log in order and gives segments as they fill."""

    def __init__(self) -> None:
        """Start with an empty log."""
        self.digest = LogDigest()
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._raw_first = 0
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._blocks: list[Block] = []
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)

    @property
    def size_bytes(self) -> int:
        """What is held in memory, roughly."""
        return self._raw_bytes + self._out_bytes

    def add(self, raw: bytes) -> Iterator[Segment]:
        """Take lines in the format of `schemas/loglines.py`; yields a segment when one is full."""
        for run in runs(raw):
            self.digest.add(run.lines, run.payload)
        self._raw.append(raw)
        self._raw_bytes += len(raw)
        if self._raw_bytes >= BLOCK_BYTES:
            self._close_block()
            if self._out_bytes >= SEGMENT_BYTES:
                yield self._close_segment()

    def finish(self) -> Iterator[Segment]:
        """Yield what is left."""
        self._close_block()
        if self._blocks:
            yield self._close_segment()

    def _close_block(self) -> None:
        lines = self.digest.lines - self._raw_first
        if lines:
            frame = self._compressor.compress(b"".join(self._raw))
            self._blocks.append(Block(self._raw_first, lines, self._out_bytes, len(frame)))
            self._out.append(frame)
            self._out_bytes += len(frame)
        self._raw.clear()
        self._raw_bytes = 0
        self._raw_first = self.digest.lines

    def _close_segment(self) -> Segment:
        first = self._blocks[0].first_line
        index = self._compressor.compress(
            json.dumps(
                [[b.first_line, b.lines, b.position, b.size_bytes] for b in self._blocks],
                separators=(",", ":"),
            ).encode()
        )
        trailer = _TRAILER.pack(self._out_bytes, len(index), _MAGIC)
        lines = self._blocks[-1].first_line + self._blocks[-1].lines - first
        data = b"".join((*self._out, index, trailer))
        self._out, self._out_bytes, self._blocks = [], 0, []
        return Segment(first_line=first, lines=lines, data=data)


def read_index(tail: bytes, size_bytes: int) -> list[Block] | int:
    """Return a segment's index from its last bytes, or how many last bytes it takes instead."""
    if len(tail) < _TRAILER.size:
        raise SegmentError(f"a segment of {size_bytes} bytes has no trailer")
    position, length, magic = _TRAILER.unpack(tail[-_TRAILER.size :])
    if magic != _MAGIC or position + length + _TRAILER.size != size_bytes:
        raise SegmentError(f"a segment of {size_bytes} bytes ends in no trailer of ours")
    needed = length + _TRAILER.size
    if needed > len(tail):
        return int(needed)
    frame = tail[-needed : -_TRAILER.size]
    return [Block(*entry) for entry in json.loads(decompress(frame))]


def block_at(blocks: list[Block], line: int) -> Block | None:
    """Return the block that holds a line."""
    place = bisect_right(blocks, line, key=lambda block: block.first_line) - 1
    if place < 0 or line >= blocks[place].first_line + blocks[place].lines:
        return None
    return blocks[place]
