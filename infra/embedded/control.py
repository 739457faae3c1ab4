"""The supervisor's control socket: one JSON line asks, one JSON line answers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SOCKET_NAME = "supervisor.sock"
_LINE_BYTES_MAX = 1 << 20
_CLIENT_TIMEOUT_S = 2.0

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class NotRunning(Exception):  # noqa: N818 - it is an answer, not a fault
    """No supervisor answers in this home."""


class ControlServer:
    """Listens in a folder; `serve_once` answers whoever asks, one after the other."""

    def __init__(self, run_dir: Path, handler: Handler) -> None:
        """Listen; what a killed supervisor left of its socket is replaced."""
        self._handler = handler
        self._path = run_dir / SOCKET_NAME
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(run_dir) as address:
            self._socket.bind(address)
        self._path.chmod(0o600)
        self._socket.listen(16)

    def serve_once(self, timeout_s: float) -> None:
        """Answer one question, or return after `timeout_s` without any."""
        self._socket.settimeout(timeout_s)
        try:
            connection, _address = self._socket.accept()
        except TimeoutError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_CLIENT_TIMEOUT_S)
            line = connection.makefile("rb").readline(_LINE_BYTES_MAX)
            connection.sendall(json.dumps(self._answer(line)).encode() + b"\n")

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            question = json.loads(line)
        except ValueError:
            return {"error": "the question is not a line of JSON"}
        if not isinstance(question, dict):
            return {"error": "the question is not a JSON object"}
        return self._handler(question)


def ask(run_dir: Path, question: Mapping[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Ask the supervisor of this folder. Raises NotRunning if there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            with _short(run_dir) as address:
                connection.connect(address)
            connection.sendall(json.dumps(question).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline())
    except (OSError, ValueError) as error:
        raise NotRunning(f"no supervisor answers in {run_dir}: {error}") from error
    if not isinstance(answer, dict):
        raise NotRunning(f"the supervisor in {run_dir} answered nonsense")
    return answer


@contextlib.contextmanager
def _short(run_dir: Path) -> Iterator[str]:
    """Give the socket a name that fits: its path may be longer than the 107 bytes allowed."""
    folder = os.open(run_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET_NAME}"
    finally:
        os.close(folder)
