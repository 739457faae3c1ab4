"""The place of an attempt that has containers: steps inside, what the runner does for it outside.

Every folder of the job has the same path inside as on the machine, so that a path means the same
to steps, to built-in actions and in logs; workspace, home and event lie at GitHub's fixed paths as
well. On the machine the folders' parent is closed to everybody but the job's own user, and they
themselves are open: whoever a container's processes are, the files are theirs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import stat
from dataclasses import replace
from pathlib import Path

from runner.executors import Command, Inside
from runner.executors.containers.engine import Engine, EngineError
from runner.executors.containers.launch import launch_script
from runner.executors.host import HostWorkplace
from runner.folders import JobFolders, Seat
from runner.guards import Guard
from runner.pump import Ending, Pump

logger = logging.getLogger(__name__)

WORKSPACE, HOME, WORKFLOW = "/github/workspace", "/github/home", "/github/workflow"
FILE_COMMANDS, TEMP = "/github/file_commands", "/github/runner_temp"
_SHELLS = ("bash", "python", "python3", "node", "pwsh")
_SIGNAL_S = 20.0
#: Makes what the machine's side writes the container's user's as well.
_OPEN_MODES = ("sh", "-c", 'umask 0; exec "$@"', "job")
_PID_BYTES_MAX = 16
_PROBE = 'id -u; echo "$PATH"; for p in {}; do command -v $p >/dev/null 2>&1 && echo $p; done; :'
_OPEN = 0o777
_CLOSED, _PRIVATE = 0o710, 0o700


class ContainerSetupError(Exception):
    """A container of the job can't be had; the message is for the log, `reason` is its code."""

    def __init__(self, message: str, reason: str = "user.container") -> None:
        """Fail the job, or the step, with `reason`."""
        super().__init__(message)
        self.reason = reason


def open_folders(folders: JobFolders) -> JobFolders:
    """Return the folders as a job with containers needs them.

    Small files leave the memory of the seat, which others can pass through, and tools are the
    job's own: a runner's tool cache is shared by all of its jobs.
    """
    user = folders.user
    if user is not None:
        os.chown(folders.root, -1, user.gid)
    folders.root.chmod(_CLOSED if user is not None else _PRIVATE)
    files, tools = folders.root / "_files", folders.root / "_tools"
    for folder in (*folders.parts(), files, tools):
        folder.mkdir(exist_ok=True)
        if user is not None:
            os.chown(folder, user.uid, user.gid)
        folder.chmod(_OPEN)
    places = replace(folders.places, event_path=str(files / "event.json"), tool_cache=str(tools))
    return replace(folders, files=files, places=places, open=True)


def job_mounts(folders: JobFolders) -> list[tuple[str, str]]:
    """Return (folder of the machine, place inside) of all that a container of the job gets."""
    workspace, home, files = str(folders.workspace), folders.places.home, str(folders.files)
    temp = folders.places.temp
    same = [workspace, temp, home, folders.places.tmp, str(folders.actions), files]
    if folders.open:
        # otherwise it is the runner's, which all of its jobs share
        same.append(folders.places.tool_cache)
    name = folders.workspace.name
    return [
        *((folder, folder) for folder in same),
        (workspace, f"/__w/{name}/{name}"), (workspace, WORKSPACE), (home, HOME),
        (files, WORKFLOW), (files, FILE_COMMANDS), (temp, TEMP),
    ]  # fmt: skip


class ContainerWorkplace(HostWorkplace):
    """An attempt whose steps run in a container, once that is entered."""

    def __init__(
        self, seat: Seat, folders: JobFolders, guard: Guard, pump: Pump, engine: Engine
    ) -> None:
        """Until `enter` the job's processes run on the machine."""
        super().__init__(seat, open_folders(folders), guard, pump)
        self.engine = engine
        self._container = ""
        self._serial = 0
        self._pid_path: Path | None = None
        self._shared = False
        self._wrapper = _wrapper(engine, is_root=folders.user is not None)

    def enter(self, container: str) -> Inside:
        """Run the job's processes in a container that runs. Raises ContainerSetupError."""
        script = _PROBE.format(" ".join(_SHELLS))
        try:
            lines = self.engine.call("exec", container, "sh", "-c", script).splitlines()
            uid, path = int(lines[0]), lines[1]
        except (EngineError, ValueError, IndexError) as error:
            raise ContainerSetupError(
                f"no shell can be run in the job's container: {error}. An image for jobs needs "
                "`sh`, and `sleep` and `id` beside it"
            ) from error
        self._container = container
        self._write_git_settings()
        self._shared = uid != 0 or not self._is_mapped()
        self.inside = Inside(uid=uid, path=path, programs=frozenset(lines[2:]))
        return self.inside

    def _write_git_settings(self) -> None:
        """Let git in the container work on what the machine's side checked out, as on GitHub."""
        with contextlib.suppress(FileExistsError):
            path = Path(self.folders.places.home, ".gitconfig")
            self.folders.write(path, b"[safe]\n\tdirectory = *\n")

    def _is_mapped(self) -> bool:
        """Say whether the container's root is the job's user on the machine."""
        user = self.folders.user
        if user is None and os.geteuid() == 0 and not self.engine.rootless:
            return True  # both are root
        if self.engine.rootless:
            return user is None and not self.engine.remapped
        return self.engine.maps_users(None if user is None else user.uid)

    # ----------------------------------------------------------------- processes

    def start(self, command: Command) -> None:
        """Start a process where it belongs."""
        self._pid_path = None
        self._pump.signalled = None
        if command.place == "machine" or not (self._container or command.place == "engine"):
            self._open_files()
            argv = [*self._wrapper, *(_OPEN_MODES if self._shared else ()), *command.argv]
            super().start(replace(command, argv=argv, place="machine"))
        elif command.place == "engine":
            super().start(command)
        else:
            super().start(self._entering(command))
            self._pump.signalled = self._signal

    def wait(self) -> Ending:
        """Move output until the process ended; one that ran out of time takes its group along."""
        ending = super().wait()
        if ending.timed_out and self._pid_path is not None:
            self._signal(signal.SIGKILL)
        return ending

    def _entering(self, command: Command) -> Command:
        """Return the engine's command that runs a process in the container."""
        self._serial += 1
        folders = self.folders
        self._pid_path = folders.files / f"pid_{self._serial}"
        path = folders.files / f"launch_{self._serial}.sh"
        text = launch_script(
            command.argv, command.env, command.cwd, str(self._pid_path),
            keep_modes=not self._shared,
        )  # fmt: skip
        folders.write(path, text.encode("utf-8", "surrogateescape"))
        return replace(
            command,
            argv=self.engine.argv("exec", self._container, "sh", str(path)),
            env=self.engine.environment,
            cwd="/",
            place="engine",
        )

    def _signal(self, number: int) -> bool:
        """Signal the process group in the container; False when only its program here is left."""
        pid = _read_pid(self._pid_path)
        if pid is None:
            return False
        name = signal.Signals(number).name.removeprefix("SIG")
        script = f"kill -s {name} -- -{pid} 2>/dev/null || kill -s {name} {pid}"
        try:
            words = ("exec", "--user", "0", self._container, "sh", "-c", script)
            self.engine.call(*words, timeout_s=_SIGNAL_S)
        except EngineError as error:
            logger.info("a step in a container could not be signalled: %s", error)
            return False
        return True

    def _open_files(self) -> None:
        """Let the machine's side read and write what the container's processes made."""
        if self._container and self._shared:
            folders = self.folders
            parts = (*map(str, folders.parts()), str(folders.files), folders.places.tool_cache)
            words = ("exec", "--user", "0", self._container, "chmod", "-R", "a+rwX", *parts)
            try:
                self.engine.call(*words)
            except EngineError as error:
                logger.warning("files of a container stay closed: %s", error)

    # ----------------------------------------------------------------- the end

    def leave(self) -> None:
        """The container is about to be removed: its files must be ours to remove as well."""
        if self._container and os.geteuid() != 0:
            self._open_files()
        self._container = ""

    def sweep(self) -> list[tuple[int, str]]:
        """Kill what is left on the machine: helpers of the engine's, which are no step's doing."""
        super().sweep()
        return []


def _wrapper(engine: Engine, *, is_root: bool) -> list[str]:
    """Return what stands before a command of the job's user on the machine.

    A container's root may be the machine's, and leave a program with root's rights in the
    workspace: nothing that the job's user runs here can be given rights by a file.
    """
    setpriv = shutil.which("setpriv")
    if is_root and setpriv is not None:
        return [setpriv, "--no-new-privs", "--"]
    if is_root and engine.kind == "docker" and not engine.rootless:
        raise ContainerSetupError(
            "containers need the program setpriv (package util-linux) where the runner is root",
            "infra.container",
        )
    return []


def _read_pid(path: Path | None) -> int | None:
    """Return the pid that a process wrote, None when there is none yet or it is no pid."""
    if path is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            if stat.S_ISREG(os.fstat(fd).st_mode):
                pid = int(file.read(_PID_BYTES_MAX))
                return pid if pid > 1 else None
    return None
