"""GitLab's bodies to facts, event by event: one row a shape."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.ingest.forge_bodies import (
    BOB,
    BUG,
    DOCS,
    MERGED,
    NEW,
    NULL,
    OF_MAIN,
    OLD,
    OTHER_PROJECT,
    PROJECT,
    PULL,
    TAG,
    Json,
    Row,
    change,
    check,
    gitlab,
    gitlab_push,
    merge_request,
    note,
    noted_merge_request,
)

OF_REQUEST = {"ref": PULL, "sha": NEW, "number": 7, "head_ref": "topic", "base_ref": "main",
              "fork": False}  # fmt: skip
ISSUE = {"iid": 3, "title": "Crash", "state": "opened"}


def issue(action: str, **changes: Json) -> Json:
    """Return GitLab's body about an issue."""
    return gitlab("issue", object_attributes={**ISSUE, "action": action}, changes=changes)


def milestone(action: str) -> Json:
    """Return GitLab's body about a milestone."""
    return gitlab("milestone", object_attributes={"iid": 2, "title": "2.0", "action": action})


def requested(action: str, **more: Any) -> Json:
    """Return what the fact of a merge request says."""
    return {**OF_REQUEST, "event": "pull_request", "action": action, **more}


GITLAB = (
    Row("a push", "Push Hook", gitlab_push(), {**OF_MAIN, "event": "push", "message": "Second"}),
    Row("a new branch", "Push Hook", gitlab_push(before=NULL),
        {"sha": NEW, "before": NULL, "event.created": True}),
    Row("a deleted branch", "Push Hook",
        gitlab_push(after=NULL, checkout_sha=None, commits=[], total_commits_count=0),
        {"deleted": True, "sha": "", "event.deleted": True}),
    Row("a push whose commits are not listed", "Push Hook",
        gitlab_push(commits=[], total_commits_count=21), {**OF_MAIN, "message": ""}),
    Row("a push that GitLab would not check out", "Push Hook",
        gitlab_push(checkout_sha=None, commits=[]), OF_MAIN),
    Row("a system hook", "System Hook", gitlab_push(), {"event": "push", "sha": NEW}),
    Row("an annotated tag is about its commit", "Tag Push Hook",
        gitlab_push("tag_push", ref="refs/tags/v1", before=NULL, after=TAG, commits=[],
                    message="Release one"),
        {"event": "push", "ref": "refs/tags/v1", "sha": NEW, "message": "Release one"}),
    Row("a deleted tag", "Tag Push Hook",
        gitlab_push("tag_push", ref="refs/tags/v1", after=NULL, checkout_sha=None, commits=[]),
        {"deleted": True, "sha": ""}),
    Row("a merge request", "Merge Request Hook", merge_request("open"), requested("opened")),
    Row("a reopened one", "Merge Request Hook", merge_request("reopen"), requested("reopened")),
    Row("a closed one", "Merge Request Hook", merge_request("close", state="closed"),
        requested("closed", merged=False)),
    Row("a merged one", "Merge Request Hook",
        merge_request("merge", state="merged", merge_commit_sha=MERGED),
        {"action": "closed", "merged": True, "merge_sha": MERGED, "ref": "refs/heads/main"}),
    Row("a squashed one", "Merge Request Hook",
        merge_request("merge", state="merged", merge_commit_sha=None, squash_commit_sha=TAG),
        {"merged": True, "merge_sha": TAG}),
    Row("new commits, whatever else changed", "Merge Request Hook",
        merge_request("update", {"labels": change([], [BUG])}, oldrev=OLD),
        requested("synchronize", before=OLD)),
    Row("from a fork", "Merge Request Hook",
        merge_request("open", source=OTHER_PROJECT, source_project_id=16),
        {"fork": True, "head_repository": "eve/demo"}),
    Row("from a fork that was deleted", "Merge Request Hook",
        merge_request("close", source=None, source_project_id=None), {"fork": True}),
    Row("a label", "Merge Request Hook",
        merge_request("update", {"labels": change([BUG], [BUG, DOCS])}),
        requested("labeled", **{"event.label.name": "docs"})),
    Row("a label taken away", "Merge Request Hook",
        merge_request("update", {"labels": change([BUG, DOCS], [BUG])}),
        requested("unlabeled", **{"event.label.name": "docs"})),
    Row("a review asked for", "Merge Request Hook",
        merge_request("update", {"reviewers": change([], [BOB])}),
        requested("review_requested", **{"event.requested_reviewer.login": "bob"})),
    Row("somebody assigned", "Merge Request Hook",
        merge_request("update", {"assignees": change([], [BOB])}), requested("assigned")),
    Row("no longer a draft", "Merge Request Hook",
        merge_request("update", {"draft": change(previous=True, current=False),
                                 "title": change("Draft: Topic", "Topic")}),
        requested("ready_for_review")),
    Row("a draft again", "Merge Request Hook",
        merge_request("update", {"draft": change(previous=False, current=True)}),
        requested("converted_to_draft")),
    Row("a milestone set", "Merge Request Hook",
        merge_request("update", {"milestone_id": change(None, 5)}), requested("milestoned")),
    Row("another title", "Merge Request Hook",
        merge_request("update", {"title": change("A", "B")}), requested("edited")),
    Row("an approval", "Merge Request Hook", merge_request("approved"),
        {"event": "pull_request_review", "action": "submitted", "event.review.state": "approved"}),
    Row("an approval taken back", "Merge Request Hook", merge_request("unapproval"),
        {"event": "pull_request_review", "action": "dismissed"}),
    Row("a comment below an issue", "Note Hook", note() | {"issue": ISSUE},
        {"event": "issue_comment", "number": 3, "action": "created", "message": "Crash"}),
    Row("a confidential one", "Confidential Note Hook", note(action="update") | {"issue": ISSUE},
        {"event": "issue_comment", "action": "edited"}),
    Row("a comment below a merge request", "Note Hook",
        note() | {"merge_request": noted_merge_request()},
        {"event": "issue_comment", "number": 7, "event.issue.pull_request": {"html_url": None}}),
    Row("a comment in a diff", "Note Hook",
        note(type="DiffNote") | {"merge_request": noted_merge_request()},
        {**OF_REQUEST, "event": "pull_request_review_comment", "action": "created"}),
    Row("a comment on a commit", "Note Hook", note() | {"commit": {"id": NEW}},
        {"event": "commit_comment"}),
    Row("a comment on a snippet", "Note Hook", note() | {"snippet": {"id": 1}},
        {"event": "gitlab_note"}),
    Row("an issue", "Issue Hook", issue("open"), {"event": "issues", "action": "opened",
                                                  "number": 3}),
    Row("an issue's label", "Issue Hook", issue("update", labels=change([], [BUG])),
        {"action": "labeled", "event.label.name": "bug"}),
    Row("a work item", "Work Item Hook",
        gitlab("work_item", object_attributes={**ISSUE, "action": "close", "state": "closed"}),
        {"event": "issues", "action": "closed", "event.issue.state": "closed"}),
    Row("a release", "Release Hook", gitlab("release", action="create", tag="v1", name="One"),
        {"event": "release", "action": "published", "ref": "refs/tags/v1", "message": "One"}),
    Row("a changed release", "Release Hook", gitlab("release", action="update", tag="v1"),
        {"action": "edited"}),
    Row("a deleted release", "Release Hook", gitlab("release", action="delete", tag="v1"),
        {"action": "deleted"}),
    Row("a milestone", "Milestone Hook", milestone("create"),
        {"event": "milestone", "action": "created", "number": 2, "message": "2.0"}),
    Row("a reopened milestone", "Milestone Hook", milestone("reopen"), {"action": "opened"}),
    Row("a wiki page", "Wiki Page Hook",
        gitlab("wiki_page",
               object_attributes={"slug": "home", "title": "Home", "action": "create"}),
        {"event": "gollum", "action": "", "event.pages.0.action": "created"}),
    *(Row(f"{kind} starts nothing", f"{kind} hook", gitlab(kind), {"event": f"gitlab_{kind}"})
      for kind in ("pipeline", "build", "deployment", "feature_flag", "emoji", "vulnerability",
                   "access_token")),
    Row("a private project", "Push Hook", gitlab_push(),
        {"event.repository.private": True, "default_branch": "main"}),
    Row("a public project", "Push Hook",
        gitlab_push(project={**PROJECT, "visibility_level": 20}),
        {"event.repository.private": False}),
)  # fmt: skip


@pytest.mark.parametrize("row", GITLAB, ids=lambda row: row.claim)
def test_gitlab(row: Row) -> None:
    """A merge request is a pull request; an update has the name of what it changed."""
    check("gitlab", row)
