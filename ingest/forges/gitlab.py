"""GitLab's webhooks, brought into GitHub's names and shape.

The fields are those of GitLab's documentation, "Webhook events". Push, tag push and merge request
become push and pull_request; notes, issues, releases, milestones and wiki pages their namesakes.
The rest keeps its own name behind `gitlab_`: it is recorded and starts nothing.
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
_MILESTONE_ACTIONS = {
    "create": "created",
    "close": "closed",
    "reopen": "opened",
    "activate": "opened",
    "update": "edited",
    "delete": "deleted",
}
_WIKI_ACTIONS = {"create": "created", "update": "edited", "delete": "deleted"}
#: Lists that an update changes: its field, GitHub's action for more and for fewer, GitHub's field.
_CHANGED_LISTS = (
    ("labels", "labeled", "unlabeled", "label"),
    ("reviewers", "review_requested", "review_request_removed", "requested_reviewer"),
    ("assignees", "assigned", "unassigned", "assignee"),
)
_PUBLIC = 20


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a GitLab webhook."""
    header = request.header("x-gitlab-event")
    if not header:
        raise BodyError("X-Gitlab-Event is missing; expected, for instance, Push Hook")
    body = parsed(request.body)
    kind = text(body.get("object_kind") or body.get("event_name"))
    if not kind:
        raise BodyError("`object_kind` is missing; expected, for instance, push")
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


#: What the header must be for the bodies that we read (before it, `Confidential` may stand).
_HEADER_BY_KIND = {
    "push": ("Push Hook",),
    "tag_push": ("Tag Push Hook",),
    "merge_request": ("Merge Request Hook",),
    "note": ("Note Hook",),
    "issue": ("Issue Hook",),
    "work_item": ("Issue Hook", "Work Item Hook"),
    "release": ("Release Hook",),
    "milestone": ("Milestone Hook",),
    "wiki_page": ("Wiki Page Hook",),
}
_KNOWN_HEADERS = frozenset(header for headers in _HEADER_BY_KIND.values() for header in headers)


def _check_kind(header: str, kind: str) -> None:
    # GitLab sends system hooks as well, with the bodies of any kind
    if header in ("System Hook", "Service Hook"):
        return
    known = _HEADER_BY_KIND.get(kind)
    plain = header.removeprefix("Confidential ")
    if (known is not None and plain not in known) or (known is None and plain in _KNOWN_HEADERS):
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
            event, shaped = _note(body)
            return event, {**shaped, **base}
        case "issue" | "work_item":
            return "issues", {**_issue(body), **base}
        case "release":
            return "release", {**_release(body), **base}
        case "milestone":
            return "milestone", {**_milestone(body), **base}
        case "wiki_page":
            return "gollum", {**_wiki(body), **base}
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
        "action": _MERGE_REQUEST_ACTIONS.get(action, action or "edited"),
        "number": attributes.get("iid"),
        "pull_request": _pull_request(body, attributes),
    }
    oldrev = attributes.get("oldrev")
    if oldrev:
        shaped |= {"before": oldrev, "after": obj(attributes.get("last_commit")).get("id")}
    if body.get("changes"):
        shaped["changes"] = body["changes"]
    if action == "update":
        # with `oldrev` it is a push to the source branch, whatever else changed
        shaped |= {"action": "synchronize"} if oldrev else _update(body)
    if action in _REVIEWS:
        shaped |= {
            "action": "dismissed" if _REVIEWS[action] == "dismissed" else "submitted",
            "review": {"state": _REVIEWS[action], "user": _sender(body)},
        }
        return "pull_request_review", shaped
    return "pull_request", shaped


def _update(body: Json) -> Json:
    """What an update says in GitHub's words: of several changes the one with an action of its own.

    Gives `action` and the part that goes with it (`label`, `assignee`, `requested_reviewer`).
    """
    changes = obj(body.get("changes"))
    draft = obj(changes.get("draft"))
    if "current" in draft:
        return {"action": "converted_to_draft" if draft["current"] else "ready_for_review"}
    for name, added, removed, part in _CHANGED_LISTS:
        change = obj(changes.get(name))
        before, now = items(change.get("previous")), items(change.get("current"))
        for action, more, fewer in ((added, now, before), (removed, before, now)):
            known = {_identity(item) for item in fewer}
            found = next((item for item in more if _identity(item) not in known), None)
            if found is not None:
                return {
                    "action": action,
                    part: _label(found) if part == "label" else _person(found),
                }
    if "milestone_id" in changes:
        current = obj(changes["milestone_id"]).get("current")
        return {"action": "milestoned" if current else "demilestoned"}
    return {"action": "edited"}


def _identity(item: Json) -> str:
    return str(item.get("id") or item.get("username") or item.get("title"))


def _label(label: Json) -> Json:
    return {"id": label.get("id"), "name": label.get("title"), "color": label.get("color")}


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
        # a squashed one that was fast-forwarded has no merge commit
        "merge_commit_sha": attributes.get("merge_commit_sha")
        or attributes.get("squash_commit_sha"),
        "html_url": attributes.get("url"),
        "url": attributes.get("url"),
        "user": {"id": attributes.get("author_id")},
        "labels": [_label(label) for label in items(body.get("labels"))],
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


def _note(body: Json) -> tuple[str, Json]:
    """A comment: of a merge request's diff, of a merge request or issue, or of a commit."""
    note, merge_request = obj(body.get("object_attributes")), obj(body.get("merge_request"))
    shaped: Json = {
        "action": "edited" if note.get("action") == "update" else "created",
        "comment": {
            "id": note.get("id"),
            "body": note.get("note"),
            "html_url": note.get("url"),
            "user": _sender(body),
        },
    }
    if merge_request and note.get("type") == "DiffNote":
        shaped["pull_request"] = _pull_request({}, merge_request)
        return "pull_request_review_comment", shaped
    on = merge_request or obj(body.get("issue"))
    if not on.get("iid"):
        # of a commit or a snippet: GitHub has an event for the first, which starts nothing either
        return ("commit_comment" if body.get("commit") else "gitlab_note"), {**body, **shaped}
    shaped["issue"] = {"number": on.get("iid"), "title": on.get("title"), "state": on.get("state")}
    if merge_request:
        shaped["issue"]["pull_request"] = {"html_url": on.get("url")}
    return "issue_comment", shaped


def _milestone(body: Json) -> Json:
    milestone = obj(body.get("object_attributes"))
    action = text(milestone.get("action") or body.get("action"))
    return {
        "action": _MILESTONE_ACTIONS.get(action, action or "edited"),
        "milestone": {
            "id": milestone.get("id"),
            "number": milestone.get("iid"),
            "title": milestone.get("title"),
            "description": milestone.get("description"),
            "due_on": milestone.get("due_date"),
            "state": "closed" if milestone.get("state") == "closed" else "open",
        },
    }


def _wiki(body: Json) -> Json:
    """GitHub's wiki event: a list of pages, and no action of the event's own."""
    page = obj(body.get("object_attributes"))
    action = text(page.get("action"))
    return {
        "pages": [
            {
                "page_name": page.get("slug"),
                "title": page.get("title"),
                "action": _WIKI_ACTIONS.get(action, action),
                "summary": page.get("message"),
                "html_url": page.get("url"),
            }
        ]
    }


def _issue(body: Json) -> Json:
    issue = obj(body.get("object_attributes"))
    action = text(issue.get("action"))
    shaped = {
        "action": _ISSUE_ACTIONS.get(action, action or "edited"),
        "issue": {
            "number": issue.get("iid"),
            "title": issue.get("title"),
            "body": issue.get("description"),
            "html_url": issue.get("url"),
            "state": "closed" if issue.get("state") == "closed" else "open",
            "labels": [_label(label) for label in items(body.get("labels"))],
        },
    }
    return {**shaped, **_update(body)} if action == "update" else shaped


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
