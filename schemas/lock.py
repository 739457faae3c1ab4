"""Adds a schema version when the classes changed: `python -m schemas.lock` (development only).

The lock file is append-only: a version that was released is never rewritten.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from schemas.codec import CODECS, LockedSchema, locked_schemas

_FOLDER = Path(__file__).parent / "avro"
_HEAD = "# id subject version file sha256-of-file; append only\n"


def main() -> None:
    """Write the next version of every topic schema that differs from its newest locked one."""
    lock = _FOLDER / "avro.lock"
    if not lock.exists():
        lock.write_text(_HEAD)
    rows = list(locked_schemas().values())
    for codec in CODECS:
        text = json.dumps(codec.derived_schema(), indent=2) + "\n"
        newest = max((r.version for r in rows if r.subject == codec.subject), default=0)
        file = f"{codec.subject}.{newest}.avsc"
        if newest and (_FOLDER / file).read_text() == text:
            continue
        row = LockedSchema(
            schema_id=max((r.schema_id for r in rows), default=0) + 1,
            subject=codec.subject,
            version=newest + 1,
            file=f"{codec.subject}.{newest + 1}.avsc",
            sha256=hashlib.sha256(text.encode()).hexdigest(),
        )
        (_FOLDER / row.file).write_text(text)
        with lock.open("a") as out:
            out.write(f"{row.schema_id} {row.subject} {row.version} {row.file} {row.sha256}\n")
        rows.append(row)


if __name__ == "__main__":
    main()
