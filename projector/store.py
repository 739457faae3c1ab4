"""The working set's way into PostgreSQL and back: set-based SQL, made from the tables' classes.

Rows travel as one JSON array a table (`json_populate_recordset`), which needs no code a column;
the audit trail of a big batch goes through COPY, which costs half of that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from psycopg import errors, sql

from infra.postgres import Connection, Migration, migrate, migrations_of
from projector.rows import Needed, WorkingSet
from projector.tables import (
    ENTITIES,
    TABLES,
    Attempt,
    Job,
    Key,
    Row,
    TrailEntry,
    columns,
    values_of,
)

SCHEMA = "projection"
CHANNEL = "tailrace_projection"
COPY_FROM = 64
_NOTIFY_BYTES_MAX = 7_500
_NOTIFIED_RUNS_MAX = 200
_NUL = b"\\u0000"

_encoder = msgspec.json.Encoder()


class PositionLostError(Exception):
    """Another projector moved the position on: read it again and go on from there."""


class OtherTopicError(Exception):
    """The topic was made anew; what was folded from the old one can't go on with it."""


def migrations() -> list[Migration]:
    """Return the scripts of the read models' schema."""
    return migrations_of("projector", "migrations")


def migrate_schema(url: str, schema: str = SCHEMA) -> list[str]:
    """Create or update the read models' schema; returns the names of what was applied."""
    return migrate(url, schema, migrations())


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """A position's step from one offset to the next, which only one projector can make."""

    topic: str
    partition: int
    expected: int
    next_offset: int


def position(connection: Connection, topic: str, partition: int, topic_id: str) -> int:
    """Return the next offset of a partition; OtherTopicError when the topic was made anew."""
    connection.execute(
        "INSERT INTO position (topic, partition, next_offset, topic_id) VALUES (%s, %s, 0, %s) "
        "ON CONFLICT DO NOTHING",
        (topic, partition, topic_id),
    )
    row = connection.execute(
        "SELECT next_offset, topic_id FROM position WHERE topic = %s AND partition = %s",
        (topic, partition),
    ).fetchone()
    if row is None:
        raise PositionLostError(f"the position of {topic}/{partition} went away")
    if row[1] != topic_id:
        raise OtherTopicError(
            f"topic {topic} is not the one that the read models were made from (its id is "
            f"{topic_id}, theirs {row[1]}): the topic was deleted and made again, or this database "
            "belongs to another installation. Give this installation a database of its own, or "
            "drop the schema and start again to fold the new topic from its beginning"
        )
    return int(row[0])


def load(connection: Connection, rows: WorkingSet, needed: Iterable[Needed]) -> None:
    """Look up rows; what the tables lack becomes known to be missing."""
    keys: dict[type[Row], list[Key]] = defaultdict(list)
    for table, key in needed:
        keys[table].append(key)
    if not keys:
        return
    with connection.pipeline():
        found = [
            (table, connection.execute(_select(table), _arrays(table_keys)))
            for table, table_keys in keys.items()
        ]
        live = connection.execute(_LIVE_ATTEMPTS, _arrays(keys[Job])) if Job in keys else None
    if live is not None:
        _take(rows, Attempt, live.fetchall(), ())
    for table, cursor in found:
        _take(rows, table, cursor.fetchall(), keys[table])


def _take(rows: WorkingSet, table: type[Row], found: Sequence[Any], asked: Iterable[Key]) -> None:
    known = rows.known[table]
    decoded: list[Row] = msgspec.json.decode(found[0][0], type=list[table])  # type: ignore[valid-type]
    for row in decoded:
        known.setdefault(row.identity(), row)
    for key in asked:
        known.setdefault(key, None)


def write(connection: Connection, rows: WorkingSet, step: Advance, cell: int) -> int:
    """Write what changed and move the position, all in one transaction; returns rows written.

    PositionLostError when another projector was first; nothing is written then.
    """
    try:
        if len(rows.trail) < COPY_FROM:
            # one round trip: an idle system's lag is this
            with connection.pipeline(), connection.transaction():
                return _write(connection, rows, step, cell)
        with connection.transaction():
            return _write(connection, rows, step, cell)
    except psycopg.Error as error:
        if error.sqlstate == "TR001" or isinstance(error, errors.UniqueViolation):
            raise PositionLostError(str(error)) from error
        raise


def _write(connection: Connection, rows: WorkingSet, step: Advance, cell: int) -> int:
    connection.execute(
        "SELECT advance(%s, %s, %s, %s)",
        (step.topic, step.partition, step.expected, step.next_offset),
    )
    written = len(rows.trail)
    for table in ENTITIES:
        changed = rows.changed[table]
        if changed:
            written += len(changed)
            connection.execute(_upsert(table), (encode_rows(list(changed.values())),))
    if len(rows.trail) < COPY_FROM:
        if rows.trail:
            connection.execute(_upsert(TrailEntry), (encode_rows(rows.trail),))
    else:
        _copy_trail(connection, rows.trail)
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, _notice(rows, step, cell)))
    return written


def _notice(rows: WorkingSet, step: Advance, cell: int) -> str:
    """Say what changed; without names when they are too many for a notification."""
    notice = {
        "cell": cell,
        "offset": step.next_offset - 1,
        "runs": list(rows.run_ids),
        "archived": rows.archived,
    }
    if len(rows.run_ids) <= _NOTIFIED_RUNS_MAX:
        text = _encoder.encode(notice)
        if len(text) <= _NOTIFY_BYTES_MAX:
            return text.decode()
    return _encoder.encode({**notice, "runs": None, "archived": None}).decode()


def _copy_trail(connection: Connection, trail: Sequence[TrailEntry]) -> None:
    take = values_of(TrailEntry)
    with connection.cursor().copy(_COPY_TRAIL) as copy:
        for entry in trail:
            values = take(entry)
            copy.write_row((*values[:-1], encode_rows(values[-1])))


def encode_rows(value: Any) -> str:
    """Return JSON that PostgreSQL takes: NUL, which its texts can't hold, becomes U+FFFD."""
    encoded = _encoder.encode(value)
    if _NUL in encoded:
        encoded = _encoder.encode(_without_nul(msgspec.to_builtins(value)))
    return encoded.decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nul(item) for item in value]
    return value


def checksum(connection: Connection) -> dict[str, tuple[int, str]]:
    """Return (rows, checksum) by table: equal tables are equal here, whatever their order."""
    found: dict[str, tuple[int, str]] = {}
    for table in TABLES:
        query = sql.SQL(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text "
            "FROM {} t"
        ).format(sql.Identifier(table.TABLE))
        [(rows, digest)] = connection.execute(query).fetchall()
        found[table.TABLE] = (int(rows), str(digest))
    return found


def unfold(connection: Connection) -> None:
    """Empty every table and set every position to the beginning: the next start folds again."""
    tables = sql.SQL(", ").join(sql.Identifier(table.TABLE) for table in TABLES)
    with connection.transaction():
        connection.execute(sql.SQL("TRUNCATE {}").format(tables))
        connection.execute("DELETE FROM position")


# --------------------------------------------------------------------------- generated SQL

_TYPES = {"attempt": "bigint", "number": "bigint", "ordinal": "bigint", "first_line": "bigint"}


def _arrays(keys: Sequence[Key]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*keys, strict=True))


def _build_select(table: type[Row]) -> sql.Composed:
    arrays = sql.SQL(", ").join(sql.SQL(f"%s::{_TYPES.get(name, 'text')}[]") for name in table.KEY)
    names = sql.SQL(", ").join(map(sql.Identifier, table.KEY))
    return sql.SQL(
        "SELECT coalesce(json_agg(t), '[]')::text FROM {table} t "
        "WHERE ({names}) IN (SELECT * FROM unnest({arrays}))"
    ).format(table=sql.Identifier(table.TABLE), names=names, arrays=arrays)


def _build_upsert(table: type[Row]) -> sql.Composed:
    names = columns(table)
    rest = [name for name in names if name not in table.KEY]
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {columns} "
        "FROM json_populate_recordset(NULL::{table}, %s::json) "
        "ON CONFLICT ({key}) {action}"
    ).format(
        table=sql.Identifier(table.TABLE),
        columns=sql.SQL(", ").join(map(sql.Identifier, names)),
        key=sql.SQL(", ").join(map(sql.Identifier, table.KEY)),
        action=sql.SQL("DO UPDATE SET ")
        + sql.SQL(", ").join(
            sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in rest
        ),
    )


_SELECTS = {table: _build_select(table) for table in ENTITIES}
_UPSERTS = {table: _build_upsert(table) for table in TABLES}
_LIVE_ATTEMPTS = (
    "SELECT coalesce(json_agg(a), '[]')::text FROM attempt a JOIN job j "
    "ON a.job_id = j.job_id AND a.attempt = j.live_attempt WHERE j.job_id = ANY(%s::text[])"
)
_COPY_TRAIL = sql.SQL("COPY {} ({}) FROM STDIN").format(
    sql.Identifier(TrailEntry.TABLE),
    sql.SQL(", ").join(map(sql.Identifier, columns(TrailEntry))),
)


def _select(table: type[Row]) -> sql.Composed:
    return _SELECTS[table]


def _upsert(table: type[Row]) -> sql.Composed:
    return _UPSERTS[table]
