"""GitLab's webhooks, brought into GitHub's names and shape.

The fields are those of GitLab's documentation, "Webhook events". Push, tag push and merge request
become push and pull_request; notes, issues and releases their namesakes. The rest keeps its own
name behind `gitlab_`: it is recorded and starts nothing.
"""

from __future__ import annotations

from typing import Any

from ingest.forges import facts
from ingest.forges.request import (
    BodyError,
    Json,
    WebhookRequest,
    delivery_id,
    event_name,
    is_null,
    items,
    obj,
    parsed,
    text,
)
from schemas.events import DeliveryReceived, Provider

_MERGE_REQUEST_ACTIONS = {
    "open": "opened",
    "reopen": "reopened",
    "close": "closed",
    "merge": "closed",
    "update": "edited",
}
_REVIEWS = {
    "approved": "approved",
    "approval": "approved",
    "unapproved": "dismissed",
    "unapproval": "dismissed",
}
_ISSUE_ACTIONS = {"open": "opened", "reopen": "reopened", "close": "closed", "update": "edited"}
_RELEASE_ACTIONS = {"create": "published", "update": "edited", "delete": "deleted"}
_PUBLIC = 20


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a GitLab webhook."""
    header = request.header("x-gitlab-event")
    if not header:
        raise BodyError("X-Gitlab-Event is missing; expected, for instance, Push Hook")
    body = parsed(request.body)
    kind = text(body.get("object_kind") or body.get("event_name"))
    _check_kind(header, kind)
    event, shaped = _shaped(kind, body)
    return facts.received(
        request,
        provider=Provider.GITLAB,
        event=event,
        delivery_id=delivery_id(Provider.GITLAB, _delivery(request), request),
        body=shaped,
    )


def _delivery(request: WebhookRequest) -> str:
    """Idempotency-Key stays the same when GitLab tries again.

    X-Gitlab-Event-UUID alone would not do: hooks set off by other hooks share it.
    """
    key = request.header("idempotency-key")
    if key:
        return key
    event = request.header("x-gitlab-event-uuid", "x-request-id")
    return f"{event}.{request.sha256[:16]}" if event else ""


#: What the header must be for the bodies that we read; GitLab sends system hooks as well.
_HEADER_BY_KIND = {
    "push": ("Push Hook",),
    "tag_push": ("Tag Push Hook",),
    "merge_request": ("Merge Request Hook",),
    "note": ("Note Hook", "Confidential Note Hook"),
    "issue": ("Issue Hook", "Confidential Issue Hook"),
    "work_item": ("Issue Hook", "Work Item Hook", "Confidential Issue Hook"),
    "release": ("Release Hook",),
}
_KIND_BY_HEADER = {header: kind for kind, headers in _HEADER_BY_KIND.items() for header in headers}


def _check_kind(header: str, kind: str) -> None:
    if header in ("System Hook", "Service Hook"):
        return
    known = _HEADER_BY_KIND.get(kind)
    if (known is not None and header not in known) or (known is None and header in _KIND_BY_HEADER):
        raise BodyError(f"X-Gitlab-Event is {header[:80]!r} but the body's object_kind is {kind!r}")


def _shaped(kind: str, body: Json) -> tuple[str, Json]:
    base = {"repository": _repository(obj(body.get("project"))), "sender": _sender(body)}
    match kind:
        case "push" | "tag_push":
            return "push", {**_push(body), **base}
        case "merge_request":
            event, shaped = _merge_request(body)
            return event, {**shaped, **base}
        case "note":
            return "issue_comment", {**_note(body), **base}
        case "issue" | "work_item":
            return "issues", {**_issue(body), **base}
        case "release":
            return "release", {**_release(body), **base}
        case _:
            name = event_name(f"gitlab_{kind}".lower(), "object_kind")
            return name, {**body, **base}


def _repository(project: Json) -> Json:
    """GitHub's repository object from GitLab's project."""
    path = text(project.get("path_with_namespace"))
    owner, _, name = path.rpartition("/")
    web = text(project.get("web_url"))
    return {
        "id": project.get("id"),
        "name": name,
        "full_name": path,
        "owner": {"login": owner, "type": "Organization"},
        "description": project.get("description"),
        "html_url": web,
        "url": web,
        "clone_url": project.get("git_http_url"),
        "ssh_url": project.get("git_ssh_url"),
        "default_branch": project.get("default_branch"),
        "private": project.get("visibility_level") != _PUBLIC,
        "fork": False,
    }


def _sender(body: Json) -> Json:
    """Who did it: a `user` object, or the `user_*` fields of a push."""
    user = obj(body.get("user"))
    return {
        "id": user.get("id", body.get("user_id")),
        "login": user.get("username") or body.get("user_username") or body.get("user_name") or "",
        "name": user.get("name") or body.get("user_name"),
        "email": user.get("email") or body.get("user_email"),
        "avatar_url": user.get("avatar_url") or body.get("user_avatar"),
        "type": "User",
    }


def _commit(commit: Json) -> Json:
    author = obj(commit.get("author"))
    return {
        "id": commit.get("id"),
        "message": commit.get("message"),
        "timestamp": commit.get("timestamp"),
        "url": commit.get("url"),
        "distinct": True,
        "author": author,
        "committer": author,
        "added": commit.get("added") or [],
        "removed": commit.get("removed") or [],
        "modified": commit.get("modified") or [],
    }


def _push(body: Json) -> Json:
    before, after = body.get("before"), body.get("after")
    commits = [_commit(commit) for commit in items(body.get("commits"))]
    checkout = body.get("checkout_sha")
    # `after` of an annotated tag is the tag object; checkout_sha is the commit
    head: Json | None = next((c for c in commits if c["id"] == checkout), None)
    if head is None and isinstance(checkout, str):
        head = {"id": checkout, "message": body.get("message") or ""}
    sender = _sender(body)
    web = text(obj(body.get("project")).get("web_url"))
    return {
        "ref": body.get("ref"),
        "before": before,
        "after": after,
        "base_ref": None,
        "created": isinstance(before, str) and is_null(before),
        "deleted": isinstance(after, str) and is_null(after),
        "compare": f"{web}/-/compare/{before}...{after}",
        "commits": commits,
        "head_commit": head,
        "total_commits": body.get("total_commits_count"),
        "pusher": {"name": sender["login"], "email": sender["email"]},
    }


def _merge_request(body: Json) -> tuple[str, Json]:
    attributes = body.get("object_attributes")
    if not isinstance(attributes, dict):
        raise BodyError("`object_attributes` is missing; expected an object")
    action = text(attributes.get("action"))
    shaped: Json = {
        "action": _merge_request_action(action, attributes),
        "number": attributes.get("iid"),
        "pull_request": _pull_request(body, attributes),
    }
    oldrev = attributes.get("oldrev")
    if oldrev:
        shaped |= {"before": oldrev, "after": obj(attributes.get("last_commit")).get("id")}
    if body.get("changes"):
        shaped["changes"] = body["changes"]
    if action in _REVIEWS:
        shaped |= {
            "action": "dismissed" if _REVIEWS[action] == "dismissed" else "submitted",
            "review": {"state": _REVIEWS[action], "user": _sender(body)},
        }
        return "pull_request_review", shaped
    return "pull_request", shaped


def _merge_request_action(action: str, attributes: Json) -> str:
    # an update with `oldrev` is a push to the source branch
    if action == "update" and attributes.get("oldrev"):
        return "synchronize"
    return _MERGE_REQUEST_ACTIONS.get(action, action or "edited")


def _pull_request(body: Json, attributes: Json) -> Json:
    state = text(attributes.get("state"))
    return {
        "id": attributes.get("id"),
        "number": attributes.get("iid"),
        "title": attributes.get("title"),
        "body": attributes.get("description"),
        "state": "open" if state in ("opened", "locked", "") else "closed",
        "draft": bool(attributes.get("draft") or attributes.get("work_in_progress")),
        "merged": state == "merged" or attributes.get("action") == "merge",
        "merge_commit_sha": attributes.get("merge_commit_sha"),
        "html_url": attributes.get("url"),
        "url": attributes.get("url"),
        "user": {"id": attributes.get("author_id")},
        "labels": [{"name": label.get("title")} for label in items(body.get("labels"))],
        "assignees": [_person(user) for user in items(body.get("assignees"))],
        "requested_reviewers": [_person(user) for user in items(body.get("reviewers"))],
        "head": _side(attributes, "source", obj(attributes.get("last_commit")).get("id")),
        "base": _side(attributes, "target", None),
        "created_at": attributes.get("created_at"),
        "updated_at": attributes.get("updated_at"),
    }


def _side(attributes: Json, side: str, sha: Any) -> Json:
    repository = _repository(obj(attributes.get(side)))
    if repository["id"] is None:
        repository["id"] = attributes.get(f"{side}_project_id")
    branch = attributes.get(f"{side}_branch")
    owner = repository["owner"]["login"]
    return {
        "ref": branch,
        "sha": sha,
        "label": f"{owner}:{branch}" if owner else branch,
        "repo": repository,
    }


def _person(user: Json) -> Json:
    return {"id": user.get("id"), "login": user.get("username"), "name": user.get("name")}


def _note(body: Json) -> Json:
    note = obj(body.get("object_attributes"))
    on = obj(body.get("merge_request")) or obj(body.get("issue"))
    issue: Json = {"number": on.get("iid"), "title": on.get("title")} if on.get("iid") else {}
    if body.get("merge_request"):
        issue["pull_request"] = {"html_url": on.get("url")}
    return {
        "action": "edited" if note.get("action") == "update" else "created",
        "comment": {"id": note.get("id"), "body": note.get("note"), "html_url": note.get("url")},
        "issue": issue,
    }


def _issue(body: Json) -> Json:
    issue = obj(body.get("object_attributes"))
    action = text(issue.get("action"))
    return {
        "action": _ISSUE_ACTIONS.get(action, action or "edited"),
        "issue": {
            "number": issue.get("iid"),
            "title": issue.get("title"),
            "body": issue.get("description"),
            "html_url": issue.get("url"),
            "state": "closed" if issue.get("state") == "closed" else "open",
            "labels": [{"name": label.get("title")} for label in items(body.get("labels"))],
        },
    }


def _release(body: Json) -> Json:
    return {
        "action": _RELEASE_ACTIONS.get(text(body.get("action")), "published"),
        "release": {
            "id": body.get("id"),
            "tag_name": body.get("tag"),
            "name": body.get("name"),
            "body": body.get("description"),
            "html_url": body.get("url"),
            "created_at": body.get("created_at"),
            "draft": False,
            "prerelease": False,
        },
    }
