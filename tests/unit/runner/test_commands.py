"""What the commands of a step come to: annotations, debug lines, deprecated forms."""

from __future__ import annotations

from runner.commands import StepCommands
from runner.masking import Masker
from schemas.events import Annotation


def commands(annotations: list[Annotation] | None = None, *, debug: bool = False) -> StepCommands:
    """Return the commands of a step."""
    return StepCommands(
        Masker(), [] if annotations is None else annotations, step=1, env={}, debug=debug
    )


def test_debug_lines_are_shown_only_when_asked_for() -> None:
    """As on GitHub without ACTIONS_STEP_DEBUG."""
    line = b"::debug::details"

    assert commands().on_command(line) is None
    assert commands(debug=True).on_command(line) == b"##[debug]details"


def test_a_step_annotates_ten_times_a_level_and_a_job_fifty_times() -> None:
    """A step that warns without end leaves room for the error of the next."""
    found: list[Annotation] = []
    for number in range(7):
        subject = commands(found)
        for _ in range(30):
            assert subject.on_command(b"::warning::again") == b"##[warning]again"
        assert len(found) == min(10 * (number + 1), 50)
    found.clear()
    subject = commands(found)
    for level in (b"warning", b"error", b"notice"):
        for _ in range(11):
            subject.on_command(b"::" + level + b"::x")

    assert [item.level for item in found].count("error") == 10
    assert len(found) == 30
