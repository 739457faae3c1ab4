"""From a payload in GitHub's shape to a DeliveryReceived: the only reader of those payloads.

Every forge brings its payload into this shape first, so that a workflow's `github.event.*` and
the facts of a delivery come from one place. The shapes are those of GitHub's documentation,
"Webhook events and payloads".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingest.forges.request import (
    MESSAGE_CHARS_MAX,
    REF_CHARS_MAX,
    BodyError,
    Json,
    WebhookRequest,
    branch_ref,
    dumped,
    full_ref,
    is_null,
    number,
    obj,
    optional_ref,
    optional_sha,
    ref_name,
    sha,
    text,
)
from schemas.codec import event_id
from schemas.events import DeliveryReceived, Source

Facts = dict[str, Any]


def received(
    request: WebhookRequest,
    *,
    provider: str,
    event: str,
    delivery_id: str,
    body: Json,
    payload_json: str | None = None,
) -> DeliveryReceived:
    """Return the fact; `payload_json` is given when `body` is what was sent, unchanged."""
    found = _READERS.get(event, _other)(body)
    repository = obj(body.get("repository"))
    sender = obj(body.get("sender"))
    facts: Facts = {
        "action": text(body.get("action")),
        "actor": text(sender.get("login") or sender.get("username")),
        "default_branch": _default_branch(repository) or request.default_branch,
        **found,
    }
    return DeliveryReceived(
        event_id=event_id("DeliveryReceived", request.repository, delivery_id),
        occurred_at=request.received_at,
        repository=request.repository,
        delivery_id=delivery_id,
        source=Source.WEBHOOK,
        provider=provider,
        event=event,
        payload_json=dumped(body) if payload_json is None else payload_json,
        body_sha256=request.sha256,
        body_bytes=request.size,
        **facts,
    )


def _default_branch(repository: Json) -> str:
    branch = repository.get("default_branch")
    try:
        return optional_ref(branch, "repository.default_branch")
    except BodyError:
        return ""


def _push(body: Json) -> Facts:
    """A branch or tag moved. The id of an annotated tag is the tag object's, not a commit's."""
    ref = full_ref(body.get("ref"), "ref")
    before = sha(body.get("before"), "before")
    after = sha(body.get("after"), "after")
    head = obj(body.get("head_commit"))
    deleted = is_null(after)
    commit = after
    if ref.startswith("refs/tags/") and head.get("id"):
        commit = sha(head["id"], "head_commit.id")
    pusher = obj(body.get("pusher"))
    facts: Facts = {
        "ref": ref,
        "before": before,
        "sha": "" if deleted else commit,
        "base_ref": text(body.get("base_ref"), REF_CHARS_MAX),
        "deleted": deleted,
        "message": text(head.get("message"), MESSAGE_CHARS_MAX),
    }
    if not obj(body.get("sender")):
        facts["actor"] = text(pusher.get("login") or pusher.get("name"))
    return facts


def _create(body: Json) -> Facts:
    kind = body.get("ref_type")
    if kind not in ("branch", "tag"):
        raise BodyError(f"`ref_type` is {kind!r}; expected branch or tag")
    name = ref_name(body.get("ref"), "ref").removeprefix("refs/heads/").removeprefix("refs/tags/")
    full = f"refs/heads/{name}" if kind == "branch" else f"refs/tags/{name}"
    return {
        "ref": full,
        "tag_name": name if kind == "tag" else "",
        "sha": optional_sha(body.get("sha"), "sha"),
    }


def _delete(body: Json) -> Facts:
    return {**_create(body), "sha": "", "deleted": True}


def _pull_request(body: Json) -> Facts:
    """A pull request; its commit is the head, the planner makes the merge commit.

    A merged one is about the branch that it went into (GitHub's `github.ref`).
    """
    pull = _part(body, "pull_request")
    count = number(body.get("number") or pull.get("number"), "number")
    head, base = obj(pull.get("head")), obj(pull.get("base"))
    head_repository = text(obj(head.get("repo")).get("full_name"))
    base_repository = text(obj(base.get("repo")).get("full_name"))
    base_ref = ref_name(base.get("ref"), "pull_request.base.ref")
    merged = pull.get("merged") is True or bool(pull.get("merged_at"))
    merge_sha = optional_sha(pull.get("merge_commit_sha"), "pull_request.merge_commit_sha")
    return {
        "number": count,
        "ref": branch_ref(base_ref) if merged else f"refs/pull/{count}/merge",
        "sha": optional_sha(head.get("sha"), "pull_request.head.sha"),
        "before": optional_sha(body.get("before"), "before"),
        "head_ref": ref_name(head.get("ref"), "pull_request.head.ref"),
        "head_repository": head_repository,
        "base_ref": base_ref,
        "base_sha": optional_sha(base.get("sha"), "pull_request.base.sha"),
        "merge_sha": merge_sha if merged else "",
        # a head without a repository is a fork that was deleted
        "fork": not head_repository or head_repository.lower() != base_repository.lower(),
        "merged": merged,
        "message": text(pull.get("title"), MESSAGE_CHARS_MAX),
    }  # fmt: skip


def _release(body: Json) -> Facts:
    """A release, about its tag. A draft says nothing until it is published, as on GitHub."""
    release = _part(body, "release")
    tag = ref_name(release.get("tag_name"), "release.tag_name")
    draft = release.get("draft") is True and body.get("action") in _OF_DRAFTS
    return {
        "ref": f"refs/tags/{tag}",
        "tag_name": tag,
        "message": text(release.get("name"), MESSAGE_CHARS_MAX),
        "inert": f"draft: the release {tag} is a draft" if draft else "",
    }


def _merge_group(body: Json) -> Facts:
    group = _part(body, "merge_group")
    return {
        "ref": full_ref(group.get("head_ref"), "merge_group.head_ref"),
        "sha": sha(group.get("head_sha"), "merge_group.head_sha"),
        "head_ref": text(group.get("head_ref"), REF_CHARS_MAX),
        "base_ref": text(group.get("base_ref"), REF_CHARS_MAX),
        "base_sha": optional_sha(group.get("base_sha"), "merge_group.base_sha"),
        "message": text(obj(group.get("head_commit")).get("message"), MESSAGE_CHARS_MAX),
    }


def _workflow_dispatch(body: Json) -> Facts:
    ref = ref_name(body.get("ref"), "ref")
    inputs = body.get("inputs")
    if inputs is not None and not isinstance(inputs, dict):
        raise BodyError("`inputs` must be an object of input values")
    return {
        "ref": ref if ref.startswith("refs/") else f"refs/heads/{ref}",
        "workflow": text(body.get("workflow"), REF_CHARS_MAX),
        "inputs_json": dumped(inputs or {}),
    }


def _deployment(body: Json) -> Facts:
    """A deployment or its status; that an old one became inactive starts nothing on GitHub."""
    deployment = _part(body, "deployment")
    inactive = obj(body.get("deployment_status")).get("state") == "inactive"
    ref = optional_ref(deployment.get("ref"), "deployment.ref")
    return {
        # a deployment of a bare commit names the commit as its ref and has no branch
        "ref": ref if ref.startswith("refs/") else "",
        "head_ref": "" if ref == deployment.get("sha") else ref,
        "sha": optional_sha(deployment.get("sha"), "deployment.sha"),
        "message": text(deployment.get("environment"), MESSAGE_CHARS_MAX),
        # what a run of the forge deployed is as trusted as the run; a pull request's merge
        # commit that no run is named for may be of anybody
        "fork": _is_of_fork(body) if obj(body.get("workflow_run")) else ref.startswith(_PULLS),
        "inert": "inactive: the deployment was replaced by a newer one" if inactive else "",
    }


def _workflow_run(body: Json) -> Facts:
    """A run on the forge itself; the name of its workflow and its branch are what triggers see.

    What it ran may be a fork's: then what it left behind is, too, and the run that it starts.
    """
    run = obj(body.get("workflow_run"))
    workflow = obj(body.get("workflow"))
    return {
        "workflow": text(workflow.get("name") or run.get("name"), REF_CHARS_MAX),
        "head_ref": optional_ref(run.get("head_branch"), "workflow_run.head_branch"),
        "message": text(run.get("display_title"), MESSAGE_CHARS_MAX),
        "fork": _is_of_fork(body),
    }


def _is_of_fork(body: Json) -> bool:
    """Tell whether the run that a body is about ran what lies elsewhere, or may have."""
    run = obj(body.get("workflow_run"))
    # a head without a repository is a fork that was deleted
    head = text(obj(run.get("head_repository")).get("full_name"))
    own = text(obj(body.get("repository")).get("full_name"))
    return not head or head.casefold() != own.casefold()


def _check(body: Json) -> Facts:
    """A check of a commit, alone or the suite of them.

    The forge names no head repository: for a commit of a fork it gives a suite without a branch.
    """
    run = obj(body.get("check_run"))
    suite = obj(body.get("check_suite")) or obj(run.get("check_suite"))
    branch = text(suite.get("head_branch"), REF_CHARS_MAX)
    return {**_other(body), "fork": not branch or any(map(_is_from_fork, _pulls(run, suite)))}


def _pulls(*subjects: Json) -> list[Json]:
    found: list[Json] = []
    for subject in subjects:
        pulls = subject.get("pull_requests")
        found += [obj(pull) for pull in pulls] if isinstance(pulls, list) else []
    return found


def _is_from_fork(pull: Json) -> bool:
    """Tell it of a pull request in the short form: its repositories have an id and no full name."""
    head, base = (obj(obj(pull.get(side)).get("repo")).get("id") for side in ("head", "base"))
    return head is None or head != base


def _status(body: Json) -> Facts:
    """A commit's status. A commit that is on no branch of the repository may be a fork's.

    Forges that list no branches say nothing about it.
    """
    return {**_other(body), "fork": body.get("branches") == []}


def _registry_package(body: Json) -> Facts:
    """A package; the commit and branch that it was made from, where the forge says so.

    Registries of other tools put their own ids there: such a package is about the default branch.
    """
    package = obj(body.get("registry_package")) or obj(body.get("package"))
    version = obj(package.get("package_version"))
    facts: Facts = {"message": text(package.get("name"), MESSAGE_CHARS_MAX)}
    commit, target = version.get("target_oid"), version.get("target_commitish")
    try:
        facts["sha"] = optional_sha(commit, "package_version.target_oid")
        branch = optional_ref(target, "package_version.target_commitish")
        facts["ref"] = branch_ref(branch if branch != commit else "")
    except BodyError:
        return {"message": facts["message"]}
    return facts


def _numbered(body: Json) -> Facts:
    """Events of an issue, a discussion or a milestone: number and title for people."""
    subject = next((found for name in _NUMBERED if (found := obj(body.get(name)))), {})
    facts: Facts = {"message": text(subject.get("title"), MESSAGE_CHARS_MAX)}
    if subject.get("number"):
        facts["number"] = number(subject["number"], "number")
    return facts


def _other(body: Json) -> Facts:
    """Events that are about the default branch, and those that start nothing.

    Nothing in them is relied upon, so nothing in them can be wrong.
    """
    for name in _NAMED:
        subject = obj(body.get(name))
        title = subject.get("title") or subject.get("name") or subject.get("full_name")
        if title:
            return {"message": text(title, MESSAGE_CHARS_MAX)}
    return {"message": text(body.get("description"), MESSAGE_CHARS_MAX)}


def _part(body: Json, name: str) -> Json:
    """Return an object that the event must have."""
    found = body.get(name)
    if not isinstance(found, dict):
        raise BodyError(f"`{name}` is missing; expected an object")
    return found


#: What a draft release is silent about.
_OF_DRAFTS = frozenset({"created", "edited", "deleted"})
#: Where refs of pull requests begin.
_PULLS = "refs/pull/"
_NUMBERED = ("issue", "discussion", "milestone")
#: Parts of other events that have a name to show.
_NAMED = ("check_run", "label", "rule", "forkee", "workflow_job", "milestone")

_READERS: dict[str, Callable[[Json], Facts]] = {
    "push": _push,
    "create": _create,
    "delete": _delete,
    "pull_request": _pull_request,
    "pull_request_target": _pull_request,
    "pull_request_review": _pull_request,
    "pull_request_review_comment": _pull_request,
    "release": _release,
    "merge_group": _merge_group,
    "workflow_dispatch": _workflow_dispatch,
    "deployment": _deployment,
    "deployment_status": _deployment,
    "workflow_run": _workflow_run,
    "check_run": _check,
    "check_suite": _check,
    "status": _status,
    "registry_package": _registry_package,
    "issues": _numbered,
    "issue_comment": _numbered,
    "discussion": _numbered,
    "discussion_comment": _numbered,
    "milestone": _numbered,
}
