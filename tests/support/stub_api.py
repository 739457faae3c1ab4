"""An HTTP server that answers as the API does, from what a test puts into it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `chunks` are sent one by one, then the connection is closed."""

    status: int = 200
    content: object = None
    chunks: tuple[bytes, ...] = ()
    content_type: str = "application/json"


def problem(status: int, detail: str) -> Answer:
    """Return an RFC 9457 error."""
    content = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail}
    return Answer(status, content, content_type="application/problem+json")


def stream(*chunks: str) -> Answer:
    """Return server-sent events; the connection ends after the last chunk."""
    encoded = tuple(chunk.encode() for chunk in chunks)
    return Answer(chunks=encoded, content_type="text/event-stream")


Route = Answer | Callable[[Request], Answer]


@dataclass
class StubApi:
    """Routes by "METHOD /path"; every request is kept."""

    token: str = "stub-token"
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> StubApi:
        """Begin to answer on a free port."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, route: str, answer: Route | object) -> None:
        """Answer `METHOD /path below /api/v1` with JSON, an Answer, or what a function returns."""
        known = isinstance(answer, Answer) or callable(answer)
        self.routes[route] = answer if known else Answer(content=answer)  # type: ignore[assignment]

    def sent(self, route: str) -> list[Request]:
        """Return the requests of one route."""
        return [r for r in self.requests if f"{r.method} {r.path}" == route]

    def answer(self, request: Request) -> Answer:
        """Return what a request gets."""
        self.requests.append(request)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "a bearer token is needed")
        route = self.routes.get(f"{request.method} {request.path}")
        if route is None:
            return problem(404, f"there is no {request.path}")
        return route if isinstance(route, Answer) else route(request)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests are about."""


def _handler(api: StubApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            path = unquote(url.path).removeprefix("/api/v1")
            answer = api.answer(Request(self.command, path, query, dict(self.headers), body))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            if answer.content is not None or not answer.chunks:
                content = b"" if answer.content is None else json.dumps(answer.content).encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                return
            self.send_header("Connection", "close")
            self.end_headers()
            for chunk in answer.chunks:
                self.wfile.write(chunk)
                self.wfile.flush()
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    return Handler
