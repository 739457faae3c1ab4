"""The guard: parent of everything a job starts, so that nothing of it outlives the runner.

    python -I -S guard.py CONTROL_FD

A runner starts one of these processes. It forks a *guard* for each slot when the runner hands it
a socket over the control socket: a fork of a few megabytes without imports, so that starting a
step from it costs a third of starting it from the runner itself. A guard is a subreaper: a
process that leaves its session or group becomes the guard's child when its parent ends, so a
sweep that goes on until there is no child left misses nothing.

- End of the socket (the runner is dead): the guard kills everything at once and ends. The runner
  was the only reader of the output and the next boot has another boot_id, so nothing is left to
  wait for.
- No message for `STARVED_S` while something runs (the runner is stopped, not dead): it kills
  everything and stays. CLOCK_MONOTONIC, which stands still while the machine is suspended: the
  runner then slept too, and decides by its own clock what it still may do.
- What a job has elsewhere, with a container engine, is no descendant. The runner leaves a command
  here that ends it, which is run after the killing in both cases.

Messages are a 4-byte length and a marshalled tuple. The runner sends ("spawn", spec) with the
file descriptors for stdin, stdout, stderr and further ones attached, ("signal", number),
("sweep",), ("at_end", spec or None) and ("feed",); the guard answers ("started", pid), ("failed",
text), ("exited", code), ("swept", [(pid, name)]) and ("starved",). Only the standard library's
cheapest modules are imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import marshal
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

STARVED_S = 15.0
SWEEP_S_MAX = 20.0
END_S_MAX = 30.0
LENGTH_BYTES = 4
FDS_MAX = 16
_FD_BYTES = 4

_PR_SET_CHILD_SUBREAPER, _PR_SET_NAME = 36, 15
_SIGNALS_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP,
                 signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1, signal.SIGUSR2)  # fmt: skip
_FIRST_SAFE_FD = 32
_libc = ctypes.CDLL(None, use_errno=True)


def pack(message: tuple[object, ...]) -> bytes:
    """Return a message as it goes over the socket."""
    body = marshal.dumps(message)  # type: ignore[arg-type]  # a tuple of plain values
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def unpack(buffer: bytearray) -> list[tuple[Any, ...]]:
    """Take the whole messages off the front of the buffer."""
    found: list[tuple[Any, ...]] = []
    while len(buffer) >= LENGTH_BYTES:
        size = int.from_bytes(buffer[:LENGTH_BYTES], "little")
        if len(buffer) < LENGTH_BYTES + size:
            break
        # both ends are this file in one interpreter; the peer is the other end of a socketpair
        found.append(marshal.loads(bytes(buffer[LENGTH_BYTES : LENGTH_BYTES + size])))  # noqa: S302
        del buffer[: LENGTH_BYTES + size]
    return found


def receive(connection: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Return bytes and the file descriptors that came with them, closed in what is executed.

    `socket.recv_fds` of Python 3.11 drops its flags, and so would hand them on to every step.
    """
    space = socket.CMSG_LEN(FDS_MAX * _FD_BYTES)
    data, ancillary, _, _ = connection.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(body) - len(body) % _FD_BYTES
            fds += memoryview(body[:whole]).cast("i").tolist()
    return data, fds


def children() -> list[int]:
    """Return the pids of this process's children, the dead among them too."""
    mine = os.getpid()
    found: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs the guard 10 ms
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = _read(f"/proc/{entry}/stat")
                if int(stat.rpartition(b")")[2].split()[1]) == mine:
                    found.append(int(entry))
    return found


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def become_subreaper(name: bytes) -> None:
    """Let orphans of descendants come to this process."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_NAME, name, 0, 0, 0)


class Guard:
    """One slot's guard, in its own process."""

    def __init__(self, connection: socket.socket) -> None:
        """Serve the runner at the other end of `connection`."""
        self._connection = connection
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._steps: set[int] = set()
        self._group = 0
        self._at_end: dict[str, Any] | None = None
        self._is_starved = False
        self._fed_s = time.monotonic()
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.settimeout(0)
        self._waker = waker
        signal.signal(signal.SIGCHLD, _woken_by_child)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the runner is gone."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = dict(poll.poll(1000 if self._has_work() else None))
            if self._woken.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            self._reap()
            if self._connection.fileno() in ready and not self._receive():
                self._end_all()
                return
            if time.monotonic() - self._fed_s > STARVED_S and self._has_work():
                # said first: the deaths that follow are then no mystery to the runner
                self._send(("starved",))
                self._is_starved = True
                self._end_all()
                self._fed_s = time.monotonic()

    def _receive(self) -> bool:
        """Take what the runner sent; False when the runner is gone."""
        try:
            data, fds = receive(self._connection, 262_144)
        except OSError:
            return False
        if not data:
            return False
        self._fed_s = time.monotonic()
        self._is_starved = False
        self._buffer += data
        self._fds += fds
        for message in unpack(self._buffer):
            self._obey(message)
        return True

    def _obey(self, message: tuple[Any, ...]) -> None:
        match message[0]:
            case "spawn":
                spec = message[1]
                count = len(spec["targets"])
                fds, self._fds = self._fds[:count], self._fds[count:]
                self._spawn(spec, fds)
            case "signal":
                self._signal(message[1])
            case "sweep":
                self._send(("swept", self._sweep()))
            case "at_end":
                self._at_end = message[1]
            case _:
                pass  # feeding is that a message came

    def _spawn(self, spec: dict[str, Any], fds: list[int]) -> None:
        try:
            pid = _start(spec, fds)
        except OSError as error:
            what = error.filename or spec["argv"][0]
            self._send(("failed", f"cannot start {what}: {error.strerror}"))
            return
        finally:
            for fd in fds:
                os.close(fd)
        _write(f"/proc/{pid}/oom_score_adj", b"500")
        self._steps.add(pid)
        self._group = pid
        self._send(("started", pid))

    def _has_work(self) -> bool:
        """Say whether there is anything to end when no more word comes."""
        return self._has_children() or (self._at_end is not None and not self._is_starved)

    def _has_children(self) -> bool:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _reap(self) -> bool:
        """Bury the dead and tell of steps among them; False when there is no child left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid in self._steps:
                self._steps.discard(pid)
                self._send(("exited", os.waitstatus_to_exitcode(status)))

    def _sweep(self) -> list[tuple[int, str]]:
        """Kill until no child is left; returns what was found beside the step itself."""
        killed: dict[int, str] = {}
        give_up_s = time.monotonic() + SWEEP_S_MAX
        while self._reap() and time.monotonic() < give_up_s:
            self._signal(signal.SIGKILL)
            for pid in children():
                if pid not in self._steps and pid not in killed:
                    killed[pid] = _name_of(pid)
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            # the wake-up comes from SIGCHLD; a stuck process must not stop the loop
            select.select([self._woken], [], [], 0.02)
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        return list(killed.items())

    def _end_all(self) -> None:
        """Kill everything, then run the command that ends what the job has elsewhere."""
        self._sweep()
        spec = self._at_end
        if spec is None:
            return
        # whoever read its words may be dead: a word would kill it
        nothing = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        try:
            _spawned(spec["argv"], spec["env"], nothing)
        except OSError:
            return  # the runner's next start will find it
        give_up_s = time.monotonic() + END_S_MAX
        while self._reap() and time.monotonic() < give_up_s:
            select.select([self._woken], [], [], 0.5)
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        self._sweep()

    def _signal(self, number: int) -> None:
        """Signal the group of the step that runs: once it is buried its number may be another's."""
        if self._group in self._steps:
            with contextlib.suppress(OSError):
                os.killpg(self._group, number)

    def _send(self, message: tuple[object, ...]) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(pack(message))


def _woken_by_child(_signal: int, _frame: object) -> None:
    """Nothing to do: the wake-up fd has told the loop."""


def _name_of(pid: int) -> str:
    try:
        return _read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def _start(spec: dict[str, Any], fds: list[int]) -> int:
    """Start the step's process and return its pid; OSError says why it can't be.

    Python can't change the user in a child without a fork, which costs 3 ms more than the vfork
    behind posix_spawn. So the guard itself becomes the job's user for the moment, keeping root as
    its saved id only: an exec copies the effective id over the saved one, so the new program has
    no way back. A change of user also makes a process undumpable: nobody can trace the guard.
    """
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_SAFE_FD) for fd in fds]
    moves: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(high, spec["targets"], strict=True)
    ]
    try:
        with _as_user(spec):
            os.chdir(spec["cwd"])
            return _spawned(spec["argv"], spec["env"], moves)
    finally:
        os.chdir("/")
        for fd in high:
            os.close(fd)


def _spawned(argv: list[str], env: dict[str, str], moves: list[tuple[Any, ...]]) -> int:
    # access() asks for the real user, who is the job's here; a failed exec would cost 0.3 ms
    path = next((path for path in _candidates(argv[0], env) if os.access(path, os.X_OK)), None)
    if path is None:
        raise FileNotFoundError(2, "not found, or not for the job's user to run", argv[0])
    return os.posix_spawn(path, argv, env, file_actions=moves, setsid=True, setsigdef=_SIGNALS_OURS)


def _candidates(program: str, env: dict[str, str]) -> list[str]:
    if "/" in program:
        return [program]
    return [f"{folder or '.'}/{program}" for folder in env.get("PATH", os.defpath).split(":")]


@contextlib.contextmanager
def _as_user(spec: dict[str, Any]) -> Iterator[None]:
    uid, gid = spec["uid"], spec["gid"]
    if uid is None:
        yield
        return
    os.setgroups(spec["groups"])
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups([])


def _write(path: str, data: bytes) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, data)
        os.close(fd)


def nursery(control: socket.socket) -> None:
    """Fork a guard for each socket that comes over `control`, until the runner is gone."""
    become_subreaper(b"tailrace-guards")
    for number in _SIGNALS_OURS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _woken_by_child)
    gc.collect()
    gc.freeze()
    guards: set[int] = set()
    while True:
        ready, _, _ = select.select([control], [], [], 1.0)
        if ready:
            try:
                data, fds = receive(control, 1)
            except OSError:
                data, fds = b"", []
            if not data and not fds:
                break
            for fd in fds:
                guards.add(_fork_guard(control, fd))
        _bury_guards(guards)
    while guards:
        _bury_guards(guards)
        time.sleep(0.05)


def _fork_guard(control: socket.socket, fd: int) -> int:
    pid = os.fork()
    if pid:
        os.close(fd)
        return pid
    code = 1
    try:
        control.close()
        become_subreaper(b"tailrace-guard")
        Guard(socket.socket(fileno=fd)).run()
        code = 0
    finally:
        os._exit(code)


def _bury_guards(guards: set[int]) -> None:
    """Bury guards that ended; what a killed guard left behind became ours and is killed."""
    abandoned = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        if pid in guards:
            guards.discard(pid)
            abandoned = abandoned or status != 0
        else:
            abandoned = True
    if not abandoned:
        return
    give_up_s = time.monotonic() + SWEEP_S_MAX
    while (orphans := set(children()) - guards) and time.monotonic() < give_up_s:
        for pid in orphans:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)  # noqa: FBT003
    nursery(socket.socket(fileno=int(sys.argv[1])))
