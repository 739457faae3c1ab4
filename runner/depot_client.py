"""The depot of an attempt through the gateway; see `runner.depot.Depot`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from runner.depot import DepotAwayError, DepotError, Entry, Kept, Saved, read_entry
from runner.gateway_client import GatewayAwayError, GatewayClient, GatewayError
from runner.patience import Patience
from schemas.lanes import Assignment


class GatewayDepot:
    """Speaks for one attempt."""

    def __init__(self, gateway: GatewayClient, assignment: Assignment, patience: Patience) -> None:
        """Ask the gateway as the attempt of `assignment`, again while it is away."""
        self._gateway = gateway
        self._assignment = assignment
        self._patience = patience

    def find_piece(self, sha256: str) -> str | None:
        """Return the name of a piece that is there."""
        found = self._asked("POST", "/v1/pieces/find", {"sha256": sha256}).get("piece")
        return str(found) if found is not None else None

    def put_piece(self, data: bytes) -> str:
        """Keep a piece.

        Before it is sent once more it is looked for: it may have come, and while the gateway is
        away a question costs less than the bytes.
        """
        wanted = {"sha256": hashlib.sha256(data).hexdigest()}
        was_sent = False

        def put() -> bytes:
            nonlocal was_sent
            if was_sent:
                found = self._gateway.ask(self._assignment, "POST", "/v1/pieces/find", wanted)
                if _read(found).get("piece") is not None:
                    return found
            was_sent = True
            return self._gateway.ask(self._assignment, "PUT", "/v1/pieces", data)

        return str(_read(self._patiently(put)).get("piece", ""))

    def get_piece(self, name: str) -> bytes:
        """Return a piece."""
        return self._bytes("GET", f"/v1/pieces/{quote(name)}")

    def save_artifact(self, entry: Entry, *, overwrite: bool, retention_days: int) -> Kept:
        """Keep an artifact of the run."""
        body = {**entry.to_json(), "overwrite": overwrite, "retention_days": retention_days}
        found = self._asked("POST", "/v1/artifacts", body)
        return Kept(
            entry=read_entry(found),
            note=str(found.get("note", "")),
            url=str(found.get("url", "")),
        )

    def artifacts(self) -> list[Entry]:
        """Return the artifacts of the run."""
        found = self._asked("GET", "/v1/artifacts")
        return [read_entry(item) for item in found.get("items", [])]

    def save_cache(self, entry: Entry, *, version: str, scope: str) -> Saved:
        """Keep a cache for a ref."""
        body = {**entry.to_json(), "version": version, "scope": scope}
        found = self._asked("POST", "/v1/caches", body)
        return Saved(saved=bool(found.get("saved")), note=str(found.get("note", "")))

    def find_cache(
        self, keys: Sequence[str], *, version: str, scopes: Sequence[str]
    ) -> Entry | None:
        """Return the cache that fits best."""
        body = {"keys": list(keys), "version": version, "scopes": list(scopes)}
        found = self._asked("POST", "/v1/caches/find", body).get("cache")
        return read_entry(found) if found is not None else None

    def _asked(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return _read(self._bytes(method, path, body))

    def _bytes(self, method: str, path: str, body: Any = None) -> bytes:
        return self._patiently(lambda: self._gateway.ask(self._assignment, method, path, body))

    def _patiently(self, question: Callable[[], bytes]) -> bytes:
        try:
            return self._patience.ask(question)
        except GatewayAwayError as error:
            raise DepotAwayError(str(error)) from error
        except GatewayError as error:
            raise DepotError(str(error)) from error


def _read(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise DepotError(f"the gateway's answer can't be read: {error}") from error
    if not isinstance(found, dict):
        raise DepotError("the gateway's answer is no object")
    return found
