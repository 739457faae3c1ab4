"""What is unpacked of an archive that a job wrote: nothing leaves the folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from runner.actions import ActionError
from runner.actions.container import extract_within

Entry = tuple[str, bytes, str]


def unpacked(folder: Path, *entries: Entry) -> None:
    """Unpack an archive of (name, type, link name)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, link in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.uid = kind, link, 0o6777, 12345
            archive.addfile(member)
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            extract_within(archive, member, folder)


FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_files_folders_and_links_within_are_kept(tmp_path: Path) -> None:
    """Without owners and special bits."""
    unpacked(tmp_path, (".", FOLDER, ""), ("d", FOLDER, ""), ("d/f", FILE, ""),
             ("d/l", LINK, "../d/f"), ("h", HARD, "d/f"))  # fmt: skip

    found = (tmp_path / "d/f").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_nlink) == (0o755, os.getuid(), 2)
    assert (tmp_path / "d/l").resolve() == tmp_path / "d/f"


@pytest.mark.parametrize(
    "entries",
    [
        [("/tmp/x", FILE, "")],
        [("../x", FILE, "")],
        [("d/../../x", FILE, "")],
        [("l", LINK, "/etc")],
        [("l", LINK, "..")],
        [("l", LINK, "d/../../x")],
        [("h", HARD, "../x")],
        [("h", HARD, "/etc/passwd")],
        [("p", tarfile.FIFOTYPE, "")],
        [("c", tarfile.CHRTYPE, "")],
    ],
)
def test_what_leads_out_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    """By name, by link, or because it is no file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ActionError, match="can't be built"):
        unpacked(folder, *entries)

    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_a_link_that_is_there_already_is_not_followed_out(tmp_path: Path) -> None:
    """Whoever put it there."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "l").symlink_to(outside)

    with pytest.raises(ActionError, match="leads out of it"):
        unpacked(folder, ("l/x", FILE, ""))
    assert list(outside.iterdir()) == []
