"""What a delivery can start: per event of `on:`, the commit and ref a run of it is about. Pure.

The rules are GitHub's, "Events that trigger workflows": one delivery may be two events
(pull_request and pull_request_target), read from two commits.
"""

from __future__ import annotations

from enum import StrEnum

from schemas.events import DeliveryReceived
from schemas.late import dataclass
from schemas.workflow.events import EVENTS


class At(StrEnum):
    """Which commit a target is about."""

    GIVEN = "the commit of the delivery"
    REF = "the commit that the ref points to"
    MERGE = "the merge of a pull request's head into its base"
    DEFAULT = "the head of the default branch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One event that the delivery is, and where its workflows are read."""

    event: str
    at: At
    ref: str
    sha: str = ""


_MERGED_EVENTS = frozenset({"pull_request", "pull_request_review", "pull_request_review_comment"})
_OF_A_REF = frozenset(
    {"push", "create", "release", "deployment", "deployment_status", "merge_group",
     "workflow_dispatch", "registry_package"}
)  # fmt: skip
#: About the default branch at a commit that whoever made the delivery has read.
_OF_AN_INDEX = frozenset({"schedule", "workflow_run", "repository_dispatch"})
_NOTHING_FROM_OUTSIDE = frozenset({"workflow_call"})


def targets(delivery: DeliveryReceived, default_branch: str) -> tuple[Target, ...]:
    """Return the targets of a delivery; () when its event starts no workflows at all."""
    event = delivery.event
    if event not in EVENTS or event in _NOTHING_FROM_OUTSIDE:
        return ()
    default = Target(event=event, at=At.DEFAULT, ref=f"refs/heads/{default_branch}")
    if event in _MERGED_EVENTS:
        found = (_pull_request(delivery, event),)
        if event != "pull_request":
            return found
        return (*found, Target(event="pull_request_target", at=At.DEFAULT, ref=default.ref))
    if event in _OF_A_REF and (delivery.ref or delivery.sha):
        at = At.GIVEN if delivery.sha else At.REF
        return (Target(event=event, at=at, ref=delivery.ref, sha=delivery.sha),)
    if event in _OF_AN_INDEX and delivery.sha:
        ref = delivery.ref or default.ref
        return (Target(event=event, at=At.GIVEN, ref=ref, sha=delivery.sha),)
    return (default,)


def _pull_request(delivery: DeliveryReceived, event: str) -> Target:
    if delivery.merged:
        at = At.GIVEN if delivery.merge_sha else At.REF
        return Target(event=event, at=at, ref=delivery.ref, sha=delivery.merge_sha)
    return Target(event=event, at=At.MERGE, ref=delivery.ref)
