"""The door of the public origin: Host, Origin, token or session, and the headers of every answer.

One ASGI middleware outside of the framework: it costs microseconds and no route can forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import quote, urlsplit

from infra import metrics
from infra.auth import TokenFile
from infra.clock import Clock
from infra.metrics import Meters
from projector.api import session
from projector.api.problems import problem

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/favicon.ico"})
OPEN_PREFIXES = ("/webhooks/", "/static/")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types tailrace"
)
_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Any]


class Guard:
    """Lets through what may come in; everything else gets a problem document."""

    def __init__(
        self,
        app: App,
        *,
        token: TokenFile,
        public_url: str,
        hosts: Collection[str],
        clock: Clock,
        meters: Meters,
    ) -> None:
        """`hosts` are the values of Host that are answered; `public_url` the own origin."""
        self._app = app
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._public_scheme = urlsplit(public_url).scheme
        self._clock = clock
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Check an HTTP request; other scopes pass (lifespan) or end (websocket)."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began_ms = self._clock.steady_ms()
        status = 500

        async def send_with_headers(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in _HEADERS if pair[0] not in present),
                ]
                if b"cache-control" not in present:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, send_with_headers)
        finally:
            seconds = (self._clock.steady_ms() - began_ms) / 1000
            self._meters.observe(
                metrics.REQUEST_SECONDS, seconds, _route(scope["path"]), str(status)
            )

    def _refusal(self, scope: Scope) -> Any:
        """Return the answer to a request that may not come in, None when it may."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self._hosts:
            return problem(
                421,
                f"This server is not asked as {host[:100]!r}. Names that it answers to are in the "
                "settings `public_url` and `allow_hosts`.",
                code="unknown-host",
            )
        path = scope["path"]
        if path.startswith("/webhooks/") or path in ("/healthz", "/readyz"):
            return None
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        own = origin in (f"{self._public_scheme}://{host}", f"http://{host}", f"https://{host}")
        if origin and not own:
            return problem(403, "Requests from another origin are refused.", code="other-origin")
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return None
        authorization = headers.get(b"authorization")
        if authorization is not None:
            if self._token.accepts(authorization.decode("latin-1")):
                scope["tailrace.by"] = "token"
                return None
            return self._unauthorized("The bearer token is not this installation's.")
        return self._refusal_of_browser(scope, headers, origin)

    def _refusal_of_browser(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> Any:
        value = session.of_cookies(headers.get(b"cookie", b""))
        if value and session.accepts(self._token.read(), value, self._clock.now_ms()):
            same_site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
            if scope["method"] not in SAFE_METHODS and not (origin or same_site == "same-origin"):
                return problem(
                    403,
                    "A request with a session's cookie that changes something must name its "
                    "origin (header Origin). Programs send the token instead.",
                    code="no-origin",
                )
            scope["tailrace.by"] = "session"
            return None
        accepts_html = b"text/html" in headers.get(b"accept", b"")
        if accepts_html and scope["method"] == "GET":
            target = scope["path"]
            if scope["query_string"]:
                target += "?" + scope["query_string"].decode("latin-1")
            return _redirect(f"/login?next={quote(target, safe='')}")
        return self._unauthorized(
            "Send `Authorization: Bearer TOKEN`; the token is in the file `secrets/token` of the "
            "data folder (`tailrace status` shows where)."
        )

    @staticmethod
    def _unauthorized(detail: str) -> Any:
        return problem(
            401,
            detail,
            code="unauthorized",
            headers={"www-authenticate": 'Bearer realm="tailrace"'},
        )


def _redirect(location: str) -> Any:
    from starlette.responses import Response

    return Response(status_code=303, headers={"location": location})


def hosts_of(public_url: str, port: int, allow_hosts: Collection[str]) -> set[str]:
    """Return every value of Host under which the public origin may be asked."""
    own = urlsplit(public_url).netloc
    found = {own, f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"}
    for host in allow_hosts:
        found |= {host, f"{host}:{port}"} if ":" not in host else {host}
    return {host.lower() for host in found}


def _route(path: str) -> str:
    """Return a route's name with few values: ids would make a time series each."""
    parts = path.split("/")
    if path.startswith("/api/v1/"):
        tail = [part for part in parts[4:] if part in _WORDS]
        return "/".join([*parts[:4], *tail])
    return f"/{parts[1]}" if parts[1] in _WORDS else "/"


_WORDS = frozenset({"webhooks", "static", "runs", "healthz", "readyz", "metrics", "login", "events",
                    "stream", "log", "raw", "cancel", "approve", "dispatches", "secrets",
                    "jobs", "docs", "runners", "repositories", "artifacts", "zip",
                    "annotations", "groups"})  # fmt: skip
