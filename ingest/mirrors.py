"""The planner's copies of repositories: the only place that fetches.

A local repository's mirror borrows its objects (`objects/info/alternates`): nothing is ever
fetched, a commit is readable as soon as it was pushed, and what we make (merge commits) stays in
the mirror. A remote repository's mirror is fetched commit by commit, without blobs where the
server can leave them out; the few blobs that are workflows are fetched together.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.clock import Clock
from infra.git import Credentials, Git, GitError, checked_url, git_folder, local_path, shown_url
from infra.metrics import GIT_SECONDS, Meters
from ingest.git_objects import (
    Commit,
    GitObject,
    MissingObjectError,
    ObjectReader,
    TreeEntry,
    parse_commit,
    parse_tree,
    tag_target,
)
from schemas.late import dataclass

logger = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 50.0
#: Nothing that is being made takes as long.
LEFT_AFTER_MS = 3_600_000
OPEN_READERS_MAX = 64
REMOTE_PROTOCOLS = "https:http:ssh:git"
TAG_DEPTH_MAX = 8
TREE_CACHE_MAX = 4_096
#: Stands for "no commit" where two are compared.
EMPTY = ""

_NEW = ".new-"
_SHA1_CHARS = 40
#: Git's words for a server that answers but does not give what was named.
_REFUSED_WANT = re.compile(r"remote ref|not our ref|unadvertised|bad object|upload-pack")
_HEX = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})")


class UnreachableError(Exception):
    """The repository can't be read now: the message has git's reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a repository comes from."""

    repository: str
    clone_url: str
    default_branch: str
    credentials: Callable[[], Credentials | None] = lambda: None

    def is_as(self, other: Origin) -> bool:
        """Tell whether a mirror of this one serves the other, too."""
        return (self.clone_url, self.default_branch) == (other.clone_url, other.default_branch)


class Mirror:
    """One repository as the planner reads it. One thread at a time."""

    def __init__(
        self, git: Git, folder: Path, origin: Origin, meters: Meters, clock: Clock
    ) -> None:
        """Nothing is made or read before the first question."""
        self._git = git
        self._folder = folder
        self._origin = origin
        self._meters = meters
        self._clock = clock
        self._reader: ObjectReader | None = None
        self._source: Path | None = None
        self._ready = False
        self._blobless = True
        self._trees: OrderedDict[str, tuple[TreeEntry, ...]] = OrderedDict()

    def close(self) -> None:
        """End the open git process."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def is_local(self) -> bool:
        """Whether the repository lies on this machine."""
        return local_path(self._origin.clone_url) is not None

    # ----------------------------------------------------------------- reading

    def commit(self, oid: str, *, hint: str = "") -> Commit:
        """Return a commit, fetched if it is not here; an annotated tag gives its commit.

        `hint` is a ref on the remote that is known to hold it. UnreachableError when there is no
        such commit to be had.
        """
        if _HEX.fullmatch(oid) is None:
            raise UnreachableError(f"{oid!r} is no commit id")
        self._prepare()
        try:
            return self._peeled(oid)
        except MissingObjectError:
            self._fetch(oid, hint)
        try:
            return self._peeled(oid)
        except MissingObjectError as error:
            raise UnreachableError(f"{self._where()} has no commit {oid}") from error

    def folder(self, commit: Commit, path: str) -> tuple[TreeEntry, ...]:
        """Return the entries of a folder at a commit; () when there is no such folder."""
        oid = commit.tree
        for part in path.encode().split(b"/"):
            found = next((e for e in self._tree(oid) if e.name == part and e.is_tree), None)
            if found is None:
                return ()
            oid = found.oid
        return self._tree(oid)

    def file(self, commit: Commit, path: str) -> TreeEntry | None:
        """Return the entry of a regular file at a commit, or None."""
        above, _, name = path.rpartition("/")
        entries = self.folder(commit, above) if above else self._tree(commit.tree)
        return next((e for e in entries if e.name == name.encode() and e.is_file), None)

    def blobs(self, oids: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of blobs; those of a blobless mirror are fetched in one go."""
        found: dict[str, bytes] = {}
        missing: list[str] = []
        for oid in oids:
            try:
                found[oid] = self._object(oid).content
            except MissingObjectError:
                missing.append(oid)
        if missing:
            self._fetch_objects(missing)
            for oid in missing:
                found[oid] = self._object(oid).content
        return found

    def changed_paths(self, old: str, new: str) -> tuple[str, ...]:
        """Return the paths that differ between two commits, renames as both names.

        `old` may be EMPTY: then every path of `new` counts. Trees are compared here, not by a git
        process: only folders that differ are read.
        """
        before = self.commit(old).tree if old != EMPTY else ""
        changed: list[str] = []
        waiting: list[tuple[bytes, str, str]] = [(b"", before, self.commit(new).tree)]
        while waiting:
            prefix, left, right = waiting.pop()
            if left == right:
                continue
            for name, a, b in _pairs(self._tree(left), self._tree(right)):
                path = prefix + name
                a_tree = a.oid if a is not None and a.is_tree else ""
                b_tree = b.oid if b is not None and b.is_tree else ""
                if a_tree or b_tree:
                    waiting.append((path + b"/", a_tree, b_tree))
                if (a is not None and not a_tree) or (b is not None and not b_tree):
                    changed.append(path.decode("utf-8", "surrogateescape"))
        return tuple(sorted(p.encode("utf-8", "replace").decode() for p in changed))

    def merge_base(self, one: str, other: str) -> str | None:
        """Return the best common ancestor of two commits, or None."""
        with self._timed("merge-base"):
            code, output = self._git.run(
                ["merge-base", "--end-of-options", one, other],
                git_dir=self._folder,
                accept=(0, 1),
            )
        return output.split()[0].decode() if code == 0 and output.strip() else None

    def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether `old` is `new` or one of its ancestors."""
        code, _ = self._git.run(
            ["merge-base", "--is-ancestor", "--end-of-options", old, new],
            git_dir=self._folder,
            accept=(0, 1),
        )
        return code == 0

    def merge(self, base: str, head: str, message: str) -> str | None:
        """Return the merge commit of two commits that are here, or None for a conflict."""
        if self._blobless and not self.is_local:
            self._fetch_blobs_of(base, head)
        with self._timed("merge"):
            return self._git.merge(self._folder, base, head, message)

    def resolve(self, ref: str) -> str | None:
        """Return the commit that a branch, tag or full ref of the repository points to now."""
        self._prepare()
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        with self._timed("resolve"):
            try:
                found = self._refs(names)
            except GitError as error:
                raise UnreachableError(f"{self._where()}: {error}") from error
        oid = next((found[name] for name in names if name in found), None)
        return self.commit(oid, hint=names[0]).oid if oid else None

    def default_branch(self) -> str:
        """Return the name of the branch that HEAD of the repository names, or ""."""
        self._prepare()
        try:
            if self._source is not None:
                head = (self._source / "HEAD").read_text(encoding="utf-8", errors="replace")
                return head.strip().removeprefix("ref: refs/heads/") if "ref:" in head else ""
            _, output = self._remote(["ls-remote", "--symref", "--", self._url(), "HEAD"])
        except (OSError, GitError) as error:
            raise UnreachableError(f"{self._where()}: {error}") from error
        first = output.decode("utf-8", "replace").partition("\t")[0]
        return first.removeprefix("ref: refs/heads/") if first.startswith("ref:") else ""

    # ----------------------------------------------------------------- objects

    def _peeled(self, oid: str) -> Commit:
        for _ in range(TAG_DEPTH_MAX):
            found = self._object(oid)
            if found.kind == "commit":
                return parse_commit(found)
            if found.kind != "tag":
                raise UnreachableError(f"{self._where()}: {oid} is a {found.kind}, not a commit")
            oid = tag_target(found)
        raise UnreachableError(f"{self._where()}: too many tags of tags at {oid}")

    def _tree(self, oid: str) -> tuple[TreeEntry, ...]:
        if not oid:
            return ()
        known = self._trees.get(oid)
        if known is not None:
            self._trees.move_to_end(oid)
            return known
        content = self._object(oid).content
        entries = tuple(parse_tree(content, len(oid) // 2))
        self._trees[oid] = entries
        if len(self._trees) > TREE_CACHE_MAX:
            self._trees.popitem(last=False)
        return entries

    def _object(self, oid: str) -> GitObject:
        """Ask the open reader; one that ended (gc of the source, a kill) is started again."""
        for last in (False, True):
            if self._reader is None:
                self._reader = ObjectReader(self._git, self._folder)
            try:
                return self._reader.read(oid)
            except MissingObjectError:
                raise
            except GitError as error:
                self.close()
                if last:
                    raise UnreachableError(f"{self._where()}: {error}") from error
        raise AssertionError("unreachable")

    # ----------------------------------------------------------------- making and fetching

    def _prepare(self) -> None:
        if self._ready:
            return
        try:
            path = local_path(self._origin.clone_url)
            if path is not None:
                self._source = git_folder(path)
                self._make(self._object_format(self._source))
                self._borrow(self._source / "objects")
            else:
                checked_url(self._origin.clone_url)
                self._make("")
        except (GitError, OSError) as error:
            raise UnreachableError(f"{self._where()}: {error}") from error
        self._ready = True

    def _make(self, object_format: str) -> None:
        if (self._folder / "HEAD").exists():
            return
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_left(self._folder.parent.glob(f"{_NEW}*"))
        form = [f"--object-format={object_format}"] if object_format else []
        # ingest and the planner may come at the same moment, and either may be killed: a mirror
        # appears whole or not at all
        fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=self._folder.parent))
        try:
            self._git.run(["init", "--quiet", "--bare", "--template=", *form, str(fresh)])
            (fresh / "objects" / "info").mkdir(exist_ok=True)
            fresh.rename(self._folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _remove_left(self, paths: Iterable[Path]) -> None:
        """Remove what processes that were killed have left of what they were making."""
        for path in paths:
            with suppress(OSError):
                if path.stat().st_mtime * 1000 > self._clock.now_ms() - LEFT_AFTER_MS:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()

    def _object_format(self, source: Path) -> str:
        with suppress(OSError):
            config = (source / "config").read_text(encoding="utf-8", errors="replace").lower()
            if re.search(r"objectformat\s*=\s*sha256", config):
                return "sha256"
        return "sha1"

    def _borrow(self, objects: Path) -> None:
        line = f"{objects}\n"
        if "\n" in str(objects) or str(objects).startswith('"'):
            raise GitError(f"{objects}: a path that git can't borrow objects from")
        alternates = self._folder / "objects" / "info" / "alternates"
        if not alternates.exists() or alternates.read_text(encoding="utf-8") != line:
            alternates.parent.mkdir(parents=True, exist_ok=True)
            self._remove_left(alternates.parent.glob("alternates.*"))
            # never half-written for the git that another process runs here
            fresh = alternates.with_name(f"alternates.{os.getpid()}.{threading.get_ident()}")
            fresh.write_text(line, encoding="utf-8")
            fresh.replace(alternates)
            self.close()

    def _fetch(self, oid: str, hint: str) -> None:
        """Fetch one commit with its history; the ref that names it if the server gives no ids."""
        if self.is_local:
            return
        wanted = [oid] + ([f"+{hint}:refs/tailrace/hint"] if hint.startswith("refs/") else [])
        wanted.append(f"+refs/heads/{self._origin.default_branch}:refs/tailrace/default")
        failure: GitError | None = None
        # all at once is the usual case; one by one for servers that refuse a bare id, and for
        # refs that are gone by now
        for wants in (wanted, *([want] for want in wanted)):
            try:
                self._fetch_refs(wants)
            except GitError as error:
                failure = error
                if not _REFUSED_WANT.search(str(error)):
                    break
                continue
            with suppress(MissingObjectError):
                self._peeled(oid)
                return
        if failure is not None:
            raise UnreachableError(f"{self._where()}: {failure}") from failure

    def _fetch_refs(self, wants: Iterable[str]) -> None:
        filters = ["--filter=blob:none"] if self._blobless else []
        with self._timed("fetch"):
            self._remote(
                ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc",
                 "--recurse-submodules=no", *filters, "--", self._url(), *wants],
                git_dir=self._folder,
            )  # fmt: skip

    def _fetch_objects(self, oids: Sequence[str]) -> None:
        """Fetch blobs that a filter left out, in one request."""
        if self.is_local:
            raise UnreachableError(f"{self._where()}: object {oids[0]} is missing")
        try:
            with self._timed("fetch-blobs"):
                self._remote(
                    ["-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "--no-tags",
                     "--no-write-fetch-head", "--no-auto-gc", "--recurse-submodules=no",
                     "--filter=blob:none", "--", self._url(), *oids],
                    git_dir=self._folder,
                )  # fmt: skip
        except GitError as error:
            raise UnreachableError(f"{self._where()}: {error}") from error

    def _fetch_blobs_of(self, base: str, head: str) -> None:
        """Fetch what a three-way merge reads: the blobs that differ between the three sides."""
        ancestor = self.merge_base(base, head)
        sides = [self._blob_ids(commit) for commit in (ancestor, base, head) if commit]
        differing: set[str] = set()
        for side in sides:
            differing |= side
        for oid in set.intersection(*sides):
            differing.discard(oid)
        missing = []
        for oid in sorted(differing):
            try:
                self._object(oid)
            except MissingObjectError:
                missing.append(oid)
        if missing:
            self._fetch_objects(missing)

    def _blob_ids(self, commit: str) -> set[str]:
        found: set[str] = set()
        waiting = [self.commit(commit).tree]
        while waiting:
            for entry in self._tree(waiting.pop()):
                if entry.is_tree:
                    waiting.append(entry.oid)
                elif entry.mode != b"160000":
                    found.add(entry.oid)
        return found

    def _refs(self, names: Sequence[str]) -> dict[str, str]:
        if self._source is not None:
            _, output = self._git.run(
                ["for-each-ref", "--format=%(objectname) %(refname)", "--", *names],
                git_dir=self._source,
            )
        else:
            _, output = self._remote(["ls-remote", "--", self._url(), *names])
        pairs = (line.split(None, 1) for line in output.decode("utf-8", "replace").splitlines())
        return {name.strip(): oid for oid, name in pairs}

    def _remote(self, arguments: Sequence[str], git_dir: Path | None = None) -> tuple[int, bytes]:
        return self._git.run(
            arguments,
            git_dir=git_dir,
            timeout_s=FETCH_TIMEOUT_S,
            credentials=self._origin.credentials(),
            protocols=REMOTE_PROTOCOLS,
        )

    def _url(self) -> str:
        return checked_url(self._origin.clone_url)

    def _where(self) -> str:
        return shown_url(self._origin.clone_url)

    def _timed(self, operation: str) -> _Timed:
        return _Timed(self._meters, self._clock, operation)


class _Timed:
    def __init__(self, meters: Meters, clock: Clock, operation: str) -> None:
        self._meters, self._clock, self._operation = meters, clock, operation
        self._started_ms = 0

    def __enter__(self) -> None:
        self._started_ms = self._clock.steady_ms()

    def __exit__(self, *_: object) -> None:
        seconds = (self._clock.steady_ms() - self._started_ms) / 1000
        self._meters.observe(GIT_SECONDS, seconds, self._operation)


_Lent = tuple[Origin, Mirror, threading.Lock]


def _closed(lent: _Lent) -> bool:
    """End a mirror's git process, unless a thread reads: it would get the next file's bytes."""
    _, mirror, in_use = lent
    if not in_use.acquire(blocking=False):
        return False
    try:
        mirror.close()
    finally:
        in_use.release()
    return True


class Mirrors:
    """The mirrors of all repositories; those used longest ago close their git process."""

    def __init__(self, home: Path, meters: Meters, clock: Clock) -> None:
        """Keep mirrors in `home`/mirrors."""
        self._folder = home / "mirrors"
        self._git = Git(self._folder)
        self._meters = meters
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Lent] = OrderedDict()
        #: Of repositories that have moved: closed when whoever reads has done.
        self._retired: list[_Lent] = []

    @contextmanager
    def use(self, origin: Origin) -> Iterator[Mirror]:
        """Lend the mirror of a repository to this thread; one that has moved gets a new one."""
        with self._lock:
            known = self._open.get(origin.repository)
            if known is None or not known[0].is_as(origin):
                if known is not None:
                    self._retired.append(known)
                known = (origin, self.fresh(origin), threading.Lock())
                self._open[origin.repository] = known
                self._close_the_oldest()
            self._open.move_to_end(origin.repository)
        with known[2]:
            yield known[1]

    def fresh(self, origin: Origin) -> Mirror:
        """Return an object of the caller's own on a repository's mirror; the caller closes it."""
        folder = self._folder / _folder_name(origin)
        return Mirror(self._git, folder, origin, self._meters, self._clock)

    def _close_the_oldest(self) -> None:
        self._retired = [lent for lent in self._retired if not _closed(lent)]
        for name, lent in list(self._open.items()):
            if len(self._open) <= OPEN_READERS_MAX:
                return
            if _closed(lent):
                del self._open[name]

    def interrupt(self) -> None:
        """Kill the git commands that threads wait for."""
        self._git.end_all()

    def close(self) -> None:
        """End all git processes."""
        with self._lock:
            for _, mirror, _ in (*self._open.values(), *self._retired):
                mirror.close()
            self._open.clear()
            self._retired.clear()


def _folder_name(origin: Origin) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", origin.repository).strip(".-")[:60]
    digest = hashlib.sha256(f"{origin.repository}\x1f{origin.clone_url}".encode()).hexdigest()[:12]
    return f"{readable}-{digest}.git"


def _pairs(
    left: Sequence[TreeEntry], right: Sequence[TreeEntry]
) -> Iterable[tuple[bytes, TreeEntry | None, TreeEntry | None]]:
    """Yield the names of two folders whose entries differ."""
    after = {entry.name: entry for entry in right}
    for entry in left:
        other = after.pop(entry.name, None)
        if other is None or other.oid != entry.oid or other.mode != entry.mode:
            yield entry.name, entry, other
    for name, entry in after.items():
        yield name, None, entry
