"""As whom jobs run: the only place that looks at or adds users of the machine.

A runner that is root gives each of its slots a user of its own (`tailrace-job-1`, …), so that a
job can neither read the services' files nor the processes and files of the job beside it. The
users are added once, without a password, a shell or a home; a lock in /run/lock says which
process holds which, since several installations on a machine share them. A machine where users
can't be added (a read-only /etc) runs all jobs as `nobody`, and says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import IO

from runner.guards import JobUser

logger = logging.getLogger(__name__)

PREFIX = "tailrace-job-"
FALLBACK = "nobody"
USERS_MAX = 256
_LOCKS = (Path("/run/lock/tailrace"), Path("/var/lock/tailrace"))
_USERADD_S = 30


class JobUserError(Exception):
    """The user that jobs shall run as does not exist: add it or change TAILRACE_JOB_USER."""


class UserPool:
    """Hands out users for as long as it lives."""

    def __init__(self, configured: str = "", *, locks: Path | None = None) -> None:
        """Use the `configured` user for all jobs; "" for one of its own for each slot."""
        self._configured = configured
        self._folder = locks
        self._held: list[IO[str]] = []

    def take(self) -> JobUser | None:
        """Return the user of one more slot; None when jobs run as the runner's own user."""
        if os.geteuid() != 0:
            return None
        if self._configured:
            return _configured_user(self._configured)
        folder = self._folder or next((f for f in _LOCKS if f.parent.is_dir()), _LOCKS[0])
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for number in range(1, USERS_MAX + 1):
                if self._lock(folder / f"{PREFIX}{number}"):
                    return _ensure(f"{PREFIX}{number}")
        logger.warning(
            "no system user could be added for jobs: they run as %s, side by side", FALLBACK
        )
        return _configured_user(FALLBACK)

    def close(self) -> None:
        """Let others have the users."""
        for lock in self._held:
            lock.close()
        self._held.clear()

    def _lock(self, path: Path) -> bool:
        lock = path.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._held.append(lock)
        return True


def _configured_user(name: str) -> JobUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise JobUserError(
            f"jobs shall run as {name!r}, but this machine has no such user: add it "
            f"(useradd --system {name}) or change the setting job_user"
        ) from None
    if entry.pw_uid == 0:
        return None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return JobUser(name, entry.pw_uid, entry.pw_gid, groups)


def _ensure(name: str) -> JobUser:
    """Return the user, added if need be; its group is its own."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if program is None:
            raise OSError("useradd is not installed") from None
        shell = next((s for s in ("/usr/sbin/nologin", "/sbin/nologin") if Path(s).exists()),
                     "/bin/false")  # fmt: skip
        subprocess.run(
            [program, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
             "--shell", shell, "--comment", "Tailrace jobs", name],
            check=True, capture_output=True, timeout=_USERADD_S,
        )  # fmt: skip
        entry = pwd.getpwnam(name)
    return JobUser(name, entry.pw_uid, entry.pw_gid)


def reachable_path(search_path: str, user: JobUser | None) -> str:
    """Return a PATH without the folders that the user can't enter, such as those below /root.

    A shell would pass over them, but a look-up by root would find programs there that then can't
    be run.
    """
    if user is None:
        return search_path
    return ":".join(f for f in search_path.split(":") if f and _may_enter(Path(f), user))


def _may_enter(folder: Path, user: JobUser) -> bool:
    try:
        real = folder.resolve(strict=True)
        return all(_may_search(part.stat(), user) for part in (real, *real.parents))
    except OSError:
        return False


def _may_search(found: os.stat_result, user: JobUser) -> bool:
    if found.st_uid == user.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid in (user.gid, *user.groups):
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
