"""`hashFiles` on a real folder: what it reads, and what it never opens."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from runner import hashing
from schemas.workflow.errors import ExpressionError
from schemas.workflow.hashfiles import combined_digest


def digest(*texts: str) -> str:
    """Return the hash of files with these texts."""
    return combined_digest(iter([hashlib.sha256(text.encode()).digest() for text in texts]))


def test_files_count_in_the_order_of_their_paths(tmp_path: Path) -> None:
    """Those of a folder before those below it, whatever order the disk has."""
    (tmp_path / "b").mkdir()
    for name in ("z.lock", "a.lock", "b/c.lock", "b/no.txt"):
        (tmp_path / name).write_text(name)

    assert hashing.hash_files(tmp_path, ["**/*.lock"]) == digest("a.lock", "z.lock", "b/c.lock")
    assert hashing.hash_files(tmp_path, ["none"]) == ""


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    """Links and pipes do not count, and a pipe is not waited for."""
    (tmp_path / "a.lock").write_text("a")
    (tmp_path / "b.lock").symlink_to(tmp_path / "a.lock")
    os.mkfifo(tmp_path / "c.lock")

    assert hashing.hash_files(tmp_path, ["*.lock"]) == digest("a")


def test_a_link_in_the_place_of_a_folder_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the job may put one there between the walk and the opening of a file."""
    outside, workspace = tmp_path / "outside", tmp_path / "workspace"
    for folder, text in ((outside, "secret"), (workspace / "d", "own")):
        folder.mkdir(parents=True)
        (folder / "a.lock").write_text(text)
    opened = os.open

    def swapped(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if path == "a.lock":
            (workspace / "d").rename(workspace / "gone")
            (workspace / "d").symlink_to(outside)
        return opened(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swapped)

    assert hashing.hash_files(workspace, ["d/*.lock"]) == digest("own")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number, before anything else is read."""
    monkeypatch.setattr(hashing, "FILES_MAX", 2)
    for name in "abc":
        (tmp_path / name).touch()

    with pytest.raises(ExpressionError, match="more than 2 files"):
        hashing.hash_files(tmp_path, ["*"])
