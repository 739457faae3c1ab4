"""Sealing bytes with the installation's key: the only place that knows the cipher.

AES-256-GCM with a random nonce. What a value is for is authenticated with it, so that a sealed
value moved to another row or file does not open.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"


class SealError(Exception):
    """A sealed value or the key can't be used; the message names the file or the value."""


class Sealer:
    """Seals and opens values with one key."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, 32 random bytes."""
        if len(key) != KEY_BYTES:
            raise SealError(f"the key has {len(key)} bytes; expected {KEY_BYTES}")
        self._cipher = AESGCM(key)

    @classmethod
    def of_file(cls, path: Path) -> Sealer:
        """Read the key file; made on first use, for its owner alone."""
        return cls(key_file(path))

    def seal(self, value: bytes, purpose: str) -> bytes:
        """Return the sealed value; only the same `purpose` opens it."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, value, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """Return the value; SealError when it was sealed by another key or for something else."""
        sealed = bytes(sealed)
        start = len(_VERSION) + _NONCE_BYTES
        if sealed[:1] != _VERSION or len(sealed) < start:
            raise SealError(f"{purpose}: not a sealed value of this version")
        try:
            return self._cipher.decrypt(sealed[1:start], sealed[start:], purpose.encode())
        except InvalidTag as error:
            raise SealError(
                f"{purpose}: sealed with another key (was secrets/vault.key replaced?) or damaged"
            ) from error


def key_file(path: Path) -> bytes:
    """Return the key in `path`, made there if it does not exist; SealError says what is wrong."""
    write_private(path, os.urandom(KEY_BYTES), replace=False)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SealError(f"{path} can be read by others: chmod 600 {path}, then change all secrets")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise SealError(f"{path} has {len(key)} bytes; a key has {KEY_BYTES}")
    return key


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a 0600 file that appears whole or not at all; an existing one stays if asked to."""
    if not replace and path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            _link_if_absent(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _link_if_absent(beside: Path, path: Path) -> None:
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        # another process was first: its key counts
        return
