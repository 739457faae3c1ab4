"""What the tests in a real Chromium share: a read side with its pages, and telling it a history."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.histories import History
from tests.support.read_side import ReadSide, read_side, running, running_api


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture
def served(kafka: str, database_url: str, tmp_path: Path) -> Iterator[tuple[ReadSide, str]]:
    """Yield a read side and the URL of its pages."""
    with (
        read_side(kafka, database_url, tmp_path) as side,
        running(side.projector(), side.archiver()),
        running_api(side) as url,
    ):
        yield side, url


async def tell(side: ReadSide, history: History) -> None:
    """Append what the history has told since the last time, and wait for the tables."""
    await asyncio.to_thread(side.tell, history)
