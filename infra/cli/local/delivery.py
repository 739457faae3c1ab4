"""The event that a local run pretends: a payload in GitHub's shape around a snapshot."""

from __future__ import annotations

import getpass
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra.cli.errors import CliError, Exit
from schemas.late import dataclass

if TYPE_CHECKING:
    from infra.cli.local.tree import Snapshot
    from schemas.events import DeliveryReceived
    from schemas.workflow.plan import Triggers

Payload = dict[str, Any]
_NONE = "0" * 40
_PULL_EVENTS = ("pull_request", "pull_request_target", "pull_request_review",
                "pull_request_review_comment")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: an event ("" for the best one), its payload, a workflow, inputs."""

    event: str
    payload: Payload
    workflow: str
    inputs: dict[str, str]


def delivery_of(
    wanted: Wanted, snapshot: Snapshot, triggers: Triggers | None, *, now_ms: int
) -> DeliveryReceived:
    """Return the delivery; CliError when the payload is none of its event's."""
    from ingest.forges.facts import received
    from ingest.forges.request import BodyError, WebhookRequest

    event = wanted.event or _best_event(triggers)
    body = payload_of(event, wanted, snapshot, triggers)
    name = str(body["repository"]["full_name"])
    request = WebhookRequest(
        repository=name, headers={}, body=b"", sha256="", size=0, received_at=now_ms,
        default_branch=snapshot.branch,
    )  # fmt: skip
    try:
        found = received(
            request, provider="git", event=event, delivery_id=f"local:{now_ms}", body=body
        )
    except BodyError as error:
        raise CliError(f"the payload is none of {event}: {error}", Exit.USAGE) from None
    changes: dict[str, Any] = {"default_branch": snapshot.branch}
    if event == "schedule":
        changes["schedule"] = str(body.get("schedule") or "")
        changes["workflow"] = wanted.workflow
    if event == "workflow_run":
        changes["workflow"] = str((body.get("workflow_run") or {}).get("name") or "")
    if event == "workflow_dispatch":
        changes["sha"] = snapshot.sha
    return replace(found, **changes)


def _best_event(triggers: Triggers | None) -> str:
    """Return push, unless the one workflow that is asked for never runs at a push."""
    if triggers is None or triggers.event("push") is not None:
        return "push"
    for name in ("pull_request", "workflow_dispatch"):
        if triggers.event(name) is not None:
            return name
    names = [each.event for each in triggers.events if each.event != "workflow_call"]
    return names[0] if names else "push"


def payload_of(
    event: str, wanted: Wanted, snapshot: Snapshot, triggers: Triggers | None
) -> Payload:
    """Return the payload: what such an event has at least, what was given, and our commits."""
    own = {
        "repository": _repository(snapshot),
        "sender": {"login": _user(), "type": "User"},
        **_about(event, snapshot, triggers),
    }
    body = merged(own, wanted.payload)
    if not isinstance(body.get("repository"), dict) or not body["repository"].get("full_name"):
        raise CliError("the payload's `repository` needs a `full_name`: owner/name", Exit.USAGE)
    _set_commits(event, body, snapshot)
    if event == "workflow_dispatch":
        body["inputs"] = {**(body.get("inputs") or {}), **wanted.inputs}
        body["workflow"] = wanted.workflow or body.get("workflow") or ""
    elif wanted.inputs:
        raise CliError("--input is for `-e workflow_dispatch`", Exit.USAGE)
    return body


def _about(event: str, snapshot: Snapshot, triggers: Triggers | None) -> Payload:
    ref = f"refs/heads/{snapshot.branch}"
    listed = triggers.event(event) if triggers is not None else None
    types = tuple(listed.types or ()) if listed is not None else ()
    action = {"action": types[0]} if types else {}
    if event == "push":
        return {
            "ref": ref, "created": not snapshot.before, "deleted": False, "forced": False,
            "base_ref": None, "compare": "", "commits": [],
            "head_commit": {"message": snapshot.message, "author": {"name": _user()}},
            "pusher": {"name": _user()},
        }  # fmt: skip
    if event in _PULL_EVENTS:
        repo = _repository(snapshot)
        pull = {
            "number": 1, "title": snapshot.message.partition("\n")[0], "state": "open",
            "draft": False, "merged": False, "labels": [], "user": {"login": _user()},
            "head": {"ref": snapshot.branch, "repo": repo},
            "base": {"ref": snapshot.default, "repo": repo},
        }  # fmt: skip
        return {"action": "opened", "number": 1, "pull_request": pull, **action}
    if event == "workflow_dispatch":
        return {"ref": ref, "inputs": {}}
    if event in ("create", "delete"):
        return {"ref": snapshot.branch, "ref_type": "branch", "master_branch": snapshot.default}
    if event == "release":
        release = {"tag_name": "v0.0.0", "name": "v0.0.0", "draft": False, "prerelease": False}
        return {"action": "published", "release": release, **action}
    if event == "merge_group":
        head = f"refs/heads/gh-readonly-queue/{snapshot.default}/pr-1"
        group = {"head_ref": head, "base_ref": f"refs/heads/{snapshot.default}"}
        return {"action": "checks_requested", "merge_group": group}
    if event == "schedule":
        crons = triggers.schedules if triggers is not None else ()
        return {"schedule": crons[0].cron} if crons else {}
    return action


def _set_commits(event: str, body: Payload, snapshot: Snapshot) -> None:
    """Let every commit that the event is about be one that the copy has."""
    if event == "push" and not body.get("deleted"):
        body["before"] = snapshot.before or _NONE
        body["after"] = snapshot.sha
        body["head_commit"] = {**(body.get("head_commit") or {}), "id": snapshot.sha}
    pull = body.get("pull_request")
    if isinstance(pull, dict):
        pull["head"] = {**(pull.get("head") or {}), "sha": snapshot.sha}
        pull["base"] = {**(pull.get("base") or {}), "sha": snapshot.base}
        if pull.get("merged"):
            pull["merge_commit_sha"] = snapshot.sha
    if event == "merge_group":
        body["merge_group"] = {**body["merge_group"], "head_sha": snapshot.sha}


def merged(own: Payload, given: Payload) -> Payload:
    """Return an object with another's keys over it, objects taken together."""
    found = dict(own)
    for key, value in given.items():
        before = found.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        found[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return found


def read_payload(text: str, name: str) -> Payload:
    """Return the object in a payload file. CliError when there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CliError(f"{name} is not JSON: {error}", Exit.USAGE) from None
    if not isinstance(found, dict):
        raise CliError(f"{name} must hold a JSON object, as a webhook's body is", Exit.USAGE)
    return found


def _repository(snapshot: Snapshot) -> Payload:
    name = repository_name(snapshot.remote, snapshot.root.name)
    owner, _, short = name.partition("/")
    return {
        "full_name": name, "name": short, "owner": {"login": owner, "name": owner},
        "default_branch": snapshot.default, "private": True,
    }  # fmt: skip


def repository_name(remote: str, folder: str) -> str:
    """Return owner/name of a remote's URL, else `local/` and the folder's name."""
    path = urlsplit(remote).path if "://" in remote else remote.partition(":")[2] or remote
    parts = [part for part in path.removesuffix("/").removesuffix(".git").split("/") if part]
    if ":" in remote and len(parts) > 1:
        return "/".join(parts[-2:])
    return f"local/{folder or 'tree'}".replace(" ", "-")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"
