"""GitHub's webhooks: their payloads are the shape that all others are brought into."""

from __future__ import annotations

from ingest.forges import facts
from ingest.forges.request import WebhookRequest, delivery_id, event_name, parsed, without_bom
from schemas.events import DeliveryReceived, Provider


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a GitHub webhook; the payload travels as it was sent."""
    event = event_name(request.header("x-github-event"), "X-GitHub-Event")
    body = parsed(request.body)
    return facts.received(
        request,
        provider=Provider.GITHUB,
        event=event,
        delivery_id=delivery_id(Provider.GITHUB, request.header("x-github-delivery"), request),
        body=body,
        payload_json=without_bom(request.body).decode(),
    )
