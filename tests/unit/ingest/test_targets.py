"""Which commit and ref a delivery's runs are about, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.planner.targets import At, Target, targets
from schemas.events import DeliveryReceived

SHA, MERGED = "a" * 40, "b" * 40
MAIN, PULL = "refs/heads/main", "refs/pull/7/merge"


def delivery(event: str, **fields: Any) -> DeliveryReceived:
    """Return a delivery of an event."""
    return DeliveryReceived(
        event_id="e", source="webhook", provider="github", event=event, **fields
    )


PULL_REQUEST = {"ref": PULL, "sha": SHA, "number": 7, "base_ref": "main"}


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
            delivery("pull_request", **{**PULL_REQUEST, "ref": MAIN}, merged=True, base_sha=MERGED),
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
