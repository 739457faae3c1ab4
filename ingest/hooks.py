"""Installing and removing the post-receive hook of a local repository: the only writer there.

A hook that was there before keeps running first, with the same input, and its exit code counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import stat
import sys
from pathlib import Path

from infra.git import GitError, git_folder
from ingest import hook

NAME = "post-receive"
EARLIER = "post-receive.before-tailrace"
FOLDER = "tailrace"
_MARK = "# installed by tailrace"

_SCRIPT = """#!/bin/sh
{mark}: `tailrace repo rm {repository}` removes it
here=${{0%/*}}
ours="$here/{folder}"
updates=$(while IFS= read -r line; do printf '%s\\n' "$line"; done)
code=0
if [ -x "$here/{earlier}" ]; then
    printf '%s\\n' "$updates" | "$here/{earlier}" "$@" || code=$?
fi
if [ -x {python} ]; then
    printf '%s\\n' "$updates" | {python} -I "$ours/hook.py" "$ours/config.json" || :
else
    echo 'tailrace: not queued: {python} is gone; add the repository again' >&2
fi
exit $code
"""


class HookError(Exception):
    """The hook can't be installed or removed; the message says why and what to do."""


class Hooks:
    """Installs hooks that lead to this installation."""

    def __init__(self, *, runs_url: str) -> None:
        """`runs_url` is where a person sees what became of a push."""
        self._runs_url = runs_url

    def install(
        self, path: Path, *, repository: str, url: str, secret: str, default_branch: str = "main"
    ) -> Path:
        """Install the hook, or bring it up to date; returns its path."""
        folder = _hooks_folder(path)
        _check_ours(folder / NAME)
        target = folder / NAME
        if target.exists() and not _is_ours(target):
            target.replace(folder / EARLIER)
        parts = folder / FOLDER
        parts.mkdir(parents=True, exist_ok=True)
        source = Path(hook.__file__).read_bytes()
        config = {
            "repository": repository,
            "url": url,
            "secret": secret,
            "runs_url": self._runs_url,
            "default_branch": default_branch,
            "clone_url": str(path),
        }
        like = folder.parent
        _write(parts / "hook.py", source, 0o644, like)
        _write(parts / "config.json", json.dumps(config).encode(), _secret_mode(like), like)
        _same_owner(parts, like)
        script = _SCRIPT.format(
            mark=_MARK,
            repository=repository,
            earlier=EARLIER,
            folder=FOLDER,
            python=shlex.quote(_python()),
        )
        _write(target, script.encode(), 0o755, like)
        return target

    def remove(self, path: Path) -> None:
        """Remove the hook and put back the one that was there before."""
        if not path.exists():
            return
        folder = _hooks_folder(path)
        try:
            shutil.rmtree(folder / FOLDER, ignore_errors=True)
            target = folder / NAME
            if target.exists() and _is_ours(target):
                target.unlink()
                if (folder / EARLIER).exists():
                    (folder / EARLIER).replace(target)
        except OSError as error:
            raise HookError(f"{folder / NAME} can't be removed: {error.strerror}") from error


def _hooks_folder(path: Path) -> Path:
    try:
        git_dir = git_folder(path)
    except (GitError, OSError) as error:
        raise HookError(str(error)) from error
    with contextlib.suppress(OSError):
        config = (git_dir / "config").read_text(encoding="utf-8", errors="replace")
        if re.search(r"^\s*hookspath\s*=", config, re.IGNORECASE | re.MULTILINE):
            raise HookError(
                f"{git_dir / 'config'} sets core.hooksPath: call the hook from there yourself, or "
                "remove the setting and add the repository again"
            )
    return git_dir / "hooks"


def _check_ours(target: Path) -> None:
    earlier = target.with_name(EARLIER)
    if target.exists() and not _is_ours(target) and earlier.exists():
        raise HookError(
            f"both {target} and {earlier} exist and neither is ours: remove the one you do not use"
        )


def _is_ours(target: Path) -> bool:
    return _MARK.encode() in target.read_bytes()[:200]


def _python() -> str:
    return sys.executable or "/usr/bin/python3"


def _secret_mode(like: Path) -> int:
    """Let those read the secret who may write to the repository: they have to, to push."""
    mode = stat.S_IMODE((like / "objects").stat().st_mode)
    return 0o600 | (0o040 if mode & stat.S_IWGRP else 0) | (0o004 if mode & stat.S_IWOTH else 0)


def _write(path: Path, content: bytes, mode: int, like: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        _same_owner(beside, like)
        beside.chmod(mode)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _same_owner(path: Path, like: Path) -> None:
    """Give what root writes to the repository's owner, who pushes and may want to remove it."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
