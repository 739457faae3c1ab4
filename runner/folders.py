"""The folders of an attempt: empty for each, gone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import stat
import threading
from pathlib import Path

from runner.environment import FILE_NAMES, Places
from runner.guards import JobUser
from schemas.late import dataclass

logger = logging.getLogger(__name__)

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_OPEN_FOR_OTHERS = 0o001
_FOLDER_MODE = 0o700
_FOR_ALL = 0o666
_MEMORY_BYTES_MIN = 256 * 1024 * 1024


class CommandFileReadError(OSError):
    """A step replaced one of its command files by something that is no file."""


@dataclass(frozen=True, slots=True)
class JobFolders:
    """Where one attempt lives; everything but `root` belongs to the job's user.

    `files` holds scripts and command files; it lies in memory where the machine has room for it,
    since making a file on a disk costs a hundred times as much. Those of a job in a container are
    `open` to whoever its processes are, below a `root` that is closed to others.
    """

    root: Path
    workspace: Path
    files: Path
    user: JobUser | None
    places: Places
    open: bool = False

    @property
    def actions(self) -> Path:
        """Where actions of other repositories are unpacked."""
        return self.root / "_actions"

    def parts(self) -> tuple[Path, ...]:
        """The folders that a job may fill."""
        places = self.places
        home, tmp = Path(places.home), Path(places.tmp)
        return (self.workspace, Path(places.temp), home, tmp, self.actions)

    def write(self, path: Path | str, data: bytes, *, mode: int = 0o600) -> None:
        """Make a new file of the job's user."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, mode)
        except FileNotFoundError:  # the job removed the folder of its files
            make_folder(self.files, self.user)
            fd = os.open(path, flags, mode)
        try:
            if self.user is not None:
                os.fchown(fd, self.user.uid, self.user.gid)
            if self.open:
                os.fchmod(fd, mode | _FOR_ALL)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)

    def command_files(self, number: int) -> dict[str, str]:
        """Return where a step finds its GITHUB_ENV, GITHUB_OUTPUT, …, by name."""
        return {name: f"{self.files}/{name.lower()}_{number}" for name in FILE_NAMES}

    def make_command_files(self, number: int) -> dict[str, str]:
        """Make them, empty; returns the paths by name."""
        found = self.command_files(number)
        for path in found.values():
            self.write(path, b"")
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


def make_folder(folder: Path, user: JobUser | None) -> None:
    """Make a folder that only the job's user may enter."""
    folder.mkdir(mode=_FOLDER_MODE)
    if user is not None:
        os.chown(folder, user.uid, user.gid)


class Seat:
    """One slot's place: whom its jobs run as, and where; only the slot's thread uses it.

    Every attempt gets empty folders. Those that an attempt left as they were serve the next one;
    anything else is removed, and made anew.
    """

    def __init__(
        self,
        number: int,
        user: JobUser | None,
        work: Path,
        *,
        cleaner: Cleaner,
        tool_cache: Path,
        memory: Path | None = None,
    ) -> None:
        """Make nothing yet. `memory` is a folder of this seat's own in a tmpfs."""
        self.number = number
        self.user = user
        self._work = work
        self._cleaner = cleaner
        self._tool_cache = tool_cache
        self._memory = memory
        self._made = 0
        self._spare: JobFolders | None = None

    def take(self, repository: str) -> JobFolders:
        """Return empty folders for an attempt; the workspace is named after the repository."""
        name = _UNSAFE.sub("-", repository.rpartition("/")[2]).lstrip("._") or "workspace"
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.workspace.name == name:
                return spare
            self._cleaner.remove(spare.root)
        return self._make(name)

    def give_back(self, folders: JobFolders) -> None:
        """Take the folders of an attempt of which nothing runs any more."""
        try:
            for entry in os.scandir(str(folders.files)):
                if entry.is_dir(follow_symlinks=False):
                    remove(Path(entry.path))
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - a path object for each is a third of it
            is_fresh = self._is_fresh(folders)
        except OSError:  # the job removed or closed one of them
            is_fresh = False
        if is_fresh:
            self._spare = folders
        else:
            self._cleaner.remove(folders.root)

    def _make(self, name: str) -> JobFolders:
        # short names: the path of a socket in such a folder may have 107 bytes
        self._made += 1
        root = self._work / f"{self.number}-{self._made}"
        root.mkdir(mode=0o711)
        folders = {part: root / part for part in (name, "_temp", "_home", "_tmp", "_actions")}
        for folder in folders.values():
            make_folder(folder, self.user)
        files = self._memory or root / "_files"
        if not self._is_ours(str(files)) or os.listdir(files):  # noqa: PTH208
            remove(files)
            make_folder(files, self.user)
        places = Places(
            workspace=str(folders[name]),
            temp=str(folders["_temp"]),
            home=str(folders["_home"]),
            tmp=str(folders["_tmp"]),
            tool_cache=str(self._tool_cache),
            event_path=str(files / "event.json"),
        )
        return JobFolders(root, folders[name], files, self.user, places)

    def _is_fresh(self, folders: JobFolders) -> bool:
        """Say whether every folder is as it was made: empty, ours, without further attributes."""
        return all(
            self._is_ours(folder) and not os.listdir(folder)  # noqa: PTH208 - half the price
            for folder in map(str, (folders.files, *folders.parts()))
        )

    def _is_ours(self, folder: str) -> bool:
        try:
            found = os.lstat(folder)
            attributes = os.listxattr(folder, follow_symlinks=False)
        except OSError:
            return False
        uid = os.geteuid() if self.user is None else self.user.uid
        is_plain = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == _FOLDER_MODE
        return is_plain and found.st_uid == uid and not attributes

    def close(self) -> None:
        """Leave nothing behind."""
        if self._memory is not None:
            remove(self._memory.parent)
        if self._spare is not None:
            remove(self._spare.root)
        with contextlib.suppress(OSError):
            self._work.rmdir()  # by the last seat, once it is empty


def memory_folder(name: str) -> Path | None:
    """Return where a seat's small files lie in memory; None when the machine has no tmpfs for it.

    What an earlier boot left there is removed.
    """
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, 0711
    try:
        room = os.statvfs(shared)
        if room.f_bavail * room.f_frsize < _MEMORY_BYTES_MIN or not os.path.ismount(shared):
            return None
        own = shared / f"tailrace-{name}"
        remove(own)
        own.mkdir(mode=0o711)
    except OSError as error:
        logger.info("small files of jobs lie on disk: %s", error)
        return None
    return own / "files"


def work_folder(wanted: Path, user: JobUser | None, *, name: str) -> Path:
    """Return where attempts can live: `wanted`, unless the job's user can't get there.

    A home below a 0700 folder (/root, for instance) is closed to the job's user. Its folders are
    not opened for that; the attempts then live under /var/tmp, in a folder of that `name`.
    """
    wanted.mkdir(parents=True, exist_ok=True)
    if user is None or all(map(_is_open, (wanted, *wanted.parents))):
        return wanted
    other = Path("/var/tmp") / f"tailrace-{name}"  # noqa: S108 - owned and 0711
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

    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    for _ in range(3):
        if not folder.exists():
            return
        shutil.rmtree(folder, onerror=make_writable)
    if folder.exists():
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
