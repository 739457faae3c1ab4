"""Which TCP ports the parts listen on: the usual one, else a free one that is remembered."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from infra.embedded.errors import PortTakenError

HOST = "127.0.0.1"


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


def choose(
    usual: Mapping[str, int],
    *,
    fixed: Mapping[str, int],
    record: Path,
    ours: Collection[str] = (),
    host: str = HOST,
) -> dict[str, int]:
    """Return a port for each name in `usual`, and remember the choice in `record`.

    A name in `fixed` (the user's settings) gets exactly that port; PortTakenError if a stranger
    has it. Otherwise the port of the last start is kept if it is free, then the usual one, then
    any. What still runs (`ours`) keeps the port that it has.
    """
    remembered = _read(record)
    chosen = {name: remembered[name] for name in usual if name in ours and name in remembered}
    for name, usual_port in usual.items():
        if name in chosen:
            continue
        if name in fixed:
            chosen[name] = _fixed(name, fixed[name], host)
            continue
        wished = [remembered.get(name), usual_port]
        chosen[name] = next(
            (
                port
                for port in wished
                if port and port not in chosen.values() and is_free(port, host)
            ),
            0,
        ) or _another(chosen, host)
    write_atomically(record, json.dumps(chosen, indent=2, sort_keys=True) + "\n")
    return chosen


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


def _fixed(name: str, port: int, host: str) -> int:
    if not is_free(port, host):
        raise PortTakenError(
            f"Port {port} of {host}, which your settings give to {name}, is used by another "
            f"program (`ss -ltnp 'sport = :{port}'` names it). End that program, or choose "
            f"another port, or leave the setting out: then a free port is taken."
        )
    return port


def _another(chosen: Mapping[str, int], host: str) -> int:
    while (port := free_port(host)) in chosen.values():
        pass
    return port


def _read(record: Path) -> dict[str, int]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): port for name, port in found.items() if isinstance(port, int)}
