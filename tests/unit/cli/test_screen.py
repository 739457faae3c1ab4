"""What a person sees of a start: what it is at, and the folded log of the sample run."""

from __future__ import annotations

from typing import Any

import pytest

from infra.cli.logs import Fold
from infra.cli.up import Screen, waits_for


@pytest.mark.parametrize(
    ("states", "step", "ready", "expected"),
    [
        ({"kafka": "starting", "api": "waiting"}, "waiting", False, "Waiting for kafka"),
        (
            {"kafka": "up", "api": "waiting"},
            "running",
            False,
            "Preparing topics, tables and keys (migrate)",
        ),
        ({"kafka": "up", "api": "waiting"}, "done", False, "Starting the services"),
        ({"kafka": "up", "api": "crashed"}, "done", False, "Waiting for api (crashed)"),
        ({"kafka": "up", "api": "up"}, "done", True, ""),
    ],
)
def test_a_start_says_what_it_is_at(
    states: dict[str, str],
    step: str,
    ready: bool,  # noqa: FBT001 - a column of the table
    expected: str,
) -> None:
    """Servers, then preparations, then services; what has not begun is not named."""
    assert waits_for(_status(states, step=step, ready=ready)) == expected


def test_the_same_wait_is_told_once_outside_of_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A log of `up` has a line a phase; what changes outside of Tailrace is told once."""
    screen = Screen(quiet=False)
    found = _status({"kafka": "starting"}, step="waiting", ready=False)
    for _ in range(3):
        screen.waiting({**found, "notices": ["A folder was opened."]})

    assert capsys.readouterr().out == "A folder was opened.\nWaiting for kafka\n"
    assert screen.has_waited


def test_a_folded_log_shows_titles_and_output_and_no_scripts() -> None:
    """Groups may be cut anywhere by the batches in which lines arrive."""
    fold = Fold()
    lines = [
        _line("sys", "##[group]Run make"),
        _line("sys", "make"),
        _line("sys", "##[endgroup]"),
        _line("out", "##[group]printed by the job itself"),
        _line("sys", "##[error]exit code 2"),
    ]

    shown = [line["text"] for line in [*fold.of(lines[:1]), *fold.of(lines[1:])]]

    assert shown == ["> Run make", "##[group]printed by the job itself", "##[error]exit code 2"]


def _line(stream: str, text: str) -> dict[str, Any]:
    return {"n": 0, "t": 0, "s": stream, "step": 1, "text": text}


def _status(states: dict[str, str], *, step: str, ready: bool) -> dict[str, Any]:
    return {
        "ready": ready,
        "notices": [],
        "steps": [{"name": "migrate", "state": step}],
        "processes": [{"name": name, "state": state} for name, state in states.items()],
    }
