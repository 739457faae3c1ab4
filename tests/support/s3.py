"""A small S3 server: as much of the REST API as an object store uses, in memory."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class S3Server(ThreadingHTTPServer):
    """Buckets exist as soon as they are used; conditional puts and ranges are honoured."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.page_size = 2
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Stop."""
        self.shutdown()
        self.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    server: S3Server
    protocol_version = "HTTP/1.1"

    @property
    def _name(self) -> str:
        return unquote(urlsplit(self.path).path)

    def do_PUT(self) -> None:
        data = self._data()
        if self.headers.get("If-None-Match") == "*" and self._name in self.server.objects:
            self._error(412, "PreconditionFailed")
            return
        self.server.objects[self._name] = data
        self._answer(200, b"", ETag=f'"{hashlib.md5(data).hexdigest()}"')  # noqa: S324

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query)
            return
        data = self.server.objects.get(self._name)
        if data is None:
            self._error(404, "NoSuchKey")
            return
        wanted = self.headers.get("Range")
        if wanted is None:
            self._answer(200, data)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if int(first) >= len(data):
            self._error(416, "InvalidRange")
            return
        end = min(int(last) + 1, len(data)) if last else len(data)
        part = data[int(first) : end]
        self._answer(206, part, **{"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"})

    def do_HEAD(self) -> None:
        data = self.server.objects.get(self._name)
        if data is None:
            self._answer(404, b"")
        else:
            self._answer(200, data)

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._name, None)
        self._answer(204, b"")

    def _list(self, query: dict[str, list[str]]) -> None:
        bucket = self._name.rstrip("/")
        prefix = f"{bucket}/{query.get('prefix', [''])[0]}"
        after = f"{bucket}/{query.get('continuation-token', [''])[0]}"
        found = sorted(name for name in self.server.objects if name.startswith(prefix))
        left = [name for name in found if name > after]
        page, more = left[: self.server.page_size], len(left) > self.server.page_size
        entries = "".join(
            f"<Contents><Key>{escape(name[len(bucket) + 1 :])}</Key></Contents>" for name in page
        )
        token = (
            f"<NextContinuationToken>{escape(page[-1][len(bucket) + 1 :])}</NextContinuationToken>"
            if more else ""
        )  # fmt: skip
        self._answer(
            200,
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
            f"</ListBucketResult>".encode(),
        )

    def _data(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        else:
            data = self._chunks()
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            return _unchunked(data)
        return data

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _error(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _unchunked(data: bytes) -> bytes:
    """Undo the chunks of a signed or checksummed body."""
    found = b""
    while data:
        head, _, data = data.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if size == 0:
            break
        found, data = found + data[:size], data[size + 2 :]
    return found
