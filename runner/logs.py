"""From a job's raw output to batches on `logs`: splits, masks, counts and packs, chunk by chunk.

Nothing here costs anything by the line: a chunk of whole lines is masked at once and becomes one
run of a block (`schemas/loglines.py`). Only lines that may be workflow commands are looked at one
by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import zstandard

from runner.groups import LogGroups
from runner.masking import Masker
from schemas.late import dataclass
from schemas.loglines import SYSTEM, TEXT_BYTES_MAX, LogDigest, header

BATCH_BYTES_MAX = 64 * 1024
BATCH_AGE_MS_MAX = 50
#: After a small batch the next may follow sooner: a job that prints now and then shows it live.
SMALL_BATCH_BYTES = 4 * 1024
SMALL_BATCH_GAP_MS = 10
ZSTD_LEVEL = 1
#: A line without an end is held back at most so far when a secret may lie across every cut.
_HELD_BYTES_MAX = 4 * TEXT_BYTES_MAX

#: `::name …` after blanks, or `##[name …]` anywhere: only these lines can be commands.
_COMMAND = re.compile(rb"(?m)^(?:[ \t\f\v]*::|[^\n]*##\[)[^\n]*\n")
_LINE_ENDS = re.compile(rb"\r+\n")
_OVERWRITTEN = re.compile(rb"(?m)^[^\n]*\r")
_CONTINUATION = 0x80

OnCommand = Callable[[bytes], bytes | None]
"""Takes a line that may be a command, without its newline, and returns what the log shows for it.

None leaves it out; the line itself means that it was none.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """A block ready to be appended; `block` is compressed, `size_bytes` is of the plain block."""

    first_line: int
    lines: int
    size_bytes: int
    block: bytes


class LogPacker:
    """Collects runs into batches and counts the whole log; `send` takes each batch."""

    def __init__(self, masker: Masker, send: Callable[[Batch], None]) -> None:
        """Mask by `masker` whatever is added."""
        self.masker = masker
        #: Sees whole lines that processes print, and returns what the log shows for them.
        self.on_lines: Callable[[bytes], bytes] | None = None
        self.digest = LogDigest()
        self.groups = LogGroups()
        self._send = send
        self._parts: list[bytes] = []
        self._size = 0
        self._first_line = 0
        self._oldest_ms = 0
        self._next_ms = 0
        self._urgent = False
        self._zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True)

    @property
    def lines(self) -> int:
        """How many lines the log has so far."""
        return self.digest.lines

    def add(
        self, now_ms: int, stream: str, step: int, masked: bytes, *, continues: bool = False
    ) -> None:
        """Add whole lines, each with its newline, that were masked already."""
        lines = masked.count(b"\n")
        if not self._parts:
            self._oldest_ms = now_ms
            self._urgent = False
        self._urgent = self._urgent or stream != SYSTEM
        head = header(
            now_ms, stream, step, lines=lines, size_bytes=len(masked), continues=continues
        )
        self._parts += (head, masked)
        self._size += len(head) + len(masked)
        self.groups.take(step, self.digest.lines, masked, continues=continues)
        self.digest.add(lines, masked)
        if self._size >= BATCH_BYTES_MAX:
            self.flush(now_ms)

    def say(self, now_ms: int, step: int, text: str) -> None:
        """Add the runner's own words, masked; each line of `text` is a line."""
        if text:
            masked = self.masker.mask(text.encode("utf-8", "replace"))
            self.add(now_ms, SYSTEM, step, masked.rstrip(b"\n").replace(b"\r", b"") + b"\n")

    def due_ms(self) -> int | None:
        """Return when what is held must be sent; None when nothing is held.

        After a pause it is due at once, so that the line of a quiet job shows without delay;
        while batches follow each other it waits for more. The runner's own words wait for the
        step's: most jobs then have one batch.
        """
        if not self._parts:
            return None
        if not self._urgent:
            return self._oldest_ms + BATCH_AGE_MS_MAX
        return max(self._oldest_ms, self._next_ms)

    def flush(self, now_ms: int) -> None:
        """Send what is held."""
        if self._parts:
            is_small = self._size < SMALL_BATCH_BYTES
            self._next_ms = now_ms + (SMALL_BATCH_GAP_MS if is_small else BATCH_AGE_MS_MAX)
            self._send(self.take())

    def take(self) -> Batch:
        """Return what is held, perhaps nothing, as a batch and hold nothing any more."""
        plain = b"".join(self._parts)
        batch = Batch(
            first_line=self._first_line,
            lines=self.digest.lines - self._first_line,
            size_bytes=len(plain),
            block=self._zstd.compress(plain),
        )
        self._parts = []
        self._size = 0
        self._first_line = self.digest.lines
        return batch


class StreamSplitter:
    """Turns the chunks of one pipe into masked whole lines; a cut may fall anywhere."""

    def __init__(self, packer: LogPacker, stream: str, step: int, on_command: OnCommand) -> None:
        """Send the lines of step number `step` to `packer`."""
        self._packer = packer
        self._stream = stream
        self._step = step
        self._on_command = on_command
        self._held = b""
        self._continues = False

    def feed(self, now_ms: int, chunk: bytes) -> None:
        """Take the next bytes."""
        end = chunk.rfind(b"\n") + 1
        if end:
            whole = self._held + chunk[:end]
            self._held = chunk[end:]
            self._lines(now_ms, whole)
        else:
            self._held += chunk
        if len(self._held) > TEXT_BYTES_MAX:
            self._cut(now_ms)

    def close(self, now_ms: int) -> None:
        """The pipe is at its end: what is held becomes the last line."""
        if self._held:
            whole, self._held = self._held + b"\n", b""
            self._lines(now_ms, whole)

    def _lines(self, now_ms: int, whole: bytes) -> None:
        if b"\r" in whole:
            whole = collapse(whole)
        if b"::" in whole or b"##[" in whole:
            self._with_commands(now_ms, whole)
        else:
            self._emit(now_ms, whole)

    def _with_commands(self, now_ms: int, whole: bytes) -> None:
        position = 0
        for match in _COMMAND.finditer(whole):
            start, end = match.span()
            if start == 0 and self._continues:
                continue  # the rest of a very long line begins no command
            line = whole[start : end - 1]
            if b"-matcher" in line and start > position:
                # what was printed before the command is matched as it was before
                self._emit(now_ms, whole[position:start])
                position = start
            shown = self._on_command(line)
            if shown is line:
                continue
            if start > position:
                self._emit(now_ms, whole[position:start])
            if shown is not None:
                self._emit(now_ms, shown + b"\n", is_output=False)
            position = end
        if position < len(whole):
            self._emit(now_ms, whole[position:])

    def _emit(self, now_ms: int, whole: bytes, *, is_output: bool = True) -> None:
        on_lines = self._packer.on_lines
        if on_lines is not None and is_output and not self._continues:
            whole = on_lines(whole)
        masked = well_formed(self._packer.masker.mask(whole))
        continues, self._continues = self._continues, False
        self._packer.add(now_ms, self._stream, self._step, masked, continues=continues)

    def _cut(self, now_ms: int) -> None:
        """Send the beginning of a line that is too long to hold."""
        if b"\r" in self._held:
            self._held = self._held[self._held.rfind(b"\r", 0, -1) + 1 :]
            if len(self._held) <= TEXT_BYTES_MAX:
                return
        at = self._packer.masker.safe_cut(self._held, TEXT_BYTES_MAX)
        at = character_start(self._held, at)
        if at == 0:
            if len(self._held) < _HELD_BYTES_MAX:
                return
            at = len(self._held)
        head, self._held = self._held[:at], self._held[at:]
        self._emit(now_ms, head + b"\n")
        self._continues = True


def collapse(whole: bytes) -> bytes:
    r"""Return lines as a terminal leaves them: what a `\r` overwrote is gone, `\r\n` is `\n`."""
    whole = _LINE_ENDS.sub(b"\n", whole)
    return _OVERWRITTEN.sub(b"", whole) if b"\r" in whole else whole


def well_formed(data: bytes) -> bytes:
    """Return the bytes as UTF-8: what is not becomes U+FFFD, so that every reader sees the same."""
    if data.isascii():
        return data
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode("utf-8")
    return data


def character_start(data: bytes, at: int) -> int:
    """Return the start of the UTF-8 character that a cut at `at` would divide."""
    for back in range(4):
        place = at - back
        if place <= 0 or place >= len(data):
            break
        if data[place] & 0xC0 != _CONTINUATION:
            return place
    return at
