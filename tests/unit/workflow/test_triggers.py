"""Which events start a workflow."""

from __future__ import annotations

import textwrap

import pytest

from schemas.workflow.compile import compile_workflow
from schemas.workflow.events import EVENTS
from schemas.workflow.expressions import Value
from schemas.workflow.plan import InputPlan, Triggers
from schemas.workflow.triggers import (
    Trigger,
    match,
    needs_paths,
    resolve_inputs,
    skips_ci,
)


def triggers(text: str) -> Triggers:
    """The triggers of a workflow whose `on:` is given."""
    jobs = "\njobs:\n  a:\n    runs-on: x\n    steps: [{run: 'true'}]\n"
    compiled = compile_workflow("w.yml", textwrap.dedent(text) + jobs)
    assert compiled.plan is not None, compiled.problems
    return compiled.plan.on


BRANCHES = "on:\n  push:\n    branches: [main, 'rel/**', '!rel/old']"
TAGS = "on:\n  push:\n    tags: ['v*']"
PATHS = "on:\n  push:\n    paths: ['src/**']"
IGNORED = "on:\n  push:\n    branches-ignore: [dev]\n    paths-ignore: ['docs/**']"


def push(ref: str, *paths: str, known: bool = True, message: str | None = None) -> Trigger:
    """A push to a full ref."""
    return Trigger(
        event="push", ref=ref, changed_paths=paths if known else None, commit_message=message
    )


@pytest.mark.parametrize(
    ("on", "trigger", "runs"),
    [
        ("on: push", push("refs/heads/x"), True),
        ("on: push", push("refs/tags/x"), True),
        ("on: [push, fork]", Trigger(event="fork"), True),
        ("on: push", Trigger(event="pull_request", action="opened"), False),
        ("on: push", Trigger(event="push", ref="refs/heads/x", deleted=True), False),
        (BRANCHES, push("refs/heads/main"), True),
        (BRANCHES, push("refs/heads/rel/1/2"), True),
        (BRANCHES, push("refs/heads/rel/old"), False),
        (BRANCHES, push("refs/tags/main"), False),
        (TAGS, push("refs/tags/v1"), True),
        (TAGS, push("refs/heads/v1"), False),
        (PATHS, push("refs/heads/x", "docs/a"), False),
        (PATHS, push("refs/heads/x", "docs/a", "src/b"), True),
        (PATHS, push("refs/heads/x", known=False), True),
        (PATHS, push("refs/tags/x", "docs/a"), True),
        (IGNORED, push("refs/heads/dev", "src/a"), False),
        (IGNORED, push("refs/heads/x", "docs/a"), False),
        (IGNORED, push("refs/heads/x", "docs/a", "src/a"), True),
        (IGNORED, push("refs/tags/x", "src/a"), False),
        ("on: push", push("refs/heads/x", message="wip [skip ci]"), False),
        ("on: pull_request", Trigger(event="pull_request", action="closed"), False),
        ("on: pull_request", Trigger(event="pull_request", action="synchronize"), True),
        (
            "on:\n  pull_request:\n    types: closed\n    branches: main",
            Trigger(event="pull_request", action="closed", base_ref="main", head_ref="x"),
            True,
        ),
        (
            "on:\n  pull_request:\n    branches: main",
            Trigger(event="pull_request", action="opened", base_ref="refs/heads/dev"),
            False,
        ),
        (
            "on: pull_request_target",
            Trigger(event="pull_request_target", action="opened", commit_message="[skip ci]"),
            True,
        ),
        ("on: issues", Trigger(event="issues", action="labeled"), True),
        (
            "on:\n  repository_dispatch:\n    types: [a, b]",
            Trigger(event="repository_dispatch", action="c"),
            False,
        ),
        (
            "on:\n  schedule: [{cron: '0 1 * * *'}]",
            Trigger(event="schedule", schedule="0 1 * * *"),
            True,
        ),
        (
            "on:\n  schedule: [{cron: '0 1 * * *'}]",
            Trigger(event="schedule", schedule="0 2 * * *"),
            False,
        ),
        (
            "on:\n  workflow_run: {workflows: [CI], types: [completed], branches: [main]}",
            Trigger(event="workflow_run", action="completed", workflow_name="CI", head_ref="main"),
            True,
        ),
        (
            "on:\n  workflow_run:\n    workflows: [CI]",
            Trigger(event="workflow_run", action="completed", workflow_name="Other"),
            False,
        ),
        (
            "on:\n  merge_group:\n    branches: [main]",
            Trigger(event="merge_group", action="checks_requested", base_ref="refs/heads/main"),
            True,
        ),
    ],
)
def test_a_workflow_runs_for_an_event_or_not(on: str, trigger: Trigger, *, runs: bool) -> None:
    """Types, refs, paths, the commit message and the source decide, with a reason."""
    decision = match(triggers(on), trigger)

    assert decision.runs is runs, decision.reason
    assert decision.reason


@pytest.mark.parametrize(
    ("message", "skips"),
    [
        ("x [skip ci] y", True),
        ("[CI SKIP]", True),
        ("[no ci]", True),
        ("[skip actions]", True),
        ("[actions skip]", True),
        ("fix\n\nskip-checks: true", True),
        ("fix\n\n\nskip-checks:true\n", True),
        ("fix\n\nSigned-off-by: a\nskip-checks: true\n", True),
        ("fix\nskip-checks: true", False),
        ("[skip] ci", False),
        ("", False),
    ],
)
def test_a_commit_message_asks_to_skip(message: str, *, skips: bool) -> None:
    """The words in brackets count anywhere, the trailer only at the end."""
    assert skips_ci(message) is skips


def test_the_diff_is_only_needed_for_path_filters() -> None:
    """The planner need not compute what nobody asks."""
    assert needs_paths(triggers(PATHS), "push")
    assert not needs_paths(triggers(BRANCHES), "push")


def test_every_event_can_be_named_alone() -> None:
    """All of GitHub's events parse."""
    for event in EVENTS:
        assert triggers(f"on: {event}").event(event) is not None


DECLARED = {
    "name": InputPlan(required=True),
    "dry-run": InputPlan(type="boolean"),
    "count": InputPlan(type="number", default=3),
    "level": InputPlan(type="choice", options=("a", "b")),
}


@pytest.mark.parametrize(
    ("given", "values", "problems"),
    [
        (
            {"NAME": "x", "dry-run": "true", "count": "4", "level": "b"},
            {"name": "x", "dry-run": True, "count": 4, "level": "b"},
            (),
        ),
        ({"name": 1}, {"name": "1", "dry-run": False, "count": 3, "level": "a"}, ()),
        (
            {},
            {"name": "", "dry-run": False, "count": 3, "level": "a"},
            ("the input 'name' is required",),
        ),
        (
            {"name": "x", "dry-run": "maybe", "count": "x", "level": "c", "zzz": 1},
            {"name": "x"},
            (
                "the input 'dry-run' must be true or false, not 'maybe'",
                "the input 'count' must be a number, not 'x'",
                "the input 'level' must be one of a, b, not 'c'",
                "the input 'zzz' is not declared (there are: name, dry-run, count, level)",
            ),
        ),
    ],
)
def test_inputs_get_their_types(
    given: dict[str, Value], values: dict[str, Value], problems: tuple[str, ...]
) -> None:
    """Text from a form becomes what the input declares."""
    assert resolve_inputs(DECLARED, given) == (values, problems)
