"""Which commit and ref a delivery's runs are about, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.planner.targets import At, Target, targets
from schemas.events import DeliveryReceived
from schemas.workflow.events import DEFAULT_BRANCH, EVENTS, MERGE, EventRule

SHA, MERGED = "a" * 40, "b" * 40
MAIN, PULL = "refs/heads/main", "refs/pull/7/merge"


def delivery(event: str, **fields: Any) -> DeliveryReceived:
    """Return a delivery of an event."""
    return DeliveryReceived(
        event_id="e", source="webhook", provider="github", event=event, **fields
    )


PULL_REQUEST: dict[str, Any] = {"ref": PULL, "sha": SHA, "number": 7, "base_ref": "main"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            delivery("push", ref="refs/heads/x", sha=SHA),
            [Target(event="push", at=At.GIVEN, ref="refs/heads/x", sha=SHA)],
        ),
        (
            delivery("create", ref="refs/tags/v1"),
            [Target(event="create", at=At.REF, ref="refs/tags/v1")],
        ),
        (
            delivery("pull_request", **PULL_REQUEST),
            [
                Target(event="pull_request", at=At.MERGE, ref=PULL),
                Target(event="pull_request_target", at=At.DEFAULT, ref=MAIN),
            ],
        ),
        (
            delivery(
                "pull_request", **{**PULL_REQUEST, "ref": MAIN}, merged=True, merge_sha=MERGED
            ),
            [
                Target(event="pull_request", at=At.GIVEN, ref=MAIN, sha=MERGED),
                Target(event="pull_request_target", at=At.DEFAULT, ref=MAIN),
            ],
        ),
        (
            delivery("pull_request_review", **PULL_REQUEST),
            [Target(event="pull_request_review", at=At.MERGE, ref=PULL)],
        ),
        (
            delivery("workflow_dispatch", ref="refs/heads/x", sha=SHA),
            [Target(event="workflow_dispatch", at=At.GIVEN, ref="refs/heads/x", sha=SHA)],
        ),
        (delivery("issues"), [Target(event="issues", at=At.DEFAULT, ref=MAIN)]),
        (delivery("schedule"), [Target(event="schedule", at=At.DEFAULT, ref=MAIN)]),
        (
            delivery("delete", ref="refs/heads/x", deleted=True),
            [Target(event="delete", at=At.DEFAULT, ref=MAIN)],
        ),
        (
            delivery("schedule", ref=MAIN, sha=SHA),
            [Target(event="schedule", at=At.GIVEN, ref=MAIN, sha=SHA)],
        ),
        (
            delivery("workflow_run", ref=MAIN, sha=SHA),
            [Target(event="workflow_run", at=At.GIVEN, ref=MAIN, sha=SHA)],
        ),
        (delivery("workflow_run"), [Target(event="workflow_run", at=At.DEFAULT, ref=MAIN)]),
        (
            delivery("repository_dispatch", ref=MAIN, sha=SHA),
            [Target(event="repository_dispatch", at=At.GIVEN, ref=MAIN, sha=SHA)],
        ),
        (
            delivery("pull_request_target", **PULL_REQUEST),
            [Target(event="pull_request_target", at=At.DEFAULT, ref=MAIN)],
        ),
        (
            delivery("pull_request_review_comment", **PULL_REQUEST),
            [Target(event="pull_request_review_comment", at=At.MERGE, ref=PULL)],
        ),
        (
            delivery("release", ref="refs/tags/v1"),
            [Target(event="release", at=At.REF, ref="refs/tags/v1")],
        ),
        (
            delivery("merge_group", ref="refs/heads/queue/main/pr-7", sha=SHA),
            [Target(event="merge_group", at=At.GIVEN, ref="refs/heads/queue/main/pr-7", sha=SHA)],
        ),
        (
            delivery("deployment", ref="", sha=SHA),
            [Target(event="deployment", at=At.GIVEN, ref="", sha=SHA)],
        ),
        (
            delivery("registry_package"),
            [Target(event="registry_package", at=At.DEFAULT, ref=MAIN)],
        ),
        (delivery("ping"), []),
        (delivery("gitlab_pipeline"), []),
        (delivery("workflow_call"), []),
    ],
)
def test_an_event_is_about_githubs_commit_and_ref(
    given: DeliveryReceived, expected: list[Target]
) -> None:
    """The table of "Events that trigger workflows", with two events for a pull request."""
    assert list(targets(given, "main")) == expected


#: What a delivery of the event has at most, for events that are not about the default branch.
_OWN: dict[str, dict[str, Any]] = {
    "create": {"ref": "refs/tags/v1"},
    "deployment": {"sha": SHA},
    "deployment_status": {"sha": SHA},
    "merge_group": {"ref": "refs/heads/queue", "sha": SHA},
    "pull_request": PULL_REQUEST,
    "pull_request_review": PULL_REQUEST,
    "pull_request_review_comment": PULL_REQUEST,
    "push": {"ref": "refs/heads/x", "sha": SHA},
    "registry_package": {"sha": SHA},
    "release": {"ref": "refs/tags/v1"},
    "workflow_dispatch": {"ref": "refs/heads/x"},
}


@pytest.mark.parametrize("rule", EVENTS.values(), ids=lambda rule: rule.event)
def test_every_event_of_the_language_is_read_where_its_table_says(rule: EventRule) -> None:
    """The planner's rules and the documented table agree about the default branch."""
    found = targets(delivery(rule.event, **_OWN.get(rule.event, {})), "main")
    if rule.event == "workflow_call":
        assert found == ()
        return
    assert found[0].event == rule.event
    assert (found[0].at is At.DEFAULT) == (rule.source == DEFAULT_BRANCH)
    assert (found[0].at is At.MERGE) == (rule.source == MERGE)
