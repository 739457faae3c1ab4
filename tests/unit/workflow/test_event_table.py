"""The table of events that people read is the one that the planner goes by."""

from __future__ import annotations

import re
from pathlib import Path

import schemas.workflow
from schemas.workflow.events import DEFAULT_BRANCH, EVENTS

README = Path(schemas.workflow.__file__).with_name("README.md")


def test_the_readme_has_every_event_with_its_commit_and_ref() -> None:
    """Those of the default branch by name below the table."""
    text = README.read_text(encoding="utf-8").partition("## Which commit an event is about")[2]
    text = text.partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    [others] = [line for line in text.splitlines() if line.startswith("All others: ")]

    assert [(name.strip("`"), *rest) for name, *rest in rows] == [
        (rule.event, rule.source, rule.sha, rule.ref)
        for rule in EVENTS.values()
        if rule.source != DEFAULT_BRANCH
    ]
    assert re.findall("`([a-z_]+)`", others) == [
        rule.event for rule in EVENTS.values() if rule.source == DEFAULT_BRANCH
    ]
