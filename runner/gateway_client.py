"""Asks the gateway for what an attempt may have, just in time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from runner.depot import Depot
from runner.identity import Identity
from schemas.lanes import Assignment

if TYPE_CHECKING:
    import urllib.error
    import urllib.request

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

    def secrets(self, assignment: Assignment, names: Iterable[str]) -> Released:
        """Return the secrets of `names`; "*" stands for all."""
        ...

    def clone(self, assignment: Assignment, repository: str = "") -> Clone:
        """Return the URL and credential of the job's repository, or of another registered one."""
        ...

    def payload(self, sha256: str) -> bytes:
        """Return a webhook's payload that was too big for its event."""
        ...

    def depot(self, assignment: Assignment) -> Depot:
        """Return the attempt's way to artifacts and caches."""
        ...


class GatewayClient:
    """Speaks for the attempts of one boot; `token` reads the installation's runner token."""

    def __init__(self, url: str, token: Callable[[], str], identity: Identity) -> None:
        """Ask the gateway at `url`."""
        self._url = url.rstrip("/")
        self._token = token
        self._identity = identity

    def secrets(self, assignment: Assignment, names: Iterable[str]) -> Released:
        """Return the secrets of `names`; "*" stands for all. Raises GatewayError."""
        found = self._post(assignment, names)
        secrets = {str(k): str(v) for k, v in found.get("secrets", {}).items()}
        return Released(secrets, {str(k): str(v) for k, v in found.get("refused", {}).items()})

    def clone(self, assignment: Assignment, repository: str = "") -> Clone:
        """Return the URL and credential of the job's repository, or of another registered one."""
        name = f"{CLONE}{repository}" if repository else CLONE
        found = self._post(assignment, (name,))
        clone = found.get("secrets", {}).get(name)
        if not isinstance(clone, dict):
            why = found.get("refused", {}).get(name, "the gateway did not say why")
            raise GatewayError(f"no access to {repository or assignment.repository}: {why}")
        return Clone(
            str(clone["url"]), str(clone.get("username", "")), str(clone.get("password", ""))
        )

    def payload(self, sha256: str) -> bytes:
        """Return a webhook's payload that was too big for its event."""
        return self._answer(self._request(f"/v1/payloads/{sha256}"))

    def depot(self, assignment: Assignment) -> Depot:
        """Return the attempt's way to artifacts and caches."""
        from runner.depot_client import GatewayDepot

        return GatewayDepot(self, assignment)

    def ask(self, assignment: Assignment, method: str, path: str, body: Any = None) -> bytes:
        """Return the answer to a request of an attempt's; raises GatewayError.

        A body of bytes goes as it is, anything else as JSON.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = self._request(path, data, method=method)
        request.add_header("Tailrace-Attempt", json.dumps(self._who(assignment)))
        if isinstance(body, bytes):
            request.add_header("Content-Type", "application/octet-stream")
        return self._answer(request, timeout_s=_DEPOT_TIMEOUT_S)

    def _who(self, assignment: Assignment) -> dict[str, Any]:
        return {
            "job_id": assignment.job_id,
            "attempt": assignment.attempt,
            "runner_id": self._identity.runner_id,
            "boot_id": self._identity.boot_id,
            "position": assignment.position,
        }

    def _post(self, assignment: Assignment, names: Iterable[str]) -> dict[str, Any]:
        body = {**self._who(assignment), "names": list(names)}
        request = self._request("/v1/secrets", json.dumps(body).encode())
        found = json.loads(self._answer(request))
        if not isinstance(found, dict):
            raise GatewayError("the gateway's answer is no object")
        return found

    def _request(
        self, path: str, body: bytes | None = None, *, method: str | None = None
    ) -> urllib.request.Request:
        import urllib.request  # late: a local run has no use for HTTP, and must begin at once

        headers = {"Authorization": f"Bearer {self._token()}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return urllib.request.Request(  # noqa: S310 - the URL is a setting
            f"{self._url}{path}", body, headers, method=method
        )

    def _answer(self, request: urllib.request.Request, *, timeout_s: float = _TIMEOUT_S) -> bytes:
        import http.client
        import urllib.error
        import urllib.request

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_s) as response:
                return bytes(response.read(_PAYLOAD_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
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
