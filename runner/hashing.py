"""`hashFiles`: walks a workspace and hashes what the patterns select; links are not followed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from schemas.workflow.errors import ExpressionError
from schemas.workflow.hashfiles import HashPatterns, check_patterns, combined_digest

FILES_MAX = 100_000
_CHUNK_BYTES = 1 << 20
_FOLLOW = "--follow-symbolic-links"


def hash_files(workspace: Path, patterns: list[str]) -> str:
    """Return the hash of all files that the patterns select; "" when there are none."""
    patterns = [pattern for pattern in patterns if pattern != _FOLLOW]
    check_patterns(patterns)
    wanted = HashPatterns(patterns, workspace=str(workspace))
    selected = (
        path for path in _walk(workspace) if wanted.matches(str(path.relative_to(workspace)))
    )
    return combined_digest(_digests(selected))


def _walk(workspace: Path) -> Iterator[Path]:
    seen = 0
    for folder, names, files in os.walk(workspace):
        names.sort()
        for name in sorted(files):
            seen += 1
            if seen > FILES_MAX:
                raise ExpressionError(
                    "evaluation", f"hashFiles: the workspace has more than {FILES_MAX} files"
                )
            yield Path(folder, name)


def _digests(paths: Iterator[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            if stat.S_ISREG(os.fstat(fd).st_mode):
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                yield digest.digest()
