"""The health port of processes that serve no HTTP of their own: /healthz, /readyz, /metrics."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

logger = logging.getLogger(__name__)

Readiness = Callable[[], Mapping[str, Any]]

_REQUEST_TIMEOUT_S = 5
_JSON = "application/json"


class HealthPortError(Exception):
    """The health port can't be opened: give the process another port or end what holds it."""


def is_ready(readiness: Mapping[str, Any]) -> bool:
    """Say whether a readiness answer means 200: its `status` is ok."""
    return readiness.get("status") == "ok"


def readiness_of(ready: Readiness) -> dict[str, Any]:
    """Return what `ready` says; a failure in it is degraded, not a broken connection."""
    try:
        return dict(ready())
    except Exception as error:
        logger.warning("readiness check failed", exc_info=True)
        return {"status": "degraded", "error": f"{type(error).__name__}: {error}"}


def metrics_page() -> tuple[bytes, str]:
    """Return this process's metrics in the text format of Prometheus, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(), CONTENT_TYPE_LATEST


class HealthServer:
    """Answers on a thread of its own, so that a busy or stuck main loop is seen and not hung on.

    `ready` is called from that thread for each `/readyz`; it returns
    `{"status": "ok" | "starting" | "degraded", "lag": N, ...}` and must not block.
    """

    def __init__(self, port: int, ready: Readiness, name: str, *, host: str = "127.0.0.1") -> None:
        """Open the port (0: a free one, see `port`); HealthPortError when it is taken."""
        self.name = name
        try:
            self._server = _Server((host, port), name, ready)
        except OSError as error:
            raise HealthPortError(
                f"{name}: cannot listen on {host}:{port} for health checks: {error.strerror}; "
                "set another port in the settings (`tailrace config`) or end what uses it"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.5},
            name=f"{name}-health",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> HealthServer:
        """Begin to answer."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> HealthServer:
        """Begin to answer, unless it does already."""
        return self if self._thread.is_alive() else self.start()

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self.close()


def serve_health(port: int, name: str, ready: Readiness) -> HealthServer:
    """Return a health server that answers already."""
    return HealthServer(port, ready, name).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], name: str, ready: Readiness) -> None:
        self.service = name
        self.ready = ready
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without the reverse look-up of http.server: it may wait for a name server."""
        # closed connections of the process before this one still hold the port for a minute
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, port = self.socket.getsockname()[:2]
        self.server_address = (host, port)
        self.server_name, self.server_port = str(host), int(port)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Say what failed in the log, not on stderr."""
        logger.debug("health request from %s failed", client_address, exc_info=True)  # noqa: LOG014


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_TIMEOUT_S
    server_version = "tailrace"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._answer_json(HTTPStatus.OK, {"status": "ok", "service": self.server.service})
        elif path == "/readyz":
            found = readiness_of(self.server.ready)
            status = HTTPStatus.OK if is_ready(found) else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer_json(status, {"service": self.server.service, **found})
        elif path == "/metrics":
            body, content_type = metrics_page()
            self._answer(HTTPStatus.OK, body, content_type)
        else:
            self._answer_json(HTTPStatus.NOT_FOUND, {"error": "use /healthz, /readyz or /metrics"})

    do_HEAD = do_GET  # noqa: N815 - http.server finds methods by this name

    def _answer_json(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        self._answer(status, json.dumps(content).encode(), _JSON)

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep health checks out of the log unless someone debugs them."""
        logger.debug(format, *args)
