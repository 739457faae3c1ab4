"""Actions: what is packed, what is refused in an archive, which cache and artifact is meant."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from runner.actions import ActionError
from runner.actions.artifacts import braces, chosen, from_zip, reason_of, to_zip
from runner.actions.cache import place_of, scopes
from runner.actions.files import common_root, members, read_patterns
from runner.actions.inputs import input_variables
from runner.actions.local import read_below
from runner.actions.remote import Name, read_name
from runner.depot import DepotAwayError, DepotDamagedError, DepotError, Entry

FILES = ("/w/dist/a.txt", "/w/dist/sub/b.txt", "/w/dist/.cache/c", "/w/src/x.py", "/h/.npm/i")

CHOICES = (
    ("a folder is all below it", "dist", FILES[:3], "/w/dist"),
    ("a file alone leaves its folder", "dist/a.txt", FILES[:1], "/w/dist"),
    ("a wildcard", "dist/*.txt", FILES[:1], "/w/dist"),
    ("two wildcards span folders", "**/*.txt", FILES[:2], "/w"),
    ("a later line takes out", "dist\n!dist/sub/**", (FILES[0], FILES[2]), "/w/dist"),
    ("several paths have what they share", "dist/a.txt\nsrc", (FILES[0], FILES[3]), "/w"),
    ("home and comments", "# mine\n~/.npm", (FILES[4],), "/h/.npm"),
    ("an absolute path", "/w/src/", (FILES[3],), "/w/src"),
)


@pytest.mark.parametrize(
    ("text", "wanted", "root"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_a_path_input_chooses_files(text: str, wanted: tuple[str, ...], root: str) -> None:
    """The lines of `path` choose these files, and this folder is the artifact's top."""
    patterns = read_patterns(text, workspace="/w", home="/h")

    files = patterns.select(FILES)

    assert tuple(files) == tuple(sorted(wanted))
    assert common_root(patterns, files) == root


def _tar(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """Return a tar of (name, type, link)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, kind, link in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member)
    target.seek(0)
    return target


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("../out", tarfile.REGTYPE, ""),
        ("a/../../out", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard", tarfile.LNKTYPE, "../../x"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("disk", tarfile.BLKTYPE, ""),
    ],
)
def test_what_has_no_place_in_an_artifact_is_refused(name: str, kind: bytes, link: str) -> None:
    """Absolute names, ways out, links, pipes and devices end the upload."""
    with pytest.raises(ActionError):
        list(members(_tar((name, kind, link)), links=False))


def test_a_cache_may_have_links_but_no_devices() -> None:
    """Installed packages are full of links; a device is never one of them."""
    found = [m.name for _, m in members(_tar(("a", tarfile.SYMTYPE, "b")), links=True)]

    assert found == ["a"]
    with pytest.raises(ActionError):
        list(members(_tar(("disk", tarfile.CHRTYPE, "")), links=True))


def test_a_damaged_archive_is_an_error_of_its_own(tmp_path: Path) -> None:
    """Bytes that are no archive give a message, not an exception of a library."""
    (tmp_path / "x.zip").write_bytes(b"no zip")

    with pytest.raises(ActionError, match="damaged"):
        list(members(io.BytesIO(b"no tar" * 200), links=False))
    with pytest.raises(ActionError, match="damaged"):
        from_zip(tmp_path / "x.zip", io.BytesIO())


def test_files_go_through_a_zip_and_back(tmp_path: Path) -> None:
    """Names, contents and the right to be run stay."""
    source = io.BytesIO()
    with tarfile.open(fileobj=source, mode="w") as archive:
        for name, mode in (("bin/run", 0o755), ("plain", 0o644)):
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = 3, mode
            archive.addfile(member, io.BytesIO(b"abc"))
    source.seek(0)

    count = to_zip(source, tmp_path / "a.zip", level=6)
    back = io.BytesIO()
    from_zip(tmp_path / "a.zip", back)

    back.seek(0)
    with tarfile.open(fileobj=back) as archive:
        found = {member.name: member.mode for member in archive}
    assert (count, found) == (2, {"bin/run": 0o755, "plain": 0o644})


@pytest.mark.parametrize(
    ("name", "mode"), [("../x", 0o100644), ("/x", 0o100644), ("link", 0o120777)]
)
def test_a_zip_that_would_leave_its_folder_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """Whatever lies in the store is looked at again before it is unpacked."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        target.writestr(info, b"x")

    with pytest.raises(ActionError):
        from_zip(tmp_path / "a.zip", io.BytesIO())


def _entry(name: str) -> Entry:
    return Entry(
        name=name,
        size_bytes=1,
        sha256="",
        pieces=(),
        uri=f"artifacts/r/id-{name}",
        artifact_id=f"id-{name}",
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, ["linux-x", "linux-y", "mac"]),
        ({"name": "mac"}, ["mac"]),
        ({"pattern": "linux-*"}, ["linux-x", "linux-y"]),
        ({"artifact-ids": "id-mac, id-linux-x"}, ["linux-x", "mac"]),
    ],
)
def test_inputs_choose_artifacts(given: dict[str, str], wanted: list[str]) -> None:
    """By name, pattern or id; without any of them all."""
    there = [_entry(name) for name in ("linux-x", "linux-y", "mac")]

    assert [entry.name for entry in chosen(there, given)] == wanted


@pytest.mark.parametrize(
    ("error", "uploading", "downloading"),
    [
        (DepotAwayError("no answer"), "infra.gateway", "infra.gateway"),
        (DepotDamagedError("another sha256"), "infra.damaged", "infra.damaged"),
        (DepotError("the name is taken"), "user.artifact", "infra.gateway"),
    ],
)
def test_only_what_the_depot_refuses_is_the_workflows_fault(
    error: DepotError, uploading: str, downloading: str
) -> None:
    """A job whose gateway is away, or whose bytes are damaged, is tried again."""
    assert reason_of(error, refused="user.artifact") == uploading
    assert reason_of(error) == downloading


def test_an_artifact_that_is_not_there_is_named_with_those_that_are() -> None:
    """The message tells what could have been meant."""
    with pytest.raises(ActionError, match="it has: mac"):
        chosen([_entry("mac")], {"name": "linux"})


def test_a_pull_request_reads_caches_of_its_base_and_of_the_default_branch() -> None:
    """Its own come first, and only into those it writes."""
    found = scopes(
        {
            "ref": "refs/pull/7/merge",
            "base_ref": "next",
            "event": {"repository": {"default_branch": "main"}},
        }
    )

    assert found == ("refs/pull/7/merge", "refs/heads/next", "refs/heads/main")


def test_a_cached_file_belongs_to_a_place() -> None:
    """Folders differ from attempt to attempt, places do not."""
    places = {"workspace": "/j/1/w", "home": "/j/1/_home", "machine": "/"}

    assert place_of("/j/1/w/node_modules/x", places) == ("workspace", "node_modules/x")
    assert place_of("/j/1/_home/.npm", places) == ("home", ".npm")
    assert place_of("/opt/x", places) == ("machine", "opt/x")


def test_inputs_become_variables_as_toolkits_expect_them() -> None:
    """Upper case, spaces to underscores, everything else as it is."""
    assert input_variables({"who to greet": "x", "fail-fast": "y"}) == {
        "INPUT_WHO_TO_GREET": "x",
        "INPUT_FAIL-FAST": "y",
    }


def test_remote_names_are_taken_apart() -> None:
    """Repository, path and ref; refs may have slashes."""
    assert read_name("a/b@v1") == Name(repository="a/b", path="", ref="v1")
    assert read_name("a/b/c/d@x/y") == Name(repository="a/b", path="c/d", ref="x/y")


@pytest.mark.parametrize("uses", ["a/b", "a@v1", "../b@v1", "a/../b@v1", "a/b/../c@v1", "a/b@"])
def test_what_names_no_action_is_refused(uses: str) -> None:
    """Before any place is asked for it."""
    with pytest.raises(ActionError, match="names no action"):
        read_name(uses)


def test_only_files_within_the_workspace_are_read(tmp_path: Path) -> None:
    """A link inside is followed, one that leads out is not, nor is a pipe read."""
    import os

    root, outside = tmp_path / "w", tmp_path / "secret"
    (root / "real").mkdir(parents=True)
    outside.write_text("secret")
    (root / "real" / "action.yml").write_text("mine")
    (root / "inside").symlink_to("real")
    (root / "out.yml").symlink_to(outside)
    (root / "up").symlink_to("..")
    os.mkfifo(root / "pipe")

    assert read_below(root, root / "inside" / "action.yml") == b"mine"
    assert read_below(root, root / "out.yml") is None
    assert read_below(root, root / "up" / "secret") is None
    assert read_below(root, root / "pipe") is None
    assert read_below(root, root / "absent") is None


@pytest.mark.parametrize(
    ("pattern", "patterns"),
    [
        ("app-*", {"app-*"}),
        ("{a,b}-x", {"a-x", "b-x"}),
        ("{a,b{1,2}}", {"a", "b1", "b2"}),
        ("a{,-debug}", {"a", "a-debug"}),
        ("{single}", {"{single}"}),
        ("{a,b", {"{a,b"}),
    ],
)
def test_braces_of_an_artifacts_pattern_are_alternatives(pattern: str, patterns: set[str]) -> None:
    """As in a shell; a group without a comma is a text."""
    assert set(braces(pattern)) == patterns


def test_many_braces_do_not_grow_without_bound() -> None:
    """Sixteen groups would be 65,536 patterns."""
    assert len(braces("{a,b}" * 16)) <= 256
