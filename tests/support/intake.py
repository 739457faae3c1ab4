"""The webhook side of ingest without a network: requests go straight into the application."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from starlette.requests import Request

from infra.clock import Clock
from infra.log import MemoryLog
from infra.metrics import Meters
from infra.objects import ObjectStore
from infra.vault import WebhookKey
from ingest.keys import WebhookKeys
from ingest.log import EventLog
from ingest.routes import Webhooks
from schemas.codec import EVENTS
from schemas.events import Event
from schemas.topics import EVENTS as EVENTS_TOPIC


class FixedKeys(WebhookKeys):
    """Keys that are given and stay."""

    def __init__(self, keys: Mapping[str, WebhookKey]) -> None:
        """Know exactly these repositories."""
        self._given = keys

    def get(self, repository: str) -> WebhookKey | None:
        """Return the key of a repository."""
        return self._given.get(repository)

    async def refresh(self) -> bool:
        """Nothing ever changes."""
        return False


class Intake:
    """Posts webhooks to an application on a log in memory."""

    def __init__(
        self,
        repositories: Mapping[str, tuple[str, bytes]],
        log: MemoryLog,
        store: ObjectStore,
        clock: Clock,
        meters: Meters,
    ) -> None:
        """Register repositories: name to provider and secret."""
        keys = {
            name: WebhookKey(provider=provider, secret=secret, default_branch="main")
            for name, (provider, secret) in repositories.items()
        }
        self.log = log
        webhooks = Webhooks(FixedKeys(keys), EventLog(log.writer(), cells=1), store, clock, meters)
        self._webhooks = webhooks

    def events(self) -> list[Event]:
        """Return everything in the log."""
        records = self.log.records[(EVENTS_TOPIC, 0)]
        return [EVENTS.decode(record.value) for record in records if record.value is not None]

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, chunks: Sequence[bytes] = ()
    ) -> tuple[int, dict[str, Any]]:
        """Send a request, in chunks if any are given; returns the status and the JSON answer."""
        waiting = list(chunks or [body])
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            chunk = waiting.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        encoded = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": b"", "headers": encoded, "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }  # fmt: skip
        provider, repository = path.removeprefix("/webhooks/").split("/", 1)
        response = await self._webhooks.answer(Request(scope, receive), provider, repository)
        await response(scope, receive, send)
        status: int = sent[0]["status"]
        answer: dict[str, Any] = json.loads(b"".join(m.get("body", b"") for m in sent[1:]) or b"{}")
        return status, answer
