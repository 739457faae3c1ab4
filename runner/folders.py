"""The folders of an attempt: fresh for each, gone afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import re
import shutil
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from runner.environment import FILE_NAMES, Places
from runner.guards import JobUser

logger = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_OPEN_FOR_OTHERS = 0o001


class CommandFileReadError(OSError):
    """A step replaced one of its command files by something that is no file."""


@dataclass(frozen=True, slots=True)
class JobFolders:
    """Where one attempt lives; everything but `root` belongs to the job's user."""

    root: Path
    workspace: Path
    files: Path
    user: JobUser | None
    places: Places

    @classmethod
    def create(
        cls, work: Path, *, attempt: str, repository: str, tool_cache: Path, user: JobUser | None
    ) -> JobFolders:
        """Make the folders of an attempt under `work`."""
        name = _UNSAFE.sub("-", repository.rpartition("/")[2]).lstrip("._") or "workspace"
        # short: the path of a socket in it may have 107 bytes
        root = work / hashlib.sha256(attempt.encode()).hexdigest()[:10]
        if root.exists():
            remove(root)
        root.mkdir(mode=0o711)
        folders = {part: root / part for part in (name, "_temp", "_home", "_tmp", "_files")}
        for folder in folders.values():
            folder.mkdir(mode=0o755 if user is None else 0o700)
            if user is not None:
                os.chown(folder, user.uid, user.gid)
        places = Places(
            workspace=str(folders[name]),
            temp=str(folders["_temp"]),
            home=str(folders["_home"]),
            tmp=str(folders["_tmp"]),
            tool_cache=str(tool_cache),
            event_path=str(root / "event.json"),
        )
        return cls(root, folders[name], folders["_files"], user, places)

    def write(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Make a new file of the job's user."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            if self.user is not None:
                os.fchown(fd, self.user.uid, self.user.gid)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)

    def make_command_files(self, number: int) -> dict[str, str]:
        """Make the empty GITHUB_ENV, GITHUB_OUTPUT, … of a step; returns the paths by name."""
        found = {}
        for name in FILE_NAMES:
            path = self.files / f"{name.lower()}_{number}"
            self.write(path, b"")
            found[name] = str(path)
        return found

    def read_command_file(self, path: str, bytes_max: int) -> bytes:
        """Return what a step wrote, one byte more than `bytes_max` at most; b"" when it is gone.

        The job owns the folder: a link or a pipe in place of the file is refused, never followed.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CommandFileReadError(f"{path} can't be read: {error.strerror}") from error
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CommandFileReadError(f"{path} is not a file any more")
            return file.read(bytes_max + 1)


def work_folder(wanted: Path, user: JobUser | None, *, instance: str) -> Path:
    """Return where attempts can live: `wanted`, unless the job's user can't get there.

    A home below a 0700 folder (/root, for instance) is closed to the job's user. Its folders are
    not opened for that; the attempts then live under /var/tmp, in a folder named after `wanted`.
    """
    wanted.mkdir(parents=True, exist_ok=True)
    if user is None or all(map(_is_open, (wanted, *wanted.parents))):
        return wanted
    name = hashlib.sha256(str(wanted).encode()).hexdigest()[:8]
    other = Path("/var/tmp") / f"tailrace-{instance}-{name}"  # noqa: S108 - owned and 0711
    other.mkdir(mode=0o711, exist_ok=True)
    found = other.lstat()
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{other} belongs to somebody else: remove it")
    logger.info("jobs can't reach %s: they work in %s", wanted, other)
    return other


def _is_open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & _OPEN_FOR_OTHERS)


def remove(folder: Path) -> None:
    """Remove a tree that a job made, write-protected parts too; never follows a link."""

    def make_writable(_function: object, path: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            parent = Path(path).parent
            if not parent.is_symlink():
                parent.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                Path(path).chmod(0o700)

    for _ in range(3):
        shutil.rmtree(folder, onerror=make_writable)
        if not folder.exists():
            return
    logger.warning("%s could not be removed whole", folder)


class Cleaner:
    """Removes folders in the background, so that the next job need not wait."""

    def __init__(self) -> None:
        """Start the thread."""
        self._folders: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="cleaner", daemon=True)
        self._thread.start()

    def remove(self, folder: Path) -> None:
        """Remove a folder some time."""
        self._folders.put(folder)

    def close(self, timeout_s: float = 2.0) -> None:
        """Remove what was asked for, for a while; the next start removes the rest."""
        self._folders.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (folder := self._folders.get()) is not None:
            try:
                remove(folder)
            except OSError as error:
                logger.warning("%s could not be removed: %s", folder, error)
