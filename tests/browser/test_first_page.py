"""The pages in a real Chromium: signing in, a run and its log live, both themes, a phone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from schemas import events as e
from tests.browser.conftest import tell
from tests.support.chromium import Page, browser
from tests.support.histories import History, LogStream
from tests.support.read_side import TOKEN, ReadSide

pytestmark = pytest.mark.anyio


async def _overflows(page: Page) -> bool:
    return bool(await page.value("document.documentElement.scrollWidth > innerWidth"))


async def test_a_run_and_its_log_are_watched_live(
    served: tuple[ReadSide, str], tmp_path: Path
) -> None:
    """Sign in by the link; a run appears, goes from queued to failed and its lines arrive."""
    side, url = served
    history = History().configured()
    await tell(side, history)
    async with browser(tmp_path / "profile") as page:
        await page.open(f"{url}/login?token={TOKEN}")
        await page.until("document.querySelector('h1')?.textContent === 'Runs'")
        history.pushed("Watch me")
        run_id = history.planned([("build", ())])
        job = history.job("build")
        history.scheduled(job)
        await tell(side, history)
        await page.until("document.querySelector('.runs .title')?.textContent === 'Watch me'")

        await page.open(f"{url}/runs/{run_id}")
        await page.until("document.querySelector('.run-head .badge').textContent === 'Queued'")
        history.assigned(job)
        history.started(job)
        await tell(side, history)
        await page.until("document.querySelector('.run-head .badge').textContent === 'Running'")
        log = LogStream(job)
        lines = ["\x1b[32mgreen\x1b[0m", "<img src=x onerror=alert(1)>", *map(str, range(500))]
        await asyncio.to_thread(side.append_logs, [log.batch(lines)])
        await page.until("document.querySelectorAll('.l').length === 502")
        assert await page.value("document.querySelector('#L1 .f2').textContent") == "green"
        assert await page.value("document.querySelector('#L2 .x').lastChild.data") == lines[1]
        assert await page.value("document.querySelectorAll('.lines img').length") == 0
        at_end = "(b => b.scrollHeight - b.scrollTop - b.clientHeight < 40)"
        assert await page.until(f"{at_end}(document.querySelector('.lines'))")

        await page.value("document.querySelector('.lines').scrollTop = 0")
        await page.until("!document.querySelector('[data-log-end]').hidden")
        await asyncio.to_thread(side.append_logs, [log.batch(["more"])])
        await page.until("document.querySelectorAll('.l').length === 503")
        assert await page.value("document.querySelector('.lines').scrollTop") == 0

        await asyncio.to_thread(side.append_logs, [log.batch([], last=True)])
        history.stepped(job, conclusion="failure")
        history.finished(job, conclusion="failure", log_lines=503)
        history.run_finished("failure")
        await tell(side, history)
        await page.until("document.querySelector('.run-head .badge').textContent === 'Failed'")
        await page.until(
            "document.querySelector('.log-state').textContent === '503 lines, complete'"
        )
        words = await page.value("document.querySelector('.job .notice').textContent")
        assert words == "A step ended with an exit code other than 0."
        assert page.problems == []


async def test_every_page_fits_a_phone_in_both_themes(
    served: tuple[ReadSide, str], tmp_path: Path
) -> None:
    """No sideways scrolling, no error on the console, at 390 and 1280 pixels, light and dark."""
    side, url = served
    history = History().configured()
    run_id = history.whole_run(message="A rather long message " * 6)
    history.pushed("waits")
    waiting = history.planned(approval_required=True)
    history.add(
        e.RunRejected, 1, run_id="20260131-bad", workflow=".github/workflows/bad.yml",
        problems=(e.PlanProblem(path="x" * 90, line=1, column=2, message="y" * 200),),
    )  # fmt: skip
    await tell(side, history)
    runs = (f"/runs/{run_id}", f"/runs/{run_id}/events", f"/runs/{waiting}", "/runs/20260131-bad")
    paths = ["/", *runs, "/runners", "/repositories", "/deliveries", "/login"]
    async with browser(tmp_path / "profile") as page:
        await page.open(f"{url}/login?token={TOKEN}")
        await page.until("location.pathname === '/'")
        for theme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": theme}]
            await page.call("Emulation.setEmulatedMedia", features=features)
            for width in (390, 1280):
                await page.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=844,
                    deviceScaleFactor=1, mobile=width < 600,
                )  # fmt: skip
                for path in paths:
                    await page.open(url + path)
                    assert not await _overflows(page), (path, width)
        assert page.problems == []


async def test_the_keyboard_reaches_the_log(served: tuple[ReadSide, str], tmp_path: Path) -> None:
    """Every link, button and the log itself can be focused; the first stop skips the header."""
    side, url = served
    history = History().configured()
    run_id = history.whole_run()
    await tell(side, history)
    async with browser(tmp_path / "profile") as page:
        await page.open(f"{url}/login?token={TOKEN}")
        await page.until("location.pathname === '/'")
        await page.open(f"{url}/runs/{run_id}")
        reached: list[str] = []
        for _ in range(40):
            for kind in ("keyDown", "keyUp"):
                await page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                                windowsVirtualKeyCode=9)  # fmt: skip
            reached.append(await page.value("document.activeElement.className"))
            if reached[-1] == "lines":
                break

    assert reached[0] == "skip"
    assert reached[-1] == "lines"
