"""One real Kafka broker (KRaft, broker and controller in one JVM) in a folder of its own."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from hashlib import sha256
from pathlib import Path

from infra.embedded import jars, java, processes
from infra.embedded.errors import StartError
from infra.embedded.ports import HOST, free_port, write_atomically
from infra.embedded.processes import ProcessName

HEAP_MB = 512
RECORD_BYTES_MAX = 8 * 1024 * 1024
CLASS_LIST = "loaded-classes"
_POLL_S = 0.1
_BATCH_OVERHEAD_BYTES = 64 * 1024
_NODE_ID = 1
_METADATA_KEY, _METADATA_VERSION = 3, 5
_METADATA_HEAD = struct.Struct(">iiii")  # length, correlation id, throttle time, brokers

BROKER_CONFIG: dict[str, object] = {
    # Topics are made by a step of their own, with their partitions; never by a typing mistake.
    "auto.create.topics.enable": "false",
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "message.max.bytes": RECORD_BYTES_MAX + _BATCH_OVERHEAD_BYTES,
    "replica.fetch.max.bytes": RECORD_BYTES_MAX + _BATCH_OVERHEAD_BYTES,
    # The log is the truth: it is kept unless a topic says otherwise.
    "log.retention.ms": -1,
    # One machine, one replica of the internal topics; few partitions make start and take-over fast.
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "offsets.retention.minutes": 525_600,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # What a killed producer left open is ended within its own time-out, not 10 s later.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
    # KIP-848 groups: a killed member is noticed after 2 s; the broker sets this, not the client.
    "group.consumer.session.timeout.ms": 2_000,
    "group.consumer.min.session.timeout.ms": 2_000,
    "group.consumer.heartbeat.interval.ms": 500,
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.min.session.timeout.ms": 1_000,
    "group.initial.rebalance.delay.ms": 0,
    # A small machine: few threads, and 8 MiB instead of 128 for the cleaner's map of keys.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "group.coordinator.threads": 1,
    "share.coordinator.threads": 1,
    "num.recovery.threads.per.data.dir": 2,
    "log.cleaner.threads": 1,
    "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
    # After a kill the controller keeps the old registration until its session is over.
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
}
"""What differs from Kafka's defaults, each for a reason of ours."""


class Broker:
    """A broker whose data, log and pid file live under `home`.

    Its files are safe against kill -9 at any moment, formatting included. The process belongs to
    the folder, not to the Python object: another object on the same folder can stop it.
    """

    def __init__(
        self,
        home: Path,
        *,
        cache: Path,
        port: int | None = None,
        controller_port: int | None = None,
        log_path: Path | None = None,
        heap_mb: int = HEAP_MB,
    ) -> None:
        """Name the folder; ports that are not given are the running broker's, or free ones."""
        self.home = home
        self.cache = cache
        recorded = _read_ports(home / "ports")
        self.port = port or recorded[0] or free_port()
        self.controller_port = controller_port or recorded[1] or free_port()
        self.log_path = log_path or home / "kafka.log"
        self.heap_mb = heap_mb

    @property
    def bootstrap(self) -> str:
        """The address for `bootstrap.servers`."""
        return f"{HOST}:{self.port}"

    @property
    def process(self) -> ProcessName | None:
        """The running broker of this folder, whoever started it."""
        return ProcessName.from_file(self.home / "pid")

    def start(self, *, timeout_s: float = 60.0) -> str:
        """Start the broker unless it runs, and return its address once it answers.

        Raises ChecksumError, JavaMissingError, DownloadError or StartError.
        """
        running = self.process
        if running is None:
            running = self.launch()
        else:
            # started by someone else since this object was made: on the ports that they chose
            recorded = _read_ports(self.home / "ports")
            self.port = recorded[0] or self.port
            self.controller_port = recorded[1] or self.controller_port
        processes.wait_started(
            running, self.answers, what="Kafka", log_path=self.log_path, timeout_s=timeout_s
        )
        return self.bootstrap

    def launch(self) -> ProcessName:
        """Prepare the folder and start the process without waiting for it to answer."""
        argv = self.prepare()
        return processes.spawn(
            argv, log_path=self.log_path, pid_path=self.home / "pid", env=_environment()
        )

    def prepare(self) -> list[str]:
        """Check the jars, write the configuration, format once; return the command to run."""
        jars.fetch(self.cache)
        class_path = jars.class_path(self.cache)
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.home / "ports", f"{self.port} {self.controller_port}\n")
        # Native libraries are unpacked here at every start; a killed broker leaves them behind.
        shutil.rmtree(self.home / "tmp", ignore_errors=True)
        (self.home / "tmp").mkdir()
        if not (self.home / "data").exists():
            self._format(class_path)
        config = self.home / "server.properties"
        write_atomically(config, self._properties(self.home / "data"))
        archive = self._class_archive(class_path)
        if archive.exists():
            sharing = [f"-XX:SharedArchiveFile={archive}", "-XX:+VerifySharedSpaces"]
        else:
            sharing = [f"-XX:DumpLoadedClassList={self.home / CLASS_LIST}"]
        return [*self._java(class_path), *sharing, "kafka.Kafka", str(config)]

    def archive_classes(self, stopping: threading.Event, *, niceness: int = 19) -> bool:
        """Make an archive of the classes that the running broker loaded, for the next start.

        Parsing and checking them is half of a start. Takes some seconds of an otherwise idle
        processor; given up when `stopping` is set. Tells whether there is an archive.
        """
        class_path = jars.class_path(self.cache)
        archive = self._class_archive(class_path)
        loaded = self.home / CLASS_LIST
        if archive.exists() or not loaded.exists():
            return archive.exists()
        for stale in self.home.glob("classes-*"):
            stale.unlink()
        draft, chosen = archive.with_suffix(".new"), self.home / "classes-chosen"
        # The broker still writes the list: its last line may be half a line.
        chosen.write_bytes(b"".join(loaded.read_bytes().splitlines(keepends=True)[:-1]))
        dump = [
            *(str(java.require_java()), "-Xshare:dump", "-XX:+UseSerialGC", "-Xmx256m"),
            *(f"-XX:SharedClassListFile={chosen}", f"-XX:SharedArchiveFile={draft}"),
            *("-Xlog:disable", "-cp", class_path),
        ]
        with subprocess.Popen(
            dump, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
        ) as child:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, niceness)
            while child.poll() is None:
                if stopping.wait(_POLL_S):
                    child.kill()
        if child.returncode or not draft.exists():
            return False
        os.sync()
        draft.rename(archive)
        loaded.unlink(missing_ok=True)
        chosen.unlink()
        return True

    def _class_archive(self, class_path: str) -> Path:
        """Return the archive's place; another Java or other jars want another one."""
        program = java.require_java()
        told = f"{program.resolve()} {program.stat().st_mtime_ns} {class_path}"
        return self.home / f"classes-{sha256(told.encode()).hexdigest()[:16]}.jsa"

    def answers(self) -> bool:
        """Tell whether the broker answers a metadata request and takes part in its cluster."""
        return broker_count("127.0.0.1", self.port) > 0

    def stop(self, *, grace_s: float = 10.0) -> None:
        """End the broker in order; it is killed if it takes longer than `grace_s`."""
        running = self.process
        if running is not None:
            processes.end(running, grace_s=grace_s)

    def kill(self) -> None:
        """Kill the broker as a crash would."""
        running = self.process
        if running is not None:
            processes.end(running, first=signal.SIGKILL)

    def _format(self, class_path: str) -> None:
        """Format the data folder beside its place, so that a half-formatted one is never seen."""
        draft = self.home / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        config = self.home / "format.properties"
        write_atomically(config, self._properties(draft))
        cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode("ascii").rstrip("=")
        if cluster_id.startswith("-"):  # the tool would take it for an option
            cluster_id = "T" + cluster_id[1:]
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)]
        answer = subprocess.run(
            [*self._java(class_path), *tool],
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
        if answer.returncode:
            raise StartError(
                f"Kafka's storage could not be formatted in {draft}:\n"
                f"{answer.stdout}{answer.stderr}"
            )
        config.unlink()
        os.sync()
        draft.rename(self.home / "data")

    def _properties(self, log_dirs: Path) -> str:
        here = {
            "process.roles": "broker,controller",
            "node.id": _NODE_ID,
            # The voters are named here and not in the log, so that the port may change.
            "controller.quorum.voters": f"{_NODE_ID}@{HOST}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},"
            f"CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(log_dirs),
        }
        return "".join(f"{name}={value}\n" for name, value in (here | BROKER_CONFIG).items())

    def _java(self, class_path: str) -> list[str]:
        return [
            str(java.require_java()),
            f"-Xmx{self.heap_mb}m",
            "-Xms96m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
            "-Dfile.encoding=UTF-8",
            "-cp",
            class_path,
        ]


def broker_count(host: str, port: int, timeout_s: float = 2.0) -> int:
    """Ask for metadata (version 5, of no topic) and return how many brokers are named; 0 if none.

    Spoken by hand, since a supervisor of a few megabytes has no Kafka client.
    """
    client = b"tailrace-health"
    body = struct.pack(">hhih", _METADATA_KEY, _METADATA_VERSION, 1, len(client)) + client
    body += struct.pack(">ib", 0, 0)  # no topic, none to be created
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.makefile("rb").read(_METADATA_HEAD.size)
    except OSError:
        return 0
    if len(answer) < _METADATA_HEAD.size:
        return 0
    brokers: int = _METADATA_HEAD.unpack(answer)[3]
    return brokers


def _environment() -> dict[str, str]:
    """Return the environment without what would put other options or jars into our JVM."""
    unwanted = {"CLASSPATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def _read_ports(record: Path) -> tuple[int, int]:
    try:
        port, controller_port = record.read_text(encoding="ascii").split()
        return int(port), int(controller_port)
    except (OSError, ValueError):
        return 0, 0
