"""A working tree as a commit that nobody made: the only place that turns files into a repository.

The commit lies in a bare repository of our own that borrows the tree's objects; the tree, its
index and its refs stay as they are. Uncommitted files are in it, ignored ones are not: it is what
a push of everything would bring.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from infra.cli.errors import CliError, Exit
from infra.git import MERGER
from schemas.late import dataclass

FOLDERS = (".github/workflows", ".tailrace/workflows")
#: What needs an engine, or an action of others that may be a container.
_CONTAINERS = re.compile(
    rb"\b(container|services|docker)\b|uses:\s*[\"']?(?!actions/)[\w.-]+/[\w.-]+"
)
_BRANCH = "main"
_HEADS = "refs/heads/"
_TIMEOUT_S = 120
_SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "advice.addEmbeddedRepo=false",
             "core.safecrlf=false", "gc.auto=0")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The tree `root` as commit `sha` of the bare repository `folder`.

    `before` is the commit that it follows, "" for none; `branch` the one that is checked out;
    `base` the head that the default branch `default` had without uncommitted changes.
    """

    root: Path
    folder: Path
    sha: str
    before: str
    message: str
    branch: str
    default: str
    base: str
    remote: str


def root_of(folder: Path) -> Path:
    """Return the tree that a folder stands for: itself, else the repository that it is in."""
    folder = folder.resolve()
    if (folder / ".git").exists() or any((folder / name).is_dir() for name in FOLDERS):
        return folder
    return next((above for above in folder.parents if (above / ".git").exists()), folder)


def mentions_containers(root: Path) -> bool:
    """Say whether a workflow or an action of the tree may need a container engine."""
    folders = (root / name for name in (".github", ".tailrace"))
    files = (
        *(path for f in folders for path in f.rglob("*.y*ml")),
        *root.glob("action.y*ml"),
        *root.glob("*/action.y*ml"),
    )
    for path in files:
        with contextlib.suppress(OSError):
            if path.is_file() and _CONTAINERS.search(path.read_bytes()):
                return True
    return False


def take(root: Path, folder: Path, *, now_ms: int) -> Snapshot:
    """Make the commit; `folder` becomes the repository. CliError with git's words."""
    source = _Source.of(root) if (root / ".git").exists() else None
    refs = source.refs() if source is not None else {}
    head, branch = source.head(refs) if source is not None else ("", _BRANCH)
    _make_bare(folder, source)
    env = _environment(root, folder, source, now_ms)
    index = folder / "index"
    if source is not None and source.index.is_file():
        shutil.copyfile(source.index, index)
    _git(env, root, "add", "-A", "--", ".")
    tree = _git(env, root, "write-tree")
    if head and _git(env, root, "rev-parse", "--verify", f"{head}^{{tree}}") == tree:
        sha, message = head, _git(env, root, "log", "-1", "--format=%B", head)
        before = _git(env, root, "log", "-1", "--format=%P", head).partition(" ")[0]
    else:
        before, message = head, "The working tree, with uncommitted changes"
        parents = ["-p", head] if head else []
        sha = _git(env, root, "commit-tree", *parents, "-m", message, tree)
    index.unlink(missing_ok=True)
    default = source.default(refs) if source is not None else branch
    default = default or branch
    base = refs.get(_HEADS + default, "")
    refs[_HEADS + branch] = sha
    refs.setdefault(_HEADS + default, sha)
    lines = "".join(f"{oid} {name}\n" for name, oid in sorted(refs.items()))
    (folder / "packed-refs").write_text(lines, encoding="utf-8")
    (folder / "HEAD").write_text(f"ref: {_HEADS}{branch}\n", encoding="utf-8")
    return Snapshot(
        root=root,
        folder=folder,
        sha=sha,
        before=before,
        message=message,
        branch=branch,
        default=default,
        base=base or sha,
        remote=source.remote() if source is not None else "",
    )


def point(snapshot: Snapshot, ref: str) -> None:
    """Let a ref of the copy name the snapshot: the one that the event is about."""
    path = snapshot.folder / ref
    if ref.startswith(("refs/heads/", "refs/tags/")) and ".." not in Path(ref).parts:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{snapshot.sha}\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Source:
    """The tree's own repository, which is only read."""

    root: Path
    folder: Path
    objects: Path
    index: Path
    sha256: bool

    @classmethod
    def of(cls, root: Path) -> _Source:
        found = _git(
            None, root, "rev-parse", "--show-object-format", "--absolute-git-dir",
            "--git-path", "objects", "--git-path", "index",
        ).splitlines()  # fmt: skip
        form, folder, objects, index = found
        return cls(root, Path(folder), root / objects, root / index, form == "sha256")

    def refs(self) -> dict[str, str]:
        """Return branches, tags and remote branches by name."""
        names = ("refs/heads", "refs/tags", "refs/remotes/origin")
        lines = _git(None, self.root, "for-each-ref", "--format=%(refname) %(objectname)", *names)
        pairs = (line.split(" ") for line in lines.splitlines())
        return {name: oid for name, oid in pairs if name != "refs/remotes/origin/HEAD"}

    def head(self, refs: dict[str, str]) -> tuple[str, str]:
        """Return (commit or "", branch) of HEAD; a detached one stands for the default branch."""
        text = (self.folder / "HEAD").read_text(encoding="utf-8").strip()
        if text.startswith("ref: "):
            name = text.removeprefix("ref: ")
            return refs.get(name, ""), name.removeprefix(_HEADS)
        return text, self.default(refs) or _BRANCH

    def default(self, refs: dict[str, str]) -> str:
        """Return the branch that the remote calls its default, as far as it is known here."""
        path = self.objects.parent / "refs/remotes/origin/HEAD"
        if path.is_file():
            named = path.read_text(encoding="utf-8").strip()
            return named.removeprefix("ref: refs/remotes/origin/")
        return next((name for name in ("main", "master") if _HEADS + name in refs), "")

    def remote(self) -> str:
        """Return the URL of `origin`, "" for none."""
        return _git(None, self.root, "config", "--default", "", "--get", "remote.origin.url")


def _make_bare(folder: Path, source: _Source | None) -> None:
    (folder / "objects" / "info").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "HEAD").write_text(f"ref: {_HEADS}{_BRANCH}\n", encoding="utf-8")
    sha256 = source is not None and source.sha256
    config = f"[core]\n\trepositoryformatversion = {int(sha256)}\n\tbare = true\n"
    config += "[extensions]\n\tobjectFormat = sha256\n" if sha256 else ""
    (folder / "config").write_text(config, encoding="utf-8")
    if source is not None:
        borrowed = folder / "objects" / "info" / "alternates"
        borrowed.write_text(f"{source.objects.resolve()}\n", encoding="utf-8")
        shallow = source.objects.parent / "shallow"
        if shallow.is_file():
            shutil.copyfile(shallow, folder / "shallow")


def _environment(root: Path, folder: Path, source: _Source | None, now_ms: int) -> dict[str, str]:
    """Return what git reads the tree by: its own settings and ignore rules, our index, objects."""
    name, _, email = MERGER.rstrip(">").partition(" <")
    when = f"{now_ms // 1000} +0000"
    env = {
        "GIT_DIR": str(folder if source is None else source.folder),
        "GIT_WORK_TREE": str(root),
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        **{f"GIT_{who}_NAME": name for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": email for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_DATE": when for who in ("AUTHOR", "COMMITTER")},
    }
    if source is not None:
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(source.objects.resolve())
    return env


def _git(env: dict[str, str] | None, root: Path, *arguments: str) -> str:
    """Run git as the user who typed the command: it is their tree, and their settings hold."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=root,
            env={**kept, **(env or {}), "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise CliError("git is not installed, and workflows are read by it", Exit.USAGE) from None
    except subprocess.TimeoutExpired:
        raise CliError(f"git {arguments[0]} took longer than {_TIMEOUT_S} s in {root}") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise CliError(f"{root} can't be read: git {arguments[0]}: {words}")
    return done.stdout.decode("utf-8", "replace").strip()
