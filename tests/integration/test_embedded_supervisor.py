"""The supervisor with a real Kafka and PostgreSQL and two small services, through its commands."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infra.cli import main
from infra.cli.up import Screen
from infra.embedded import jars, operator, processes
from infra.embedded.control import ask
from infra.embedded.errors import EmbeddedError
from infra.embedded.operator import Listener, Status
from infra.embedded.ports import free_port
from infra.embedded.processes import ProcessName
from infra.settings import RECORD, Settings
from tests.support.eventually import eventually
from tests.support.shared import cache_dir

SUPERVISOR = ("-m", "tests.support.fake_supervisor")
NO_DATABASE = "postgresql://127.0.0.1:1/none"
"""The small services use none; the supervisor does not ask after servers that are not its own."""
SERVERS = ("kafka", "kafka-controller", "postgres")


# One installation serves all tests that need Kafka and PostgreSQL: they run in one worker.
pytestmark = pytest.mark.xdist_group("supervisor")


@pytest.fixture(scope="module")
def two_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Yield two installations with Kafka and PostgreSQL of their own that start at one moment."""
    # Ports of this module, so that no other test looks at them; wished for by both alike.
    wished = json.dumps({name: free_port() for name in SERVERS})
    homes = [tmp_path_factory.mktemp(name) / "home" for name in ("first", "second")]
    with pytest.MonkeyPatch.context() as patch:
        _set_up(patch)
        for home in homes:
            (home / "run").mkdir(parents=True)
            (home / "run" / "ports.json").write_text(wished)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(_up, home) for home in homes]:
                done.result()
        yield homes[0], homes[1]
        for home in homes:
            operator.take_down(_settings_of(home))


@pytest.fixture
def own_home(two_homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an installation with Kafka and PostgreSQL, which runs."""
    _set_up(monkeypatch)
    monkeypatch.setenv("TAILRACE_HOME", str(two_homes[0]))
    _up()
    return two_homes[0]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder of an installation whose servers are said to be elsewhere: quick."""
    _set_up(monkeypatch)
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TAILRACE_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("TAILRACE_DATABASE_URL", NO_DATABASE)
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    operator.take_down(Settings.load())


def _set_up(patch: pytest.MonkeyPatch) -> None:
    """Take the user's settings away, and let small services be what is started."""
    for name in list(os.environ):
        if name.startswith("TAILRACE_") and not name.startswith("TAILRACE_TEST_"):
            patch.delenv(name)
    patch.setenv("TAILRACE_CACHE", str(cache_dir()))
    patch.setenv("TAILRACE_START_TIMEOUT_S", "60")
    patch.setattr(operator, "SUPERVISOR", SUPERVISOR)


def test_two_installations_that_start_at_once_share_no_port(two_homes: tuple[Path, Path]) -> None:
    """Both wished for the same ports; each has its own, nothing crashed, nobody waited."""
    found = [operator.status_of(_settings_of(home)) for home in two_homes]

    lines = [line for status in found if status for line in status["processes"]]
    assert {line["state"] for line in lines} == {"up"}
    assert {line["crashes"] for line in lines} == {0}
    ports = [line["port"] for line in lines]
    assert len(ports) == 8
    assert len(set(ports)) == len(ports)


def test_up_ends_when_everything_is_ready_and_down_ends_everything(
    two_homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `up` all answer; `status` says so; after `down` no process of the home is left."""
    _set_up(monkeypatch)
    monkeypatch.setenv("TAILRACE_HOME", str(two_homes[1]))
    status = _up()

    states = {line["name"]: line["state"] for line in status["processes"]}
    assert states == {"kafka": "up", "postgres": "up", "one": "up", "two": "up"}
    assert {line["name"]: line["lag"] for line in status["processes"]}["one"] == 7
    shown = _cli("status")
    assert shown.exit_code == 0
    assert "kafka" in shown.output
    assert "logs/one.log" in shown.output
    names = [_name_of(line) for line in status["processes"]]

    ended = _cli("down")

    assert ended.output.strip() == "Ended: kafka, postgres, one, two"
    assert not any(processes.is_alive(name) for name in names)
    assert not (two_homes[1] / RECORD).exists()
    assert _cli("status").exit_code == 3
    assert _cli("down").output.strip() == "Nothing was running."
    beside = operator.status_of(_settings_of(two_homes[0]))
    assert beside
    assert beside["ready"], "the installation beside it goes on"


def test_everybody_finds_the_running_system_without_configuration(own_home: Path) -> None:
    """The record has addresses and password, and is for its owner only."""
    status = _up()
    ports = {line["name"]: line["port"] for line in status["processes"]}

    settings = Settings.load()

    assert settings.kafka_bootstrap == f"127.0.0.1:{ports['kafka']}"
    assert settings.sources["kafka_bootstrap"] == "running"
    assert f":{ports['postgres']}/" in settings.database_url
    assert (own_home / RECORD).stat().st_mode & 0o777 == 0o600
    for name in ("token", "runner-token"):
        assert (own_home / "secrets" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("own_home")
def test_killed_servers_are_started_again_on_the_same_ports() -> None:
    """Kill -9 of Kafka and PostgreSQL: they are back where their clients look for them."""
    before = {line["name"]: line for line in _up()["processes"]}

    for name in ("kafka", "postgres"):
        ask(Settings.load().run_dir, {"op": "kill", "name": name})

    for name in ("kafka", "postgres"):
        line = eventually(
            partial(_line, name, state="up", restarts=before[name]["restarts"] + 1),
            timeout_ms=30_000,
            what=f"{name} is up again",
        )
        assert line["port"] == before[name]["port"]


@pytest.mark.usefixtures("own_home")
def test_a_server_whose_port_a_stranger_took_moves_and_its_clients_are_told() -> None:
    """The port was free when it was chosen: PostgreSQL gets another, services start again."""
    before = {line["name"]: line for line in _up()["processes"]}
    port = before["postgres"]["port"]

    with _taken_once_free(port) as is_taken:
        ask(Settings.load().run_dir, {"op": "kill", "name": "postgres"})
        eventually(is_taken, what="a stranger listens on PostgreSQL's port")
        eventually(
            lambda: _line("postgres", state="up") and Settings.load().postgres_port != port,
            timeout_ms=30_000,
            what="PostgreSQL is up on another port",
        )
        one = eventually(
            partial(_line, "one", state="up", restarts=before["one"]["restarts"] + 1),
            what="the services were started again",
        )
    assert one["pid"] != before["one"]["pid"]
    assert one["port"] == before["one"]["port"]
    assert f":{Settings.load().postgres_port}/" in Settings.load().database_url


@pytest.mark.usefixtures("own_home")
def test_a_killed_supervisor_harms_nobody_and_the_next_one_takes_over() -> None:
    """Kill -9 of it leaves all running; `up` goes on with the same processes, `down` ends them."""
    status = _up()
    names = [_name_of(line) for line in status["processes"]]
    _kill_supervisor(status)
    assert "these still run: one, two, postgres, kafka" in _cli("status").output

    again = _up()
    assert _pids(again) == _pids(status)
    assert again["pid"] != status["pid"]

    _kill_supervisor(again)
    assert _cli("down").output.strip() == "Ended: one, two, postgres, kafka"
    assert not any(processes.is_alive(name) for name in names)


def test_a_port_that_a_stranger_has_is_an_error_only_if_the_user_fixed_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed port that is taken is named with its setting; otherwise a free one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        monkeypatch.delenv("TAILRACE_DATABASE_URL")
        monkeypatch.setenv("TAILRACE_POSTGRES_PORT", str(taken))
        with pytest.raises(EmbeddedError, match=f"Port {taken} of 127.0.0.1.*postgres.*is used"):
            _up()
        monkeypatch.delenv("TAILRACE_POSTGRES_PORT")
        monkeypatch.setenv("TAILRACE_DATABASE_URL", NO_DATABASE)
        (home / "run" / "ports.json").write_text(json.dumps({"one": taken}))

        status = _up()

    ports = {line["name"]: line["port"] for line in status["processes"]}
    assert ports["one"] != taken


def test_a_tampered_jar_stops_up_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The jar is named with the sum that it should have and the one that it has."""
    jars.fetch(cache_dir())
    cache = tmp_path / "cache"
    folder = jars.jars_dir(cache)
    folder.mkdir(parents=True)
    for jar in jars.wanted_jars():
        (folder / jar.name).symlink_to(jars.jars_dir(cache_dir()) / jar.name)
    victim = next(jar for jar in jars.wanted_jars() if jar.name.startswith("slf4j"))
    (folder / victim.name).unlink()
    (folder / victim.name).write_bytes(b"not a jar")
    _set_up(monkeypatch)
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TAILRACE_CACHE", str(cache))

    failed = _cli("up")

    assert failed.exit_code == 1
    assert f"{victim.name} is not the file that Tailrace was made with" in failed.output
    assert victim.sha256 in failed.output
    assert not operator.has_supervisor(Settings.load())
    assert not (tmp_path / "home" / "kafka").exists()


@pytest.mark.usefixtures("home")
def test_up_again_changes_nothing() -> None:
    """`up` on a running system starts nothing anew."""
    before, again = _pids(_up()), _pids(_up())

    assert before == again


@pytest.mark.usefixtures("home")
def test_a_killed_service_is_started_again_and_counted() -> None:
    """Kill -9 of a service: another process takes its place, and status counts it."""
    before = _pids(_up())
    os.kill(before["one"], signal.SIGKILL)

    line = eventually(lambda: _line("one", state="up", restarts=1), what="one is up again")

    assert line["pid"] != before["one"]
    assert _pids(_up())["two"] == before["two"]


@pytest.mark.usefixtures("home")
def test_restart_ends_one_process_and_waits_for_the_next() -> None:
    """`tailrace restart NAME`; exit code 4 names those that there are, 3 says that nothing runs."""
    assert _cli("restart", "one").exit_code == 3
    before = _pids(_up())

    assert _cli("restart", "one").exit_code == 0

    after = _pids(_up())
    assert after["one"] != before["one"]
    assert after["two"] == before["two"]
    unknown = _cli("restart", "three")
    assert unknown.exit_code == 4
    assert "no process is called 'three'; there are: one, two" in unknown.output


def test_a_crash_loop_backs_off_and_is_shown_with_its_log(home: Path) -> None:
    """`up` on a service that always crashes ends with its name, exit code and last words."""
    (home / "one.mode").write_text("crash", encoding="ascii")

    with pytest.raises(EmbeddedError) as error:
        _up()

    assert "one: crashed: ended with exit code 3" in str(error.value)
    assert "one crashes because the test says so" in str(error.value)
    shown = _cli("status")
    assert shown.exit_code == 1
    assert "times in a row" in shown.output
    (home / "one.mode").write_text("ok", encoding="ascii")
    assert _line_of(_up(), "one")["state"] == "up", "`up` does not wait for the pause to end"


def test_a_service_that_is_not_ready_makes_the_system_degraded(home: Path) -> None:
    """The reason that /readyz gives is what status shows; the process is left alone."""
    before = _pids(_up())
    (home / "two.mode").write_text("unready", encoding="ascii")

    line = eventually(lambda: _line("two", state="degraded"), what="two is degraded")

    assert line["detail"] == "degraded: the test says so"
    assert line["pid"] == before["two"]
    assert _cli("status").exit_code == 1


@pytest.mark.usefixtures("home")
def test_without_restart_a_dead_service_stays_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """TAILRACE_RESTART=off: for watching how the others get on without it."""
    monkeypatch.setenv("TAILRACE_RESTART", "off")
    os.kill(_pids(_up())["one"], signal.SIGKILL)

    line = eventually(lambda: _line("one", state="failed"), what="one has failed")

    assert line["pid"] is None
    assert "restarting is switched off" in line["detail"]


def test_servers_of_the_user_are_not_started(home: Path) -> None:
    """With Kafka and PostgreSQL named in the settings, only the services are started."""
    assert set(_pids(_up())) == {"one", "two"}
    assert not (home / "kafka").exists()


@pytest.mark.usefixtures("home")
def test_a_supervisor_of_another_version_is_not_mixed_with_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After an upgrade `up` says to take the old system down first."""
    _up()
    monkeypatch.setattr(operator, "VERSION", "9.9.9")

    with pytest.raises(EmbeddedError, match=r"version 0.*this is version 9\.9\.9.*tailrace down"):
        _up()


@pytest.mark.usefixtures("home")
def test_a_full_disk_is_told_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the free and the needed space, and what to do."""
    monkeypatch.setattr(operator, "SPACE_FIRST_START_MB", 10**9)

    with pytest.raises(EmbeddedError, match=r"MiB free; starting needs.*TAILRACE_HOME"):
        _up()


@pytest.mark.usefixtures("home")
def test_an_interrupted_up_says_that_it_goes_on_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C ends the waiting and nothing else; `up` again waits for what is under way."""

    def interrupt(_screen: Screen, _status: Status) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Screen, "waiting", interrupt)
        stopped = _cli("up")

    assert stopped.exit_code == 130
    assert "goes on starting in the background" in stopped.output
    assert operator.has_supervisor(Settings.load())
    finished = _cli("up")
    assert finished.exit_code == 0
    assert re.search(r"Tailrace (answers after|runs).*\n  sign in +http.*token=", finished.output)


def test_a_wrong_setting_ends_each_command_with_its_place(home: Path) -> None:
    """No traceback: the file, the key and what is expected."""
    (home / "tailrace.toml").write_text("cells = 'two'\n", encoding="utf-8")

    failed = _cli("up")

    assert failed.exit_code == 1
    assert "tailrace.toml: the setting `cells` is 'two'; expected a whole number" in failed.output
    (home / "tailrace.toml").unlink()


def _up(home: Path | None = None) -> Status:
    def ignore(*_: object) -> None:
        """Show nothing."""

    listener = Listener(say=ignore, downloaded=ignore, waiting=ignore)
    return operator.bring_up(_settings_of(home) if home else Settings.load(), listener)


def _settings_of(home: Path) -> Settings:
    return Settings.load({**os.environ, "TAILRACE_HOME": str(home)})


@contextmanager
def _taken_once_free(port: int) -> Iterator[Callable[[], bool]]:
    """Listen on a port as soon as its present owner lets go of it, from a thread."""
    over, taken = threading.Event(), threading.Event()

    def take() -> None:
        while not over.wait(0.001):
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                taken.set()
                over.wait()

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield taken.is_set
    finally:
        over.set()
        thread.join()


def _kill_supervisor(status: Status) -> None:
    os.kill(status["pid"], signal.SIGKILL)
    eventually(lambda: not operator.has_supervisor(Settings.load()), what="the supervisor is gone")


def _cli(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _pids(status: Status) -> dict[str, int]:
    return {line["name"]: line["pid"] for line in status["processes"]}


def _name_of(line: dict[str, Any]) -> ProcessName:
    name = processes.name_of(line["pid"])
    assert name is not None
    return name


def _line_of(status: Status, name: str) -> dict[str, Any]:
    return next(line for line in status["processes"] if line["name"] == name)


def _line(name: str, *, state: str, restarts: int | None = None) -> dict[str, Any] | None:
    status = operator.status_of(Settings.load())
    lines = status["processes"] if status else []
    return next(
        (
            line
            for line in lines
            if line["name"] == name
            and line["state"] == state
            and (restarts is None or line["restarts"] == restarts)
        ),
        None,
    )
