"""The recorded webhooks of four forges' public test data, and those of a real Gitea."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.webhooks import run_gitea_deliveries, run_webhooks


@pytest.fixture(scope="module")
def shared() -> Path:
    """Return the folder of shared data; absent is a failure unless it is switched off."""
    named = os.environ.get("TAILRACE_SHARED", str(Path(__file__).parents[2] / ".." / "shared"))
    if named == "none":
        pytest.skip("TAILRACE_SHARED is none: there are no recorded webhooks")
    folder = Path(named)
    assert folder.is_dir(), f"{folder} is missing: set TAILRACE_SHARED to it, or to none"
    return folder


def test_every_recorded_webhook_is_accepted_and_gives_its_facts(shared: Path) -> None:
    """GitHub, Gitea and Gogs; refused without their signature."""
    outcomes = list(run_webhooks(shared / "conformance"))

    assert len(outcomes) >= 200
    assert [f"{o.id}: {o.detail}" for o in outcomes if not o.passed] == []


def test_every_request_of_a_real_gitea_is_accepted(shared: Path) -> None:
    """With its own headers and GitHub's beside them, as JSON and as a form."""
    outcomes = list(run_gitea_deliveries(shared / "forge" / "deliveries"))

    assert len(outcomes) >= 40
    assert [f"{o.id}: {o.detail}" for o in outcomes if not o.passed] == []
