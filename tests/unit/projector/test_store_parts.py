"""What of the store needs no database: JSON that PostgreSQL takes, columns that match."""

from __future__ import annotations

import re

from projector import store
from projector.api.queries import make_cursor, read_cursor
from projector.tables import TABLES, columns


def test_nul_becomes_a_replacement_character() -> None:
    """PostgreSQL's texts hold no NUL, and one in a message must not stop the fold."""
    assert store.encode_rows([{"a\0": ["x\0y", 1, None]}]) == '[{"a\ufffd":["x\ufffdy",1,null]}]'


def test_the_migrations_have_the_columns_of_the_classes() -> None:
    """A field without a column, or a column that is not NOT NULL nor optional, is found here."""
    text = "\n".join(script.text for script in store.migrations())
    for table in TABLES:
        made = re.findall(rf"CREATE TABLE {table.TABLE} \((.*?)\n\)", text, re.DOTALL)
        assert made, table.TABLE
        # a later script may make a table anew: what it holds is derived from the log
        found = re.findall(r'^    "?([a-z_0-9]+)"? [a-z]+', made[-1], re.MULTILINE)
        assert tuple(found) == columns(table)


def test_a_cursor_comes_back_as_it_was() -> None:
    """Its parts keep their types."""
    assert read_cursor(make_cursor(17, "ä/b"), int, str) == (17, "ä/b")
