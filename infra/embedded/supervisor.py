"""The process that owns all others: `python -m infra.embedded.supervisor`, one a home.

It imports neither a Kafka nor a PostgreSQL client. Killed, it leaves its children running; the
next one takes them over, because every child wrote its own name into a pid file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from infra import VERSION
from infra.embedded import launchers, ports
from infra.embedded.child import Child
from infra.embedded.control import ControlServer
from infra.embedded.errors import EmbeddedError
from infra.embedded.kafka import Broker
from infra.embedded.launchers import KafkaLauncher, Launcher, PostgresLauncher, ServiceLauncher
from infra.embedded.log_files import rotate
from infra.embedded.ports import Ports, write_atomically
from infra.embedded.postgres import Postgres
from infra.embedded.processes import ProcessName
from infra.embedded.secret_files import ensure_secrets
from infra.embedded.services import STEPS, Service, Step, services
from infra.embedded.steps import StepRun
from infra.settings import RECORD, Settings, SettingsError, record_text

LOCK_NAME = "supervisor.lock"
FAILURE_NAME = "failure"
SERVICES_END_S = 7.0
SERVERS_END_S = 5.0
ARCHIVE_AFTER_S = 20.0
_LOOP_S = 1.0
_OWN_PORTS = ("planner_port", "scheduler_port", "fleet_port", "projector_port")
"""What only the process itself and whoever asks for its health need to know."""
_ROTATE_EVERY_S = 10.0


class Supervisor:
    """Brings the system up in order, keeps it up, takes it down in reverse order."""

    def __init__(
        self,
        settings: Settings,
        *,
        wanted: Sequence[Service] | None = None,
        steps: Sequence[Step] = STEPS,
    ) -> None:
        """Choose ports and write down the addresses; nothing is started yet.

        Raises PortTakenError if a port that the settings fix is a stranger's.
        """
        self._settings = settings
        self._wanted = tuple(services(settings) if wanted is None else wanted)
        self._notices: list[str] = []
        self._stopping = threading.Event()
        self._phase = "starting"
        self._started_at = time.monotonic()
        ensure_secrets(settings.secrets_dir)
        self._ports = self._choose_ports()
        self._servers = self._make_servers()
        self._writing = threading.Lock()
        self._addresses = ""
        self._write_record()
        self._steps = [
            StepRun(step, self._log_path("setup"), self._environment()) for step in steps
        ]
        self._services = [self._make_service(service) for service in self._wanted]

    def run(self) -> None:
        """Start everything and serve the control socket until someone asks to stop."""
        control = ControlServer(self._settings.run_dir, self.answer)
        threading.Thread(target=self._bring_up, name="bring-up", daemon=True).start()
        rotated_at = time.monotonic()
        while not self._stopping.is_set():
            control.serve_once(_LOOP_S)
            if time.monotonic() - rotated_at > _ROTATE_EVERY_S:
                rotated_at = time.monotonic()
                self._rotate_logs()
        self._phase = "stopping"
        stopper = threading.Thread(target=self._take_down, name="take-down")
        stopper.start()
        while stopper.is_alive():
            control.serve_once(0.1)
        control.close()
        self._ports.close()

    def request_stop(self) -> None:
        """Begin to take everything down."""
        self._stopping.set()

    def answer(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer one question of the control socket."""
        operation, name = question.get("op"), question.get("name")
        if operation == "status":
            return self.status(with_memory=bool(question.get("memory")))
        if operation == "stop":
            self.request_stop()
            return {"ok": True, "pid": os.getpid()}
        if operation in ("restart", "kill"):
            child = next((child for child in self._children() if child.name == name), None)
            if child is None:
                known = ", ".join(child.name for child in self._children())
                return {"error": f"no process is called {name!r}; there are: {known}"}
            if operation == "restart":
                child.restart()
                return {"ok": True}
            return {"ok": child.kill(int(question.get("signal", signal.SIGKILL)))}
        return {"error": f"unknown operation {operation!r}: status, stop, restart or kill"}

    def status(self, *, with_memory: bool) -> dict[str, Any]:
        """Return how everything is, as `tailrace status --json` prints it."""
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "phase": self._phase,
            "ready": self._phase == "up" and all(child.is_up for child in self._children()),
            "uptime_s": round(time.monotonic() - self._started_at, 1),
            "public_url": self._public_url(),
            "home": str(self._settings.home),
            "notices": list(self._notices),
            "steps": [step.as_json() for step in self._steps],
            "processes": [
                child.report(with_memory=with_memory).as_json() for child in self._children()
            ],
        }

    def _children(self) -> list[Child]:
        return [*self._servers, *self._services]

    def _bring_up(self) -> None:
        for server in self._servers:
            server.begin()
        if not self._wait_for(lambda: all(server.is_up for server in self._servers)):
            return
        while not self._run_steps():
            if self._stopping.wait(2.0):
                return
        for service in self._services:
            if not self._stopping.is_set():
                service.begin()
        self._phase = "up"
        self._quicken_next_start()

    def _quicken_next_start(self) -> None:
        """Once all is up and the first runs are through, see to what makes the next start quick."""
        if "kafka" not in self._ports:
            return
        all_up = self._wait_for(lambda: all(child.is_up for child in self._children()))
        if not all_up or self._stopping.wait(ARCHIVE_AFTER_S):
            return
        try:
            self._broker.archive_classes(self._stopping)
        except (EmbeddedError, OSError) as error:
            sys.stderr.write(f"Kafka's classes could not be archived: {error}\n")

    def _run_steps(self) -> bool:
        for step in self._steps:
            step.begin()
        return self._wait_for(lambda: all(step.has_ended for step in self._steps)) and all(
            step.went_well for step in self._steps
        )

    def _wait_for(self, condition: Any) -> bool:
        """Wait until the condition holds; False when we are to stop before."""
        while not condition():
            if self._stopping.wait(0.03):
                return False
        return True

    def _take_down(self) -> None:
        for step in self._steps:
            step.end()
        for group, patience_s in (
            (self._services, SERVICES_END_S),
            (self._servers, SERVERS_END_S),
        ):
            deadline = time.monotonic() + patience_s
            for child in group:
                child.stop()
            for child in group:
                child.join(max(0.0, deadline - time.monotonic()))
        (self._settings.home / RECORD).unlink(missing_ok=True)

    def _make_servers(self) -> list[Child]:
        settings, made = self._settings, []
        if not settings.is_fixed("kafka_bootstrap"):
            self._broker = Broker(
                settings.home / "kafka",
                cache=settings.cache,
                port=self._ports["kafka"],
                controller_port=self._ports["kafka-controller"],
                log_path=self._log_path("kafka"),
                heap_mb=settings.kafka_heap_mb,
            )
            made.append(self._child("kafka", KafkaLauncher(self._broker), "kafka-controller"))
        if not settings.is_fixed("database_url"):
            self._database = Postgres(
                settings.home / "postgres",
                port=self._ports["postgres"],
                secrets_dir=settings.secrets_dir,
                log_path=self._log_path("postgres"),
                notice=self._notices.append,
            )
            made.append(self._child("postgres", PostgresLauncher(self._database)))
        return made

    def _make_service(self, service: Service) -> Child:
        launcher = ServiceLauncher(
            service,
            port=lambda: self._ports[service.name],
            addresses=lambda: self._addresses,
            log_path=self._log_path(service.name),
            record_dir=self._record_dir(),
            env=self._environment() | {"TAILRACE_INSTANCE": service.name},
            version=VERSION,
        )
        return self._child(service.name, launcher)

    def _child(self, name: str, launcher: Launcher, *further_ports: str) -> Child:
        return Child(
            name,
            launcher,
            restart=self._settings.restart,
            make_room=partial(self._make_room, (name, *further_ports)),
        )

    def _make_room(self, names: Sequence[str], patience_s: float) -> None:
        """Choose another port for what is about to start if a stranger came first.

        Those who know the old address are started again: each compares what it was told.
        """
        if not self._ports.make_room(names, patience_s=patience_s):
            return
        if "kafka" in self._ports:
            self._broker.port = self._ports["kafka"]
            self._broker.controller_port = self._ports["kafka-controller"]
        if "postgres" in self._ports:
            self._database.port = self._ports["postgres"]
        self._write_record()
        sys.stderr.write(f"{names[0]}: its port was taken; it gets {self._ports[names[0]]}\n")
        for service in self._services:
            service.look()

    def _choose_ports(self) -> Ports:
        """Give every process a port: what still runs keeps the one that it has."""
        settings = self._settings
        wishes = [
            (name, setting, int(getattr(settings, setting)), settings.is_fixed(setting))
            for name, setting in self._server_ports()
        ]
        wishes += [
            (
                service.name,
                service.port_setting,
                service.port,
                service.port_is_setting and settings.is_fixed(service.port_setting),
            )
            for service in self._wanted
        ]
        return Ports(
            {name: port for name, _setting, port, _fixed in wishes},
            fixed={name: port for name, _setting, port, fixed in wishes if fixed and port},
            record=settings.run_dir / "ports.json",
            ours={name for name, *_rest in wishes if self._still_runs(name)},
        )

    def _server_ports(self) -> list[tuple[str, str]]:
        """Return name and setting of the ports of the servers that are ours to start."""
        wanted = []
        if not self._settings.is_fixed("kafka_bootstrap"):
            wanted += [("kafka", "kafka_port"), ("kafka-controller", "kafka_controller_port")]
        if not self._settings.is_fixed("database_url"):
            wanted.append(("postgres", "postgres_port"))
        return wanted

    def _still_runs(self, name: str) -> bool:
        pid_paths = {
            "kafka": self._settings.home / "kafka" / "pid",
            "kafka-controller": self._settings.home / "kafka" / "pid",
            "postgres": self._settings.home / "postgres" / "pid",
        }
        path = pid_paths.get(name, self._record_dir() / f"{name}.pid")
        return ProcessName.from_file(path) is not None

    def _write_record(self) -> None:
        """Tell the services and the command line where everything is."""
        with self._writing:
            values = self._values()
            told = {name: value for name, value in values.items() if name not in _OWN_PORTS}
            self._addresses = record_text(told)
            write_atomically(self._settings.home / RECORD, record_text(values), mode=0o600)

    def _values(self) -> dict[str, object]:
        settings, chosen = self._settings, self._ports
        values: dict[str, object] = {"cells": settings.cells, "object_store": settings.object_store}
        values["kafka_bootstrap"] = settings.kafka_bootstrap
        if "kafka" in chosen:
            values["kafka_port"] = chosen["kafka"]
            values["kafka_bootstrap"] = f"{ports.HOST}:{chosen['kafka']}"
        values["database_url"] = settings.database_url
        if "postgres" in chosen:
            values["postgres_port"] = chosen["postgres"]
            values["database_url"] = self._database.url
        for service in self._wanted:
            if service.copy == 1 and service.port_setting != "runner_port":
                values[service.port_setting] = chosen[service.name]
        values["public_host"] = settings.public_host
        for name in ("public", "ingest", "gateway"):
            values[f"{name}_url"] = self._url(name)
        return values

    def _url(self, name: str) -> str:
        url: str = getattr(self._settings, f"{name}_url")
        if self._settings.is_fixed(f"{name}_url"):
            return url
        host = self._settings.public_host if name == "public" else ports.HOST
        service = next((s for s in self._wanted if s.port_setting == f"{name}_port"), None)
        return f"http://{host}:{self._ports[service.name]}" if service else url

    def _public_url(self) -> str:
        return self._url("public")

    def _environment(self) -> dict[str, str]:
        # Addresses and passwords are read from the record: an environment is easily seen.
        return {"TAILRACE_HOME": str(self._settings.home)}

    def _rotate_logs(self) -> None:
        for path in self._settings.logs_dir.glob("*.log"):
            with contextlib.suppress(OSError):
                rotate(path, bytes_max=self._settings.log_file_mb << 20)

    def _log_path(self, name: str) -> Path:
        return self._settings.logs_dir / f"{name}.log"

    def _record_dir(self) -> Path:
        return self._settings.run_dir / "processes"

    def end_leftovers(self) -> None:
        """End services of an earlier start that are not wanted any more."""
        launchers.end_leftovers(self._record_dir(), {service.name for service in self._wanted})


def lock(run_dir: Path) -> TextIO | None:
    """Become the one supervisor of this home; None if there is one already."""
    run_dir.mkdir(parents=True, exist_ok=True)
    file = (run_dir / LOCK_NAME).open("a", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def main(*, wanted: Sequence[Service] | None = None, steps: Sequence[Step] = STEPS) -> int:
    """Run the supervisor until it is asked to stop; 0 also when there is one already."""
    settings: Settings | None = None
    try:
        settings = Settings.load()
        held = lock(settings.run_dir)
        if held is None:
            return 0
        supervisor = Supervisor(settings, wanted=wanted, steps=steps)
        supervisor.end_leftovers()
    except (EmbeddedError, SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        if settings is not None:
            with contextlib.suppress(OSError):
                write_atomically(settings.run_dir / FAILURE_NAME, f"{error}\n")
        return 1

    def stop(_signal: int, _frame: FrameType | None) -> None:
        supervisor.request_stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.run()
    held.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
