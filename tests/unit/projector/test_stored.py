"""Downloads of artifacts: ranges, names, and how many run at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from infra.objects import open_store
from projector.api.problems import ProblemError, response_of
from projector.api.stored import Download, Span, StoredFile, disposition, span_of
from schemas.stored import Entry, piece_key, piece_name

CONTENT = bytes(range(256)) * 4_000


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-9", Span(0, 10)),
        (" bytes=90- ", Span(90, 100)),
        ("bytes=90-999", Span(90, 100)),
        ("bytes=-3", Span(97, 100)),
        ("bytes=-999", Span(0, 100)),
        ("bytes=0-" + "9" * 18, Span(0, 100)),
        ("bytes=0-" + "9" * 19, None),
        ("bytes=" + "1" * 5_000 + "-", None),
        ("bytes=-" + "1" * 5_000, None),
        ("bytes=\u0661-\u0662", None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_a_range_is_a_span_or_ignored(header: str | None, span: Span | None) -> None:
    """What is no single range of a length that files have gives the whole file."""
    assert span_of(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(header: str) -> None:
    """With the length in the answer."""
    with pytest.raises(ProblemError) as refused:
        span_of(header, 100)
    assert refused.value.status == 416
    assert refused.value.more["headers"] == {"Content-Range": "bytes */100"}


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("report.zip", "report.zip"),
        ("../../etc/x.zip", "_.._etc_x.zip"),
        (". ..zip", "artifact.zip"),
        ("...", "artifact"),
        ("zip.zip", "zip.zip"),
        ("a" * 300 + ".zip", "a" * 196 + ".zip"),
        ("a" * 300 + ". ." + "b" * 194 + ".zip", "b" * 194 + ".zip"),
        ("a" + "." * 300 + "zip", "artifact.zip"),
    ],
)
def test_a_name_is_saved_without_dots_before_it(name: str, saved: str) -> None:
    """Also where a long one was cut."""
    assert unquote(disposition(name).rpartition("UTF-8''")[2]) == saved


class _Client:
    """Takes a download; `reads` holds it up before each part."""

    def __init__(self, reads: Callable[[], Any] | None = None) -> None:
        self.reads = reads
        self.gone = asyncio.Event()
        self.began = asyncio.Event()
        self.body = b""
        self.ended = False

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] != "http.response.body":
            return
        self.began.set()
        if self.reads is not None:
            await self.reads()
        self.body += message["body"]
        self.ended = not message["more_body"]

    async def get(self, download: Download) -> None:
        await download({"type": "http", "method": "GET"}, self.receive, self.send)


def _downloads(folder: Path, places: int, stalled_s: float = 60) -> Callable[[], Download]:
    """Return what makes downloads of a file, of which `places` may run at once."""
    objects = open_store(f"file://{folder}")
    name = piece_name(0, hashlib.sha256(CONTENT).hexdigest())
    objects.put(piece_key("acme/widgets", name), CONTENT)
    entry = Entry(
        name="report", size_bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest(),
        pieces=(name,),
    )  # fmt: skip
    free = asyncio.Semaphore(places)
    file = StoredFile(objects, "acme/widgets", entry)
    return lambda: Download(file, Span(0, len(CONTENT)), {}, free, stalled_s=stalled_s)


def test_downloads_beyond_the_limit_are_asked_to_come_again(tmp_path: Path) -> None:
    """A place is free again when a stream has ended."""

    async def scenario() -> None:
        make = _downloads(tmp_path, 2)
        go = asyncio.Event()
        slow = [_Client(go.wait), _Client(go.wait)]
        running = [asyncio.create_task(client.get(make())) for client in slow]
        for client in slow:
            await client.began.wait()
        with pytest.raises(ProblemError) as refused:
            await _Client().get(make())
        answer = response_of(refused.value)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        go.set()
        await asyncio.gather(*running)
        assert [client.body for client in slow] == [CONTENT, CONTENT]
        last = _Client()
        await last.get(make())
        assert last.body == CONTENT

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.parametrize("end", ["goes", "stalls", "is cancelled"])
def test_a_client_that_ends_early_gives_its_place_free(tmp_path: Path, end: str) -> None:
    """Whether it goes, reads no more, or its connection is torn down."""

    async def scenario() -> None:
        make = _downloads(tmp_path, 1, stalled_s=0.05 if end == "stalls" else 60)
        go = asyncio.Event()
        client = _Client(go.wait)
        running = asyncio.create_task(client.get(make()))
        await client.began.wait()
        if end == "goes":
            client.gone.set()
            await asyncio.sleep(0)  # its end is noticed before the next part is sent
            go.set()
        elif end == "is cancelled":
            running.cancel()
        await asyncio.wait([running])
        assert not client.ended
        last = _Client()
        await last.get(make())
        assert last.body == CONTENT

    asyncio.run(asyncio.wait_for(scenario(), 20))
