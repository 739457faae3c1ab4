"""What verifies webhooks, kept in memory: the only place ingest gets a webhook secret from.

The vault is asked every few seconds whether anything changed, and at once when a request names a
repository that is not known or has a wrong signature (rarely: nobody can make it a hammer). While
PostgreSQL is away the last sealed copy holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from infra.clock import Clock
from infra.sealing import SealError
from infra.vault import Vault, VaultError, WebhookKey

logger = logging.getLogger(__name__)

POLL_MS = 2_000
RECHECK_MS = 250


class WebhookKeys:
    """Webhook keys by repository, refreshed from the vault."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        """Nothing is loaded before `start`."""
        self._vault = vault
        self._clock = clock
        self._keys: Mapping[str, WebhookKey] = {}
        self._version: int | None = None
        self._checked_ms = -RECHECK_MS
        self._check: asyncio.Task[bool] | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_current = False
        self.is_loaded = False

    async def start(self) -> None:
        """Load the keys, from the sealed copy if the vault does not answer, and keep them fresh."""
        try:
            self._keys = await asyncio.to_thread(self._vault.copied_webhook_keys)
        except SealError as error:
            logger.warning("the local copy of webhook secrets can't be used: %s", error)
        await self._ask()
        self.is_loaded = True
        self._task = asyncio.create_task(self._poll(), name="webhook-keys")

    async def close(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def get(self, repository: str) -> WebhookKey | None:
        """Return the key of a repository as far as it is known."""
        return self._keys.get(repository)

    async def refresh(self) -> bool:
        """Ask the vault for changes, at most every RECHECK_MS; tells whether there were any.

        Requests that ask at the same time share one answer. While the vault is away only the
        regular poll asks, so that nobody waits for it.
        """
        if self._check is None:
            recently = self._clock.steady_ms() - self._checked_ms < RECHECK_MS
            if recently or not self.is_current:
                return False
            self._begin()
        return await asyncio.shield(self._check) if self._check is not None else False

    async def reload(self) -> None:
        """Ask the vault now: a command has just changed it."""
        if self._check is not None:
            await asyncio.shield(self._check)
        if self._check is None:
            self._begin()
        if self._check is not None:
            await asyncio.shield(self._check)

    def _begin(self) -> None:
        self._check = asyncio.create_task(self._ask())

    async def _ask(self) -> bool:
        try:
            return await asyncio.to_thread(self._load_if_changed)
        except (VaultError, SealError, OSError) as error:
            if self.is_current:
                logger.warning("webhook secrets are not refreshed: %s", error)
            self.is_current = False
            return False
        finally:
            self._checked_ms = self._clock.steady_ms()
            self._check = None

    def _load_if_changed(self) -> bool:
        version = self._vault.version()
        changed = version != self._version
        if changed:
            self._keys = self._vault.webhook_keys()
            self._version = version
        self.is_current = True
        return changed

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_MS / 1000)
            if self._check is None:
                self._begin()
