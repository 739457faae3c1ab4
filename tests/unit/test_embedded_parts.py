"""The supervisor's small parts: processes, ports, probes, pauses, secrets, log files, control."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra.embedded import ports, processes
from infra.embedded.child import BACKOFF_MAX_S, backoff_s, exit_text
from infra.embedded.control import ControlServer, NotRunning, ask
from infra.embedded.errors import PortTakenError, StartError
from infra.embedded.log_files import rotate
from infra.embedded.ports import Ports
from infra.embedded.probes import listens, parse_readyz
from infra.embedded.processes import ProcessName
from infra.embedded.secret_files import ensure_secret, ensure_secrets
from infra.embedded.services import services
from infra.settings import Settings


def _spawn(tmp_path: Path, code: str) -> ProcessName:
    return processes.spawn(
        [sys.executable, "-c", code], log_path=tmp_path / "log", pid_path=tmp_path / "pid"
    )


def test_a_process_writes_its_own_name_before_it_runs(tmp_path: Path) -> None:
    """The pid file names the process even if its starter died right after the start."""
    name = _spawn(tmp_path, "import time; print('up', flush=True); time.sleep(60)")
    assert processes.wait_until(lambda: (tmp_path / "log").read_bytes() != b"", timeout_s=10)

    assert ProcessName.from_file(tmp_path / "pid") == name

    processes.end(name, first=signal.SIGKILL)
    assert ProcessName.from_file(tmp_path / "pid") is None


def test_a_recycled_pid_is_another_process() -> None:
    """Same pid, other start: never signalled, since it is a stranger."""
    ours = processes.name_of(os.getpid())
    assert ours is not None
    stranger = ProcessName(ours.pid, ours.started - 1, ours.boot)
    earlier_boot = ProcessName(ours.pid, ours.started, "another")

    assert processes.is_alive(ours)
    for name in (stranger, earlier_boot):
        assert not processes.is_alive(name)
        assert not processes.send(name, signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "boot", "boot\n12", "boot\n12 (sh) S 1", "boot\nx () ? 1"])
def test_a_pid_file_cut_off_by_a_crash_names_nobody(text: str) -> None:
    """Half a pid file is as good as none."""
    assert ProcessName.from_text(text) is None


def test_a_pid_file_survives_a_command_with_brackets_and_spaces() -> None:
    """The command in /proc may hold anything."""
    text = f"boot\n12 (a) b) (c) S {'0 ' * 18}4711 0 0\n"

    assert ProcessName.from_text(text) == ProcessName(12, 4711, "boot")


def test_the_exit_code_of_a_child_is_known_once(tmp_path: Path) -> None:
    """A crash is reported with its code."""
    name = _spawn(tmp_path, "raise SystemExit(7)")
    assert processes.wait_gone(name, timeout_s=10)

    assert processes.exit_code(name) == 7
    assert processes.exit_code(name) is None


def test_a_start_that_fails_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    """The message has the last lines, so that nobody needs to open a file first."""
    name = _spawn(tmp_path, "print('cannot bind'); raise SystemExit(1)")

    with pytest.raises(StartError, match=r"Thing ended at once[\s\S]*cannot bind"):
        processes.wait_started(
            name, lambda: False, what="Thing", log_path=tmp_path / "log", timeout_s=20
        )


def test_a_port_is_kept_then_the_usual_one_then_any_free_one(tmp_path: Path) -> None:
    """A port stays the same from start to start unless someone else took it meanwhile."""
    record = tmp_path / "run" / "ports.json"
    usual = ports.free_port()

    assert _chosen({"a": usual}, record) == {"a": usual}
    with socket.create_server(("127.0.0.1", usual)):
        moved = _chosen({"a": usual}, record)["a"]
    assert moved != usual
    assert _chosen({"a": usual}, record) == {"a": moved}


def test_what_still_runs_keeps_its_port(tmp_path: Path) -> None:
    """A port that our own process listens on is not free, and just right."""
    record = tmp_path / "ports.json"
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        record.write_text(json.dumps({"a": port}), encoding="ascii")

        with closing(Ports({"a": 1}, fixed={}, record=record, ours={"a"})) as chosen:
            assert chosen["a"] == port


def test_two_names_never_get_one_port(tmp_path: Path) -> None:
    """Whatever the record says."""
    usual = ports.free_port()

    chosen = _chosen({"a": usual, "b": usual}, tmp_path / "ports.json")

    assert chosen["a"] != chosen["b"]


def test_a_fixed_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The user asked for this port: another one would not do."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]

        with pytest.raises(PortTakenError, match=f"Port {port} .* give to api, is used"):
            Ports({"a": 1, "api": 1}, fixed={"api": port}, record=tmp_path / "p.json")


def test_a_port_is_no_other_installations_before_anybody_listens_there(tmp_path: Path) -> None:
    """From the choice on until the supervisor ends, however it ends."""
    usual = ports.free_port()
    first = Ports({"a": usual}, fixed={}, record=tmp_path / "first.json")

    with closing(Ports({"a": usual}, fixed={}, record=tmp_path / "second.json")) as second:
        assert first["a"] == usual
        assert second["a"] != usual
    first.close()
    assert _chosen({"a": usual}, tmp_path / "third.json") == {"a": usual}


def test_room_is_made_by_another_port_unless_the_user_fixed_it(tmp_path: Path) -> None:
    """What was free when it was chosen may be taken when the process is to be started."""
    usual, fixed = ports.free_port(), ports.free_port()
    record = tmp_path / "p.json"
    with closing(Ports({"a": usual, "b": 1}, fixed={"b": fixed}, record=record)) as chosen:
        assert not chosen.make_room(["a", "b"])
        with socket.create_server(("127.0.0.1", usual)):
            assert chosen.make_room(["a"])
        assert chosen["a"] != usual
        assert json.loads(record.read_text(encoding="utf-8"))["a"] == chosen["a"]
        with (
            socket.create_server(("127.0.0.1", fixed)),
            pytest.raises(PortTakenError, match="give to b"),
        ):
            chosen.make_room(["b"])


def test_it_is_known_who_listens_on_a_port() -> None:
    """A stranger's answer is not taken for our process's."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        with subprocess.Popen(["/bin/sleep", "60"]) as other:
            assert listens(os.getpid(), port)
            assert not listens(other.pid, port)
            other.kill()
    assert not listens(os.getpid(), port)


def _chosen(usual: dict[str, int], record: Path) -> dict[str, int]:
    with closing(Ports(usual, fixed={}, record=record)) as chosen:
        return {name: chosen[name] for name in usual}


def test_pauses_between_crashes_double_up_to_a_limit() -> None:
    """The first restart is at once, the tenth is not."""
    pauses = [backoff_s(crashes) for crashes in range(1, 12)]

    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_MAX_S


@pytest.mark.parametrize(
    ("code", "text"), [(3, "exit code 3"), (-9, "signal SIGKILL"), (-99, "signal 99")]
)
def test_exit_codes_are_told_in_words(code: int, text: str) -> None:
    """A signal has a name."""
    assert exit_text(code) == text


@pytest.mark.parametrize(
    ("answer", "ready", "lag", "detail"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n{"status":"ok","lag":3}', True, 3, ""),
        (b'HTTP/1.1 503 X\r\nA: b\r\n\r\n{"status":"starting"}', False, None, "starting"),
        (
            b'HTTP/1.1 503 X\r\n\r\n{"status":"degraded","error":"no broker","lag":null}',
            False,
            None,
            "degraded: no broker",
        ),
        (b"HTTP/1.1 500 X\r\n\r\noops", False, None, "answers with HTTP status 500"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", True, None, ""),
        (b"SSH-2.0-OpenSSH\r\n", False, None, "answers with HTTP status "),
        (b"", False, None, "answers with HTTP status "),
    ],
)
def test_readiness_is_read_from_any_answer(
    answer: bytes, *, ready: bool, lag: int | None, detail: str
) -> None:
    """200 is ready; anything else is not, with its reason if it gives one."""
    health = parse_readyz(answer)

    assert (health.ready, health.lag, health.detail) == (ready, lag, detail)


def test_secrets_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    """A second start keeps the tokens; the folder is closed even if it was open before."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    ensure_secrets(folder)
    first = (folder / "token").read_text(encoding="ascii")

    ensure_secrets(folder)
    ensure_secret(folder / "token", "other")

    assert (folder / "token").read_text(encoding="ascii") == first
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} == {"token", "runner-token"}


def test_a_log_that_is_too_big_is_set_aside_while_it_is_written(tmp_path: Path) -> None:
    """The writer goes on with its open file; two old ones are kept."""
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as log:
        for number in range(4):
            log.write(b"%d" % number * 100)
            assert rotate(path, bytes_max=50)
        log.write(b"next")

    assert path.read_bytes() == b"next"
    assert (tmp_path / "x.log.1").read_bytes() == b"3" * 100
    assert (tmp_path / "x.log.2").read_bytes() == b"2" * 100
    assert not (tmp_path / "x.log.3").exists()
    assert not rotate(path, bytes_max=50)
    assert not rotate(tmp_path / "none.log", bytes_max=50)


def test_the_control_socket_works_below_a_very_long_path(tmp_path: Path) -> None:
    """A home may lie deeper than the 107 bytes that a socket's name may have."""
    run_dir = tmp_path / ("d" * 120)
    run_dir.mkdir()

    def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"echo": question["op"]}

    server = ControlServer(run_dir, answer)
    thread = threading.Thread(target=server.serve_once, args=(10.0,))
    thread.start()

    assert ask(run_dir, {"op": "hello"}) == {"echo": "hello"}

    thread.join()
    server.close()
    with pytest.raises(NotRunning):
        ask(run_dir, {"op": "hello"})


def test_every_service_has_a_name_and_a_usual_port_of_its_own(tmp_path: Path) -> None:
    """Names are log files and health lines; ports are for everybody to know."""
    environ = {"TAILRACE_HOME": str(tmp_path), "TAILRACE_RUNNER_COUNT": "3"}

    wanted = services(Settings.load(environ))

    assert [service.name for service in wanted if service.module == "scheduler"] == [
        "scheduler-1",
        "scheduler-2",
    ]
    assert len([service for service in wanted if service.module == "runner"]) == 3
    assert len({service.name for service in wanted}) == len(wanted)
    assert len({service.port for service in wanted}) == len(wanted)
