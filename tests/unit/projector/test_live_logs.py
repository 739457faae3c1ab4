"""The index of live logs: order, duplicates, memory, holes."""

from __future__ import annotations

import asyncio
import json

import pytest

from projector.api.livelogs import LiveLogs
from schemas.streams import LogBatch
from tests.support.histories import LogStream

pytestmark = pytest.mark.anyio

KEY = ("20260131-abc.build", 1)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio alone: that is what the API runs on."""
    return "asyncio"


def _stream() -> LogStream:
    return LogStream(KEY[0])


async def _texts(live: LiveLogs, line: int = 0) -> list[str]:
    texts: list[str] = []
    while (chunk := await live.chunk_at(KEY, line)) is not None:
        data = json.loads(chunk.event(line).split(b"data: ", 1)[1])
        texts += [entry["text"] for entry in data["lines"]]
        line = chunk.end
    return texts


def _placed(batches: list[LogBatch]) -> list[tuple[int, int, LogBatch]]:
    return [(0, offset, batch) for offset, batch in enumerate(batches)]


async def test_lines_come_in_order_and_once() -> None:
    """A batch that was sent twice is read once."""
    live, stream = LiveLogs(), _stream()
    first, second = stream.batch(["a", "b"]), stream.batch(["c"])
    live.accept(_placed([first, first, second]))

    assert await _texts(live) == ["a", "b", "c"]
    assert await _texts(live, 1) == ["b", "c"]


async def test_a_batch_of_another_boot_is_not_taken() -> None:
    """The log of an attempt is its first writer's."""
    live, stream, other = LiveLogs(), _stream(), _stream()
    other.boot_id = "0"
    live.accept(_placed([stream.batch(["mine"]), other.batch(["x"]), other.batch(["y"])]))

    assert await _texts(live) == ["mine"]


async def test_evicted_blocks_are_read_again() -> None:
    """Memory is bounded; what was evicted comes back through `fetch`."""
    live, stream = LiveLogs(memory_bytes_max=2_000), _stream()
    batches = [stream.batch([f"{n} " + "x" * 300]) for n in range(50)]
    asked: list[int] = []

    async def fetch(_: int, offset: int) -> list[tuple[int, LogBatch]]:
        asked.append(offset)
        return [(offset, batches[offset])]

    live.fetch = fetch
    live.accept(_placed(batches))

    assert len(await _texts(live)) == 50
    assert asked
    assert 0 in asked


async def test_a_waiting_reader_is_woken_by_the_first_batch() -> None:
    """Also one that came before anything was printed."""
    live = LiveLogs()
    waiting = asyncio.ensure_future(live.wait(KEY, 5))
    await asyncio.sleep(0)
    live.accept(_placed([_stream().batch(["x"])]))

    assert await waiting


async def test_a_hole_is_stepped_over() -> None:
    """A reader gets the next lines that are there."""
    live, stream = LiveLogs(), _stream()
    first, _, third = stream.batch(["a"]), stream.batch(["b"]), stream.batch(["c"])
    live.accept(_placed([first, third]))

    chunk = await live.chunk_at(KEY, 1)

    assert chunk is not None
    assert chunk.first_line == 2


async def test_forgetting_an_archived_log_frees_it() -> None:
    """Its readers are woken to go on in the archive."""
    live = LiveLogs()
    live.accept(_placed([_stream().batch(["x"])]))
    waiting = asyncio.ensure_future(live.wait(KEY, 5))
    await asyncio.sleep(0)
    live.forget(KEY)

    assert await waiting
    assert KEY not in live
