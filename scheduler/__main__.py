"""`python -m scheduler`: a member of the group that shares out the cells, and owner of its share.

Every cell has one active owner; the other members stand by. The only wiring of this process.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading

from infra import VERSION
from infra.clock import SystemClock
from infra.health import HealthServer
from infra.kafka import CellMember, KafkaLog
from infra.kafka_admin import Admin
from infra.log import FencedError, LogError
from infra.settings import Settings
from infra.telemetry import configure_logging
from scheduler.shell import CellShell, HeldError
from schemas.topics import EVENTS

logger = logging.getLogger("scheduler")

GROUP = "tailrace-scheduler"
POLL_MS = 100
RETAKE_MS = 200
HELD_RETRY_S = 5.0
STOP_TIMEOUT_S = 4.0


class Ownership:
    """One cell served by one thread; taken again after anything but a fence."""

    def __init__(self, bootstrap: str, client_id: str, number: int) -> None:
        """Start serving cell `number`."""
        self.number = number
        self.fenced = False
        self.shell: CellShell | None = None
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"cell-{number}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            log = KafkaLog(self._bootstrap, f"{self._client_id}-cell-{self.number}")
            self.shell = CellShell(
                log=log,
                clock=SystemClock(),
                number=self.number,
                version=VERSION,
                host=socket.gethostname(),
            )
            try:
                self.shell.run(self._stop)
            except FencedError as error:
                logger.warning("cell %d: %s; leaving the group", self.number, error)
                self.fenced = True
                return
            except HeldError as error:
                logger.critical("cell %d is held: %s", self.number, error)
                self._stop.wait(HELD_RETRY_S)
            except LogError as error:
                logger.warning("cell %d: %s; taking it again", self.number, error)
                self._stop.wait(RETAKE_MS / 1000)
            except Exception:
                # a fault of this program: state and writer are gone with the shell, and what was
                # committed is intact; a supervisor sees the restart of the ownership in the log
                logger.exception("cell %d: unexpected error; taking it again", self.number)
                self._stop.wait(HELD_RETRY_S)

    @property
    def ended(self) -> bool:
        """Whether the thread is over."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Finish the batch in hand and let go."""
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)


class Membership:
    """Follows the group's assignment; leaves and rejoins after a fence."""

    def __init__(self, bootstrap: str, client_id: str) -> None:
        """Join the group."""
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._member = CellMember(bootstrap, client_id, GROUP, EVENTS)
        self._announced = False
        self.owned: dict[int, Ownership] = {}

    def step(self) -> None:
        """Serve the group once, and take and release cells as it says."""
        wanted = self._member.poll(POLL_MS)
        if self._member.joined and not self._announced:
            self._announced = True
            logger.info("joined the group, %s", "active" if wanted else "standing by")
        if any(ownership.fenced for ownership in self.owned.values()):
            self._rejoin()
            return
        for number in set(self.owned) - wanted:
            self.owned.pop(number).stop()
            logger.info("released cell %d", number)
        for number in sorted(wanted - set(self.owned)):
            self.owned[number] = Ownership(self._bootstrap, self._client_id, number)

    def _rejoin(self) -> None:
        self.close()
        self._announced = False
        self._member = CellMember(self._bootstrap, self._client_id, GROUP, EVENTS)

    def close(self) -> None:
        """Stop serving and leave: the next member takes over at once."""
        for ownership in self.owned.values():
            ownership.stop()
        self.owned.clear()
        self._member.close()

    def readiness(self) -> dict[str, object]:
        """Return what `/readyz` says: the cells served here and how far behind they are."""
        shells = {n: o.shell for n, o in list(self.owned.items()) if o.shell is not None}
        held = [shell.counts.held for shell in shells.values() if shell.counts.held]
        status = "degraded" if held else "ok"
        return {
            "status": status,
            "lag": sum(shell.lag() for shell in shells.values()),
            "role": "active" if shells else "standby",
            "cells": sorted(shells),
            "events": sum(shell.counts.events for shell in shells.values()),
            "transactions": sum(shell.counts.transactions for shell in shells.values()),
            **({"detail": held[0]} if held else {}),
        }


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings.load()
    configure_logging(settings, "scheduler")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cells = Admin(settings.kafka_bootstrap).partitions(EVENTS)
    if cells != settings.cells:
        sys.stderr.write(
            f"scheduler: `events` has {cells} cells, the settings say {settings.cells}: "
            "the number is fixed when the topic is made; set TAILRACE_CELLS to it\n"
        )
        return 2
    membership = Membership(settings.kafka_bootstrap, settings.instance or "scheduler")
    health = HealthServer(settings.scheduler_port, membership.readiness, "scheduler")
    health.start()
    try:
        while not stop.is_set():
            membership.step()
    finally:
        membership.close()
        health.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
