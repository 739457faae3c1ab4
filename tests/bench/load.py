"""What the measurements do to a running stack: webhooks, commits, counting CPU and memory."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.stack import GitRepository, Stack

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Target:
    """A registered repository to which signed webhooks are sent, without its hook."""

    stack: Stack
    name: str
    repository: GitRepository
    webhook_url: str
    secret: str
    _connection: http.client.HTTPConnection | None = field(default=None)

    @classmethod
    def make(cls, stack: Stack, name: str, folder: Path, *, clone_url: str = "") -> Target:
        """Make a repository and register it."""
        repository = GitRepository(folder)
        answer = stack.client.post(
            "/repositories",
            {
                "name": name,
                "provider": "git",
                "clone_url": clone_url or str(repository.bare),
                "default_branch": "main",
            },
        )
        hook = repository.bare / "hooks" / "post-receive"
        hook.unlink(missing_ok=True)  # the measurement sends the webhook itself
        return cls(stack, name, repository, answer["webhook_url"], answer["secret"])

    def body(self, before: str, after: str) -> bytes:
        """Return a push payload as the hook sends it."""
        return json.dumps(
            {
                "ref": "refs/heads/main",
                "before": before,
                "after": after,
                "created": False,
                "deleted": False,
                "forced": False,
                "commits": [{"id": after, "message": "A change", "added": ["a"]}],
                "head_commit": {"id": after, "message": "A change"},
                "pusher": {"name": "bench"},
                "sender": {"login": "bench"},
                "repository": {
                    "name": self.name.rpartition("/")[2],
                    "full_name": self.name,
                    "owner": {"login": "bench"},
                    "default_branch": "main",
                    "clone_url": str(self.repository.bare),
                },
            }
        ).encode()

    def send(self, body: bytes, delivery: str) -> float:
        """Send one webhook; returns the seconds until its 202."""
        url = urlsplit(self.webhook_url)
        if self._connection is None:
            self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        signature = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        began = time.perf_counter()
        self._connection.request(
            "POST",
            url.path,
            body=body,
            headers={
                "Content-Type": "application/json",
                "X-Tailrace-Event": "push",
                "X-Tailrace-Delivery": delivery,
                "X-Hub-Signature-256": f"sha256={signature}",
            },
        )
        response = self._connection.getresponse()
        text = response.read()
        if response.status != http.client.ACCEPTED:
            raise RuntimeError(f"webhook answered {response.status}: {text[:300]!r}")
        return time.perf_counter() - began

    def twin(self) -> Target:
        """Return a target of the same repository with a connection of its own."""
        return Target(self.stack, self.name, self.repository, self.webhook_url, self.secret)


def send_many(target: Target, deliveries: Iterable[tuple[bytes, str]], *, clients: int) -> None:
    """Send webhooks from several connections; the first error is raised."""
    work: queue.SimpleQueue[tuple[bytes, str] | None] = queue.SimpleQueue()
    for item in deliveries:
        work.put(item)
    errors: list[Exception] = []

    def send() -> None:
        own = target.twin()
        while (item := work.get()) is not None:
            try:
                own.send(*item)
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
                return

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def events_of(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    """Return a run's audit trail."""
    client = stack.client
    return list(client.pages(f"/runs/{run_id}/events", {}, items_max=10_000))


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """Return user and system seconds by process, with its children, living and ended."""
    import psutil

    found = {}
    for process in stack.status()["processes"]:
        if process.get("pid"):
            # PostgreSQL works in children that live as long as their connections
            living = psutil.Process(process["pid"]).children(recursive=True)
            pids = [process["pid"], *(child.pid for child in living)]
            found[process["name"]] = sum(_ticks(pid) for pid in pids) / _TICKS
    return found


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(n) for n in fields[11:15])


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process and its children in MB."""
    import psutil

    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return float(sum(p.memory_full_info().pss for p in processes)) / 1e6
    except psutil.NoSuchProcess:
        return 0.0
