"""From verified webhook requests to facts: pure; one module knows one forge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ingest.forges import git, gitea, github, gitlab, gogs
from ingest.forges.request import BodyError, WebhookRequest
from schemas.events import DeliveryReceived, Provider

_FORGES: Mapping[str, Callable[[WebhookRequest], DeliveryReceived]] = {
    Provider.GITHUB: github.received,
    Provider.GITEA: gitea.received,
    Provider.GOGS: gogs.received,
    Provider.GITLAB: gitlab.received,
    Provider.GIT: git.received,
}


def received(provider: str, request: WebhookRequest) -> DeliveryReceived:
    """Return the fact that a verified request stands for; BodyError when it isn't what it says."""
    return _FORGES[provider](request)


__all__ = ["BodyError", "WebhookRequest", "received"]
