"""A stub API and a way to run commands against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli import main
from tests.support.stub_api import StubApi

Tailrace = Callable[..., Result]

RUN_ID = "20261123-5f0c2a9b7d31"


@pytest.fixture
def api() -> Iterator[StubApi]:
    """Yield a stub of the API."""
    with StubApi() as stub:
        yield stub


@pytest.fixture
def tailrace(api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tailrace:
    """Return a function that runs the command line with arguments and optional input."""
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path))
    monkeypatch.setenv("TAILRACE_API_URL", api.url)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text(f"{api.token}\n")

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(main, list(arguments), input=input, catch_exceptions=False)

    return run


def a_run(**more: Any) -> dict[str, Any]:
    """Return a run as the API gives it."""
    return {
        "run_id": RUN_ID, "repository": "acme/shop", "workflow": ".github/workflows/ci.yml",
        "workflow_name": "CI", "run_name": "Fix the till", "run_number": 7, "run_attempt": 1,
        "event": "push", "ref": "refs/heads/main", "sha": "0123456789abcdef", "actor": "ada",
        "message": "Fix the till\n\nIt jammed.", "status": "completed", "conclusion": "success",
        "reason": "", "created_at": 1_790_000_000_000, "started_at": 1_790_000_001_000,
        "finished_at": 1_790_000_005_200, "delivery_id": "github:1",
        "url": f"http://127.0.0.1:8810/runs/{RUN_ID}", "problems": [], "jobs": [], **more,
    }  # fmt: skip


def a_job(key: str, **more: Any) -> dict[str, Any]:
    """Return a job of the run as the API gives it; `attempts` may be a number."""
    attempts = more.pop("attempts", 1)
    tries = [
        {"attempt": n, "queued_at": 1_790_000_000_500, "assigned_at": 1_790_000_000_600,
         "started_at": 1_790_000_001_000, "finished_at": 1_790_000_003_000,
         "runner_id": "box-0", "boot_id": "b", "conclusion": "success", "reason": "",
         "log": {"lines": 2, "complete": True, "sha256": None, "archived": True}}
        for n in range(1, attempts + 1)
    ]  # fmt: skip
    return {
        "job_id": f"{RUN_ID}.{key}", "key": key, "name": key, "needs": [], "matrix": None,
        "status": "completed", "conclusion": "success", "reason": "", "blocked": None,
        "attempts": tries, "outputs": {}, "steps": [], **more,
    }  # fmt: skip


def page(*items: object, next_cursor: str | None = None) -> dict[str, Any]:
    """Return a page of a list."""
    return {"items": list(items), "next_cursor": next_cursor, "as_of": 1}
