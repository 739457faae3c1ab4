"""An upload goes on where it was when its connection is cut and its gateway killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.embedded.ports import free_port
from runner.depot import PIECE_BYTES
from schemas.events import ArtifactUploaded
from schemas.workflow.plan import StepPlan
from tests.integration.runner_fixtures import driver, open_home
from tests.integration.test_runner_gateway import answers
from tests.support.eventually import eventually
from tests.support.lanes import LaneDriver, runner_process

__all__ = ["driver", "open_home"]

PIECES = 6


class Wire:
    """A TCP forwarder that counts what goes up and can cut every connection there is."""

    def __init__(self, port: int) -> None:
        """Forward to `port`."""
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.bytes_up = 0
        self.at: tuple[int, Callable[[], None]] | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._server.accept()[0]
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            client.close()
            return
        self._open |= {client, server}
        back = threading.Thread(target=self._move, args=(server, client, 0), daemon=True)
        back.start()
        self._move(client, server, 1)

    def _move(self, source: socket.socket, target: socket.socket, is_up: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_up:
                    self.bytes_up += len(data)
                    self._look()
                target.sendall(data)
        for one in (source, target):
            self._open.discard(one)
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _look(self) -> None:
        if self.at is not None and self.bytes_up >= self.at[0]:
            act, self.at = self.at[1], None
            act()
            for one in list(self._open):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections."""
        self._server.close()


@contextlib.contextmanager
def gateway(home: Path, bootstrap: str, database: str, port: int) -> Iterator[list[int]]:
    """Yield the pids of a gateway and its successors; a killed one is started again."""
    settings = {
        "TAILRACE_HOME": str(home), "TAILRACE_KAFKA_BOOTSTRAP": bootstrap,
        "TAILRACE_DATABASE_URL": database, "TAILRACE_GATEWAY_PORT": str(port),
        "TAILRACE_LOG_FORMAT": "text",
    }  # fmt: skip
    over, pids = threading.Event(), []
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not over.is_set():
            with (home / "gateway.log").open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "runner.gateway"], env={**os.environ, **settings},
                    cwd=Path(__file__).parents[2], stdout=output, stderr=output,
                )  # fmt: skip
            running[:] = [process]
            pids.append(process.pid)
            process.wait()

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/readyz"), what="the gateway")
        yield pids
    finally:
        over.set()
        running[0].terminate()
        keeper.join(15)


def test_a_piece_that_came_is_not_sent_again_after_a_kill(
    driver: LaneDriver,
    open_home: Path,
    database_url: str,
) -> None:
    """kill -9 of the gateway in the middle of a piece: the step waits, and sends what is missing.

    All that goes up twice is the piece that was cut.
    """
    (open_home / "secrets").mkdir(mode=0o700)
    port = free_port()
    with gateway(open_home, driver.bootstrap, database_url, port) as pids:
        wire = Wire(port)
        url = f"http://127.0.0.1:{wire.port}"
        with runner_process(driver, open_home, runner_slots=1, gateway_url=url) as runner:
            boot = driver.welcome(runner.runner_id)
            wire.at = (int(3.5 * PIECE_BYTES), lambda: os.kill(pids[0], 9))
            steps = (
                StepPlan(id="make", run=f"head -c {PIECES * PIECE_BYTES - 4096} /dev/urandom > f"),
                StepPlan(
                    id="up",
                    uses="actions/upload-artifact@v4",
                    with_={"name": "big", "path": "f", "compression-level": "0"},
                ),
            )
            assignment = driver.assignment(
                boot, steps, repository="demo/big", job_id="big1.a", order_id="big1.a"
            )
            driver.assigned(assignment)
            driver.send(assignment)
            finished = driver.finished(assignment)

        texts = [line.text for line in driver.log(assignment).lines()]
        assert finished.conclusion == "success", texts
        assert len(pids) == 2, "it was killed, and started again"
        facts = driver.of(assignment, ArtifactUploaded)
        assert [(fact.name, fact.files) for fact in facts] == [("big", 1)]
        size = facts[0].size_bytes
        assert size < wire.bytes_up < size + PIECE_BYTES + 256 * 1024
        wire.close()
