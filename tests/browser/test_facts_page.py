"""What jobs left, in a real Chromium: groups that fold, words for marks, artifacts, remarks."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from infra.clock import SystemClock
from runner.depot import Entry, store
from runner.gateway.shelf import Owner, Shelf, ShelfDepot
from schemas import events as e
from tests.browser.conftest import tell
from tests.support.chromium import Page, browser
from tests.support.histories import REPOSITORY, History, LogStream
from tests.support.read_side import TOKEN, ReadSide

pytestmark = pytest.mark.anyio

LINES = [
    "##[group]Run make",
    "make -j2",
    "##[endgroup]",
    "before",
    "##[group]Compile \x1b[32mall\x1b[0m",
    "cc a.c",
    "##[warning]a.c is odd",
    "##[group]Link",
    "ld a.o",
    "##[endgroup]",
    "after",
    "##[error]first%0Asecond <b>",
    "##[command]/usr/bin/git version",
    "##[notice]look",
    "##[debug]deep",
    "##[section]Done",
]
SUMMARY = """# Results
| suite | passed | took |
|---|:-:|--:|
| unit | 1,024 | 3.2 s |
| [browser](https://example.org/b) | 12 | 9.9 s |

- [x] built
- [ ] published

> No ~~failures~~ **at all**

```sh
make test <fast>
```
"""


def _keep(side: ReadSide, history: History, job: str, name: str, expires_at: int | None) -> None:
    owner = Owner(repository=REPOSITORY, run_id=job.partition(".")[0], job_id=job, attempt=1)
    shelf = Shelf(side.objects, SystemClock())
    size, sha256, pieces = store(ShelfDepot(shelf, owner), io.BytesIO(name.encode() * 999))
    entry = Entry(name=name, size_bytes=size, sha256=sha256, pieces=pieces)
    kept = shelf.save_artifact(owner, entry, overwrite=False, retention_days=0).entry
    history.add(
        e.ArtifactUploaded, job, name, job_id=job, attempt=1, name=name, size_bytes=size,
        sha256=sha256, uri=kept.uri, files=3, artifact_id=kept.artifact_id,
        expires_at=kept.expires_at if expires_at is None else expires_at,
    )  # fmt: skip


async def _running_jobs(side: ReadSide, history: History) -> tuple[str, str, str]:
    history.pushed("Tell everything")
    run_id = history.planned([("build", ()), ("test", ())])
    jobs = history.job("build"), history.job("test")
    for job in jobs:
        history.scheduled(job)
        history.assigned(job)
        history.started(job)
    await tell(side, history)
    return run_id, *jobs


def _remarks() -> tuple[e.Annotation, ...]:
    return (
        e.Annotation(level="warning", message="a.c is odd", path="src/a.c", line=3, end_line=4,
                     step=1, title="Style"),
        e.Annotation(level="error", message="first\nsecond <b>", path="src/a.c", line=9, step=1),
        e.Annotation(level="notice", message="look", step=1),
    )  # fmt: skip


async def _press(page: Page, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        more = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
        await page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                        windowsVirtualKeyCode=code, **more)  # fmt: skip


async def test_groups_fold_live_and_by_the_keyboard(
    served: tuple[ReadSide, str], tmp_path: Path
) -> None:
    """Marks become words and folds while the lines come; a place within a group opens it."""
    side, url = served
    history = History().configured()
    run_id, job, _ = await _running_jobs(side, history)
    log = LogStream(job)
    async with browser(tmp_path / "profile") as page:
        await page.open(f"{url}/login?token={TOKEN}")
        await page.until("location.pathname === '/'")
        await page.open(f"{url}/runs/{run_id}")
        await asyncio.to_thread(side.append_logs, [log.batch(LINES[:6])])
        await page.until("document.querySelectorAll('details.group').length === 2")
        await asyncio.to_thread(side.append_logs, [log.batch(LINES[6:])])
        await page.until("document.querySelectorAll('.l').length === 14")

        groups = await page.value(
            "[...document.querySelectorAll('details.group')].map(g => [g.open, "
            "g.querySelector('summary .x').lastChild.textContent || '', "
            "g.querySelectorAll('.group-lines .l').length])"
        )
        assert [(is_open, lines) for is_open, _, lines in groups] == [
            (False, 1), (False, 2), (False, 1)
        ]  # fmt: skip
        text = await page.value("document.querySelector('.lines').textContent")
        assert "##[" not in text
        assert "%0A" not in text
        error = "document.querySelector('.l.k-error .x').textContent.slice(12)"
        assert await page.value(error) == "Error: first\nsecond <b>"
        assert await page.value("document.querySelectorAll('.has-warning').length") == 1
        assert await page.value("document.querySelector('#L6').checkVisibility()") is False

        await page.value("document.querySelector('#L5').focus()")
        await _press(page, "Enter", 13)
        await page.until("document.querySelector('#L6').checkVisibility()")
        await _press(page, "Enter", 13)
        await page.until("!document.querySelector('#L6').checkVisibility()")
        await page.value("document.querySelector('[data-log-groups]').click()")
        assert await page.value("document.querySelectorAll('details.group[open]').length") == 3

        await page.open(f"{url}/runs/{run_id}#L9")
        await page.value("location.reload()")
        await page.until("document.querySelector('#L9.here')?.checkVisibility()")
        assert await page.value("document.querySelectorAll('details.group[open]').length") == 1
        # the end mark of a group has no row: the next one stands for it
        await page.open(f"{url}/runs/{run_id}#L3")
        await page.value("location.reload()")
        await page.until("document.querySelector('#L4.here')?.checkVisibility()")
        assert page.problems == []


async def test_artifacts_and_remarks_appear_and_fit(
    served: tuple[ReadSide, str], tmp_path: Path
) -> None:
    """They come without a reload, with what a person needs, on a phone and in the dark, too."""
    side, url = served
    history = History().configured()
    run_id, job, other = await _running_jobs(side, history)
    async with browser(tmp_path / "profile") as page:
        await page.open(f"{url}/login?token={TOKEN}")
        await page.until("location.pathname === '/'")
        await page.open(f"{url}/runs/{run_id}")
        _keep(side, history, job, "coverage", None)
        _keep(side, history, job, "a-rather-long-name-" * 8, 1)
        await tell(side, history)
        await page.until("document.querySelectorAll('.artifacts li').length === 2")
        rows = await page.value(
            "[...document.querySelectorAll('.artifacts li')].map(r => r.innerText)"
        )
        assert "Expired" in rows[0]
        assert "7.8 KiB" in rows[1]
        assert "Kept until" in rows[1]
        link = "document.querySelector('.artifacts a.get')"
        assert await page.value(f"{link}.hasAttribute('download')")
        status = "fetch({link}.href).then(a => window.answered = a.status)".replace("{link}", link)
        await page.value(status)
        assert await page.until("window.answered") == 200

        for one in (job, other):
            history.stepped(one, conclusion="failure")
            history.finished(one, conclusion="failure", annotations=_remarks(), summary=SUMMARY)
        history.run_finished("failure")
        await tell(side, history)
        await page.until("document.querySelectorAll('#annotations .annotation').length === 3")
        elsewhere = "document.querySelectorAll('#annotations-elsewhere .annotation')"
        await page.until(f"{elsewhere}.length === 3")
        first = await page.value(f"{elsewhere}[0].innerText")
        assert first.startswith("Error src/a.c:9")
        assert first.endswith("Test · Run make")
        await page.until("document.querySelector('.prose table') !== null")
        for theme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": theme}]
            await page.call("Emulation.setEmulatedMedia", features=features)
            for width in (390, 1280):
                await page.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=844,
                    deviceScaleFactor=1, mobile=width < 600,
                )  # fmt: skip
                await page.open(f"{url}/runs/{run_id}")
                assert not await page.value("document.documentElement.scrollWidth > innerWidth")
        assert page.problems == []
