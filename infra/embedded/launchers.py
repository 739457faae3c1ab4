"""How each kind of process is started, found again, asked and ended: one protocol, three kinds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from infra.embedded import probes, processes
from infra.embedded.kafka import Broker
from infra.embedded.ports import write_atomically
from infra.embedded.postgres import Postgres
from infra.embedded.probes import Health
from infra.embedded.processes import ProcessName
from infra.embedded.services import Service

REPOSITORY = Path(__file__).parents[2]


class Launcher(Protocol):
    """One process of the system, apart from when and how often it is started."""

    log_path: Path

    @property
    def port(self) -> int:
        """The port that it listens on."""
        ...

    def running(self) -> ProcessName | None:
        """Return the process that an earlier supervisor left, if it will do as it is."""
        ...

    def launch(self) -> ProcessName:
        """Start it; may take seconds (formatting), raises EmbeddedError if that can't be."""
        ...

    def health(self) -> Health:
        """Ask it how it is."""
        ...

    def is_current(self) -> bool:
        """Tell whether what runs was started with what it would be started with now."""
        ...

    def memory_bytes(self, pid: int) -> int:
        """Return the memory that it takes."""
        ...

    def end(self, process: ProcessName) -> None:
        """End it in order within its grace."""
        ...


class KafkaLauncher:
    """The embedded broker."""

    def __init__(self, broker: Broker) -> None:
        """Wrap a broker."""
        self._broker = broker
        self.log_path = broker.log_path

    @property
    def port(self) -> int:
        """Its port."""
        return self._broker.port

    def running(self) -> ProcessName | None:
        """Return the broker of the folder."""
        return self._broker.process

    def launch(self) -> ProcessName:
        """Check its jars, format once, start it."""
        return self._broker.launch()

    def health(self) -> Health:
        """Ask for its metadata."""
        return probes.ready_or_silent(answers=self._broker.answers())

    def is_current(self) -> bool:
        """Nobody else's address concerns it."""
        return True

    def memory_bytes(self, pid: int) -> int:
        """Return the memory of the JVM."""
        return probes.memory_bytes(pid)

    def end(self, process: ProcessName) -> None:
        """Let it close its segments, which makes the next start quick."""
        processes.end(process, grace_s=4.0)


class PostgresLauncher:
    """The embedded database server."""

    def __init__(self, server: Postgres) -> None:
        """Wrap a server."""
        self._server = server
        self.log_path = server.log_path

    @property
    def port(self) -> int:
        """Its port."""
        return self._server.port

    def running(self) -> ProcessName | None:
        """Return the server of the folder."""
        return self._server.process

    def launch(self) -> ProcessName:
        """Make user and data once, start it."""
        return self._server.launch()

    def health(self) -> Health:
        """Begin a connection."""
        return probes.ready_or_silent(answers=self._server.answers())

    def is_current(self) -> bool:
        """Nobody else's address concerns it."""
        return True

    def memory_bytes(self, pid: int) -> int:
        """Return the memory of the server and of the process of each connection."""
        return probes.memory_bytes(pid, with_children=True)

    def end(self, process: ProcessName) -> None:
        """Roll back what is open and write a checkpoint."""
        processes.end(process, first=signal.SIGINT, grace_s=4.0)


class ServiceLauncher:
    """One of the Python services; its pid file and what it was started with lie in `record_dir`."""

    def __init__(
        self,
        service: Service,
        *,
        port: Callable[[], int],
        addresses: Callable[[], str],
        log_path: Path,
        record_dir: Path,
        env: Mapping[str, str],
        version: str,
    ) -> None:
        """Say how it is started: `env` is added to the supervisor's environment.

        `port` may change between starts; `addresses` is all that it will read of where the others
        are, so that it is started again when one of them had to move.
        """
        self.log_path = log_path
        self._port = port
        self._addresses = addresses
        self._argv = (sys.executable, "-m", service.module)
        self._env = dict(env)
        self._port_variable = f"TAILRACE_{service.port_setting.upper()}"
        self._version = version
        self._pid_path = record_dir / f"{service.name}.pid"
        self._digest_path = record_dir / f"{service.name}.digest"
        self._started_as = ""

    @property
    def port(self) -> int:
        """Its port now."""
        return self._port()

    def running(self) -> ProcessName | None:
        """Return what an earlier supervisor started just so; one started otherwise is ended."""
        found = ProcessName.from_file(self._pid_path)
        if found is None:
            return None
        with contextlib.suppress(OSError):
            self._started_as = self._digest_path.read_text(encoding="ascii")
        if self.is_current():
            return found
        self.end(found)
        return None

    def launch(self) -> ProcessName:
        """Start it."""
        # Before the start: what changes in between is seen as a difference, and not missed.
        self._started_as = self._digest()
        write_atomically(self._digest_path, self._started_as)
        return processes.spawn(
            self._argv,
            log_path=self.log_path,
            pid_path=self._pid_path,
            env={**os.environ, **self._settings(), "PYTHONUNBUFFERED": "1"},
            cwd=REPOSITORY,
        )

    def health(self) -> Health:
        """Ask its /readyz."""
        return probes.ask_readyz(self.port)

    def is_current(self) -> bool:
        """Tell whether version, settings and the others' addresses are still the same."""
        return self._started_as == self._digest()

    def _settings(self) -> dict[str, str]:
        return self._env | {self._port_variable: str(self.port)}

    def _digest(self) -> str:
        settings = self._settings()
        told = [self._version, self._addresses(), *self._argv]
        told += [f"{name}={settings[name]}" for name in sorted(settings)]
        return sha256("\0".join(told).encode()).hexdigest()

    def memory_bytes(self, pid: int) -> int:
        """Return the memory of the process itself (a runner's jobs are not the system's)."""
        return probes.memory_bytes(pid)

    def end(self, process: ProcessName) -> None:
        """Let it finish what it is at."""
        processes.end(process, grace_s=6.0)


def end_leftovers(record_dir: Path, wanted: set[str]) -> None:
    """End the services of an earlier start that do not belong to the system any more."""
    for pid_path in record_dir.glob("*.pid"):
        if pid_path.stem in wanted:
            continue
        found = ProcessName.from_file(pid_path)
        if found is not None:
            processes.end(found, grace_s=6.0)
        pid_path.unlink(missing_ok=True)
        pid_path.with_suffix(".digest").unlink(missing_ok=True)
