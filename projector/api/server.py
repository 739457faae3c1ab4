"""The HTTP server of the API: uvicorn, which ends open streams before it waits for requests."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn

SHUTDOWN_S = 3


class Server(uvicorn.Server):
    """Serves an application made by `make_app`."""

    def __init__(self, app: Any, *, host: str, port: int) -> None:
        """Serve `app` on `host`:`port` once it is run."""
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
                http="httptools",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
                timeout_keep_alive=30,
                backlog=1024,
            )
        )
        self._closing = app.services.closing

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams, which would last for ever, then wait for what else is open."""
        self._closing.set()
        await super().shutdown(sockets)
