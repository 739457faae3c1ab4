"""Gitea's and Forgejo's webhooks, brought into GitHub's shape.

What differs was observed on Gitea 1.26: `synchronized` for `synchronize`, commits newest first,
no `created`/`deleted` in a push, labels without the owner, no top-level before/after in a
pull request.
"""

from __future__ import annotations

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

#: Gitea's pull request actions that GitHub has other words for.
ACTIONS = {
    "synchronized": "synchronize",
    "label_updated": "labeled",
    "label_cleared": "unlabeled",
}


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a Gitea webhook.

    Gitea sends X-GitHub-Event too, for receivers that know nothing else: its own header is
    looked at first.
    """
    event = event_name(
        request.header("x-gitea-event", "x-gogs-event", "x-github-event"), "X-Gitea-Event"
    )
    given = request.header("x-gitea-delivery", "x-gogs-delivery", "x-github-delivery")
    return reshaped(request, Provider.GITEA, event, delivery_id(Provider.GITEA, given, request))


def reshaped(
    request: WebhookRequest, provider: Provider, event: str, delivery: str
) -> DeliveryReceived:
    """Return the fact of a Gitea or Gogs body."""
    body = parsed(request.body)
    if event.startswith("pull_request"):
        event, body = _pull_request(event, body)
    elif event == "push":
        body = _push(body)
    elif event in ("create", "delete"):
        default = obj(body.get("repository")).get("default_branch")
        body = {**body, "master_branch": default}
    elif event == "issues":
        action = text(body.get("action"))
        body = {**body, "action": ACTIONS.get(action, action)}
    body = {**body, "repository": _repository(body.get("repository"))}
    return facts.received(request, provider=provider, event=event, delivery_id=delivery, body=body)


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


def _pull_request(event: str, body: Json) -> tuple[str, Json]:
    pull = body.get("pull_request")
    if not isinstance(pull, dict):
        raise BodyError("`pull_request` is missing; expected an object")
    pull = _with_sides(pull)
    action = body.get("action")
    action = ACTIONS.get(action, action) if isinstance(action, str) else ""
    shaped = {**body, "action": action, "pull_request": pull}
    shaped.setdefault("number", pull.get("number"))
    if action == "synchronize":
        shaped.setdefault("after", obj(pull.get("head")).get("sha"))
    # pull_request_comment, pull_request_review_approved, …: the detail is in the action
    if event.startswith("pull_request_review"):
        return "pull_request_review", {**shaped, "action": "submitted"}
    return ("pull_request", shaped) if event != "pull_request_comment" else (event, shaped)


def _with_sides(pull: Json) -> Json:
    """Head and base as GitHub has them; Gogs and old Giteas spread them over the object."""
    sides = {}
    for side in ("head", "base"):
        found = obj(pull.get(side)) or {
            "ref": pull.get(f"{side}_branch"),
            "repo": pull.get(f"{side}_repo"),
            "sha": None,
        }
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
