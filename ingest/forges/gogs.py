"""Gogs's webhooks: Gitea's ancestor, with headers of its own and less in the bodies."""

from __future__ import annotations

from ingest.forges import gitea
from ingest.forges.request import WebhookRequest, delivery_id, event_name
from schemas.events import DeliveryReceived, Provider


def received(request: WebhookRequest) -> DeliveryReceived:
    """Return the fact of a Gogs webhook."""
    event = event_name(request.header("x-gogs-event"), "X-Gogs-Event")
    delivery = delivery_id(Provider.GOGS, request.header("x-gogs-delivery"), request)
    return gitea.reshaped(request, Provider.GOGS, event, delivery)
