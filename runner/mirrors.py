"""The runner's copies of repositories, from which checkouts of any job are served.

A mirror is a bare repository that only the runner's user reads. A local repository is not copied:
its mirror has it as alternate, so nothing is fetched for a known commit. Jobs never see a mirror
or its credentials; they get objects through a socket from `git upload-pack`, which the runner
starts (`serve`).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from infra.git import Git, GitError, merge_message
from runner.gateway_client import Clone
from schemas.late import dataclass

FETCH_S_MAX = 600
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_KEPT = ("PATH", "HOME", "LANG", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY",
         "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")  # fmt: skip
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "protocol.version": "2",
    "uploadpack.allowAnySHA1InWant": "true",
    "uploadpack.allowFilter": "true",
    # the mirror's own config is ours; of a source only objects and refs are read
    "safe.directory": "*",
}


class MirrorError(Exception):
    """The repository can't be read; the message is git's own."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit and the ref that leads to it; `kind` is branch, tag, pull or sha."""

    sha: str
    kind: str
    name: str

    @property
    def full_ref(self) -> str:
        """The ref in full; "" for a commit."""
        folder = {"branch": "heads", "tag": "tags", "pull": "pull"}.get(self.kind)
        return f"refs/{folder}/{self.name}" if folder else ""


class Serving:
    """One `git upload-pack` at work; `fd` is the job's end of the socket."""

    def __init__(self, process: subprocess.Popen[bytes], end: socket.socket) -> None:
        """Serve from `process`."""
        self._process = process
        self._end = end

    @property
    def fd(self) -> int:
        """The descriptor to hand to the job's git."""
        return self._end.fileno()

    def close(self) -> None:
        """End it if it did not end by itself."""
        self._end.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def settings_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return git settings as environment variables: no argv, no file."""
    found = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = key
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found


def credential_settings(clone: Clone) -> dict[str, str]:
    """Return the git settings that send a clone's credential to its own origin only."""
    parts = urlsplit(clone.url)
    if not clone.password or parts.scheme not in ("http", "https"):
        return {}
    host = parts.netloc.rpartition("@")[2]
    user = clone.username or "x-access-token"
    token = base64.b64encode(f"{user}:{clone.password}".encode()).decode()
    return {f"http.{parts.scheme}://{host}/.extraheader": f"AUTHORIZATION: basic {token}"}


def local_path(url: str) -> Path | None:
    """Return the folder of a repository on this machine; None for any other URL."""
    if url.startswith("file://"):
        return Path(urlsplit(url).path)
    return Path(url) if url.startswith("/") else None


class Mirrors:
    """All mirrors of a machine; several runners may share the folder."""

    def __init__(self, folder: Path) -> None:
        """Keep them in `folder`, closed to everybody else."""
        self._folder = folder

    def prepare(self, clone: Clone, sha: str, *, everything: bool = False, depth: int = 0) -> Path:
        """Return a mirror that has the commit; with `everything` also all branches and tags.

        A `depth` leaves the commits before it out, in this mirror for good.
        """
        with self._locked(clone) as mirror:
            if sha and not everything and self._has(mirror, sha):
                return mirror
            wanted = [*([f"--depth={depth}"] if depth else []), sha]
            if sha and not everything and self._fetch(mirror, clone, wanted, check=False):
                return mirror
            self._fetch(mirror, clone, ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
            if sha and not self._has(mirror, sha):
                self._fetch(mirror, clone, [sha])
            return mirror

    def prepare_merge(self, clone: Clone, sha: str, base: str, head: str) -> Path:
        """Return a mirror that has the merge of a pull request's two commits.

        No forge has it: the planner made it, and the same two commits give the same id again.
        """
        with self._locked(clone) as mirror:
            if self._has(mirror, sha):
                return mirror
            missing = [oid for oid in (base, head) if not self._has(mirror, oid)]
            if missing:
                self._fetch(mirror, clone, missing)
            try:
                made = Git(self._folder).merge(mirror, base, head, merge_message(base, head))
            except GitError as error:
                raise MirrorError(
                    f"{base[:12]} and {head[:12]} can't be merged: {error}"
                ) from error
            if made != sha:
                raise MirrorError(
                    f"the merge of {head[:12]} into {base[:12]} is {made or 'a conflict'}, "
                    f"and the run is about {sha}"
                )
            return mirror

    def resolve(self, clone: Clone, ref: str) -> Revision:
        """Return what a branch, tag, full ref or commit is now; "" is the default branch."""
        if _SHA.fullmatch(ref):
            return Revision(ref, "sha", ref)
        refs, default = self._remote_refs(clone, ref)
        wanted = [ref, f"refs/heads/{ref}", f"refs/tags/{ref}"] if ref else ["HEAD"]
        if not ref and default and "HEAD" in refs:
            return revision_of(default, refs["HEAD"])
        for name in wanted:
            if name in refs:
                return revision_of(name, refs.get(f"{name}^{{}}", refs[name]))
        raise MirrorError(f"the repository has no branch, tag or commit {ref!r}")

    def read_file(self, mirror: Path, sha: str, path: str, bytes_max: int) -> bytes | None:
        """Return the beginning of a file of a commit; None when there is none."""
        with self._output(["-C", str(mirror), "cat-file", "blob", f"{sha}:{path}"]) as process:
            if process.stdout is None:
                return None
            data = process.stdout.read(bytes_max)
            process.stdout.close()
            return data if process.wait() == 0 or len(data) == bytes_max else None

    @contextlib.contextmanager
    def archive(self, mirror: Path, sha: str) -> Iterator[IO[bytes]]:
        """Yield the tar of a commit's files."""
        with self._output(["-C", str(mirror), "archive", "--format=tar", sha]) as process:
            if process.stdout is not None:
                yield process.stdout

    def _output(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["git", *argv], env=self._environment(), cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def serve(self, mirror: Path) -> Serving:
        """Start `git upload-pack` for one fetch of a job."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                ["git", "upload-pack", "--strict", "--timeout=60", str(mirror)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={**self._environment(), "GIT_PROTOCOL": "version=2"},
                cwd="/",
                start_new_session=True,
            )
        return Serving(process, ours)

    # ----------------------------------------------------------------- inside

    @contextlib.contextmanager
    def _locked(self, clone: Clone) -> Iterator[Path]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(clone.url.encode()).hexdigest()[:24]
        mirror = self._folder / f"{name}.git"
        with (self._folder / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (mirror / "HEAD").exists():
                self._make(mirror, clone)
            yield mirror

    def _make(self, mirror: Path, clone: Clone) -> None:
        draft = mirror.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(mirror, ignore_errors=True)
        self._git(["init", "--quiet", "--bare", str(draft)])
        source = local_path(clone.url)
        if source is not None:
            (draft / "objects" / "info" / "alternates").write_text(
                f"{_objects_of(source)}\n", encoding="utf-8"
            )
        draft.rename(mirror)

    def _has(self, mirror: Path, sha: str) -> bool:
        wanted = ["-C", str(mirror), "cat-file", "-e", f"{sha}^{{commit}}"]
        return self._git(wanted, check=False) is not None

    def _fetch(
        self, mirror: Path, clone: Clone, refspecs: Sequence[str], *, check: bool = True
    ) -> bool:
        argv = ["-C", str(mirror), "fetch", "--quiet", "--no-tags", "--force", "--prune"]
        options = [item for item in refspecs if item.startswith("--")]
        refspecs = [item for item in refspecs if not item.startswith("--")]
        argv += ["--no-recurse-submodules", "--no-write-fetch-head", *options]
        argv += ["--", clone.url, *refspecs]
        return self._git(argv, clone=clone, check=check) is not None

    def _remote_refs(self, clone: Clone, ref: str) -> tuple[dict[str, str], str]:
        """Return the commits by ref, and the ref that HEAD stands for if that was asked."""
        patterns = [ref, f"{ref}^{{}}"] if ref else ["HEAD"]
        text = self._git(["ls-remote", "--symref", "--", clone.url, *patterns], clone=clone) or ""
        rows = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
        heads = [sha.removeprefix("ref: ") for sha, _ in rows if sha.startswith("ref: ")]
        refs = {name: sha for sha, name in rows if not sha.startswith("ref: ")}
        return refs, heads[0] if heads else ""

    def _environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **settings_environment({**_SETTINGS, **(settings or {})}),
        }

    def _git(
        self, argv: Sequence[str], *, clone: Clone | None = None, check: bool = True
    ) -> str | None:
        """Run git; None when it failed and `check` is off, else MirrorError."""
        settings = credential_settings(clone) if clone is not None else {}
        try:
            done = subprocess.run(
                ["git", *argv], env=self._environment(settings), cwd="/", timeout=FETCH_S_MAX,
                stdin=subprocess.DEVNULL, capture_output=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise MirrorError(f"git {argv[0]} took more than {FETCH_S_MAX} s") from None
        except OSError as error:
            raise MirrorError(f"git can't be run: {error.strerror}") from error
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")
        if not check:
            return None
        raise MirrorError(done.stderr.decode("utf-8", "replace").strip() or "git failed")


def revision_of(ref: str, sha: str) -> Revision:
    """Return a commit by its full ref (or "HEAD")."""
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag"), ("refs/pull/", "pull")):
        if ref.startswith(prefix):
            return Revision(sha, kind, ref.removeprefix(prefix))
    return Revision(sha, "sha", sha)


def _objects_of(source: Path) -> Path:
    for folder in (source / ".git" / "objects", source / "objects"):
        if folder.is_dir():
            return folder
    raise MirrorError(f"{source} is no git repository")
