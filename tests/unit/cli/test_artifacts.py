"""Artifacts on the command line: what is listed, and what never gets onto the disk."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from infra.cli.errors import Exit
from tests.support.stub_api import Answer, StubApi
from tests.unit.cli.conftest import RUN_ID, Tailrace, a_run

LINK = stat.S_IFLNK | 0o777


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    """Return a zip of (name, content, mode)."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content)
    return target.getvalue()


def plain(name: str, content: bytes = b"x") -> tuple[str, bytes, int]:
    """Return a plain member."""
    return name, content, stat.S_IFREG | 0o644


def serve(api: StubApi, **contents: bytes) -> list[dict[str, Any]]:
    """Let the API have artifacts of these names."""
    items = [
        {
            "artifact_id": f"id-{name}", "run_id": RUN_ID, "repository": "acme/shop",
            "job_id": f"{RUN_ID}.build", "job": "build", "attempt": 1, "name": name,
            "size_bytes": len(content), "files": 1, "created_at": 1_790_000_000_000,
            "sha256": hashlib.sha256(content).hexdigest(), "expires_at": 1_800_000_000_000,
            "expired": False, "url": "", "download_url": "",
        }
        for name, content in contents.items()
    ]  # fmt: skip
    api.on(f"GET /runs/{RUN_ID}", a_run())
    api.on(f"GET /runs/{RUN_ID}/artifacts", {"items": items, "as_of": 1})
    for name, content in contents.items():
        api.on(f"GET /artifacts/id-{name}/zip", Answer(chunks=(content,)))
    return items


def test_artifacts_are_a_table(api: StubApi, tailrace: Tailrace) -> None:
    """With size, job and the end of their time; an expired one says so."""
    items = serve(api, report=b"x" * 5000, old=b"")
    items[1]["expired"] = True
    result = tailrace("artifacts", "list", RUN_ID)
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["NAME", "SIZE", "FILES"]
    assert lines[1].split()[:5] == ["report", "4.9", "KiB", "1", "build"]
    assert "expired" in lines[2]


def test_one_comes_into_the_folder_and_all_into_folders_of_their_own(
    api: StubApi, tailrace: Tailrace, tmp_path: Path
) -> None:
    """Contents, folders and the right to be run."""
    tool = ("bin/tool", b"#!/bin/sh\n", stat.S_IFREG | 0o755)
    serve(api, a=zipped(plain("f", b"one"), tool), b=zipped(plain("f", b"two")))

    result = tailrace("artifacts", "download", RUN_ID, "a", "-o", str(tmp_path / "one"))
    assert result.exit_code == Exit.OK, result.output
    assert (tmp_path / "one" / "f").read_bytes() == b"one"
    assert os.access(tmp_path / "one" / "bin" / "tool", os.X_OK)
    tailrace("artifacts", "download", RUN_ID, "-o", str(tmp_path / "all"))
    assert (tmp_path / "all" / "a" / "f").read_bytes() == b"one"
    assert (tmp_path / "all" / "b" / "f").read_bytes() == b"two"
    tailrace("artifacts", "download", RUN_ID, "b", "--zip", "-o", str(tmp_path))
    assert zipfile.ZipFile(tmp_path / "b.zip").namelist() == ["f"]


@pytest.mark.parametrize(
    "member",
    [
        plain("../evil"),
        plain("a/../../evil"),
        plain("/evil"),
        plain("..\\evil"),
        ("link", b"/etc/passwd", LINK),
        ("pipe", b"", stat.S_IFIFO | 0o644),
        plain("out/evil"),
    ],
    ids=lambda member: member[0],
)
def test_a_path_that_leaves_the_folder_is_refused(
    api: StubApi, tailrace: Tailrace, tmp_path: Path, member: tuple[str, bytes, int]
) -> None:
    """Before anything of the artifact is written, also through a link that is there."""
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    serve(api, a=zipped(plain("good"), member))

    result = tailrace("artifacts", "download", RUN_ID, "a", "-o", str(folder))

    assert result.exit_code == Exit.NEGATIVE, result.output
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert not list(tmp_path.rglob("evil"))


def test_what_is_there_is_replaced_only_by_force(
    api: StubApi, tailrace: Tailrace, tmp_path: Path
) -> None:
    """A link is not written through even then."""
    serve(api, a=zipped(plain("f", b"new")))
    (tmp_path / "f").write_bytes(b"mine")

    refused = tailrace("artifacts", "download", RUN_ID, "a", "-o", str(tmp_path))
    assert refused.exit_code == Exit.USAGE
    assert (tmp_path / "f").read_bytes() == b"mine"
    tailrace("artifacts", "download", RUN_ID, "a", "-o", str(tmp_path), "--force")
    assert (tmp_path / "f").read_bytes() == b"new"
    (tmp_path / "f").unlink()
    (tmp_path / "f").symlink_to(tmp_path / "elsewhere")
    refused = tailrace("artifacts", "download", RUN_ID, "a", "-o", str(tmp_path), "--force")
    assert refused.exit_code == Exit.USAGE
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("content", "why"), [(b"PK short", "bytes came"), (b"y" * 111, "differs")])
def test_other_bytes_are_not_written(
    api: StubApi, tailrace: Tailrace, tmp_path: Path, content: bytes, why: str
) -> None:
    """Cut short or changed: the sum says so."""
    whole = zipped(plain("f", b"x" * 7))
    [item] = serve(api, a=whole)
    item["size_bytes"] = 111
    api.on("GET /artifacts/id-a/zip", Answer(chunks=(content,)))

    result = tailrace("artifacts", "download", RUN_ID, "a", "-o", str(tmp_path / "to"))

    assert result.exit_code == Exit.NEGATIVE
    assert why in result.output
    assert not (tmp_path / "to").exists()


def test_a_name_that_is_not_there_and_a_name_that_is_a_place(
    api: StubApi, tailrace: Tailrace, tmp_path: Path
) -> None:
    """The first says what there is; the second never becomes a folder."""
    serve(api, **{"..": zipped(plain("f"))})
    missing = tailrace("artifacts", "download", RUN_ID, "b", "-o", str(tmp_path))
    assert missing.exit_code == Exit.NOT_FOUND
    assert "it has: .." in missing.output
    refused = tailrace("artifacts", "download", RUN_ID, "-o", str(tmp_path / "deep"))
    assert refused.exit_code == Exit.NEGATIVE
    assert not (tmp_path / "f").exists()
