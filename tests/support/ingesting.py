"""ingest and the planner as processes on a Kafka and a PostgreSQL of their own."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from infra.embedded.ports import free_port
from infra.kafka import KafkaReader
from schemas.codec import EVENTS
from schemas.events import Event
from schemas.topics import EVENTS as EVENTS_TOPIC
from tests.support.eventually import eventually

E = TypeVar("E", bound=Event)
_ROOT = Path(__file__).parents[2]


class Process:
    """A service in a process of its own."""

    def __init__(self, module: str, port: int, env: Mapping[str, str], log: Path) -> None:
        """Remember how to start it."""
        self._module, self.port, self._env, self._log = module, port, env, log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", self._module], cwd=_ROOT, env=self._env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._is_ready, timeout_ms=40_000, what=f"{self._module} ({self._log})")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._popen is not None
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill it at once."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """End it in order; returns its exit code."""
        if self._popen is None or self._popen.poll() is not None:
            return 0
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end."""
        assert self._popen is not None
        return self._popen.wait(15)

    def readiness(self) -> dict[str, Any]:
        """Return what /readyz says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            found: dict[str, Any] = json.load(connection.getresponse())
            return found
        finally:
            connection.close()

    def _is_ready(self) -> bool:
        assert self._popen is not None
        assert self._popen.poll() is None, self._log.read_text(encoding="utf-8")[-2_000:]
        return bool(self.readiness()["status"] == "ok")


class Installation:
    """One ingest and one planner with a home of their own."""

    def __init__(self, folder: Path, bootstrap: str, database_url: str) -> None:
        """Choose ports; nothing is started."""
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        ingest, planner = free_port(), free_port()
        self.bootstrap = bootstrap
        self.env = {
            **os.environ,
            "TAILRACE_HOME": str(self.home),
            "TAILRACE_KAFKA_BOOTSTRAP": bootstrap,
            "TAILRACE_DATABASE_URL": database_url,
            "TAILRACE_INGEST_PORT": str(ingest),
            "TAILRACE_PLANNER_PORT": str(planner),
            "TAILRACE_PUBLIC_URL": f"http://127.0.0.1:{ingest}",
        }
        self.ingest = Process("ingest", ingest, self.env, folder / "ingest.log")
        self.planner = Process("ingest.planner", planner, self.env, folder / "planner.log")

    def stop(self) -> None:
        """End both."""
        self.planner.stop()
        self.ingest.stop()

    # ----------------------------------------------------------------- HTTP

    @property
    def token(self) -> str:
        """The local user's token."""
        return (self.home / "secrets" / "token").read_text(encoding="utf-8").strip()

    def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a command; returns the status and the JSON answer."""
        given = {"Authorization": f"Bearer {self.token}", **headers}
        data = None if body is None else json.dumps(body).encode()
        return self.request(method, f"/api/v1{path}", data, given)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, dict[str, Any]]:
        """Send any request; returns the status and the JSON answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ingest.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            text = response.read()
            answer: dict[str, Any] = json.loads(text) if text else {}
            answer["headers"] = dict(response.getheaders())
            return response.status, answer
        finally:
            connection.close()

    def add(
        self, name: str, clone_url: str, provider: str = "git", **more: object
    ) -> dict[str, Any]:
        """Register a repository."""
        body = {"name": name, "provider": provider, "clone_url": clone_url, **more}
        status, answer = self.call("POST", "/repositories", body)
        assert status == 201, answer
        return answer

    def push(
        self, name: str, secret: str, payload: object, delivery: str = "", event: str = "push"
    ) -> tuple[int, dict[str, Any]]:
        """Send a plain git webhook."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "X-Tailrace-Event": event,
            "X-Tailrace-Signature-256": f"sha256={signature}",
            **({"X-Tailrace-Delivery": delivery} if delivery else {}),
        }
        return self.request("POST", f"/webhooks/git/{name}", body, headers)

    # ----------------------------------------------------------------- the log

    def events(self) -> list[Event]:
        """Return everything on `events`."""
        reader = KafkaReader(self.bootstrap, "test-reader")
        try:
            _, end = reader.bounds(EVENTS_TOPIC, 0)
            reader.assign({(EVENTS_TOPIC, 0): 0})
            found: list[Event] = []
            at = 0
            while at < end:
                records = reader.read(timeout_ms=1_000, records_max=5_000)
                if not records:
                    break
                at = records[-1].next_offset
                found += [EVENTS.decode(r.value) for r in records if r.value is not None]
            return found
        finally:
            reader.close()

    def of(self, kind: type[E], repository: str) -> list[E]:
        """Return the events of a kind about a repository."""
        return [e for e in self.events() if isinstance(e, kind) and e.repository == repository]

    def wait_for(
        self,
        kind: type[E],
        repository: str,
        when: Callable[[E], bool] = lambda _: True,
        count: int = 1,
        timeout_ms: int = 20_000,
    ) -> list[E]:
        """Wait until the log has as many such events; returns them."""

        def found() -> list[E] | None:
            events = [event for event in self.of(kind, repository) if when(event)]
            return events if len(events) >= count else None

        return eventually(found, timeout_ms=timeout_ms, what=f"{count} {kind.__name__}")
