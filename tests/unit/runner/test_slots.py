"""A slot that can't go on: nobody may wait for its job."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli.errors import CliError
from infra.cli.local import system
from infra.cli.local.command import Request, run
from infra.metrics import SLOTS_BUSY, Metric, Unmetered

WORKFLOW = "on: push\njobs: {a: {runs-on: x, steps: [{run: 'true'}]}}\n"


class Failing(Unmetered):
    """What fails outside of any job."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:  # noqa: ARG002
        """Fail where a slot takes a job."""
        if metric is SLOTS_BUSY:
            raise RuntimeError("no such gauge")


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    gc.unfreeze()


def test_a_slot_that_fails_ends_its_runner_instead_of_keeping_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats that go on naming the job as running would keep it until its own time limit."""
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "a.yml").write_text(WORKFLOW)
    monkeypatch.setattr(system, "Unmetered", Failing)
    request = Request(
        folder=tmp_path, workflow="", event="push", payload={}, job="", secrets={}, variables={},
        inputs={},
    )  # fmt: skip

    with pytest.raises(CliError, match="the runner can't go on: no such gauge"):
        run(request, quiet=True)
