"""The read models as the API asks for them: JSON text from PostgreSQL, pages by key.

A cursor is the sort key of the last item, so that a page costs the same wherever it is and no
item is seen twice while others arrive.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec
import psycopg
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from infra.postgres import named_queries
from projector.api.problems import ProblemError

LIMIT_MAX = 200
LIMIT = 50
_INCLUDE = re.compile(r"\{\{([a-z_]+)\}\}")

Json = dict[str, Any]


def _resolved(queries: Mapping[str, str]) -> dict[str, str]:
    """Put fragments into the queries that name them."""

    def expand(text: str) -> str:
        return _INCLUDE.sub(
            lambda match: match[0] if match[1] == "where" else expand(queries[match[1]]), text
        )

    return {name: expand(text) for name, text in queries.items()}


class Queries:
    """Runs the named queries; `origin` is the URL that links begin with."""

    def __init__(
        self, pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], *, origin: str
    ) -> None:
        """Use connections of `pool`, which someone else opens and closes."""
        self._pool = pool
        self._origin = origin
        self._texts = _resolved(named_queries("projector", "queries.sql"))

    async def text(
        self, name: str, *, where: str = "", values: Mapping[str, Any] | None = None
    ) -> str | None:
        """Return the JSON text of a query, None when it has no row.

        ProblemError 503 when the database does not answer.
        """
        query = self._texts[name].replace("{{where}}", where)
        values = {"origin": self._origin, **(values or {})}
        try:
            async with self._pool.connection() as connection:
                # cast: from our own file; filters are our own texts with %(name)s in them
                cursor = await connection.execute(cast("Any", query), values, prepare=True)
                row = await cursor.fetchone()
        except (errors.UndefinedTable, errors.UndefinedColumn) as error:
            raise ProblemError(
                503,
                "The read models are not there yet: `python -m projector` makes them when it "
                "starts. The request can be repeated.",
                code="not-migrated",
            ) from error
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            raise ProblemError(
                503,
                "The database does not answer; the request can be repeated. "
                "`tailrace status` shows what is down.",
                code="database-away",
            ) from error
        return None if row is None else str(row[0])

    async def value(
        self, name: str, *, where: str = "", values: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the decoded JSON of a query, None when it has no row."""
        text = await self.text(name, where=where, values=values)
        return None if text is None else msgspec.json.decode(text)

    async def runs(self, filters: Mapping[str, str], cursor: str | None, limit: int) -> Json:
        """Return a page of runs, newest first; `filters` by the names in the API."""
        parts, values = run_filters(filters)
        if cursor:
            created_at, run_id = read_cursor(cursor, int, str)
            parts.append("(created_at, run_id) < (%(at)s, %(id)s)")
            values |= {"at": created_at, "id": run_id}
        page = await self.value("runs", where=_where(parts), values={**values, "limit": limit + 1})
        return _paged(page, limit, lambda run: (run["created_at"], run["run_id"]))

    async def runs_changed(self, filters: Mapping[str, str], after: int, limit: int) -> Json:
        """Return runs that changed after an offset, in the order in which they did."""
        parts, values = run_filters(filters)
        parts.append("changed_offset > %(after)s")
        page = await self.value(
            "runs_changed",
            where=_where(parts),
            values={**values, "after": after, "limit": limit},
        )
        return cast("Json", page)

    async def deliveries(self, filters: Mapping[str, str], cursor: str | None, limit: int) -> Json:
        """Return a page of deliveries, newest first."""
        parts = [f"{name} = %({name})s" for name in ("repository", "status", "event")
                 if name in filters]  # fmt: skip
        values: Json = dict(filters)
        if cursor:
            offset, delivery_id = read_cursor(cursor, int, str)
            parts.append("(created_offset, delivery_id) < (%(at)s, %(id)s)")
            values |= {"at": offset, "id": delivery_id}
        page = await self.value(
            "deliveries", where=_where(parts), values={**values, "limit": limit + 1}
        )
        return _paged(page, limit, lambda item: (item["offset"], item["delivery_id"]))

    async def run_events(self, run_id: str, cursor: str | None, limit: int) -> Json:
        """Return a page of a run's audit trail, in the order of the log."""
        (after,) = read_cursor(cursor, int) if cursor else (-1,)
        page = await self.value(
            "run_events", values={"run_id": run_id, "after": after, "limit": limit + 1}
        )
        return _paged(page, limit, lambda item: (item["offset"],))

    async def repositories(self, cursor: str | None, limit: int) -> Json:
        """Return a page of repositories by name."""
        (after,) = read_cursor(cursor, str) if cursor else ("",)
        page = await self.value("repositories", values={"after": after, "limit": limit + 1})
        return _paged(page, limit, lambda item: (item["name"],))

    async def workflows(self, repository: str | None, cursor: str | None, limit: int) -> Json:
        """Return a page of workflows by repository and path."""
        parts: list[str] = []
        values: Json = {"limit": limit + 1}
        if repository is not None:
            parts.append("repository = %(repository)s")
            values["repository"] = repository
        if cursor:
            values["after_repository"], values["after_path"] = read_cursor(cursor, str, str)
            parts.append("(repository, path) > (%(after_repository)s, %(after_path)s)")
        page = await self.value("workflows", where=_where(parts), values=values)
        return _paged(page, limit, lambda item: (item["repository"], item["path"]))


def run_filters(filters: Mapping[str, str]) -> tuple[list[str], Json]:
    """Return the SQL conditions of the filters of a run list, and their values."""
    plain = ("repository", "event", "status", "conclusion", "workflow", "run_id", "actor")
    parts = [f"{name} = %({name})s" for name in plain if name in filters]
    values: Json = {name: filters[name] for name in plain if name in filters}
    if "branch" in filters:
        parts.append("(ref = %(branch_ref)s OR head_ref = %(branch)s)")
        values |= {"branch": filters["branch"], "branch_ref": f"refs/heads/{filters['branch']}"}
    return parts, values


def _where(parts: list[str]) -> str:
    return f"WHERE {' AND '.join(parts)}" if parts else ""


def _paged(page: Any, limit: int, key: Any) -> Json:
    """Cut the one item that was asked for beyond the page and say how to go on."""
    items = page["items"]
    more = len(items) > limit
    kept = items[:limit]
    cursor = make_cursor(*key(kept[-1])) if more else None
    return {"items": kept, "next_cursor": cursor, "as_of": page["as_of"]}


def make_cursor(*key: Any) -> str:
    """Return a cursor of a sort key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(key))).decode().rstrip("=")


def read_cursor(cursor: str, *types: type) -> tuple[Any, ...]:
    """Return the sort key of a cursor; ProblemError 400 when it is not one of ours."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = msgspec.json.decode(base64.urlsafe_b64decode(padded.encode()))
        if [type(part) for part in key] == list(types) and len(cursor) < 2048:  # noqa: PLR2004
            return tuple(key)
    except (binascii.Error, ValueError, msgspec.DecodeError, TypeError):
        pass
    raise ProblemError(
        400,
        "The cursor is not one that this API gave; leave it out to begin at the first page.",
        code="bad-cursor",
    )
