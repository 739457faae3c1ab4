"""Gitea's and Forgejo's webhooks, brought into GitHub's shape.

What differs was observed on Gitea 1.26: `synchronized` for `synchronize`, commits newest first,
no `created`/`deleted` in a push, labels without the owner, no top-level before/after in a
pull request. A review is an event of its own for each verdict (`pull_request_approved`), a wiki
page is `wiki`, a package `package`; events that have no general name are named by
X-Gitea-Event-Type alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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

#: Gitea's actions that GitHub has other words for, of issues and pull requests and of releases.
ACTIONS = {
    "synchronized": "synchronize",
    "label_updated": "labeled",
    "label_cleared": "unlabeled",
}
_RELEASE_ACTIONS = {"updated": "edited"}
_PACKAGE_ACTIONS = {"created": "published"}
#: Which review an event is, by the general name or by the finer X-Gitea-Event-Type.
_VERDICTS = {
    "pull_request_approved": "approved",
    "pull_request_rejected": "changes_requested",
    "pull_request_comment": "commented",
    "pull_request_review_approved": "approved",
    "pull_request_review_rejected": "changes_requested",
    "pull_request_review_comment": "commented",
}
#: Finer names that have one general name; Gitea sends both, other senders perhaps only these.
_GENERAL = {
    "issue_assign": "issues",
    "issue_label": "issues",
    "issue_milestone": "issues",
    "pull_request_assign": "pull_request",
    "pull_request_label": "pull_request",
    "pull_request_milestone": "pull_request",
    "pull_request_review_request": "pull_request",
    "pull_request_sync": "pull_request",
}
_EVENT_HEADERS = ("x-forgejo-event", "x-gitea-event", "x-gogs-event", "x-github-event")
_TYPE_HEADERS = ("x-forgejo-event-type", "x-gitea-event-type", "x-gogs-event-type")
_ID_HEADERS = ("x-forgejo-delivery", "x-gitea-delivery", "x-gogs-delivery", "x-github-delivery")


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a Gitea webhook.

    Gitea sends X-GitHub-Event too, for receivers that know nothing else: its own header is
    looked at first.
    """
    event = event_name(request.header(*_EVENT_HEADERS, *_TYPE_HEADERS), "X-Gitea-Event")
    given = delivery_id(Provider.GITEA, request.header(*_ID_HEADERS), request)
    return reshaped(request, Provider.GITEA, event, given)


def reshaped(
    request: WebhookRequest, provider: Provider, event: str, delivery: str
) -> DeliveryReceived:
    """Return the fact of a Gitea or Gogs body."""
    event, body = _shaped(_GENERAL.get(event, event), parsed(request.body))
    body = {**body, "repository": _repository(body.get("repository"))}
    return facts.received(request, provider=provider, event=event, delivery_id=delivery, body=body)


def _shaped(event: str, body: Json) -> tuple[str, Json]:
    # a comment below a pull request by its finer name: a review has no comment
    if event == "pull_request_comment" and obj(body.get("comment")):
        event = "issue_comment"
    if event in _VERDICTS:
        return "pull_request_review", _review(_VERDICTS[event], body)
    if event.startswith("pull_request"):
        return "pull_request", _pull_request(body)
    name, shape = _SHAPES.get(event, (event, None))
    return name, shape(body) if shape is not None else body


def _renamed(body: Json, words: Mapping[str, str]) -> Json:
    action = text(body.get("action"))
    return {**body, "action": words.get(action, action)}


def _push(body: Json) -> Json:
    """GitHub's push: oldest commit first, and what the two ids say in words."""
    before, after = body.get("before"), body.get("after")
    commits = [{"distinct": True, **commit} for commit in reversed(items(body.get("commits")))]
    head = body.get("head_commit")
    if head is None:
        # Gogs and old Giteas have no head_commit; the newest commit of the list is it
        head = next((commit for commit in commits if commit.get("id") == after), None)
    return {
        **body,
        "base_ref": None,
        "created": isinstance(before, str) and is_null(before),
        "deleted": isinstance(after, str) and is_null(after),
        "compare": body.get("compare_url", ""),
        "commits": commits,
        "head_commit": head,
        "pusher": _pusher(body.get("pusher")),
    }


def _pusher(value: object) -> Json:
    pusher = obj(value)
    login = pusher.get("login") or pusher.get("username") or ""
    return {**pusher, "name": login or pusher.get("name", "")}


def _pull_request(body: Json) -> Json:
    pull = body.get("pull_request")
    if not isinstance(pull, dict):
        raise BodyError("`pull_request` is missing; expected an object")
    pull = _with_sides(pull)
    shaped = {**_renamed(body, ACTIONS), "pull_request": pull}
    shaped.setdefault("number", pull.get("number"))
    if shaped["action"] == "synchronize":
        shaped.setdefault("after", obj(pull.get("head")).get("sha"))
    return shaped


def _review(verdict: str, body: Json) -> Json:
    """GitHub's review: submitted, with the verdict as its state."""
    review = obj(body.get("review"))
    state = {"state": verdict, "body": review.get("content", ""), "user": body.get("sender")}
    return {**_pull_request(body), "action": "submitted", "review": {**review, **state}}


def _issue_comment(body: Json) -> Json:
    """GitHub's comment: that it is below a pull request shows in `issue.pull_request`."""
    issue = obj(body.get("issue")) or obj(body.get("pull_request"))
    if body.get("is_pull") is True and not issue.get("pull_request"):
        issue = {**issue, "pull_request": {"html_url": issue.get("html_url")}}
    return {**body, "issue": issue}


def _wiki(body: Json) -> Json:
    """GitHub's wiki event: a list of pages."""
    page = {
        "page_name": body.get("page"),
        "title": body.get("page"),
        "action": body.get("action"),
        "summary": body.get("comment"),
    }
    return {**{k: v for k, v in body.items() if k != "action"}, "pages": [page]}


def _package(body: Json) -> Json:
    package = obj(body.get("package"))
    version = {"version": package.get("version"), "html_url": package.get("html_url")}
    shaped = {
        "id": package.get("id"),
        "name": package.get("name"),
        "package_type": package.get("type"),
        "html_url": package.get("html_url"),
        "package_version": version,
    }
    repository = obj(body.get("repository")) or obj(package.get("repository"))
    renamed = _renamed(body, _PACKAGE_ACTIONS)
    return {**renamed, "registry_package": shaped, "repository": repository}


def _with_sides(pull: Json) -> Json:
    """Head and base as GitHub has them; Gogs and old Giteas spread them over the object."""
    sides = {}
    for side in ("head", "base"):
        found = obj(pull.get(side)) or {
            "ref": pull.get(f"{side}_branch"),
            "repo": pull.get(f"{side}_repo"),
            "sha": None,
        }
        if text(found.get("ref")).startswith("refs/pull/") and found.get("label"):
            # the branch is gone: Gitea names the pull request's own ref, and the branch beside it
            found = {**found, "ref": found["label"]}
        repo = _repository(found.get("repo"))
        owner = obj(repo.get("owner")).get("login", "")
        label = f"{owner}:{found.get('ref')}" if owner else found.get("label")
        sides[side] = {**found, "label": label, "repo": repo or None, "user": repo.get("owner")}
    return {**pull, **sides}


def _repository(value: object) -> Json:
    repository = obj(value)
    owner = obj(repository.get("owner"))
    if owner and not owner.get("login"):
        return {**repository, "owner": {**owner, "login": owner.get("username", "")}}
    return repository


def _created(body: Json) -> Json:
    return {**body, "master_branch": obj(body.get("repository")).get("default_branch")}


#: By Gitea's event: GitHub's name, and what brings the body into its shape.
_SHAPES: Mapping[str, tuple[str, Callable[[Json], Json]]] = {
    "push": ("push", _push),
    "create": ("create", _created),
    "delete": ("delete", _created),
    "issues": ("issues", lambda body: _renamed(body, ACTIONS)),
    "issue_comment": ("issue_comment", _issue_comment),
    "release": ("release", lambda body: _renamed(body, _RELEASE_ACTIONS)),
    "wiki": ("gollum", _wiki),
    "package": ("registry_package", _package),
}
