"""Segments: what goes in comes out, the same way every time."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from projector import segments
from projector.segments import (
    Segment,
    SegmentError,
    SegmentWriter,
    block_at,
    decompress,
    object_key,
    read_index,
)
from schemas import loglines


def _raw(texts: list[str], t_ms: int = 1) -> bytes:
    payload = "".join(f"{text}\n" for text in texts).encode()
    return loglines.encode_run(loglines.Run(t_ms, "o", 1, len(texts), payload))


def _written(batches: list[list[str]]) -> tuple[list[Segment], SegmentWriter]:
    writer = SegmentWriter()
    found = [segment for batch in batches for segment in writer.add(_raw(batch))]
    return [*found, *writer.finish()], writer


def _lines(found: list[Segment]) -> list[str]:
    texts: list[str] = []
    for segment in found:
        index = read_index(segment.data, len(segment.data))
        assert isinstance(index, list)
        for block in index:
            frame = segment.data[block.position : block.position + block.size_bytes]
            texts += [line.text for line in loglines.lines(decompress(frame))]
    return texts


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=40)
_BATCHES = st.lists(st.lists(_TEXT, min_size=1, max_size=8), max_size=12)


@settings(max_examples=100, deadline=None)
@given(_BATCHES)
def test_every_line_comes_back_in_order(batches: list[list[str]]) -> None:
    """Whatever the batches, the segments hold exactly their lines."""
    found, _ = _written(batches)

    assert [text for batch in batches for text in batch] == _lines(found)


def test_the_same_batches_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Archiving again after a crash stores nothing twice."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 200)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 600)
    batches = [[f"line {n} {n * 7919 % 1000}" for n in range(b, b + 9)] for b in range(0, 400, 9)]

    first, again = _written(batches)[0], _written(batches)[0]

    assert len(first) > 2
    assert [segment.data for segment in first] == [segment.data for segment in again]
    assert [s.first_line for s in first[1:]] == [s.first_line + s.lines for s in first[:-1]]


def test_any_line_is_found_by_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that starts in the middle reads one block."""
    monkeypatch.setattr(segments, "BLOCK_BYTES", 100)
    [segment], _ = _written([[f"line {n}"] for n in range(300)])
    index = read_index(segment.data, len(segment.data))
    assert isinstance(index, list)
    assert len(index) > 5

    for line in (0, 150, 299):
        block = block_at(index, line)
        assert block is not None
        frame = segment.data[block.position : block.position + block.size_bytes]
        numbered = loglines.lines(decompress(frame), block.first_line)
        assert f"line {line}" == next(each.text for each in numbered if each.number == line)
    assert block_at(index, 300) is None


def test_a_short_tail_says_how_much_it_takes() -> None:
    """A reader fetches the end of a segment first and knows when that was too little."""
    [segment], _ = _written([["x"]])

    needed = read_index(segment.data[-20:], len(segment.data))

    assert isinstance(needed, int)
    assert isinstance(read_index(segment.data[-needed:], len(segment.data)), list)


@pytest.mark.parametrize("data", [b"", b"short", bytes(64)])
def test_what_is_no_segment_is_named_as_damaged(data: bytes) -> None:
    """Damage is an error with the size in it, never a wrong line."""
    with pytest.raises(SegmentError, match="segment"):
        read_index(data, len(data))


def test_a_block_that_is_no_frame_is_named_as_damaged() -> None:
    """So is a bomb: what a frame may hold has a limit."""
    with pytest.raises(SegmentError):
        decompress(b"nothing of the kind")
    with pytest.raises(SegmentError):
        decompress(zstandard.ZstdCompressor(write_content_size=True).compress(bytes(64 << 20)))


@pytest.mark.parametrize("job_id", ["run.build", "run.../../etc", "run.bäu", "run." + "x" * 900])
def test_any_job_has_a_safe_key(job_id: str) -> None:
    """A job's name never leads out of the store, and two jobs never share a key."""
    from infra.objects import checked_key

    segment = Segment(first_line=0, lines=1, data=b"x")

    key = object_key("20260131-abc", job_id, 1, segment)

    assert key == checked_key(key)
    assert key != object_key("20260131-abc", job_id + "_", 1, segment)
