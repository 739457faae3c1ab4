"""Keeping the log files of the processes from filling the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

KEPT = 2


def rotate(path: Path, *, bytes_max: int, kept: int = KEPT) -> bool:
    """Set a log aside as NAME.1 once it is too big; tell whether that was done.

    The writer has the file open for appending and is not told: the content is copied and the
    file emptied, so what is written in that moment (microseconds) may be missing in the copy.
    """
    try:
        if path.stat().st_size <= bytes_max:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            _aside(path, number - 1).replace(_aside(path, number))
    shutil.copyfile(path, _aside(path, 1))
    os.truncate(path, 0)
    return True


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
