"""Bodies to facts: what the recorded deliveries do not have, as data."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from ingest.forges import BodyError, WebhookRequest, received
from schemas.events import DeliveryReceived

OLD, NEW, TAG = "a" * 40, "b" * 40, "c" * 40
NULL = "0" * 40

PROJECT = {
    "id": 15,
    "name": "Diaspora",
    "path_with_namespace": "mike/sub/diaspora",
    "web_url": "https://gitlab.example/mike/sub/diaspora",
    "git_http_url": "https://gitlab.example/mike/sub/diaspora.git",
    "git_ssh_url": "git@gitlab.example:mike/sub/diaspora.git",
    "visibility_level": 20,
    "default_branch": "master",
}
FORK = {**PROJECT, "id": 16, "path_with_namespace": "eve/diaspora"}
USER = {"id": 1, "name": "John Smith", "username": "jsmith", "email": "john@example.com"}
GITLAB_PUSH = {
    "object_kind": "push",
    "event_name": "push",
    "before": OLD,
    "after": NEW,
    "ref": "refs/heads/master",
    "checkout_sha": NEW,
    "user_id": 4,
    "user_name": "John Smith",
    "user_username": "jsmith",
    "user_email": "john@example.com",
    "project_id": 15,
    "project": PROJECT,
    "commits": [
        {"id": OLD, "message": "older", "author": {"name": "J", "email": "j@x"}, "added": ["a"]},
        {"id": NEW, "message": "newer", "author": {"name": "J", "email": "j@x"}, "modified": ["b"]},
    ],
    "total_commits_count": 2,
}
MERGE_REQUEST: dict[str, Any] = {
    "object_kind": "merge_request",
    "event_type": "merge_request",
    "user": USER,
    "project": PROJECT,
    "labels": [{"title": "API"}],
    "object_attributes": {
        "id": 99,
        "iid": 7,
        "title": "MS-Viewport",
        "state": "opened",
        "action": "open",
        "source_branch": "ms-viewport",
        "target_branch": "master",
        "source_project_id": 15,
        "target_project_id": 15,
        "source": PROJECT,
        "target": PROJECT,
        "last_commit": {"id": NEW, "message": "fixed readme"},
        "draft": True,
        "url": "https://gitlab.example/mike/sub/diaspora/-/merge_requests/7",
    },
}


def gitlab(header: str, body: object, **headers: str) -> DeliveryReceived:
    """Return the fact of a GitLab request."""
    return read("gitlab", {"x-gitlab-event": header, **headers}, body)


def read(provider: str, headers: dict[str, str], body: object) -> DeliveryReceived:
    """Return the fact of a request."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return received(
        provider,
        WebhookRequest(
            repository="mike/diaspora",
            headers=headers,
            body=text,
            sha256="5" * 64,
            size=len(text),
            received_at=1_000,
            default_branch="trunk",
        ),
    )


def changed(**attributes: object) -> dict[str, Any]:
    """Return the merge request with other attributes."""
    return {
        **MERGE_REQUEST,
        "object_attributes": {**MERGE_REQUEST["object_attributes"], **attributes},
    }


def test_a_gitlab_push_is_a_push() -> None:
    """The facts and the GitHub-shaped payload come from the documented fields."""
    fact = gitlab("Push Hook", GITLAB_PUSH)
    payload = json.loads(fact.payload_json or "")

    assert (fact.event, fact.ref, fact.before, fact.sha) == ("push", "refs/heads/master", OLD, NEW)
    assert (fact.actor, fact.message, fact.default_branch) == ("jsmith", "newer", "master")
    assert payload["repository"]["full_name"] == "mike/sub/diaspora"
    assert payload["repository"]["owner"]["login"] == "mike/sub"
    assert payload["repository"]["private"] is False
    assert [commit["id"] for commit in payload["commits"]] == [OLD, NEW]
    assert payload["head_commit"]["message"] == "newer"
    assert payload["sender"]["login"] == payload["pusher"]["name"] == "jsmith"
    assert (payload["created"], payload["deleted"]) == (False, False)


def test_a_gitlab_tag_push_is_a_push_of_the_tags_commit() -> None:
    """`after` of an annotated tag is the tag object; the commit is checkout_sha."""
    fact = gitlab(
        "Tag Push Hook",
        {**GITLAB_PUSH, "object_kind": "tag_push", "ref": "refs/tags/v1", "before": NULL,
         "after": TAG, "commits": [], "message": "Tag message"},
    )  # fmt: skip

    assert (fact.event, fact.ref, fact.sha) == ("push", "refs/tags/v1", NEW)


def test_a_deleted_gitlab_branch_has_no_commit() -> None:
    """checkout_sha is null when the branch is gone."""
    fact = gitlab("Push Hook", {**GITLAB_PUSH, "after": NULL, "checkout_sha": None, "commits": []})

    assert (fact.deleted, fact.sha) == (True, "")


@pytest.mark.parametrize(
    ("body", "event", "action"),
    [
        (MERGE_REQUEST, "pull_request", "opened"),
        (changed(action="reopen"), "pull_request", "reopened"),
        (changed(action="close", state="closed"), "pull_request", "closed"),
        (changed(action="update"), "pull_request", "edited"),
        (changed(action="update", oldrev=OLD), "pull_request", "synchronize"),
        (changed(action="approved"), "pull_request_review", "submitted"),
        (changed(action="unapproved"), "pull_request_review", "dismissed"),
    ],
)
def test_a_gitlab_merge_request_has_githubs_action(
    body: dict[str, Any], event: str, action: str
) -> None:
    """A push to the source branch is an update with `oldrev`."""
    fact = gitlab("Merge Request Hook", body)

    assert (fact.event, fact.action, fact.number, fact.sha) == (event, action, 7, NEW)
    assert (fact.head_ref, fact.base_ref, fact.fork) == ("ms-viewport", "master", False)
    assert fact.ref == "refs/pull/7/merge"
    assert json.loads(fact.payload_json or "")["pull_request"]["draft"] is True


def test_a_merge_request_from_another_project_is_a_fork() -> None:
    """Only a head that lies in the base's own project is trusted."""
    fact = gitlab("Merge Request Hook", changed(source=FORK, source_project_id=16))

    assert (fact.fork, fact.head_repository) == (True, "eve/diaspora")


def test_a_merged_merge_request_is_about_its_target_branch() -> None:
    """As on GitHub, its ref is the branch that it went into."""
    fact = gitlab(
        "Merge Request Hook", changed(action="merge", state="merged", merge_commit_sha=TAG)
    )

    assert (fact.merged, fact.action, fact.ref, fact.merge_sha) == (
        True, "closed", "refs/heads/master", TAG,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "kind", "event"),
    [
        ("Note Hook", "note", "gitlab_note"),
        ("Issue Hook", "issue", "issues"),
        ("Pipeline Hook", "pipeline", "gitlab_pipeline"),
        ("Job Hook", "build", "gitlab_build"),
    ],
)
def test_other_gitlab_events_are_recorded(header: str, kind: str, event: str) -> None:
    """What starts nothing leaves an event all the same."""
    fact = gitlab(header, {"object_kind": kind, "user": USER, "project": PROJECT})

    assert (fact.event, fact.actor) == (event, "jsmith")


def test_a_gitlab_retry_has_the_id_of_the_first_try() -> None:
    """GitLab's Idempotency-Key names the delivery; its event UUID alone is shared by others."""
    first = gitlab("Push Hook", GITLAB_PUSH, **{"idempotency-key": "k-1"})
    shared = gitlab("Push Hook", GITLAB_PUSH, **{"x-gitlab-event-uuid": "u-1"})

    assert first.delivery_id == "gitlab:mike/diaspora:k-1"
    assert shared.delivery_id == f"gitlab:mike/diaspora:u-1.{'5' * 16}"


GITHUB_PUSH = {"ref": "refs/heads/main", "before": OLD, "after": NEW}


@pytest.mark.parametrize(
    ("given", "delivery_id"),
    [
        (
            "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "github:mike/diaspora:72d3162e-cc78-11e3-81ab-4c9367dc0958",
        ),
        ("", f"github:mike/diaspora:sha256-{'5' * 40}"),
        ("a b", f"github:mike/diaspora:id-{sha256(b'a b').hexdigest()[:40]}"),
        ("x" * 1000, f"github:mike/diaspora:id-{sha256(b'x' * 1000).hexdigest()[:40]}"),
    ],
)
def test_a_delivery_has_a_usable_id(given: str, delivery_id: str) -> None:
    """One without an id is named by its bytes; one that no id should be is hashed."""
    fact = read("github", {"x-github-event": "push", "x-github-delivery": given}, GITHUB_PUSH)

    assert fact.delivery_id == delivery_id


@pytest.mark.parametrize(
    ("provider", "headers", "body", "names"),
    [
        ("github", {"x-github-event": "push"}, b"{", "not JSON"),
        ("github", {"x-github-event": "push"}, b"[]", "an object"),
        ("github", {"x-github-event": "push"}, b"[" * 100_000, "nested"),
        ("github", {"x-github-event": "push"}, b'{"a": "\xff"}', "not JSON"),
        ("github", {}, {}, "X-GitHub-Event"),
        ("github", {"x-github-event": "Push It"}, {}, "X-GitHub-Event"),
        ("github", {"x-github-event": "push"}, {"zen": "hi"}, "`ref`"),
        ("github", {"x-github-event": "push"}, {**GITHUB_PUSH, "after": "main"}, "`after`"),
        ("github", {"x-github-event": "push"}, {**GITHUB_PUSH, "ref": "main"}, "`ref`"),
        ("github", {"x-github-event": "push"}, {**GITHUB_PUSH, "ref": "refs/heads/a b"}, "`ref`"),
        ("github", {"x-github-event": "push"}, {**GITHUB_PUSH, "ref": "refs/heads/-a/.."}, "`ref`"),
        ("github", {"x-github-event": "pull_request"}, {}, "`pull_request`"),
        ("github", {"x-github-event": "pull_request"}, {"pull_request": {"number": -1}}, "number"),
        ("github", {"x-github-event": "create"}, {"ref": "x", "ref_type": "note"}, "`ref_type`"),
        ("github", {"x-github-event": "release"}, {"action": "published"}, "`release`"),
        ("gitea", {"x-gitea-event": "pull_request"}, {"action": "opened"}, "`pull_request`"),
        ("gitlab", {"x-gitlab-event": "Push Hook"}, {"object_kind": "note"}, "object_kind"),
        ("gitlab", {"x-gitlab-event": "Job Hook"}, {"object_kind": "push"}, "object_kind"),
        ("gitlab", {}, {"object_kind": "push"}, "X-Gitlab-Event"),
        ("git", {"x-tailrace-event": "issues"}, {}, "X-Tailrace-Event"),
    ],
)
def test_a_body_that_is_not_what_its_header_says_is_refused(
    provider: str, headers: dict[str, str], body: object, names: str
) -> None:
    """The message names the field and what was expected there."""
    with pytest.raises(BodyError, match=names):
        read(provider, headers, body)


def test_giteas_own_header_is_looked_at_before_githubs() -> None:
    """Gitea sends both, and GitHub's with a name that means less there."""
    headers = {"x-github-event": "issues", "x-gitea-event": "push"}

    assert read("gitea", headers, GITHUB_PUSH).event == "push"


def test_a_gitea_push_lists_its_oldest_commit_first() -> None:
    """As GitHub does; Gitea's newest comes first, and only five of them."""
    commits = [{"id": NEW, "message": "new"}, {"id": OLD, "message": "old"}]
    fact = read("gitea", {"x-gitea-event": "push"}, {**GITHUB_PUSH, "commits": commits})
    payload = json.loads(fact.payload_json or "")

    assert [commit["id"] for commit in payload["commits"]] == [OLD, NEW]
    assert payload["head_commit"]["id"] == NEW
    assert fact.message == "new"


def test_a_pull_request_whose_head_is_gone_counts_as_a_fork() -> None:
    """A deleted fork has no repository: what is not known to be ours is not trusted."""
    pull = {"number": 3, "head": {"ref": "x", "sha": NEW, "repo": None},
            "base": {"ref": "main", "sha": OLD, "repo": {"full_name": "a/b"}}}  # fmt: skip
    body = {"action": "opened", "number": 3, "pull_request": pull}

    assert read("github", {"x-github-event": "pull_request"}, body).fork is True


def test_text_for_people_is_cut_and_has_no_nul() -> None:
    """No column of the read models takes a NUL, and a title may be of any length."""
    body = {**GITHUB_PUSH, "head_commit": {"id": NEW, "message": "\x00m" * 5_000}}
    fact = read("github", {"x-github-event": "push"}, body)

    assert "\x00" not in fact.message
    assert len(fact.message) <= 4_096


def test_the_event_id_derives_from_repository_and_delivery() -> None:
    """The same delivery twice is one fact."""
    headers = {"x-github-event": "push", "x-github-delivery": "d-1"}
    one, two = (read("github", headers, GITHUB_PUSH) for _ in range(2))

    assert one.event_id == two.event_id


def github(event: str, body: object) -> DeliveryReceived:
    """Return the fact of a GitHub request."""
    return read("github", {"x-github-event": event, "x-github-delivery": "1"}, body)


def test_a_run_on_the_forge_names_its_workflow_and_branch() -> None:
    """What `workflows` and `branches` of a workflow_run trigger look at."""
    body = {"action": "completed", "workflow": {"name": "CI"}, "sender": {"login": "ada"},
            "workflow_run": {"name": "CI", "head_branch": "topic", "head_sha": NEW}}  # fmt: skip
    fact = github("workflow_run", body)

    assert (fact.workflow, fact.head_ref, fact.action, fact.sha) == ("CI", "topic", "completed", "")


@pytest.mark.parametrize(
    ("version", "ref", "sha"),
    [
        ({"target_oid": NEW, "target_commitish": "main"}, "refs/heads/main", NEW),
        ({"target_oid": NEW, "target_commitish": NEW}, "", NEW),
        ({"target_oid": "sha256:12", "target_commitish": "main"}, "", ""),
        ({}, "", ""),
    ],
)
def test_a_package_names_what_it_was_made_from(version: dict[str, str], ref: str, sha: str) -> None:
    """Where the forge says so; otherwise it is about the default branch."""
    body = {"action": "published", "registry_package": {"name": "p", "package_version": version}}
    fact = github("registry_package", body)

    assert (fact.ref, fact.sha, fact.message) == (ref, sha, "p")
