"""The `github` context of a run, as far as a delivery determines it. Pure.

Keys and meanings are those of GitHub's "Contexts" page. `event`, `run_*`, `workflow*`, `job` and
the paths of a runner are added by who knows them.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import msgspec

from schemas.events import DeliveryReceived, Provider
from schemas.workflow.contexts import ref_name, ref_type

RETENTION_DAYS = "90"
_API_PATHS = {Provider.GITEA: "/api/v1", Provider.GOGS: "/api/v1", Provider.GITLAB: "/api/v4"}


class _Owner(msgspec.Struct):
    id: int | str | None = None


class _Repository(msgspec.Struct):
    id: int | str | None = None
    html_url: str | None = None
    private: bool | None = None
    owner: _Owner | None = None


class _Sender(msgspec.Struct):
    id: int | str | None = None


class _Payload(msgspec.Struct):
    """The few fields of a payload that the context repeats; the rest is never built."""

    repository: _Repository | None = None
    sender: _Sender | None = None


_decoder = msgspec.json.Decoder(_Payload)


def github_json(
    delivery: DeliveryReceived, *, event: str, ref: str, sha: str, clone_url: str, public_url: str
) -> str:
    """Return the context of a run of `event` at `ref` and `sha`."""
    payload = _payload(delivery.payload_json)
    repository = payload.repository or _Repository()
    server = _server(repository.html_url or "", delivery, clone_url, public_url)
    pull = event.startswith("pull_request")
    untrusted = delivery.fork and event != "pull_request_target"
    context = {
        "actor": delivery.actor,
        "actor_id": _text(payload.sender.id if payload.sender else None),
        "api_url": _api(server, delivery.provider),
        "base_ref": delivery.base_ref.removeprefix("refs/heads/") if pull else "",
        "event_name": event,
        "graphql_url": _graphql(server),
        "head_ref": delivery.head_ref.removeprefix("refs/heads/") if pull else "",
        "ref": ref,
        "ref_name": ref_name(ref),
        "ref_protected": False,
        "ref_type": ref_type(ref),
        "repository": delivery.repository,
        "repository_id": _text(repository.id),
        "repository_owner": delivery.repository.partition("/")[0],
        "repository_owner_id": _text(repository.owner.id if repository.owner else None),
        "repositoryUrl": clone_url,
        "repository_visibility": _visibility(repository.private),
        "retention_days": RETENTION_DAYS,
        "secret_source": "None" if untrusted else "Actions",
        "server_url": server,
        "sha": sha,
        "triggering_actor": delivery.actor,
    }
    return json.dumps(context, ensure_ascii=False, separators=(",", ":"))


def _payload(text: str | None) -> _Payload:
    if not text:
        return _Payload()
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return _Payload()


def _server(html_url: str, delivery: DeliveryReceived, clone_url: str, public_url: str) -> str:
    suffix = f"/{delivery.repository}"
    if html_url.lower().endswith(suffix.lower()):
        return html_url[: -len(suffix)]
    parts = urlsplit(clone_url)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}"
    return public_url


def _api(server: str, provider: str) -> str:
    if provider == Provider.GITHUB:
        github = urlsplit(server).hostname == "github.com"
        return "https://api.github.com" if github else f"{server}/api/v3"
    return server + _API_PATHS.get(Provider(provider), "/api/v1")


def _graphql(server: str) -> str:
    github = urlsplit(server).hostname == "github.com"
    return "https://api.github.com/graphql" if github else f"{server}/api/graphql"


def _visibility(private: bool | None) -> str:  # noqa: FBT001 - a payload's field
    return "public" if private is False else "private"


def _text(value: int | str | None) -> str:
    return "" if value is None else str(value)
