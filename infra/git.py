"""Running git on repositories that nobody vouches for: the only place that knows how.

No hook runs, no prompt waits, no configuration but our own is read, no protocol is spoken that was
not asked for, every command has a time limit, and credentials travel in the environment alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_TIMEOUT_S = 30.0
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
STDERR_CHARS_MAX = 600

MERGER = "Tailrace <tailrace@localhost>"

#: Variables of ours that git and its transports need; nothing else is handed on.
_PASSED_ON = (
    "PATH",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_EXEC_PATH",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
)
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    # what is fetched here is read, never checked out: old repositories with harmless flaws
    # must stay readable
    "fetch.fsckObjects=false",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "safe.directory=*",
)
_ASKPASS = """#!/bin/sh
case "$1" in
Username*) printf '%s\\n' "$TAILRACE_GIT_USERNAME" ;;
*) printf '%s\\n' "$TAILRACE_GIT_PASSWORD" ;;
esac
"""


class GitError(Exception):
    """Git could not do it; the message has git's own words."""


class GitTimeoutError(GitError):
    """Git took longer than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a remote asks for."""

    username: str
    password: str = field(repr=False)


def checked_url(url: str) -> str:
    """Return a clone URL that git reads as one; GitError for what it might take as an option."""
    if not url or url.startswith("-") or any(c.isspace() or ord(c) < 32 for c in url):  # noqa: PLR2004
        raise GitError(f"{url!r} is no clone URL")
    scheme = url.partition("::")[0] if "::" in url.partition("/")[0] else ""
    if scheme:
        raise GitError(f"{url!r}: remote helpers ({scheme}::) are not allowed")
    return url


def local_path(url: str) -> Path | None:
    """Return the folder that a path or a file:// URL names, or None for a remote."""
    if url.startswith("file://"):
        parts = urlsplit(url)
        return Path(parts.path) if parts.netloc in ("", "localhost") else None
    return Path(url) if url.startswith("/") else None


def git_folder(path: Path) -> Path:
    """Return the git folder of a working copy or bare repository; GitError when there is none.

    Found by looking, not by asking git: git would read the configuration of a stranger's folder.
    """
    for folder in (path / ".git", path):
        if (folder / "objects").is_dir() and (folder / "HEAD").is_file():
            return folder.resolve()
    pointer = path / ".git"
    if pointer.is_file():
        target = pointer.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:")
        worktree = (path / target.strip()).resolve()
        common = worktree / "commondir"
        if common.is_file():
            return (worktree / common.read_text(encoding="utf-8").strip()).resolve()
    raise GitError(f"{path} is no git repository (or can't be read by this user)")


def shown_url(url: str) -> str:
    """Return a clone URL without what may be a secret: user and password of http, else password."""
    if url.startswith(("http://", "https://")):
        return re.sub(r"(?<=://)[^/@]*@", "", url)
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1@", url)


def merge_message(base: str, head: str) -> str:
    """Return what a merge commit of ours says: part of its id, so the same wherever it is made."""
    return f"Merge {head} into {base}"


class Git:
    """Runs git commands; one object serves all threads."""

    def __init__(self, state_dir: Path) -> None:
        """Keep the program that answers git's question for a password in `state_dir`."""
        self._askpass = state_dir / "git-askpass"
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def end_all(self) -> None:
        """Kill every command that `run` waits for, and run no more: both raise GitError."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def run(
        self,
        arguments: Sequence[str],
        *,
        git_dir: Path | None = None,
        stdin: bytes | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: Credentials | None = None,
        protocols: str = "",
        accept: Sequence[int] = (0,),
    ) -> tuple[int, bytes]:
        """Return (exit code, output); GitError for a code that is not in `accept`.

        `protocols` lists the transports that may be used (`https:ssh`), none by default.
        """
        process = self.start(
            arguments, git_dir=git_dir, credentials=credentials, protocols=protocols
        )
        with self._lock:
            self._running.add(process)
            if self._ended:
                end(process)
        try:
            output, errors = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            end(process)
            raise GitTimeoutError(f"git {arguments[0]} took longer than {timeout_s:g} s") from error
        except BaseException:
            end(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode not in accept:
            said = _shortened(errors) or f"exit code {process.returncode}"
            raise GitError(f"git {arguments[0]}: {said}")
        return process.returncode, output

    def start(
        self,
        arguments: Sequence[str],
        *,
        git_dir: Path | None = None,
        credentials: Credentials | None = None,
        protocols: str = "",
        quiet: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start git in a process group of its own, with pipes."""
        config = [*_CONFIG]
        # with credentials: they must not follow a redirect to another host
        config.append(f"http.followRedirects={'false' if credentials else 'initial'}")
        argv = ["git", "--no-pager"]
        if git_dir is not None:
            argv.append(f"--git-dir={git_dir}")
        for entry in config:
            argv += ["-c", entry]
        return subprocess.Popen(
            [*argv, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else subprocess.PIPE,
            env=self._environment(credentials, protocols),
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )

    def _environment(self, credentials: Credentials | None, protocols: str) -> Mapping[str, str]:
        env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        env |= {
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": protocols or "none",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=10",
            "GIT_ASKPASS": "/bin/false",
        }
        if credentials is not None:
            env["GIT_ASKPASS"] = str(self._askpass_program())
            env["TAILRACE_GIT_USERNAME"] = credentials.username
            env["TAILRACE_GIT_PASSWORD"] = credentials.password
        return env

    def _askpass_program(self) -> Path:
        with self._lock:
            if not self._askpass.exists():
                self._askpass.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                beside = self._askpass.with_name(f".{self._askpass.name}.{os.getpid()}")
                beside.write_text(_ASKPASS, encoding="utf-8")
                beside.chmod(0o700)
                beside.replace(self._askpass)
        return self._askpass

    def merge(self, git_dir: Path, base: str, head: str, message: str) -> str | None:
        """Return the commit that merges `head` into `base`, or None when they conflict.

        The same two commits always give the same commit id, on any machine: author and dates
        are ours and the head's. Whoever needs the commit elsewhere makes it again.
        """
        code, tree = self.run(
            ["merge-tree", "--write-tree", "--no-messages", "--end-of-options", base, head],
            git_dir=git_dir,
            accept=(0, 1),
        )
        if code == 1:
            return None
        _, header = self.run(
            ["show", "-s", "--format=%ct", "--end-of-options", head], git_dir=git_dir
        )
        when = f"{int(header.split()[-1])} +0000"
        commit = (
            f"tree {tree.split()[0].decode()}\nparent {base}\nparent {head}\n"
            f"author {MERGER} {when}\ncommitter {MERGER} {when}\n\n{message}\n"
        )
        _, made = self.run(
            ["hash-object", "-t", "commit", "-w", "--stdin"], git_dir=git_dir, stdin=commit.encode()
        )
        return made.strip().decode()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a git command with everything that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait(5)


def _shortened(errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip())
    return text[:STDERR_CHARS_MAX]
