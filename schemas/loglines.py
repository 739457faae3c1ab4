r"""The lines inside a `LogBatch.block`: the only place that knows their format; pure.

A block is a sequence of *runs*. A run is one header line and the raw texts of lines that share
an instant, a stream and a step:

    {t_ms} {stream} {step} {lines} {bytes}[ +]\n
    text of the first line\n
    text of the second line\n

`t_ms` is milliseconds since the epoch; `stream` is `o` (stdout), `e` (stderr) or `s` (the
runner's own words); `step` is the step's number (0: the job itself); `lines` and `bytes` count
what follows, newlines included. `+` says that the run's first text continues the line before it
(a line longer than `TEXT_BYTES_MAX` is several). Texts are UTF-8 without `\n`, already masked;
they may hold anything else, since readers go by the counts and never look for a header.

Whole chunks of output become one run, and a reader takes a run's payload as one slice: nothing
here costs anything by the line unless lines are asked for. The whole log's sha256 is over all
payloads in order, which is over every text followed by one newline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from schemas.late import dataclass

TEXT_BYTES_MAX = 64 * 1024

STDOUT, STDERR, SYSTEM = "o", "e", "s"
STREAM_NAMES = {STDOUT: "out", STDERR: "err", SYSTEM: "sys"}

_HEADER_FIELDS = 5
_HEADER_BYTES_MAX = 96


class LogLinesError(ValueError):
    """A block is damaged; the batch must be treated as a hole in the log."""


@dataclass(frozen=True, slots=True)
class Run:
    """Lines that share instant, stream and step; `payload` holds each text and its newline."""

    t_ms: int
    stream: str
    step: int
    lines: int
    payload: bytes
    continues: bool = False

    def texts(self) -> list[bytes]:
        """Return the text of each line."""
        return self.payload.split(b"\n")[:-1]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `number` counts from 0 within the attempt."""

    number: int
    t_ms: int
    stream: str
    step: int
    text: str
    continues: bool = False


def header(
    t_ms: int, stream: str, step: int, *, lines: int, size_bytes: int, continues: bool = False
) -> bytes:
    """Return the header of a run whose payload has `lines` newlines and `size_bytes` bytes."""
    more = " +" if continues else ""
    return f"{t_ms} {stream} {step} {lines} {size_bytes}{more}\n".encode("ascii")


def encode_run(run: Run) -> bytes:
    """Return a run as it lies in a block."""
    head = header(
        run.t_ms,
        run.stream,
        run.step,
        lines=run.lines,
        size_bytes=len(run.payload),
        continues=run.continues,
    )
    return head + run.payload


def runs(block: bytes) -> Iterator[Run]:
    """Yield the runs of a block in order; LogLinesError when the counts do not add up."""
    position = 0
    end = len(block)
    while position < end:
        newline = block.find(b"\n", position, position + _HEADER_BYTES_MAX)
        run, position = _run_at(block, position, newline)
        yield run


def _run_at(block: bytes, start: int, newline: int) -> tuple[Run, int]:
    fields = block[start:newline].split(b" ") if newline > 0 else []
    if len(fields) not in (_HEADER_FIELDS, _HEADER_FIELDS + 1):
        raise LogLinesError(f"no header at byte {start} of a log block")
    try:
        t_ms, stream, step, lines, size = fields[:_HEADER_FIELDS]
        after = newline + 1 + int(size)
        run = Run(
            int(t_ms),
            stream.decode("ascii"),
            int(step),
            int(lines),
            block[newline + 1 : after],
            len(fields) > _HEADER_FIELDS,
        )
    except ValueError as error:
        raise LogLinesError(f"header at byte {start} of a log block: {error}") from error
    if after > len(block) or (run.payload and not run.payload.endswith(b"\n")):
        raise LogLinesError(f"the run at byte {start} of a log block is cut off")
    return run, after


def payload(block: bytes) -> bytes:
    """Return the texts of a block, each with its newline: what a raw download shows."""
    return b"".join(run.payload for run in runs(block))


def lines(block: bytes, first_line: int = 0) -> Iterator[LogLine]:
    """Yield the lines of a block; `first_line` is the batch's."""
    number = first_line
    for run in runs(block):
        continues = run.continues
        for text in run.payload.decode("utf-8", "replace").split("\n")[:-1]:
            yield LogLine(number, run.t_ms, run.stream, run.step, text, continues)
            number += 1
            continues = False


def slice_payload(run: Run, first: int, last: int) -> bytes:
    """Return the texts of a run's lines `first` up to, not including, `last`, with newlines."""
    if first <= 0 and last >= run.lines:
        return run.payload
    chosen = run.payload.split(b"\n")[max(first, 0) : min(last, run.lines)]
    return b"".join(text + b"\n" for text in chosen)


class LogDigest:
    """The line count and sha256 of a whole log, fed block by block or run by run."""

    def __init__(self) -> None:
        """Start with an empty log."""
        self.lines = 0
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()

    def add(self, lines: int, payload: bytes) -> None:
        """Take the payload of a run with `lines` lines."""
        self.lines += lines
        self.size_bytes += len(payload)
        self._sha256.update(payload)

    def add_block(self, block: bytes) -> None:
        """Take every run of a block."""
        for run in runs(block):
            self.add(run.lines, run.payload)

    def hexdigest(self) -> str:
        """Return the sha256 so far."""
        return self._sha256.hexdigest()
