"""PostgreSQL: connections, pool, migrations and named queries in one place; knows no table of ours.

A connection is told its schema when it is opened, so that no query names one: a second schema can
be filled beside the first and take its place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

CONNECT_TIMEOUT_S = 5
Connection = psycopg.Connection[Any]

_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
_QUERY_HEAD = re.compile(r"^-- name: ([a-z_]+)\s*$", re.MULTILINE)


class DatabaseError(Exception):
    """The database is not what this program needs; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered SQL script, applied once and never changed afterwards."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The digest by which a script that was edited after the fact is found."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def connection_settings(application: str, schema: str | None) -> dict[str, Any]:
    """Return what every connection has; `application` is shown in pg_stat_activity."""
    settings: dict[str, Any] = {
        "application_name": f"tailrace-{application}",
        "connect_timeout": CONNECT_TIMEOUT_S,
        # a server that went away without a word is noticed after 25 s
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    if schema is not None:
        settings["options"] = f"-c search_path={_checked(schema)}"
    return settings


def connect(
    url: str, application: str, *, schema: str | None = None, autocommit: bool = True
) -> Connection:
    """Open a connection; psycopg.OperationalError when the server does not answer."""
    return psycopg.connect(url, autocommit=autocommit, **connection_settings(application, schema))


def make_pool(
    url: str, application: str, *, schema: str | None = None, size_max: int = 8
) -> AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
    """Return a pool of asyncio connections; open it inside the running loop."""
    from psycopg_pool import AsyncConnectionPool

    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=size_max,
        timeout=CONNECT_TIMEOUT_S,
        kwargs={"autocommit": True, **connection_settings(application, schema)},
        open=False,
        name=application,
    )


def named_queries(package: str, file: str) -> Mapping[str, LiteralString]:
    """Return the queries of a file by the names in their `-- name: …` lines."""
    text = resources.files(package).joinpath(file).read_text("utf-8")
    parts = _QUERY_HEAD.split(text)[1:]
    # cast: the text is a file of this program, as trusted as its code
    return {
        name: cast("LiteralString", query.strip())
        for name, query in zip(parts[::2], parts[1::2], strict=True)
    }


def migrations_of(package: str, folder: str) -> list[Migration]:
    """Return the scripts of a folder in the order of their names."""
    found = resources.files(package).joinpath(folder).iterdir()
    scripts = [entry for entry in found if entry.name.endswith(".sql")]
    return [
        Migration(name=entry.name, text=entry.read_text("utf-8"))
        for entry in sorted(scripts, key=lambda entry: entry.name)
    ]


def migrate(url: str, schema: str, migrations: Sequence[Migration]) -> list[str]:
    """Bring a schema up to date and return what was applied; idempotent, also side by side.

    All of it is one transaction behind an advisory lock, so a copy that comes second finds
    everything done. DatabaseError when an applied script was edited, or when the schema is newer
    than this program.
    """
    _checked(schema)
    with connect(url, "migrate", autocommit=False) as connection:
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"tailrace migrate {schema}",)
        )
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        connection.execute(sql.SQL("SET LOCAL search_path = {}").format(name))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migration ("
            "name text PRIMARY KEY, sha256 text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = dict(connection.execute("SELECT name, sha256 FROM migration").fetchall())
        _check_applied(schema, applied, migrations)
        missing = [script for script in migrations if script.name not in applied]
        for script in missing:
            connection.execute(script.text.encode())
            connection.execute(
                "INSERT INTO migration (name, sha256) VALUES (%s, %s)",
                (script.name, script.sha256),
            )
    return [script.name for script in missing]


def _check_applied(
    schema: str, applied: Mapping[str, str], migrations: Sequence[Migration]
) -> None:
    known = {script.name: script.sha256 for script in migrations}
    for name, sha256 in applied.items():
        if name not in known:
            raise DatabaseError(
                f"schema {schema} has migration {name}, which this version does not know: a newer "
                "Tailrace was here; start that version, or give this one another database"
            )
        if known[name] != sha256:
            raise DatabaseError(
                f"migration {name} was applied to schema {schema} with another text; add a new "
                "script instead of editing one that was applied"
            )


def _checked(schema: str) -> str:
    if _SCHEMA_NAME.fullmatch(schema) is None:
        raise DatabaseError(f"schema name {schema!r}: use lower-case letters, digits and '_'")
    return schema
