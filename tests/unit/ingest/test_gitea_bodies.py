"""Bodies of Gitea, Forgejo and Gogs to facts, event by event: one row a shape."""

from __future__ import annotations

import pytest

from tests.unit.ingest.forge_bodies import (
    ADA,
    FORK,
    GITEA_ADA,
    HEAD,
    MERGED,
    NEW,
    NULL,
    OF_MAIN,
    OLD,
    OPENED,
    PULL,
    REPO,
    Row,
    about,
    check,
    from_fork,
    gitea_pull_request,
    pull,
    push,
    read,
)

GITEA = (
    Row("a push lists its newest commit first", "push",
        {**push(commits=[HEAD, {"id": OLD, "message": "First"}]), "pusher": ADA},
        {**OF_MAIN, "event.commits.0.id": OLD, "event.created": False}),
    Row("a push of Gogs, without head_commit", "push",
        push(commits=[HEAD], head_commit=None), {**OF_MAIN, "message": "Second"}),
    Row("a push without commits", "push", push(commits=None, head_commit=None), OF_MAIN),
    Row("a deleted branch", "push", push(after=NULL, commits=[], head_commit=None),
        {"deleted": True, "sha": "", "event.deleted": True}),
    Row("new commits", "pull_request", gitea_pull_request("synchronized"),
        {**OPENED, "action": "synchronize", "event.after": NEW}),
    Row("changed labels", "pull_request", gitea_pull_request("label_updated"),
        {**OPENED, "action": "labeled"}),
    Row("cleared labels", "pull_request", gitea_pull_request("label_cleared"),
        {**OPENED, "action": "unlabeled"}),
    Row("new commits by their finer name alone", "pull_request_sync",
        gitea_pull_request("synchronized"), {"event": "pull_request", "action": "synchronize"}),
    Row("a review asked for", "pull_request", gitea_pull_request("review_requested"),
        {**OPENED, "action": "review_requested"}),
    Row("a milestone set", "pull_request", gitea_pull_request("milestoned"),
        {"action": "milestoned"}),
    Row("merged", "pull_request",
        gitea_pull_request("closed", pull(merged=True, merge_commit_sha=MERGED)),
        {"action": "closed", "merged": True, "merge_sha": MERGED, "ref": "refs/heads/main"}),
    Row("a branch that is gone is named beside the pull request's own ref", "pull_request",
        gitea_pull_request("closed", pull(
            head={"label": "topic", "ref": "refs/pull/7/head", "sha": NEW, "repo": REPO})),
        {"head_ref": "topic", "sha": NEW}),
    Row("from a fork that was deleted", "pull_request",
        gitea_pull_request("opened", from_fork(None)), {"fork": True, "sha": NEW}),
    Row("an approval", "pull_request_approved",
        gitea_pull_request("reviewed", review={"type": "pull_request_review_approved",
                                               "content": "good"}),
        {**OPENED, "event": "pull_request_review", "action": "submitted",
         "event.review.state": "approved", "event.review.body": "good"}),
    Row("a rejection", "pull_request_rejected", gitea_pull_request("reviewed", review={}),
        {"event": "pull_request_review", "event.review.state": "changes_requested"}),
    Row("a review that only comments", "pull_request_comment",
        gitea_pull_request("reviewed", review={"type": "pull_request_review_comment"}),
        {"event": "pull_request_review", "event.review.state": "commented"}),
    Row("a comment below a pull request", "issue_comment",
        about(action="created", is_pull=True, issue={"number": 7, "title": "Topic"},
              comment={"id": 1}),
        {"number": 7, "action": "created", "event.issue.pull_request": {"html_url": None}}),
    Row("the same by its finer name alone", "pull_request_comment",
        about(action="created", is_pull=True, issue={"number": 7}, comment={"id": 1}),
        {"event": "issue_comment", "number": 7}),
    Row("a comment below an issue", "issue_comment",
        about(action="edited", is_pull=False, issue={"number": 3, "pull_request": None}),
        {"number": 3, "action": "edited", "event.issue.pull_request": None}),
    Row("an issue's labels", "issues", about(action="label_updated", issue={"number": 3}),
        {"action": "labeled", "number": 3}),
    Row("an issue's labels by their finer name alone", "issue_label",
        about(action="label_cleared", issue={"number": 3}),
        {"event": "issues", "action": "unlabeled"}),
    Row("a changed release", "release", about(action="updated", release={"tag_name": "v1"}),
        {"action": "edited", "ref": "refs/tags/v1"}),
    Row("a release", "release", about(action="published", release={"tag_name": "v1"}),
        {"action": "published"}),
    Row("a wiki page", "wiki", about(action="created", page="Home", comment="first"),
        {"event": "gollum", "action": "", "event.pages.0.page_name": "Home",
         "event.pages.0.action": "created"}),
    Row("a package", "package",
        about(action="created", package={"name": "p", "version": "1", "repository": None}),
        {"event": "registry_package", "action": "published", "message": "p", "sha": ""}),
    Row("a created branch with its commit", "create", about(ref="x", ref_type="branch", sha=NEW),
        {"ref": "refs/heads/x", "sha": NEW, "event.master_branch": "main"}),
    Row("a created branch by its full name", "create",
        about(ref="refs/heads/x", ref_type="branch", sha=NEW), {"ref": "refs/heads/x"}),
    Row("a deleted tag", "delete", about(ref="v1", ref_type="tag", pusher_type="user"),
        {"ref": "refs/tags/v1", "deleted": True}),
    Row("a fork", "fork", about(forkee=FORK), {"message": "eve/demo"}),
    Row("a status", "status", about(sha=NEW, state="success", description="ok"),
        {"message": "ok"}),
    Row("a repository", "repository", about(action="created"), {"action": "created"}),
    Row("people by their user name", "push", push(sender=GITEA_ADA, pusher=GITEA_ADA),
        {"actor": "ada", "event.pusher.name": "ada"}),
)  # fmt: skip


@pytest.mark.parametrize("row", GITEA, ids=lambda row: row.claim)
def test_gitea(row: Row) -> None:
    """Names, actions and shapes are GitHub's."""
    check("gitea", row)


@pytest.mark.parametrize(
    ("headers", "event"),
    [
        ({"x-forgejo-event": "push", "x-github-event": "issues"}, "push"),
        ({"x-gitea-event": "", "x-gitea-event-type": "status"}, "status"),
        ({"x-gitea-event": "", "x-gitea-event-type": "package"}, "registry_package"),
        ({"x-gitea-event": "pull_request_approved",
          "x-gitea-event-type": "pull_request_review_approved"}, "pull_request_review"),
    ],
)  # fmt: skip
def test_gitea_names_an_event_in_several_headers(headers: dict[str, str], event: str) -> None:
    """Events without a general name have the finer one alone."""
    body = {**push(), **gitea_pull_request("reviewed"), "package": {"name": "p"}}

    assert read("gitea", "", body, headers).event == event


def test_a_delivery_of_forgejo_has_its_id() -> None:
    """Under a header of its own."""
    headers = {"x-forgejo-event": "push", "x-forgejo-delivery": "d1"}

    assert read("gitea", "", push(), headers).delivery_id == "gitea:ada/demo:d1"


GOGS = (
    Row("a pull request without commits", "pull_request",
        gitea_pull_request("opened", {"number": 7, "title": "Topic", "head_branch": "topic",
                                      "base_branch": "main", "head_repo": REPO,
                                      "base_repo": REPO}),
        {"sha": "", "head_ref": "topic", "base_ref": "main", "fork": False, "ref": PULL}),
    Row("a push", "push", push(head_commit=None), OF_MAIN),
    Row("a release", "release", about(action="published", release={"tag_name": "v1"}),
        {"ref": "refs/tags/v1"}),
)  # fmt: skip


@pytest.mark.parametrize("row", GOGS, ids=lambda row: row.claim)
def test_gogs(row: Row) -> None:
    """As Gitea, with less in the bodies."""
    check("gogs", row)
