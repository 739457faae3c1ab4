"""The secrets of an installation: 0600 files in a 0700 folder, each made once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

TOKEN = "token"  # noqa: S105 - a file name
RUNNER_TOKEN = "runner-token"  # noqa: S105 - a file name
_TOKEN_BYTES = 32


def ensure_secrets(folder: Path) -> None:
    """Make the folder, the user's bearer token and the runners' token where they are missing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for name in (TOKEN, RUNNER_TOKEN):
        ensure_secret(folder / name, secrets.token_urlsafe(_TOKEN_BYTES))


def ensure_secret(path: Path, text: str) -> None:
    """Write `text` unless the file is there; two processes at once agree on one text."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
