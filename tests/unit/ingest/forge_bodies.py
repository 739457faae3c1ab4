"""Bodies in the shapes that forges document, made small, and rows that say what becomes of them.

A row gives the event header, the body, and what the fact must say; `event.x.y` is a value of the
payload that workflows see as `github.event`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ingest.forges import WebhookRequest, received
from schemas.events import DeliveryReceived

Json = dict[str, Any]

OLD, NEW, TAG, MERGED = "a" * 40, "b" * 40, "c" * 40, "d" * 40
NULL = "0" * 40
REPO = {"id": 5, "full_name": "ada/demo", "default_branch": "main", "private": False}
FORK = {"id": 6, "full_name": "eve/demo", "default_branch": "main", "fork": True}
ADA = {"login": "ada", "id": 1}
HEAD = {"id": NEW, "message": "Second"}


def about(**more: Any) -> Json:
    """Return what every body of GitHub has."""
    return {"repository": REPO, "sender": ADA, **more}


def push(**more: Any) -> Json:
    """Return GitHub's push of one commit to main."""
    body = {
        "ref": "refs/heads/main", "before": OLD, "after": NEW, "created": False, "deleted": False,
        "forced": False, "base_ref": None, "commits": [HEAD], "head_commit": HEAD,
        "pusher": {"name": "ada"},
    }  # fmt: skip
    return about(**{**body, **more})


def pull(**more: Any) -> Json:
    """Return a pull request's object."""
    return {
        "number": 7, "title": "Topic", "state": "open", "draft": False, "merged": False,
        "merge_commit_sha": TAG,
        "head": {"ref": "topic", "sha": NEW, "repo": REPO, "label": "ada:topic"},
        "base": {"ref": "main", "sha": OLD, "repo": REPO, "label": "ada:main"}, **more,
    }  # fmt: skip


def pull_request(action: str, of: Json | None = None, **more: Any) -> Json:
    """Return GitHub's body about a pull request."""
    return about(action=action, number=7, pull_request=of or pull(), **more)


def from_fork(repo: Json | None) -> Json:
    """Return a pull request whose branch lies elsewhere; None: the fork was deleted."""
    return pull(head={"ref": "topic", "sha": NEW, "repo": repo, "label": "eve:topic"})


# --------------------------------------------------------------------- Gitea

GITEA_ADA = {"id": 1, "login": "", "username": "ada"}


def gitea_pull_request(action: str, of: Json | None = None, **more: Any) -> Json:
    """Return Gitea's body about a pull request: it has no ids of commits at its top."""
    about_it = {"repository": REPO, "sender": ADA, "commit_id": ""}
    return {"action": action, "number": 7, "pull_request": of or pull(), **about_it, **more}


# --------------------------------------------------------------------- GitLab

PROJECT = {
    "id": 15, "path_with_namespace": "ada/demo", "default_branch": "main", "visibility_level": 0,
    "web_url": "https://gitlab.example/ada/demo",
}  # fmt: skip
OTHER_PROJECT = {**PROJECT, "id": 16, "path_with_namespace": "eve/demo"}
USER = {"id": 4, "username": "ada", "name": "Ada"}
BUG, DOCS = {"id": 1, "title": "bug"}, {"id": 2, "title": "docs"}
BOB = {"id": 9, "username": "bob"}


def gitlab(kind: str, **more: Any) -> Json:
    """Return what every body of GitLab has."""
    return {"object_kind": kind, "user": USER, "project": PROJECT, **more}


def gitlab_push(kind: str = "push", **more: Any) -> Json:
    """Return GitLab's push of one commit to main."""
    commit = {"id": NEW, "message": "Second", "author": {"name": "Ada", "email": "a@x"}}
    return {
        "object_kind": kind, "event_name": kind, "project": PROJECT, "user_username": "ada",
        "ref": "refs/heads/main", "before": OLD, "after": NEW, "checkout_sha": NEW,
        "commits": [commit], "total_commits_count": 1, **more,
    }  # fmt: skip


def merge_request(action: str = "update", changes: Json | None = None, **more: Any) -> Json:
    """Return GitLab's body about a merge request."""
    attributes = {
        "id": 99, "iid": 7, "title": "Topic", "state": "opened", "action": action,
        "source_branch": "topic", "target_branch": "main", "source_project_id": 15,
        "target_project_id": 15, "source": PROJECT, "target": PROJECT,
        "last_commit": {"id": NEW, "message": "Second"}, **more,
    }  # fmt: skip
    return gitlab("merge_request", object_attributes=attributes, changes=changes or {})


def change(previous: Any, current: Any) -> Json:
    """Return what GitLab says of a field that changed."""
    return {"previous": previous, "current": current}


def note(**more: Any) -> Json:
    """Return GitLab's body about a comment."""
    return gitlab("note", object_attributes={"id": 3, "note": "hm", **more})


def noted_merge_request() -> Json:
    """Return the merge request that a comment is about."""
    attributes: Json = merge_request()["object_attributes"]
    return {k: v for k, v in attributes.items() if k != "action"}


# --------------------------------------------------------------------- rows

PULL = "refs/pull/7/merge"
OF_MAIN = {"ref": "refs/heads/main", "before": OLD, "sha": NEW, "actor": "ada"}
OPENED = {"ref": PULL, "sha": NEW, "base_sha": OLD, "number": 7, "head_ref": "topic",
          "base_ref": "main", "fork": False, "merged": False, "merge_sha": ""}  # fmt: skip
HEADERS = {"github": "x-github-event", "gitea": "x-gitea-event", "gitlab": "x-gitlab-event",
           "gogs": "x-gogs-event", "git": "x-tailrace-event"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A request and what must be said of it."""

    claim: str
    event: str
    body: Any
    facts: Json = field(default_factory=dict)


def read(
    provider: str, event: str, body: object, headers: dict[str, str] | None = None
) -> DeliveryReceived:
    """Return the fact of a request; a body that is bytes is sent as it is."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = headers or {HEADERS[provider]: event}
    return received(
        provider,
        WebhookRequest(repository="ada/demo", headers=given, body=raw, sha256="5" * 64,
                       size=len(raw), received_at=1_000, default_branch="trunk"),
    )  # fmt: skip


def said(fact: DeliveryReceived, name: str) -> Any:
    """Return a fact, or a value of the payload."""
    if not name.startswith("event."):
        return getattr(fact, name)
    value: Any = json.loads(fact.payload_json or "{}")
    for part in name.split(".")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def check(provider: str, row: Row) -> None:
    """A row's facts are what the fact says; and its event, unless the row names another."""
    fact = read(provider, row.event, row.body)
    wanted = {"event": row.event, "inert": "", **row.facts}
    if provider == "gitlab":
        wanted = {"inert": "", **row.facts}
    assert {name: said(fact, name) for name in wanted} == wanted
    assert fact.provider == provider
