"""`POST /webhooks/{provider}/{repository}`: from bytes of a stranger to a durable fact.

A signed body that isn't what its header says is a fact, too: it is answered 400 and starts nothing.
In this order: size, signature over the raw bytes, meaning, object store for what is large, the
broker's acknowledgement, 202. An unknown repository, a wrong provider and a wrong signature get
one answer after the same work, so that nobody learns which repositories exist.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import os

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from infra.clock import Clock
from infra.metrics import APPEND_SECONDS, WEBHOOKS, Meters
from infra.objects import ObjectStore, ObjectStoreError, content_key
from infra.vault import WebhookKey
from ingest.forges import UNREADABLE, BodyError, WebhookRequest, received, unreadable
from ingest.forges.request import dumped
from ingest.keys import WebhookKeys
from ingest.log import EventLog, NotAcknowledgedError
from ingest.problems import Problem
from ingest.signatures import verified_body
from schemas.events import DeliveryReceived, Provider

logger = logging.getLogger(__name__)

BODY_BYTES_MAX = 25 * 1024 * 1024
INLINE_BYTES_MAX = 1024 * 1024
#: Bodies that are being received, all together; more are asked to come again.
IN_FLIGHT_BYTES_MAX = 256 * 1024 * 1024
#: Work on a body above this leaves the event loop to others.
THREAD_BYTES_MIN = 256 * 1024
RECEIVE_TIMEOUT_S = 30
RETRY_AFTER_S = "5"

_PROVIDERS = frozenset(Provider)
_REFUSED = (
    "the request is not signed with this repository's webhook secret, or there is no such "
    "repository: compare URL and secret with what `tailrace repo add` or `repo rotate-secret` "
    "printed"
)


class Webhooks:
    """Receives webhooks."""

    def __init__(
        self, keys: WebhookKeys, log: EventLog, store: ObjectStore, clock: Clock, meters: Meters
    ) -> None:
        """Verify with `keys`, append to `log`, put large payloads into `store`."""
        self._keys = keys
        self._log = log
        self._store = store
        self._clock = clock
        self._meters = meters
        self._in_flight_bytes = 0
        # an unknown repository is "verified" with a secret that nobody has
        self._nobody = WebhookKey(provider="", secret=os.urandom(32))

    async def answer(self, request: Request, provider: str, repository: str) -> Response:
        """Answer one webhook request for the repository of its path."""
        shown = provider if provider in _PROVIDERS else "unknown"
        try:
            response = await self._answer(request, provider, repository)
        except Problem as problem:
            response = problem.response()
        except Exception:
            logger.exception("a webhook for %s failed", repository[:200])
            response = Problem(500, "a fault of ours; see the log of ingest").response()
        self._meters.count(WEBHOOKS, shown, str(response.status_code))
        return response

    async def _answer(self, request: Request, provider: str, repository: str) -> Response:
        raw = await self._body(request)
        try:
            headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers.raw}
            body = await self._verified(provider, repository, headers, raw)
            delivery = await self._delivery(provider, repository, headers, raw, body)
        finally:
            self._in_flight_bytes -= len(raw)
        started_ms = self._clock.steady_ms()
        try:
            offset = await self._log.append(delivery)
        except NotAcknowledgedError as error:
            logger.warning("webhook of %s not stored: %s", repository, error)
            raise _try_again(f"the delivery could not be stored: {error}") from error
        self._meters.observe(
            APPEND_SECONDS, (self._clock.steady_ms() - started_ms) / 1000, "events"
        )
        answer: dict[str, object] = {
            "delivery_id": delivery.delivery_id,
            "event_id": delivery.event_id,
            "offset": offset,
        }
        code, _, sentence = delivery.inert.partition(": ")
        if code == UNREADABLE:
            raise Problem(400, sentence, headers={}, **answer)
        return Response(dumped(answer), 202, media_type="application/json")

    # ----------------------------------------------------------------- the bytes

    async def _body(self, request: Request) -> bytes:
        """Return the body, counted while it comes in; the caller gives its bytes back."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > BODY_BYTES_MAX:
            raise _too_large()
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                await self._collect(request, chunks)
        except TimeoutError as error:
            self._in_flight_bytes -= sum(map(len, chunks))
            detail = f"the body did not arrive within {RECEIVE_TIMEOUT_S} s"
            raise Problem(408, detail, headers={"Connection": "close"}) from error
        except ClientDisconnect as error:
            self._in_flight_bytes -= sum(map(len, chunks))
            raise Problem(400, "the connection was closed before the body's end") from error
        except BaseException:
            self._in_flight_bytes -= sum(map(len, chunks))
            raise
        return b"".join(chunks)

    async def _collect(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            self._in_flight_bytes += len(chunk)
            chunks.append(chunk)
            if size > BODY_BYTES_MAX:
                raise _too_large()
            if self._in_flight_bytes > IN_FLIGHT_BYTES_MAX:
                raise _try_again("too many large deliveries at the same time")

    # ----------------------------------------------------------------- the sender

    async def _verified(
        self, provider: str, repository: str, headers: dict[str, str], raw: bytes
    ) -> bytes:
        body = await self._check(provider, repository, headers, raw)
        if body is None and await self._keys.refresh():
            body = await self._check(provider, repository, headers, raw)
        if body is None:
            raise Problem(401, _REFUSED)
        return body

    async def _check(
        self, provider: str, repository: str, headers: dict[str, str], raw: bytes
    ) -> bytes | None:
        key = self._keys.get(repository)
        known = key is not None and key.provider == provider
        secret = key.secret if key is not None and known else self._nobody.secret
        # the scheme of a provider that does not exist takes the time of any other
        scheme = provider if provider in _PROVIDERS else Provider.GITHUB
        if len(raw) < THREAD_BYTES_MIN:
            body = verified_body(scheme, headers, raw, secret)
        else:
            body = await asyncio.to_thread(verified_body, scheme, headers, raw, secret)
        return body if known else None

    # ----------------------------------------------------------------- the meaning

    async def _delivery(
        self, provider: str, repository: str, headers: dict[str, str], raw: bytes, body: bytes
    ) -> DeliveryReceived:
        key = self._keys.get(repository)
        arguments = (provider, repository, headers, raw, body, key.default_branch if key else "")
        if len(raw) < THREAD_BYTES_MIN:
            delivery = self._read(*arguments)
        else:
            delivery = await asyncio.to_thread(self._read, *arguments)
        if len(delivery.payload_json or "") > INLINE_BYTES_MAX // 4:
            return await asyncio.to_thread(self._without_large_payload, delivery)
        return delivery

    def _read(
        self,
        provider: str,
        repository: str,
        headers: dict[str, str],
        raw: bytes,
        body: bytes,
        default_branch: str,
    ) -> DeliveryReceived:
        request = WebhookRequest(
            repository=repository,
            headers=headers,
            body=body,
            sha256=hashlib.sha256(raw).hexdigest(),
            size=len(raw),
            received_at=self._clock.now_ms(),
            default_branch=default_branch,
        )
        try:
            return received(provider, request)
        except BodyError as error:
            # recorded all the same: who set up the webhook finds out why nothing starts
            return unreadable(provider, request, str(error))

    def _without_large_payload(self, delivery: DeliveryReceived) -> DeliveryReceived:
        payload = (delivery.payload_json or "").encode()
        if len(payload) <= INLINE_BYTES_MAX:
            return delivery
        key = content_key("payloads", payload)
        try:
            self._store.put(key, payload)
        except ObjectStoreError as error:
            logger.warning("payload of %s not stored: %s", delivery.repository, error)
            raise _try_again(f"the delivery's payload could not be stored: {error}") from error
        return dataclasses.replace(delivery, payload_json=None, payload_uri=key)


def _too_large() -> Problem:
    return Problem(
        413,
        f"the body is larger than {BODY_BYTES_MAX} bytes, the limit for a webhook",
        headers={"Connection": "close"},
    )


def _try_again(detail: str) -> Problem:
    return Problem(503, f"{detail}; send it again", headers={"Retry-After": RETRY_AFTER_S})
