"""The health port: what it answers, and that a broken check is an answer too."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from infra.health import HealthPortError, HealthServer, serve_health


def answer_of(server: HealthServer, path: str) -> tuple[int, bytes]:
    """Return status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as got:
            return int(got.status), got.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize(
    ("readiness", "status"),
    [
        ({"status": "ok", "lag": 3}, 200),
        ({"status": "starting"}, 503),
        ({"status": "degraded"}, 503),
        ({}, 503),
    ],
)
def test_ready_is_200_only_when_ok(readiness: Mapping[str, Any], status: int) -> None:
    """The JSON tells the service and what the process said."""
    with HealthServer(0, lambda: readiness, "fleet") as server:
        found, body = answer_of(server, "/readyz")
    assert found == status
    assert json.loads(body) == {"service": "fleet", **readiness}


def test_alive_is_200_whatever_the_readiness() -> None:
    """A process that is not ready must not be killed for it."""
    with HealthServer(0, lambda: {"status": "degraded"}, "fleet") as server:
        assert answer_of(server, "/healthz")[0] == 200


def test_a_check_that_fails_is_degraded() -> None:
    """The error is shown, not a broken connection."""

    def broken() -> Mapping[str, Any]:
        raise RuntimeError("no partition")

    with HealthServer(0, broken, "fleet") as server:
        status, body = answer_of(server, "/readyz")
    assert status == 503
    assert json.loads(body)["error"] == "RuntimeError: no partition"


def test_metrics_are_prometheus_text() -> None:
    """The process's own figures are among them."""
    with HealthServer(0, lambda: {"status": "ok"}, "fleet") as server:
        status, body = answer_of(server, "/metrics")
    assert status == 200
    assert b"process_resident_memory_bytes" in body


def test_other_paths_name_those_there_are() -> None:
    """404 with a hint."""
    with HealthServer(0, lambda: {"status": "ok"}, "fleet") as server:
        status, body = answer_of(server, "/")
    assert status == 404
    assert b"/readyz" in body


def test_a_port_that_is_taken_says_so() -> None:
    """The message names service, port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HealthPortError, match=f"fleet: cannot listen on 127.0.0.1:{port}"):
            HealthServer(port, lambda: {"status": "ok"}, "fleet")


def test_a_port_can_be_used_again_at_once() -> None:
    """A restart does not wait for the closed connections of the process before it."""
    first = serve_health(0, "fleet", lambda: {"status": "ok"})
    port = first.port
    answer_of(first, "/healthz")
    first.close()
    with HealthServer(port, lambda: {"status": "ok"}, "fleet") as second:
        assert answer_of(second, "/healthz")[0] == 200
