"""The command line's HTTP client: requests, problem details, server-sent events; no dependency.

Everything it raises is a `CliError` whose message tells a person what to do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from infra.cli.errors import CliError, Exit, NotFoundError, UnreachableError
from infra.settings import Settings, SettingsError

API = "/api/v1"
TIMEOUT_S = 30.0
#: A stream says something at least this often (a comment when there is nothing).
STREAM_SILENCE_S = 60.0
RECONNECT_FOR_S = 60.0
_RECONNECT_FIRST_S = 0.1
_RECONNECT_MAX_S = 3.0
_CHUNK = 65_536

Params = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event; `last_id` is where a reader goes on after a disconnect."""

    event: str
    data: str
    last_id: str

    def json(self) -> Any:
        """Return the data as JSON."""
        return json.loads(self.data)


class Client:
    """Talks to the public origin of one installation."""

    def __init__(self, base_url: str, token: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect lazily to `base_url` with a bearer token (may be empty)."""
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise CliError(f"{base_url!r} is not an http(s) URL; correct TAILRACE_API_URL",
                           Exit.USAGE)  # fmt: skip
        self.base_url = base_url.rstrip("/")
        self._tls = url.scheme == "https"
        self._host = url.hostname
        self._port = url.port or (443 if self._tls else 80)
        self._prefix = url.path.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._streams: set[http.client.HTTPConnection] = set()
        self._closed = threading.Event()

    @classmethod
    def load(cls, *, timeout_s: float = TIMEOUT_S) -> Client:
        """Return a client of the installation that the settings name."""
        try:
            settings = Settings.load()
        except SettingsError as error:
            raise CliError(str(error), Exit.USAGE) from error
        return cls(settings.api_url, _token(settings), timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connection and end every stream that other threads read."""
        self._closed.set()
        self._drop()
        for stream in list(self._streams):
            with contextlib.suppress(OSError):
                if stream.sock is not None:
                    stream.sock.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ----------------------------------------------------------------- requests

    def get(self, path: str, params: Params | None = None) -> Any:
        """Return the JSON of a resource below /api/v1."""
        return self._json(self._request("GET", path, params))

    def post(self, path: str, body: object = None, params: Params | None = None) -> Any:
        """Send a command and return its answer."""
        return self._json(self._request("POST", path, params, body if body is not None else {}))

    def put(self, path: str, body: object, params: Params | None = None) -> Any:
        """Set something and return the answer."""
        return self._json(self._request("PUT", path, params, body))

    def delete(self, path: str, params: Params | None = None) -> Any:
        """Remove something and return the answer."""
        return self._json(self._request("DELETE", path, params))

    def pages(self, path: str, params: Params, *, items_max: int) -> Iterator[dict[str, Any]]:
        """Yield up to `items_max` items of a list, page by page."""
        query = {**params, "limit": min(items_max, 100)}
        left = items_max
        while left > 0:
            page = self.get(path, query)
            yield from page["items"][:left]
            left -= len(page["items"])
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                return
            query["cursor"] = cursor

    def text(self, path: str, params: Params | None = None) -> Iterator[bytes]:
        """Yield the bytes of a text resource as they come."""
        response = self._request("GET", path, params)
        while chunk := response.read1(_CHUNK):
            yield chunk

    def _json(self, response: http.client.HTTPResponse) -> Any:
        content = response.read()
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise CliError(f"{self.base_url} answered with something that is not JSON: is "
                           "Tailrace there, or another server?") from error  # fmt: skip

    def _request(
        self, method: str, path: str, params: Params | None = None, body: object = None
    ) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        headers = self._headers({"Accept": "application/json"})
        if content is not None:
            headers["Content-Type"] = "application/json"
        target = _target(self._prefix + API + path, params)
        reused = self._connection is not None
        try:
            try:
                response = self._send(method, target, content, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # the server closed an idle connection; a command may have arrived all the same
                self._drop()
                if not reused or method != "GET":
                    raise
                response = self._send(method, target, content, headers)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._unreachable(error) from error
        if response.status >= http.client.BAD_REQUEST:
            raise self._refused(response)
        return response

    def _send(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._connect(self._timeout_s)
        self._connection.request(method, target, body=content, headers=dict(headers))
        return self._connection.getresponse()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout_s, context=ssl.create_default_context()
        )

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"User-Agent": "tailrace-cli", **more}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    # ----------------------------------------------------------------- streams

    def follow(
        self,
        path: str,
        params: Params | None = None,
        *,
        last_id: str = "",
        until_idle_s: float | None = None,
    ) -> Iterator[ServerEvent]:
        """Yield server-sent events for ever; a broken connection goes on after the last one.

        Raises UnreachableError when nobody answered for a minute. The caller ends by closing the
        iterator, usually at an event that says so. With `until_idle_s` it ends by itself once
        nothing came for that long: everything that was there has been read.
        """
        silence_s = until_idle_s or STREAM_SILENCE_S
        wait_s, failing_since = _RECONNECT_FIRST_S, 0.0
        while not self._closed.is_set():
            try:
                for event in self._stream_once(path, params, last_id, silence_s):
                    last_id, wait_s, failing_since = event.last_id, _RECONNECT_FIRST_S, 0.0
                    yield event
            except (OSError, http.client.HTTPException) as error:
                if self._closed.is_set() or (until_idle_s and isinstance(error, TimeoutError)):
                    return
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > RECONNECT_FOR_S:
                    raise self._unreachable(error) from error
            self._closed.wait(wait_s)
            wait_s = min(wait_s * 2, _RECONNECT_MAX_S)

    def _stream_once(
        self, path: str, params: Params | None, last_id: str, silence_s: float
    ) -> Iterator[ServerEvent]:
        connection = self._connect(silence_s)
        headers = self._headers({"Accept": "text/event-stream", "Cache-Control": "no-store"})
        if last_id:
            headers["Last-Event-ID"] = last_id
        self._streams.add(connection)
        try:
            connection.request("GET", _target(self._prefix + API + path, params), headers=headers)
            response = connection.getresponse()
            if response.status >= http.client.INTERNAL_SERVER_ERROR:
                raise http.client.HTTPException(f"status {response.status}")
            if response.status >= http.client.BAD_REQUEST:
                raise self._refused(response)
            yield from parse_events(response, last_id)
        finally:
            self._streams.discard(connection)
            connection.close()

    # ----------------------------------------------------------------- errors

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, ConnectionRefusedError):
            return UnreachableError(
                f"Tailrace does not run at {self.base_url}: start it with `make up` (or "
                "`tailrace up`), or set TAILRACE_API_URL to where it runs"
            )
        if isinstance(error, socket.gaierror):
            return UnreachableError(f"the host of {self.base_url} is unknown: {error.strerror}")
        reason = str(error) or type(error).__name__
        return UnreachableError(
            f"{self.base_url} does not answer: {reason}; `tailrace status` shows its processes"
        )

    def _refused(self, response: http.client.HTTPResponse) -> CliError:
        detail = _problem(response)
        if response.status == http.client.UNAUTHORIZED:
            return CliError(
                f"the token was not accepted by {self.base_url}: it is TAILRACE_API_TOKEN, else "
                "what is in `secrets/token` of TAILRACE_HOME; is that the same installation?",
                Exit.UNAUTHORIZED,
            )
        if response.status == http.client.FORBIDDEN:
            return CliError(f"not allowed: {detail}", Exit.UNAUTHORIZED)
        if response.status == http.client.NOT_FOUND:
            return NotFoundError(detail)
        if response.status >= http.client.INTERNAL_SERVER_ERROR:
            return UnreachableError(f"{self.base_url} can't answer now: {detail}")
        return CliError(detail)


def parse_events(lines: Iterator[bytes] | Any, last_id: str = "") -> Iterator[ServerEvent]:
    """Parse an event stream (HTML standard, section 9.2.6); an unfinished event is dropped."""
    event = ""
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerEvent(event or "message", "\n".join(data), last_id)
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _problem(response: http.client.HTTPResponse) -> str:
    """Return the sentence of an error: RFC 9457's detail, with its list of mistakes."""
    content = response.read()
    reason = f"HTTP {response.status} {response.reason}"
    try:
        problem = json.loads(content)
    except ValueError:
        return reason
    if not isinstance(problem, dict):
        return reason
    text = str(problem.get("detail") or problem.get("title") or reason)
    for mistake in problem.get("errors") or ():
        text += f"\n  {mistake if isinstance(mistake, str) else json.dumps(mistake)}"
    return text


def _target(path: str, params: Params | None) -> str:
    found = {key: value for key, value in (params or {}).items() if value not in (None, "")}
    return f"{path}?{urlencode(found)}" if found else path


def _token(settings: Settings) -> str:
    if settings.api_token:
        return settings.api_token
    path = settings.secrets_dir / "token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CliError(
            f"the token in {path} can't be read ({error.strerror}): use the account that runs "
            "Tailrace, or set TAILRACE_API_TOKEN",
            Exit.UNAUTHORIZED,
        ) from error
