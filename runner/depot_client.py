"""The depot of an attempt through the gateway; see `runner.depot.Depot`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from runner.depot import DepotAwayError, DepotError, Entry, Kept, Saved, read_entry
from runner.gateway_client import GatewayAwayError, GatewayClient, GatewayError
from schemas.lanes import Assignment


class GatewayDepot:
    """Speaks for one attempt."""

    def __init__(self, gateway: GatewayClient, assignment: Assignment) -> None:
        """Ask the gateway as the attempt of `assignment`."""
        self._gateway = gateway
        self._assignment = assignment

    def find_piece(self, sha256: str) -> str | None:
        """Return the name of a piece that is there."""
        found = self._asked("POST", "/v1/pieces/find", {"sha256": sha256}).get("piece")
        return str(found) if found is not None else None

    def put_piece(self, data: bytes) -> str:
        """Keep a piece."""
        return str(self._asked("PUT", "/v1/pieces", data).get("piece", ""))

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
        try:
            found = json.loads(self._bytes(method, path, body))
        except ValueError as error:
            raise DepotError(f"the gateway's answer can't be read: {error}") from error
        if not isinstance(found, dict):
            raise DepotError("the gateway's answer is no object")
        return found

    def _bytes(self, method: str, path: str, body: Any = None) -> bytes:
        try:
            return self._gateway.ask(self._assignment, method, path, body)
        except GatewayAwayError as error:
            raise DepotAwayError(str(error)) from error
        except GatewayError as error:
            raise DepotError(str(error)) from error
