"""The installation's tokens: who may ask a service for something beyond its health."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from infra.sealing import write_private

TOKEN_FILE = "token"  # noqa: S105 - a file's name
RUNNER_TOKEN_FILE = "runner-token"  # noqa: S105 - a file's name


class TokenFile:
    """A token in a 0600 file; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        """Use the token in `path`."""
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = b""

    def ensure(self) -> str:
        """Make the token if there is none; return it."""
        write_private(self._path, secrets.token_urlsafe(32).encode() + b"\n", replace=False)
        return self.read().decode()

    def read(self) -> bytes:
        """Return the token; b"" when there is none."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                self._token = self._path.read_bytes().strip()
                self._stamp = stamp
        except OSError:
            self._token, self._stamp = b"", None
        return self._token

    def accepts(self, authorization: str | None) -> bool:
        """Tell whether an Authorization header carries this token, in constant time."""
        scheme, _, given = (authorization or "").partition(" ")
        token = self.read()
        good = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token)
        return good and bool(token) and scheme.lower() == "bearer"
