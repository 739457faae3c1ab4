"""Real git repositories for tests: a bare one that is pushed to, and commits written as data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

WORKFLOW = """\
name: CI
on: {on}
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: echo built
"""


def workflow(on: str = "push", name: str = "CI") -> str:
    """Return a workflow that runs on an event (YAML in flow style)."""
    return WORKFLOW.format(on=on).replace("name: CI", f"name: {name}")


class GitRepo:
    """A bare repository with one working copy beside it."""

    def __init__(self, folder: Path) -> None:
        """Make both in `folder`, with `main` as the default branch."""
        self.bare = folder / "origin.git"
        self.work = folder / "work"
        self._git("init", "-q", "--bare", "-b", "main", str(self.bare), at=folder)
        self._git("init", "-q", "-b", "main", str(self.work), at=folder)
        self._git("remote", "add", "origin", str(self.bare))

    def commit(
        self,
        files: Mapping[str, str | None],
        message: str = "change",
        *,
        branch: str = "main",
        since: str = "",
    ) -> str:
        """Commit files (None removes one) on a branch, push it and return the commit id.

        `since` is the commit that a new branch begins at.
        """
        known = self._git("branch", "--list", branch).strip()
        if known:
            self._git("checkout", "-q", branch)
        elif self._git("rev-parse", "-q", "--verify", "HEAD", check=False):
            self._git("checkout", "-q", "-b", branch, *([since] if since else []))
        for name, text in files.items():
            path = self.work / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self._git("add", "-A")
        self._git("commit", "-q", "--allow-empty", "-m", message)
        self._git("push", "-q", "origin", f"{branch}:{branch}")
        return self.head(branch)

    def merge(self, base: str, head: str, *, squash: bool = False) -> str:
        """Merge a commit into `base` as main, push main there and return the new commit's id."""
        self._git("checkout", "-q", "-B", "main", base)
        self._git("merge", "-q", *(["--squash"] if squash else ["--no-ff", "-m", "Merge"]), head)
        if squash:
            self._git("commit", "-q", "-m", "Squashed")
        self._git("push", "-q", "--force", "origin", "main")
        return self.head()

    def push(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Push and return what git wrote for people (a hook's words among it)."""
        done = subprocess.run(
            ["git", "push", "origin", *arguments],
            cwd=self.work,
            env={**_environment(), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def tag(self, name: str, *, annotated: bool = False) -> str:
        """Make and push a tag; returns the id that the ref has (a tag object's when annotated)."""
        self._git("tag", *(["-a", "-m", name] if annotated else []), name)
        self._git("push", "-q", "origin", name)
        return self._git("rev-parse", name).strip()

    def head(self, branch: str = "main") -> str:
        """Return the commit that a branch points to."""
        return self._git("rev-parse", f"{branch}^{{commit}}").strip()

    def run(self, *arguments: str) -> str:
        """Run git in the working copy."""
        return self._git(*arguments)

    def _git(self, *arguments: str, at: Path | None = None, check: bool = True) -> str:
        return git(at or self.work, *arguments, check=check)


def git(at: Path, *arguments: str, check: bool = True) -> str:
    """Run git in a folder as Ada, with no settings but the folder's; returns what it wrote."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=at,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def _environment() -> dict[str, str]:
    names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
             for what, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org"))}  # fmt: skip
    return {
        **os.environ,
        **names,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
