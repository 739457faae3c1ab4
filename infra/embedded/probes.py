"""Asking a process how it is: spoken by hand, since http.client costs the supervisor megabytes."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ANSWER_BYTES_MAX = 65_536
_TCP_LOCAL, _TCP_STATE, _TCP_INODE = 1, 3, 9  # fields of /proc/net/tcp
_LISTEN = "0A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a process said of itself; `reachable` is false when it said nothing."""

    reachable: bool
    ready: bool
    detail: str = ""
    lag: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


SILENT = Health(reachable=False, ready=False, detail="does not answer yet")


def ready_or_silent(*, answers: bool) -> Health:
    """Return the health of a process that either takes requests or does not."""
    return Health(reachable=True, ready=True) if answers else SILENT


def ask_readyz(port: int, *, host: str = "127.0.0.1", timeout_s: float = 3.0) -> Health:
    """Return what `/readyz` says: ready with 200, else with the reason in its JSON."""
    request = f"GET /readyz HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(request.encode("ascii"))
            answer = connection.makefile("rb").read(_ANSWER_BYTES_MAX)
    except OSError as error:
        if isinstance(error, ConnectionRefusedError):
            return SILENT
        return Health(reachable=False, ready=False, detail=f"does not answer: {error}")
    return parse_readyz(answer)


def parse_readyz(answer: bytes) -> Health:
    """Return the health that an HTTP answer tells."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    code = words[1].decode("ascii", "replace") if len(words) > 1 else ""
    try:
        facts = json.loads(body)
    except ValueError:
        facts = {}
    if not isinstance(facts, dict):
        facts = {}
    lag = facts.get("lag")
    ready = code == "200"
    return Health(
        reachable=bool(code),
        ready=ready,
        detail="" if ready else _reason(facts, code),
        lag=lag if isinstance(lag, int) else None,
        facts=facts,
    )


def listens(pid: int, port: int) -> bool:
    """Tell whether this process, and not another one, listens on a port; true if unknowable."""
    try:
        tables = [
            Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")
        ]
        descriptors = {_target(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return True
    listening = {
        f"socket:[{fields[_TCP_INODE]}]"
        for table in tables
        for fields in map(str.split, table.splitlines()[1:])
        if fields[_TCP_STATE] == _LISTEN and int(fields[_TCP_LOCAL].rpartition(":")[2], 16) == port
    }
    return bool(listening & descriptors)


def memory_bytes(pid: int, *, with_children: bool = False) -> int:
    """Return the proportional memory (PSS) of a process; 0 if it is gone or not ours to see."""
    total = _pss(pid)
    if with_children:
        total += sum(memory_bytes(child, with_children=True) for child in _children(pid))
    return total


def _reason(facts: dict[str, Any], code: str) -> str:
    named = [str(facts[key]) for key in ("status", "error", "reason", "detail") if facts.get(key)]
    return ": ".join(named) or f"answers with HTTP status {code}"


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed just now
        return ""


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
    return int(sizes[0]) * 1024 if sizes else 0


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]
