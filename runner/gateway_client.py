"""Asks the gateway for what an attempt may have, just in time, signed with the key of the boot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from infra.clock import Clock
from runner.depot import Depot
from runner.identity import Identity
from runner.signing import (
    ATTEMPT_HEADER,
    EPOCH_HEADER,
    NONCE_BYTES,
    SIGNATURE_HEADER,
    Asking,
    BootKey,
)
from schemas.lanes import Assignment
from schemas.late import dataclass

if TYPE_CHECKING:
    import urllib.error
    import urllib.request

    from runner.patience import Patience

CLONE = "__clone__"
_TIMEOUT_S = 10
_DEPOT_TIMEOUT_S = 60
_PAYLOAD_BYTES_MAX = 32 * 1024 * 1024


class GatewayError(Exception):
    """The gateway did not answer, or refused; the message says which."""


class GatewayAwayError(GatewayError):
    """The gateway did not answer, or can't now; the same request may be repeated."""


@dataclass(frozen=True, slots=True)
class Clone:
    """Where a repository is cloned from, and with what."""

    url: str
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Released:
    """Secrets by name, and what was refused and why."""

    secrets: dict[str, str] = field(repr=False)
    refused: dict[str, str]


class Gateway(Protocol):
    """What gives attempts their secrets, clones and payloads; each raises GatewayError."""

    @property
    def public_key(self) -> str:
        """What verifies this boot's requests; "" where nothing has to be proved."""
        ...

    def secrets(self, assignment: Assignment, names: Iterable[str]) -> Released:
        """Return the secrets of `names`; "*" stands for all."""
        ...

    def clone(self, assignment: Assignment, repository: str = "") -> Clone:
        """Return the URL and credential of the job's repository, or of another registered one."""
        ...

    def payload(self, assignment: Assignment, sha256: str) -> bytes:
        """Return a webhook's payload that was too big for its event."""
        ...

    def depot(self, assignment: Assignment, patience: Patience) -> Depot:
        """Return the attempt's way to artifacts and caches; it waits with `patience`."""
        ...


class _OtherEpochError(Exception):
    """The gateway was started again since the last request, and says what it is called now."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self.epoch = epoch


class GatewayClient:
    """Speaks for the attempts of one boot; `token` reads the installation's runner token.

    It makes the boot's key and is the only one to hold it. Safe for several threads.
    """

    def __init__(
        self, url: str, token: Callable[[], str], identity: Identity, clock: Clock
    ) -> None:
        """Ask the gateway at `url`."""
        self._url = url.rstrip("/")
        self._token = token
        self._identity = identity
        self._clock = clock
        self._key = BootKey()
        self._epoch = ""

    @property
    def public_key(self) -> str:
        """What verifies this boot's requests."""
        return self._key.public

    def secrets(self, assignment: Assignment, names: Iterable[str]) -> Released:
        """Return the secrets of `names`; "*" stands for all. Raises GatewayError."""
        found = self._released(assignment, names)
        secrets = {str(k): str(v) for k, v in found.get("secrets", {}).items()}
        return Released(secrets, {str(k): str(v) for k, v in found.get("refused", {}).items()})

    def clone(self, assignment: Assignment, repository: str = "") -> Clone:
        """Return the URL and credential of the job's repository, or of another registered one."""
        name = f"{CLONE}{repository}" if repository else CLONE
        found = self._released(assignment, (name,))
        clone = found.get("secrets", {}).get(name)
        if not isinstance(clone, dict):
            why = found.get("refused", {}).get(name, "the gateway did not say why")
            raise GatewayError(f"no access to {repository or assignment.repository}: {why}")
        return Clone(
            str(clone["url"]), str(clone.get("username", "")), str(clone.get("password", ""))
        )

    def payload(self, assignment: Assignment, sha256: str) -> bytes:
        """Return a webhook's payload that was too big for its event."""
        return self.ask(assignment, "GET", f"/v1/payloads/{sha256}")

    def depot(self, assignment: Assignment, patience: Patience) -> Depot:
        """Return the attempt's way to artifacts and caches; it waits with `patience`."""
        from runner.depot_client import GatewayDepot

        return GatewayDepot(self, assignment, patience)

    def ask(
        self,
        assignment: Assignment,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float = _DEPOT_TIMEOUT_S,
    ) -> bytes:
        """Return the answer to a request of an attempt's; raises GatewayError.

        A body of bytes goes as it is, anything else as JSON.
        """
        given = isinstance(body, bytes)
        data = body if body is None or given else json.dumps(body).encode()
        kind = "application/octet-stream" if given else "application/json"
        asking = Asking(method, path, data or b"", json.dumps(self._who(assignment)))
        try:
            return self._answer(self._request(asking, data, kind), timeout_s=timeout_s)
        except _OtherEpochError as other:
            self._epoch = other.epoch
        try:
            return self._answer(self._request(asking, data, kind), timeout_s=timeout_s)
        except _OtherEpochError:
            raise GatewayError(
                f"{self._url} answers as a different gateway each time: runners need one gateway"
            ) from None

    def _who(self, assignment: Assignment) -> dict[str, Any]:
        return {
            "job_id": assignment.job_id,
            "attempt": assignment.attempt,
            "runner_id": self._identity.runner_id,
            "boot_id": self._identity.boot_id,
            "position": assignment.position,
        }

    def _released(self, assignment: Assignment, names: Iterable[str]) -> dict[str, Any]:
        body = {"names": list(names)}
        found = json.loads(self.ask(assignment, "POST", "/v1/secrets", body, timeout_s=_TIMEOUT_S))
        if not isinstance(found, dict):
            raise GatewayError("the gateway's answer is no object")
        return found

    def _request(self, asking: Asking, data: bytes | None, kind: str) -> urllib.request.Request:
        import urllib.request  # late: a local run has no use for HTTP, and must begin at once

        proof = self._key.prove(
            asking,
            epoch=self._epoch,
            time_ms=self._clock.now_ms(),
            nonce=os.urandom(NONCE_BYTES),
        )
        headers = {
            "Authorization": f"Bearer {self._token()}",
            ATTEMPT_HEADER: asking.attempt,
            SIGNATURE_HEADER: proof.to_header(),
        }
        if data is not None:
            headers["Content-Type"] = kind
        return urllib.request.Request(  # noqa: S310 - the URL is a setting
            f"{self._url}{asking.path}", data, headers, method=asking.method
        )

    def _answer(self, request: urllib.request.Request, *, timeout_s: float) -> bytes:
        import http.client
        import urllib.error
        import urllib.request

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_s) as response:
                return bytes(response.read(_PAYLOAD_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                epoch = error.headers.get(EPOCH_HEADER)
                if epoch is not None:
                    raise _OtherEpochError(epoch) from None
                detail = f"the gateway refused: {_detail(error)}"
                is_away = error.code >= http.client.INTERNAL_SERVER_ERROR
                raise (GatewayAwayError(detail) if is_away else GatewayError(detail)) from None
        except (OSError, http.client.HTTPException) as error:
            detail = f"the gateway at {self._url} does not answer: {error}"
            raise GatewayAwayError(detail) from error


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        found = json.loads(error.read(65_536))
        return str(found.get("detail") or found.get("title") or error.reason)
    except (ValueError, AttributeError, OSError):
        return f"{error.code} {error.reason}"
