"""Plain git repositories: what the hook (`ingest/hook.py`) sends, in GitHub's shape."""

from __future__ import annotations

from ingest.forges import facts
from ingest.forges.request import BodyError, WebhookRequest, delivery_id, parsed, without_bom
from schemas.events import DeliveryReceived, Provider

EVENT_HEADER = "X-Tailrace-Event"
DELIVERY_HEADER = "X-Tailrace-Delivery"
EVENTS = ("push", "ping")


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a hook's push; the hook says nothing else (a ping tries the way)."""
    event = request.header("x-tailrace-event", "x-github-event")
    if event not in EVENTS:
        raise BodyError(f"{EVENT_HEADER} is {event[:80]!r}; expected push or ping")
    given = request.header("x-tailrace-delivery", "x-github-delivery")
    return facts.received(
        request,
        provider=Provider.GIT,
        event=event,
        delivery_id=delivery_id(Provider.GIT, given, request),
        body=parsed(request.body),
        payload_json=without_bom(request.body).decode(),
    )
