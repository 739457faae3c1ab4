"""The vault: webhook secrets, forge tokens and workflow secrets, sealed, in PostgreSQL.

The only place that reads or writes the schema `vault` (`infra/vault.sql`). Calls block: an async
process makes them in a thread. Webhook secrets also lie in a sealed local copy, so that webhooks
are verified while PostgreSQL is away. `python -m infra.vault` makes the schema; idempotent.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from infra.sealing import Sealer, SealError, write_private

logger = logging.getLogger(__name__)

KEY_FILE = "vault.key"
COPY_FILE = "webhooks.sealed"
_CONNECT_S = 3.0
_LOCK = 0x7461696C72616365 & 0x7FFFFFFFFFFFFFFF  # "tailrace": one migration at a time

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


class VaultError(Exception):
    """The vault could not do what was asked; the message says why."""


class VaultAwayError(VaultError):
    """PostgreSQL does not answer: try again; webhooks go on meanwhile."""


class AlreadyThereError(VaultError):
    """A repository of that name is registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A registered repository; `webhook_secret` never shows in its representation."""

    repository: str
    provider: str
    clone_url: str
    default_branch: str
    webhook_secret: bytes = field(repr=False)
    added_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookKey:
    """What verifies a repository's webhooks."""

    provider: str
    secret: bytes = field(repr=False)
    default_branch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretInfo:
    """A workflow secret as it may be shown: never its value."""

    name: str
    created_at: int
    updated_at: int


class Vault:
    """Reads and writes the vault; VaultAwayError while PostgreSQL does not answer."""

    def __init__(self, database_url: str, secrets_dir: Path, *, connections_max: int = 4) -> None:
        """Connect on first use; the key is read or made in `secrets_dir`."""
        self._sealer = Sealer.of_file(secrets_dir / KEY_FILE)
        self._copy = secrets_dir / COPY_FILE
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            database_url,
            min_size=0,
            max_size=connections_max,
            timeout=_CONNECT_S,
            max_idle=60,
            reconnect_timeout=2,
            kwargs={
                "autocommit": True,
                "connect_timeout": 3,
                "application_name": "tailrace-vault",
            },
            check=ConnectionPool.check_connection,
            open=False,
        )
        self._opened = False

    def close(self) -> None:
        """Let go of the connections."""
        if self._opened:
            self._pool.close(timeout=1)

    def migrate(self) -> None:
        """Make the schema; idempotent and safe side by side."""
        ddl = resources.files("infra").joinpath("vault.sql").read_text("utf-8")

        def make(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                connection.execute(ddl.encode())

        self._with(make)

    # ----------------------------------------------------------------- repositories

    def register(self, registration: Registration, token: str = "") -> None:
        """Add a repository; AlreadyThereError when the name is taken."""
        sealed = self._sealed_pair(registration.repository, registration.webhook_secret, token)

        def insert(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute(
                    "INSERT INTO vault.repositories (repository, provider, clone_url,"
                    " default_branch, added_by, webhook_secret, token)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    (
                        registration.repository,
                        registration.provider,
                        registration.clone_url,
                        registration.default_branch,
                        registration.added_by,
                        *sealed,
                    ),
                )
                _count_up(connection)

        try:
            self._with(insert)
        except psycopg.errors.UniqueViolation as error:
            raise AlreadyThereError(f"{registration.repository} is registered already") from error

    def registration(self, repository: str) -> Registration | None:
        """Return a repository's registration, or None."""
        rows = self._rows(f"{_REGISTRATIONS} WHERE repository = %s", (repository,))
        return self._registration(rows[0]) if rows else None

    def registrations(self) -> list[Registration]:
        """Return every registration by name."""
        return [self._registration(row) for row in self._rows(f"{_REGISTRATIONS} ORDER BY 1", ())]

    def remove(self, repository: str) -> bool:
        """Forget a repository with all its secrets; tells whether it was there."""

        def delete(connection: psycopg.Connection[Any]) -> bool:
            with connection.transaction():
                gone = connection.execute(
                    "DELETE FROM vault.repositories WHERE repository = %s", (repository,)
                ).rowcount
                connection.execute("DELETE FROM vault.secrets WHERE repository = %s", (repository,))
                _count_up(connection)
                return gone > 0

        return self._with(delete)

    def rotate_webhook_secret(self, repository: str, secret: bytes) -> bool:
        """Replace the webhook secret; the old one counts no more. Tells whether it was there."""
        sealed = self._sealer.seal(secret, f"webhook:{repository}")

        def update(connection: psycopg.Connection[Any]) -> bool:
            with connection.transaction():
                changed = connection.execute(
                    "UPDATE vault.repositories SET webhook_secret = %s, updated_at = now()"
                    " WHERE repository = %s",
                    (sealed, repository),
                ).rowcount
                _count_up(connection)
                return changed > 0

        return self._with(update)

    def set_default_branch(self, repository: str, branch: str) -> None:
        """Take over the name that a repository's default branch has got."""

        def update(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute(
                    "UPDATE vault.repositories SET default_branch = %s, updated_at = now()"
                    " WHERE repository = %s",
                    (branch, repository),
                )
                _count_up(connection)

        self._with(update)

    def forge_token(self, repository: str) -> str:
        """Return the forge token of a repository, or ""."""
        rows = self._rows("SELECT token FROM vault.repositories WHERE repository = %s",
                          (repository,))  # fmt: skip
        if not rows or rows[0][0] is None:
            return ""
        return self._sealer.open(rows[0][0], f"token:{repository}").decode()

    def set_forge_token(self, repository: str, token: str) -> bool:
        """Replace the forge token ("" for none); tells whether the repository is there."""
        sealed = self._sealer.seal(token.encode(), f"token:{repository}") if token else None
        return self._with(
            lambda connection: (
                connection.execute(
                    "UPDATE vault.repositories SET token = %s, updated_at = now()"
                    " WHERE repository = %s",
                    (sealed, repository),
                ).rowcount
                > 0
            )
        )

    # ----------------------------------------------------------------- workflow secrets

    def set_secret(self, repository: str, name: str, value: str, *, environment: str = "") -> bool:
        """Set a workflow secret; tells whether it is new. Names ignore case, as on GitHub.

        The scope is an environment of the repository, the repository, or for "" all of them.
        """
        name, environment = name.upper(), environment.lower()
        sealed = self._sealer.seal(value.encode(), _purpose(repository, environment, name))
        rows = self._rows(
            "INSERT INTO vault.secrets (repository, environment, name, value)"
            " VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (repository, environment, name)"
            " DO UPDATE SET value = excluded.value, updated_at = now()"
            " RETURNING xmax = 0",
            (repository, environment, name, sealed),
        )
        return bool(rows[0][0])

    def delete_secret(self, repository: str, name: str, *, environment: str = "") -> bool:
        """Forget a workflow secret of one scope; tells whether it was there."""
        return self._with(
            lambda connection: (
                connection.execute(
                    "DELETE FROM vault.secrets"
                    " WHERE repository = %s AND environment = %s AND name = %s",
                    (repository, environment.lower(), name.upper()),
                ).rowcount
                > 0
            )
        )

    def secret_infos(self, repository: str, *, environment: str = "") -> list[SecretInfo]:
        """Return the names of one scope's workflow secrets and when they were set."""
        rows = self._rows(
            "SELECT name, extract(epoch FROM created_at) * 1000,"
            " extract(epoch FROM updated_at) * 1000"
            " FROM vault.secrets WHERE repository = %s AND environment = %s ORDER BY name",
            (repository, environment.lower()),
        )
        return [
            SecretInfo(name=name, created_at=int(created), updated_at=int(updated))
            for name, created, updated in rows
        ]

    def secret_names(self, repository: str, environment: str = "") -> list[str]:
        """Return the names of all secrets that a job in an environment ("" for none) can have."""
        rows = self._rows(
            f"SELECT DISTINCT name FROM vault.secrets WHERE {_VISIBLE} ORDER BY name",  # noqa: S608
            (repository, environment.lower()),
        )
        return [name for (name,) in rows]

    def secrets(
        self, repository: str, names: Iterable[str], environment: str = ""
    ) -> dict[str, str]:
        """Return the values of those of `names` (any case) that exist, by upper-case name.

        The environment's goes before the repository's, that before the installation's. A value
        opens only in the scope that it was set in.
        """
        rows = self._rows(
            f"SELECT repository, environment, name, value FROM vault.secrets WHERE {_VISIBLE}"  # noqa: S608
            " AND name = ANY(%s) ORDER BY repository <> '', environment <> ''",
            (repository, environment.lower(), [name.upper() for name in names]),
        )
        chosen = {name: (scope, within, value) for scope, within, name, value in rows}
        return {
            name: self._sealer.open(value, _purpose(scope, within, name)).decode()
            for name, (scope, within, value) in chosen.items()
        }

    # ----------------------------------------------------------------- webhooks

    def version(self) -> int:
        """Return a number that changes with every change of webhook secrets."""
        return int(self._rows("SELECT number FROM vault.version", ())[0][0])

    def webhook_keys(self) -> dict[str, WebhookKey]:
        """Return what verifies webhooks, by repository, and renew the sealed local copy."""
        keys = {
            row.repository: WebhookKey(
                provider=row.provider,
                secret=row.webhook_secret,
                default_branch=row.default_branch,
            )
            for row in self.registrations()
        }
        self._write_copy(keys)
        return keys

    def copied_webhook_keys(self) -> dict[str, WebhookKey]:
        """Return the last local copy of `webhook_keys`; empty when there is none."""
        try:
            sealed = self._copy.read_bytes()
        except FileNotFoundError:
            return {}
        content = json.loads(self._sealer.open(sealed, COPY_FILE))
        return {
            name: WebhookKey(
                provider=key["provider"],
                secret=key["secret"].encode("latin-1"),
                default_branch=key["default_branch"],
            )
            for name, key in content.items()
        }

    def _write_copy(self, keys: Mapping[str, WebhookKey]) -> None:
        content = {
            name: {
                "provider": key.provider,
                "secret": key.secret.decode("latin-1"),
                "default_branch": key.default_branch,
            }
            for name, key in keys.items()
        }
        write_private(self._copy, self._sealer.seal(json.dumps(content).encode(), COPY_FILE))

    # ----------------------------------------------------------------- inside

    def _registration(self, row: tuple[Any, ...]) -> Registration:
        repository, provider, clone_url, default_branch, secret, added_by = row
        return Registration(
            repository=repository,
            provider=provider,
            clone_url=clone_url,
            default_branch=default_branch,
            webhook_secret=self._sealer.open(secret, f"webhook:{repository}"),
            added_by=added_by,
        )

    def _sealed_pair(
        self, repository: str, secret: bytes, token: str
    ) -> tuple[bytes, bytes | None]:
        return (
            self._sealer.seal(secret, f"webhook:{repository}"),
            self._sealer.seal(token.encode(), f"token:{repository}") if token else None,
        )

    def _rows(self, query: str, arguments: tuple[object, ...]) -> Rows:
        def fetch(connection: psycopg.Connection[Any]) -> Rows:
            with connection.cursor(row_factory=tuple_row) as cursor:
                return cursor.execute(query.encode(), arguments).fetchall()

        return self._with(fetch)

    def _with(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        if not self._opened:
            self._pool.open(wait=False)
            self._opened = True
        try:
            with self._pool.connection() as connection:
                return work(connection)
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise VaultAwayError(f"PostgreSQL does not answer: {error}") from error
        except psycopg.errors.UndefinedTable as error:
            raise VaultError(
                "the vault's schema is not there: run `tailrace up` (or `python -m infra.vault`)"
            ) from error


_REGISTRATIONS = (
    "SELECT repository, provider, clone_url, default_branch, webhook_secret, added_by"
    " FROM vault.repositories"
)


#: The scopes that a job of a repository, in an environment or none, can see.
_VISIBLE = "(repository = '' AND environment = '' OR repository = %s AND environment IN ('', %s))"


def _purpose(repository: str, environment: str, name: str) -> str:
    """Return what a secret is sealed for: no two scopes have the same, for no part has a `:`.

    An environment's name may have one, and so stands last.
    """
    if environment:
        return f"environment-secret:{repository}:{name}:{environment}"
    return f"secret:{repository}:{name}" if repository else f"global-secret:{name}"


def _count_up(connection: psycopg.Connection[Any]) -> None:
    connection.execute("UPDATE vault.version SET number = number + 1")


def main() -> int:
    """Make the vault's schema and key in the configured database and home."""
    from infra.settings import Settings

    settings = Settings.load()
    try:
        vault = Vault(settings.database_url, settings.secrets_dir)
        vault.migrate()
        vault.close()
    except (VaultError, SealError) as error:
        sys.stderr.write(f"vault: {error}\n")
        return 1
    sys.stdout.write("vault: ready\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
