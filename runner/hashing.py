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
    return combined_digest(_digests(workspace, wanted))


def _digests(workspace: Path, wanted: HashPatterns) -> Iterator[bytes]:
    """Yield the digests of the files that are wanted, in the order of their paths.

    Every file is opened within its folder as that was found: the job may still run something that
    puts a link in a folder's place, and the runner could read more than the job.
    """
    seen = 0
    for folder, names, files, folder_fd in os.fwalk(workspace):
        names.sort()
        for name in sorted(files):
            seen += 1
            if seen > FILES_MAX:
                raise ExpressionError(
                    "evaluation", f"hashFiles: the workspace has more than {FILES_MAX} files"
                )
            if wanted.matches(str(Path(folder, name).relative_to(workspace))):
                digest = _digest(name, folder_fd)
                if digest is not None:
                    yield digest


def _digest(name: str, folder_fd: int) -> bytes | None:
    """Return the digest of a regular file of a folder, None for anything else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder_fd)
    except OSError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        return digest.digest()
