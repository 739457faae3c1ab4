"""Which TCP ports the parts listen on: the usual one, else a free one that is remembered.

Two installations that start at the same moment never choose the same port: whoever chooses one
holds its name, machine-wide, until its supervisor ends. A program that knows nothing of this may
still come first; then `Ports.make_room` chooses anew before the next start.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from infra.embedded.errors import PortTakenError
from infra.embedded.processes import wait_until

HOST = "127.0.0.1"
_HANDED_OVER_S = 0.5


def is_free(port: int, host: str = HOST) -> bool:
    """Tell whether `port` can be listened on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do, so that a connection of the last run in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def free_port(host: str = HOST) -> int:
    """Return a port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Ports:
    """The ports of one installation, by the name of what listens there."""

    def __init__(
        self,
        usual: Mapping[str, int],
        *,
        fixed: Mapping[str, int],
        record: Path,
        ours: Collection[str] = (),
        host: str = HOST,
    ) -> None:
        """Choose a port for each name in `usual`, and remember the choice in `record`.

        A name in `fixed` (the user's settings) gets exactly that port; PortTakenError if a
        stranger has it. Otherwise the port of the last start is kept if it is free, then the
        usual one, then any. What still runs (`ours`) keeps the port that it has.
        """
        self._fixed = dict(fixed)
        self._record = record
        self._host = host
        self._held: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        remembered = _read(record)
        self._chosen = {
            name: remembered[name] for name in usual if name in ours and name in remembered
        }
        for port in self._chosen.values():
            self._hold(port)
        try:
            for name, usual_port in usual.items():
                if name not in self._chosen:
                    self._chosen[name] = self._choose(name, remembered.get(name, 0), usual_port)
        except PortTakenError:
            self.close()
            raise
        self._remember()

    def __getitem__(self, name: str) -> int:
        """Return the port of `name`."""
        return self._chosen[name]

    def __contains__(self, name: str) -> bool:
        """Tell whether `name` has a port here."""
        return name in self._chosen

    def make_room(self, names: Sequence[str], *, patience_s: float = 0.0) -> bool:
        """See to it that what is about to be started can listen; True if a port had to change.

        `patience_s` is for the process that ended just now to let go of its port. Raises
        PortTakenError for a port that the user fixed.
        """
        moved = False
        for name in names:
            port_is_free = partial(is_free, self._chosen[name], self._host)
            if wait_until(port_is_free, timeout_s=patience_s):
                continue
            if name in self._fixed:
                raise _taken(name, self._chosen[name], self._host)
            with self._lock:
                self._let_go(self._chosen[name])
                self._chosen[name] = self._another()
                self._remember()
            moved = True
        return moved

    def close(self) -> None:
        """Let other installations choose these ports."""
        for port in list(self._held):
            self._let_go(port)

    def _choose(self, name: str, remembered: int, usual: int) -> int:
        if name in self._fixed:
            port = self._fixed[name]
            if not self._take(port, patience_s=_HANDED_OVER_S):
                raise _taken(name, port, self._host)
            return port
        for port in (remembered, usual):
            # A supervisor that was killed just now may still be letting go of its names.
            patience_s = _HANDED_OVER_S if port == remembered else 0.0
            may_be_ours = port and port not in self._chosen.values()
            if may_be_ours and self._take(port, patience_s=patience_s):
                return port
        return self._another()

    def _another(self) -> int:
        while True:
            port = free_port(self._host)
            if port not in self._chosen.values() and self._take(port):
                return port

    def _take(self, port: int, *, patience_s: float = 0.0) -> bool:
        """Hold a port's name if nobody else does, and if nobody listens there."""
        if not wait_until(partial(self._hold, port), timeout_s=patience_s):
            return False
        if not is_free(port, self._host):
            self._let_go(port)
            return False
        return True

    def _hold(self, port: int) -> bool:
        """Take the name of a port for this process; False if another installation has it.

        The name is an abstract socket's: the kernel gives it to one process of this network (as
        it does a port), takes it back when that process ends however it ends, and no file is left.
        """
        if port in self._held:
            return True
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(f"\0tailrace/port/{port}")
        except OSError:
            holder.close()
            return False
        self._held[port] = holder
        return True

    def _let_go(self, port: int) -> None:
        holder = self._held.pop(port, None)
        if holder is not None:
            holder.close()

    def _remember(self) -> None:
        write_atomically(self._record, json.dumps(self._chosen, indent=2, sort_keys=True) + "\n")


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file so that a reader, or a crash, sees the old text or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _taken(name: str, port: int, host: str) -> PortTakenError:
    return PortTakenError(
        f"Port {port} of {host}, which your settings give to {name}, is used by another "
        f"program (`ss -ltnp 'sport = :{port}'` names it). End that program, or choose "
        f"another port, or leave the setting out: then a free port is taken."
    )


def _read(record: Path) -> dict[str, int]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): port for name, port in found.items() if isinstance(port, int)}
