"""`actions/upload-artifact` and `actions/download-artifact`, built in. An artifact is a zip."""

from __future__ import annotations

import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from infra.clock import random_id
from runner.actions import ActionContext, ActionError
from runner.actions.files import (
    BYTES_MAX,
    FILES_MAX,
    checked_name,
    common_root,
    given_inputs,
    is_hidden,
    is_true,
    list_files,
    members,
    pack,
    read_patterns,
    scratch_file,
    unpack,
    warn_unexpected,
)
from runner.depot import (
    DepotAwayError,
    DepotDamagedError,
    DepotError,
    Entry,
    load,
    store,
)
from runner.steps import StepEnd
from schemas.workflow.hashfiles import HashPatterns

_LEVEL = 6
_LEVELS = frozenset("0123456789")
_NOT_FOUND = frozenset({"warn", "error", "ignore"})
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_COPY_BYTES = 1 << 20
_DAYS_DIGITS_MAX = 6
_BRACES = re.compile(r"\{([^{},]*(?:,[^{},]*)+)\}")
_PATTERNS_MAX = 256
#: `archive`, `skip-decompress` and `digest-mismatch` are about how a zip travels: it always does.
_UPLOAD_INPUTS = frozenset(
    {
        "name", "path", "if-no-files-found", "retention-days", "compression-level", "overwrite",
        "include-hidden-files", "archive",
    }
)  # fmt: skip
_DOWNLOAD_INPUTS = frozenset(
    {
        "name", "path", "pattern", "merge-multiple", "artifact-ids", "github-token", "repository",
        "run-id", "digest-mismatch", "skip-decompress",
    }
)  # fmt: skip


class UploadArtifact:
    """Keeps files of the job under a name that the run's other jobs find."""

    def run(self, context: ActionContext) -> StepEnd:
        """Choose, pack and keep the files."""
        warn_unexpected(context, _UPLOAD_INPUTS)
        given = given_inputs(context)
        name = given.get("name") or "artifact"
        if context.masker.contains(name):
            # it would stand in an event and on pages; masked, two of them would be one
            raise ActionError(
                "the artifact's name has a secret in it, and names are read by everybody: choose "
                "another `name`",
                "user.bad_input",
            )
        absent = (given.get("if-no-files-found") or "warn").lower()
        level = given.get("compression-level") or str(_LEVEL)
        if absent not in _NOT_FOUND or level not in _LEVELS:
            raise ActionError(
                "expected if-no-files-found: warn, error or ignore, and compression-level: 0 to 9",
                "user.bad_input",
            )
        places = context.folders.places
        patterns = read_patterns(
            given.get("path", ""), workspace=places.workspace, home=places.home
        )
        if not patterns.texts:
            raise ActionError("upload-artifact needs the input `path`", "user.bad_input")
        files = patterns.select(list_files(context, patterns.roots, links=False))
        if not is_true(given.get("include-hidden-files")):
            files = [file for file in files if not _hidden(file, patterns.roots)]
        if not files:
            return _nothing(context, given.get("path", ""), absent)
        root = common_root(patterns, files)
        return self._keep(context, name, root, [posixpath.relpath(f, root) for f in files], given)

    def _keep(
        self,
        context: ActionContext,
        name: str,
        root: str,
        files: list[str],
        given: dict[str, str],
    ) -> StepEnd:
        level, days = int(given.get("compression-level") or _LEVEL), retention_days(given)
        upload_id = random_id()
        with scratch_file(context, "artifact") as path:
            count = pack(
                context, root, files, lambda tar: to_zip(tar, path, level=level), links=False
            )
            try:
                with path.open("rb") as file:
                    size, sha256, pieces = store(context.depot, file, context.check)
                wanted = Entry(
                    name=name,
                    size_bytes=size,
                    sha256=sha256,
                    pieces=pieces,
                    files=count,
                    upload_id=upload_id,
                )
                kept = context.depot.save_artifact(
                    wanted,
                    overwrite=is_true(given.get("overwrite")),
                    retention_days=days,
                )
            except DepotError as error:
                reason = reason_of(error, refused="user.artifact")
                raise ActionError(f"artifact {name!r}: {error}", reason) from error
        if kept.note:
            context.say(f"##[warning]{kept.note}.")
        context.say(f"Kept {count} files as artifact {name!r}: {size} bytes, sha256 {sha256}")
        outputs = {
            "artifact-id": kept.entry.artifact_id,
            "artifact-url": kept.url or kept.entry.uri,
            "artifact-digest": sha256,
        }
        return StepEnd("success", exit_code=0, outputs=outputs)


def reason_of(error: DepotError, *, refused: str = "infra.gateway") -> str:
    """Return the code of a failure; `refused` when the depot answered, and the answer is no."""
    match error:
        case DepotAwayError():
            return "infra.gateway"
        case DepotDamagedError():
            return "infra.damaged"
        case _:
            return refused


def retention_days(given: dict[str, str]) -> int:
    """Return the days that the input asks for, 0 for as long as may be. Raises ActionError."""
    text = given.get("retention-days") or "0"
    if not text.isdecimal() or len(text) > _DAYS_DIGITS_MAX:
        raise ActionError(
            f"retention-days is {text!r}: expected a number of days from 1, or nothing for as "
            "long as this installation keeps artifacts",
            "user.bad_input",
        )
    return int(text)


def _hidden(path: str, roots: tuple[str, ...]) -> bool:
    return any(
        path.startswith(f"{root.rstrip('/')}/") and is_hidden(path, root) for root in roots
    ) or (path in roots and posixpath.basename(path).startswith("."))


def _nothing(context: ActionContext, path: str, absent: str) -> StepEnd:
    text = f"No files were found with the path: {path}. No artifacts will be uploaded."
    if absent == "error":
        raise ActionError(text, "user.no_files")
    if absent == "warn":
        context.say(f"##[warning]{text}")
    else:
        context.say(text)
    return StepEnd("success", exit_code=0)


def to_zip(tar: BinaryIO, path: Path, *, level: int) -> int:
    """Write the files of a tar to a zip at a new `path`; returns how many."""
    count = 0
    method = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "x", method, allowZip64=True, compresslevel=level or None) as target:
        for archive, member in members(tar, links=False):
            if member.isdir():
                continue
            info = zipfile.ZipInfo(member.name, _EARLIEST)
            info.compress_type = method
            info.external_attr = (stat.S_IFREG | (member.mode & 0o755)) << 16
            info.file_size = member.size
            source = archive.extractfile(member)
            if source is None:
                raise ActionError(f"{member.name!r} can't be read", "user.bad_archive")
            with source, target.open(info, "w", force_zip64=member.size >= 1 << 31) as file:
                shutil.copyfileobj(source, file, _COPY_BYTES)
            count += 1
    return count


class DownloadArtifact:
    """Brings artifacts of the run into the workspace."""

    def run(self, context: ActionContext) -> StepEnd:
        """Find the artifacts, check and unpack them."""
        warn_unexpected(context, _DOWNLOAD_INPUTS)
        given = given_inputs(context)
        for name in ("run-id", "repository"):
            value = given.get(name, "")
            if value and value != str(context.github.get(name.replace("-", "_"), "")):
                raise ActionError(
                    f"the built-in download-artifact reads artifacts of its own run: leave "
                    f"`{name}` out",
                    "user.unsupported_input",
                )
        places = context.folders.places
        base = given.get("path", "")
        if base == "~" or base.startswith("~/"):
            base = places.home + base[1:]
        folder = posixpath.normpath(posixpath.join(places.workspace, base))
        try:
            found = context.depot.artifacts()
        except DepotError as error:
            raise ActionError(str(error), reason_of(error)) from error
        wanted = chosen(found, given)
        one_by_id = bool(given.get("artifact-ids")) and len(wanted) == 1
        flat = bool(given.get("name")) or one_by_id or is_true(given.get("merge-multiple"))
        for entry in wanted:
            target = folder if flat else posixpath.join(folder, checked_name(entry.name))
            self._fetch(context, entry, target)
        context.say(f"Brought {len(wanted)} artifacts to {folder}")
        return StepEnd("success", exit_code=0, outputs={"download-path": folder})

    def _fetch(self, context: ActionContext, entry: Entry, folder: str) -> None:
        with scratch_file(context, "artifact") as path:
            try:
                load(context.depot, entry, path, context.check)
            except DepotError as error:
                raise ActionError(f"artifact {entry.name!r}: {error}", reason_of(error)) from error
            unpack(context, folder, lambda tar: from_zip(path, tar))
        context.say(f"{entry.name}: {entry.files} files, {entry.size_bytes} bytes, {entry.sha256}")


def chosen(entries: Sequence[Entry], given: dict[str, str]) -> list[Entry]:
    """Return the artifacts that the inputs ask for. ActionError when a named one is absent.

    Without any such input that is all of them.
    """
    name, pattern = given.get("name", ""), given.get("pattern", "")
    if name:
        wanted = [entry for entry in entries if entry.name == name]
        if not wanted:
            there = ", ".join(entry.name for entry in entries) or "none"
            raise ActionError(
                f"the run has no artifact {name!r}; it has: {there}", "user.no_artifact"
            )
        return wanted
    ids = {part.strip() for part in given.get("artifact-ids", "").split(",") if part.strip()}
    if ids:
        wanted = [entry for entry in entries if entry.artifact_id in ids]
        if len(wanted) < len(ids):
            raise ActionError("the run has no artifact of one of the ids", "user.no_artifact")
        return wanted
    if pattern:
        rule = HashPatterns(braces(pattern))
        return [entry for entry in entries if rule.matches(entry.name)]
    return list(entries)


def braces(pattern: str) -> list[str]:
    """Return the patterns that one with `{a,b}` stands for, as the names of artifacts know it."""
    found, done = [pattern], list[str]()
    while found and len(found) + len(done) < _PATTERNS_MAX:
        text = found.pop(0)
        group = _BRACES.search(text)
        if group is None:
            done.append(text)
            continue
        head, tail = text[: group.start()], text[group.end() :]
        found += [f"{head}{part}{tail}" for part in group[1].split(",")]
    return [*done, *found]


def from_zip(path: Path, stream: BinaryIO) -> None:
    """Write the files of a zip as a tar, each looked at first."""
    size = 0
    try:
        with zipfile.ZipFile(path) as source, tarfile.open(fileobj=stream, mode="w|") as tar:
            items = source.infolist()
            if len(items) > FILES_MAX:
                raise ActionError(f"the artifact has more than {FILES_MAX} files", "user.too_large")
            for item in items:
                size += item.file_size
                mode = item.external_attr >> 16
                if size > BYTES_MAX or not stat.S_ISREG(mode or stat.S_IFREG):
                    raise ActionError(
                        f"the artifact's {item.filename!r} is no file or too large",
                        "user.bad_archive",
                    )
                if item.is_dir():
                    continue
                member = tarfile.TarInfo(checked_name(item.filename))
                member.size = item.file_size
                member.mode = (mode & 0o755) | 0o600
                with source.open(item) as file:
                    tar.addfile(member, file)
    except zipfile.BadZipFile as error:
        raise ActionError(f"the artifact is damaged: {error}", "user.bad_archive") from error
