"""A whole running installation in a folder of the test's own, through its own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.cli.client import Client
from tests.support.eventually import eventually
from tests.support.shared import cache_dir

COMMAND = Path(sys.executable).parent / "tailrace"
UP_TIMEOUT_S = 180


class Stack:
    """An installation below `home`; `up` is the real `tailrace up`."""

    def __init__(self, home: Path, **settings: str) -> None:
        """Name the folder and what differs from the defaults (`runner_slots="8"`)."""
        self.home = home
        self._client: Client | None = None
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TAILRACE_")},
            "TAILRACE_HOME": str(home),
            "TAILRACE_CACHE": str(cache_dir()),
            "NO_COLOR": "1",
            # the machine's own engine is none of a test's business
            "TAILRACE_CONTAINER_ENGINE": "none",
            **{f"TAILRACE_{name.upper()}": value for name, value in settings.items()},
        }

    def cli(self, *arguments: str, timeout_s: float = 60, check: bool = True) -> str:
        """Run the command line; returns what it prints."""
        done = subprocess.run(
            [str(COMMAND), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"tailrace {' '.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout

    def up(self) -> None:
        """Start everything; the logs of what failed are in the error."""
        self.cli("up", timeout_s=UP_TIMEOUT_S)

    def down(self) -> None:
        """End everything."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self.cli("down", check=False)

    @property
    def client(self) -> Client:
        """The test's client of the public origin; for one thread, closed with the stack."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self) -> Client:
        """Return another client of the public origin, for another thread; close it."""
        token = (self.home / "secrets" / "token").read_text().strip()
        return Client(self.record()["public_url"], token)

    def record(self) -> dict[str, Any]:
        """Return the addresses that the running system recorded."""
        found: dict[str, Any] = json.loads((self.home / "run" / "tailrace.json").read_text())
        return found

    def status(self) -> dict[str, Any]:
        """Return `tailrace status --json`."""
        found: dict[str, Any] = json.loads(self.cli("status", "--json", check=False))
        return found

    def pid(self, name: str) -> int:
        """Return a process's pid by its name in `tailrace status`."""
        for process in self.status()["processes"]:
            if process["name"] == name and process["pid"]:
                return int(process["pid"])
        raise AssertionError(f"no process {name} runs")

    def add_repository(self, name: str, folder: Path) -> GitRepository:
        """Make a repository in `folder` and register it."""
        repository = GitRepository(folder)
        self.cli("repo", "add", name, "--clone-url", str(folder / "bare.git"), "--provider", "git")
        return repository

    def run_of(self, repository: str, sha: str, *, timeout_ms: int = 30_000) -> dict[str, Any]:
        """Return the run of a commit once it is in the read model."""
        client = self.client

        def found() -> dict[str, Any] | None:
            runs = client.get("/runs", {"repository": repository, "limit": 100})["items"]
            return next((run for run in runs if run["sha"] == sha), None)

        return eventually(found, timeout_ms=timeout_ms, what=f"a run of {repository} at {sha[:12]}")

    def wait_for_end(self, run_id: str, *, timeout_ms: int = 60_000) -> dict[str, Any]:
        """Return a run with its jobs once it is completed."""
        client = self.client

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = client.get(f"/runs/{run_id}")
            return run if run["status"] == "completed" else None

        return eventually(ended, timeout_ms=timeout_ms, what=f"the end of run {run_id}")


class GitRepository:
    """A bare repository with a clone to push from."""

    def __init__(self, folder: Path) -> None:
        """Make both."""
        self.bare, self.work = folder / "bare.git", folder / "work"
        folder.mkdir(parents=True, exist_ok=True)
        self.bare.mkdir()
        self.work.mkdir()
        self.git("init", "-q", "--bare", "-b", "main", at=self.bare)
        self.git("init", "-q", "-b", "main", at=self.work)
        self.git("remote", "add", "origin", str(self.bare), at=self.work)

    def git(self, *arguments: str, at: Path | None = None) -> str:
        """Run git in the clone."""
        done = subprocess.run(
            ["git", "-C", str(at or self.work), "-c", "user.name=Test", "-c",
             "user.email=test@localhost", *arguments],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, files: dict[str, str], message: str = "A change") -> str:
        """Write files and commit them; returns the sha."""
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def push(self, ref: str = "main") -> None:
        """Push the clone's head."""
        self.git("push", "-q", "origin", f"HEAD:refs/heads/{ref}")


@contextmanager
def running(home: Path, **settings: str) -> Iterator[Stack]:
    """Bring an installation up, and down again whatever happens."""
    stack = Stack(home, **settings)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
