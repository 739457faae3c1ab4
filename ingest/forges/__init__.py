"""From verified webhook requests to facts: pure; one module knows one forge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from ingest.forges import git, gitea, github, gitlab, gogs
from ingest.forges.request import (
    BodyError,
    WebhookRequest,
    delivery_id,
    dumped,
    parsed,
    text,
)
from schemas.codec import event_id
from schemas.events import DeliveryReceived, Provider, Source

#: The code in `DeliveryReceived.inert` of a body that can't be read.
UNREADABLE = "unreadable"

_FORGES: Mapping[str, Callable[[WebhookRequest], DeliveryReceived]] = {
    Provider.GITHUB: github.received,
    Provider.GITEA: gitea.received,
    Provider.GOGS: gogs.received,
    Provider.GITLAB: gitlab.received,
    Provider.GIT: git.received,
}

#: The middle of a provider's headers.
_NAMES: Mapping[str, tuple[str, ...]] = {
    Provider.GITHUB: ("github",),
    Provider.GITEA: ("forgejo", "gitea", "gogs", "github"),
    Provider.GOGS: ("gogs",),
    Provider.GITLAB: ("gitlab",),
    Provider.GIT: ("tailrace", "github"),
}


def received(provider: str, request: WebhookRequest) -> DeliveryReceived:
    """Return the fact that a verified request stands for; BodyError when it isn't what it says."""
    return _FORGES[provider](request)


def unreadable(provider: str, request: WebhookRequest, reason: str) -> DeliveryReceived:
    """Return the fact that a verified request isn't what its event header says.

    Its id is not that of the delivery: sent again to a later version, the same body may be read.
    """
    given = request.header(*(f"x-{name}-delivery" for name in _NAMES[provider]))
    header = request.header(*(f"x-{name}-event" for name in _NAMES[provider]))
    what = "\x1f".join((request.sha256, given, header, reason)).encode(errors="replace")
    name = delivery_id(provider, f"unreadable-{hashlib.sha256(what).hexdigest()[:32]}", request)
    try:
        payload = dumped(parsed(request.body))
    except BodyError:
        payload = None
    about = f" (delivery {given[:80]})" if given.isprintable() and given else ""
    return DeliveryReceived(
        event_id=event_id("DeliveryReceived", request.repository, name),
        occurred_at=request.received_at,
        repository=request.repository,
        delivery_id=name,
        source=Source.WEBHOOK,
        provider=provider,
        event=text(header, 64).strip() or "unknown",
        default_branch=request.default_branch,
        payload_json=payload,
        body_sha256=request.sha256,
        body_bytes=request.size,
        inert=f"{UNREADABLE}: {reason}{about}",
    )


__all__ = ["UNREADABLE", "BodyError", "WebhookRequest", "received", "unreadable"]
