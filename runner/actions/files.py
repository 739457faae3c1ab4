"""Files of a job in and out of archives, always with the rights of the job's user.

`find` and `tar` run as that user and speak with the runner through pipes. So the runner never
opens, follows or writes anything that a job made, and a job can give away only what it can read.
Every member of an archive is looked at on both ways: names are relative and stay below their
folder, devices and pipes are refused.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from runner.actions import ActionContext, ActionError
from runner.pump import Ending
from schemas.late import dataclass
from schemas.workflow.hashfiles import HashPatterns

T = TypeVar("T")
BYTES_MAX = 16 << 30
FILES_MAX = 200_000
LIST_BYTES_MAX = 64 << 20
JOIN_S_MAX = 120
_MAGIC = re.compile(r"[*?\[]")
_TRUE = frozenset({"true", "yes", "on", "1"})


@dataclass(frozen=True, slots=True)
class Patterns:
    """The `path` of an upload or a cache: absolute patterns, the negative ones with `!`."""

    texts: tuple[str, ...]

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders or files in which to search; none lies in another."""
        found: list[str] = []
        for text in sorted(_literal(text) for text in self.texts if not text.startswith("!")):
            if not any(text == root or text.startswith(f"{root.rstrip('/')}/") for root in found):
                found.append(text)
        return tuple(found)

    def select(self, paths: Iterable[str]) -> list[str]:
        """Return those of the absolute paths that the patterns choose, sorted."""
        wanted = HashPatterns(self.texts)
        return sorted(path for path in set(paths) if wanted.matches(path.lstrip("/")))


def read_patterns(text: str, *, workspace: str, home: str) -> Patterns:
    """Return the patterns of a `path` input: one a line, comments left out."""
    found = []
    for line in text.split("\n"):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        negative = pattern.startswith("!")
        pattern = pattern.lstrip("!").strip()
        if pattern == "~" or pattern.startswith("~/"):
            pattern = home + pattern[1:]
        absolute = posixpath.normpath(posixpath.join(workspace, pattern))
        found.append(f"!{absolute}" if negative else absolute)
    return Patterns(tuple(found))


def _literal(pattern: str) -> str:
    """Return the part of a pattern before its first wildcard, in whole segments."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if _MAGIC.search(part):
            break
        parts.append(part)
    return "/".join(parts) or "/"


def is_hidden(path: str, root: str) -> bool:
    """Say whether a file or a folder on the way to it begins with a dot, below `root`."""
    return any(part.startswith(".") for part in posixpath.relpath(path, root).split("/") if part)


def common_root(patterns: Patterns, files: list[str]) -> str:
    """Return the folder whose inside an artifact is, by upload-artifact's rule.

    The one folder searched (or the folder of the one file), else what all that were have in common.
    """
    roots = patterns.roots
    if len(roots) > 1:
        return posixpath.commonpath(roots)
    if files == list(roots):
        return posixpath.dirname(roots[0])
    return roots[0]


# --------------------------------------------------------------------------- with the job's rights


def list_files(context: ActionContext, roots: tuple[str, ...], *, links: bool) -> list[str]:
    """Return every file below `roots`; with `links` links count as themselves, else are followed.

    Folders that are empty are listed too when links are.
    """
    if not roots:
        return []
    follow, kinds = ("-P", "") if links else ("-L", "-type f")
    script = f'for root; do [ -e "$root" ] && find {follow} "$root" {kinds} -print0; done; :'
    argv = ["sh", "-c", f"{{ {script} ; }} 2>/dev/null", "list", *roots]

    def collect(stream: BinaryIO) -> bytes:
        data = stream.read(LIST_BYTES_MAX + 1)
        if len(data) > LIST_BYTES_MAX:
            raise ActionError(
                "there are too many files to choose from: name fewer", "user.too_large"
            )
        return data

    data, _ = piped_out(context, argv, context.folders.places.workspace, collect)
    return [os.fsdecode(name) for name in data.split(b"\0") if name]


def pack(
    context: ActionContext,
    root: str,
    names: list[str],
    take: Callable[[BinaryIO], T],
    *,
    links: bool,
) -> T:
    """Give the tar of `names` (relative to `root`) to `take`."""
    argv = [
        "tar",
        "-cf",
        "-",
        "--null",
        "--no-recursion",
        *([] if links else ["-h", "--hard-dereference"]),
        "-T",
        "-",
    ]
    listed = b"".join(b"./" + os.fsencode(name) + b"\0" for name in names)
    result, ending = piped_out(context, argv, root, take, given=listed)
    if ending.code != 0:
        raise ActionError(
            f"tar failed with exit code {ending.code}; its words are above", "user.action_failed"
        )
    return result


def unpack(context: ActionContext, folder: str, give: Callable[[BinaryIO], None]) -> None:
    """Unpack into `folder`, made if need be, the tar that `give` writes."""
    argv = ["sh", "-c", 'mkdir -p "$1" && cd "$1" && exec tar -xof -', "unpack", folder]
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with open(write_end, "wb") as stream:  # noqa: PTH123 - a descriptor has no path
                give(stream)
        except BrokenPipeError:
            pass  # tar ended early and says why itself
        except Exception as error:  # noqa: BLE001 - raised again where the step is
            failures.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        ending = context.run(
            context.command(
                argv=argv, env=context.env, cwd=str(context.folders.workspace), fds={0: read_end}
            )
        )
    finally:
        os.close(read_end)
    _join(thread, failures)
    if ending.code != 0:
        raise ActionError(f"tar failed with exit code {ending.code}; its words are above")


def piped_out(
    context: ActionContext,
    argv: list[str],
    cwd: str,
    take: Callable[[BinaryIO], T],
    *,
    given: bytes = b"",
) -> tuple[T, Ending]:
    """Run a program as the job's user; `take` reads what it writes, `given` is its input."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    source = os.memfd_create("list", os.MFD_CLOEXEC)
    results: list[T] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            with open(read_end, "rb") as stream:  # noqa: PTH123 - a descriptor has no path
                results.append(take(stream))
        except Exception as error:  # noqa: BLE001 - raised again where the step is
            failures.append(error)

    with open(source, "r+b") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(given)
        file.flush()
        file.seek(0)
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            ending = context.run(
                context.command(
                    argv=argv, env=context.env, cwd=cwd, fds={0: file.fileno(), 1: write_end}
                )
            )
        finally:
            os.close(write_end)
        _join(thread, failures)
    return results[0], ending


def _join(thread: threading.Thread, failures: list[BaseException]) -> None:
    """Wait for the other end of a pipe whose process has ended; raises what failed there.

    When the attempt is given up nobody waits: the processes are killed later, and end the thread.
    """
    thread.join(JOIN_S_MAX)
    if thread.is_alive():
        raise ActionError("a process that the step left holds its archive open")
    if failures:
        raise failures[0]


# --------------------------------------------------------------------------- members


def members(stream: BinaryIO, *, links: bool) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members of a tar; ActionError for one that has no place in an archive.

    Folders are members, links only with `links`.
    """
    count = size = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                count += 1
                size += member.size
                member.name = checked_name(member.name)
                if member.islnk():
                    member.linkname = checked_name(member.linkname)
                is_link = member.issym() or member.islnk()
                if not (member.isreg() or member.isdir() or (links and is_link)):
                    raise ActionError(
                        f"{member.name!r} is no file, and only files are kept", "user.bad_archive"
                    )
                if count > FILES_MAX or size > BYTES_MAX:
                    raise ActionError(
                        f"the files are more than {FILES_MAX} or larger than {BYTES_MAX >> 30} GiB",
                        "user.too_large",
                    )
                yield archive, member
    except (tarfile.TarError, EOFError) as error:
        raise ActionError(f"the archive is damaged: {error}", "user.bad_archive") from error
    with contextlib.suppress(ValueError):
        while stream.read(1 << 20):  # the padding, so that tar can end
            pass


def checked_name(name: str) -> str:
    """Return a member's name without `./`. ActionError when it would leave the folder."""
    clean = posixpath.normpath(name)
    if name.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in name:
        raise ActionError(f"the archive has the path {name!r}, which leaves it", "user.bad_archive")
    return clean


def is_true(text: str | None) -> bool:
    """Say whether an input is switched on."""
    return (text or "").strip().lower() in _TRUE


def given_inputs(context: ActionContext) -> dict[str, str]:
    """Return the step's inputs by lower-case name, trimmed."""
    return {name.lower(): value.strip() for name, value in context.step.inputs.items()}


def warn_unexpected(context: ActionContext, known: frozenset[str]) -> None:
    """Say which inputs mean nothing to a built-in action: most often they are misspelt."""
    unknown = [name for name in context.step.inputs if name.lower() not in known]
    if unknown:
        context.say(
            f"##[warning]Unexpected input(s) {', '.join(sorted(unknown))}; "
            f"{context.step.uses} has: {', '.join(sorted(known))}"
        )


@contextlib.contextmanager
def scratch_file(context: ActionContext, name: str) -> Iterator[Path]:
    """Yield the path of a file of the runner's own, on disk and closed to jobs; removed after."""
    path = context.folders.root / f".{name}-{context.serial}"
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
