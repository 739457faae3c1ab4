"""What a workflow may ask of a container engine, and how the engine is asked: as data."""

from __future__ import annotations

import shlex
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.clock import ManualClock
from runner.executors.containers.engine import Engine, EngineError, detect, read_info
from runner.executors.containers.job import published
from runner.executors.containers.launch import launch_script, split_variables
from runner.executors.containers.options import (
    OptionError,
    Options,
    Volume,
    check_volume,
    port_argument,
    read_options,
    read_volume,
)
from runner.executors.containers.place import ContainerSetupError
from runner.executors.containers.setup import bring_up, containers_for
from runner.executors.containers.wanted import read_wanted
from runner.executors.host import HostWorkplace
from runner.folders import Cleaner, Seat
from runner.guards import Guard
from runner.logs import LogPacker
from runner.masking import Masker
from runner.pump import Pump
from runner.steps import StepMachine
from schemas.workflow.plan import JobPlan

SAFE = (
    ("--cpus 1 -m=512m", ("--cpus", "1", "--memory", "512m")),
    ("--user 1001:1001", ("--user", "1001:1001")),
    ("-u1000", ("--user", "1000")),
    ("-it --rm", ()),
    ("--init --read-only", ("--init", "--read-only")),
    ("--cap-add SYS_PTRACE --cap-drop=ALL", ("--cap-add", "SYS_PTRACE", "--cap-drop", "ALL")),
    ("--security-opt no-new-privileges", ("--security-opt", "no-new-privileges")),
    ("--name db", ("--network-alias", "db")),
    (
        '--health-cmd "pg_isready -U me" --health-interval 1s',
        ("--health-cmd", "pg_isready -U me", "--health-interval", "1s"),
    ),
)
REFUSED = (
    "--privileged", "--privileged=true", "--pid host", "--pid=host", "--ipc host", "--uts=host",
    "--userns=host", "--network host", "--net=host", "--network=container:other",
    "--device /dev/sda", "--device-cgroup-rule 'a *:* rwm'", "--cap-add ALL",
    "--cap-add=CAP_SYS_ADMIN",
    "--security-opt seccomp=unconfined", "--security-opt=label=disable",
    "--mount type=bind,src=/,dst=/x",
    "--volumes-from other", "--cgroup-parent /", "--env-file /etc/passwd", "--env PATH", "-e TOKEN",
    "-e =x", "--label-file /etc/passwd", "--log-opt path=/etc/x", "--log-driver syslog",
    "--gpus all",
    "--restart always", "--sysctl kernel.x=1", "--runtime other", "--annotation run.oci=x",
    "--cidfile /etc/x", "--pod other", "--authfile /x", "--tls-verify=false", "--oom-kill-disable",
    "--uidmap 0:0:1", "--rootfs", "--something-of-tomorrow 1", "-P", "--ulimit", "word", "'", "-xy",
)  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SAFE)
def test_options_that_stay_in_the_container_are_handed_on(
    text: str, expected: tuple[str, ...]
) -> None:
    """Long, short and joined forms come out as the engine's own words."""
    assert read_options(text, is_job=True, any_options=False).arguments == expected


@pytest.mark.parametrize("text", REFUSED)
def test_options_that_could_break_out_or_are_not_known_are_refused(text: str) -> None:
    """What is not known to be safe is not handed on."""
    with pytest.raises(OptionError):
        read_options(text, is_job=True, any_options=False)


def test_a_runner_that_trusts_its_workflows_hands_every_option_on() -> None:
    """With the setting the words go through; the network is the workflow's."""
    found = read_options("--privileged --pid=host --network host", is_job=True, any_options=True)
    assert found.arguments == ("--privileged", "--pid", "host")
    assert found.network == "host"


def test_only_a_service_has_an_entry_point() -> None:
    """A job's container is kept alive by the runner's command."""
    assert read_options("--entrypoint x", is_job=False, any_options=False).arguments
    with pytest.raises(OptionError, match="entrypoint"):
        read_options("--entrypoint x", is_job=True, any_options=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", Volume("", "/data")),
        ("cache:/data", Volume("cache", "/data")),
        ("cache:/data:ro", Volume("cache", "/data", "ro")),
        ("/a:/b", Volume("/a", "/b")),
        ("/a:/b:rw,z", Volume("/a", "/b", "rw,z")),
    ],
)
def test_volumes_are_read(text: str, expected: Volume) -> None:
    """A target, source and target, and a mode."""
    assert read_volume(text) == expected


@pytest.mark.parametrize(
    "text", ["", "data", "../x:/y", "a b:/y", "/a:/b:exec", "a:b:/c:ro", "a:b"]
)
def test_a_volume_that_can_t_be_read_is_refused(text: str) -> None:
    """Relative places and unknown modes."""
    with pytest.raises(OptionError):
        read_volume(text)


@pytest.mark.parametrize(
    "source",
    [
        "/", "/etc", "/w/1", "/w/1/other", "/w/1/w/../../x", "/w/1/wx", "/w/1/w/sub", "/w/1/w/..",
        "/w/1/w/sub/..",
    ],
)  # fmt: skip
def test_a_folder_that_is_not_the_job_s_is_refused(source: str) -> None:
    """A service may have left a link within the job's folders; a runner may allow all."""
    volume = Volume(source, "/x")
    with pytest.raises(OptionError, match="container_options=any"):
        check_volume(volume, ("/w/1/w",), any_options=False)
    check_volume(volume, ("/w/1/w",), any_options=True)


def test_a_folder_of_the_job_s_is_accepted_whole() -> None:
    """The workspace itself, also read-only."""
    check_volume(Volume("/w/1/w", "/x", "ro"), ("/w/1/t", "/w/1/w"), any_options=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5432", "127.0.0.1::5432/tcp"),
        ("8080:80", "127.0.0.1:8080:80/tcp"),
        ("53/udp", "127.0.0.1::53/udp"),
        ("5353:53/udp", "127.0.0.1:5353:53/udp"),
    ],
)
def test_ports_are_published_on_loopback(text: str, expected: str) -> None:
    """A port without a number of the machine's is the engine's choice."""
    assert port_argument(text) == expected


@pytest.mark.parametrize(
    "text", ["", "http", "0", "70000", "0.0.0.0:80:80", "1-5", "80/icmp", "-1"]
)
def test_a_port_that_can_t_be_read_is_refused(text: str) -> None:
    """Ranges and addresses are not taken."""
    with pytest.raises(OptionError):
        port_argument(text)


# --------------------------------------------------------------------------- what a job wants


def wanted(any_options: bool = False, **plan: Any) -> Any:  # noqa: FBT001, FBT002
    """Return what a job with those keys asks for."""
    contexts: dict[str, Any] = {
        "matrix": {"image": ""}, "secrets": {"P": "s3cret"}, "env": {}, "github": {}, "vars": {},
    }  # fmt: skip
    return read_wanted(JobPlan(id="j", **plan), contexts, ("/w",), any_options=any_options)


def test_a_job_s_container_is_read_with_all_its_keys() -> None:
    """Templates are evaluated; the password is in no text of it."""
    spec = wanted(
        container={
            "image": "docker://alpine:3",
            "env": {"A": 1.0},
            "ports": [80.0, "53/udp"],
            "volumes": ["cache:/c"],
            "options": "--cpus 1 -v /w:/y -e A=2 --env 'TOKEN=${{ secrets.P }}'",
            "credentials": {"username": "ada", "password": "${{ secrets.P }}"},
        }
    ).container
    assert (spec.image, spec.env, spec.username, spec.password) == (
        "alpine:3", {"A": "1", "TOKEN": "s3cret"}, "ada", "s3cret",
    )  # fmt: skip
    assert spec.options.arguments == ("--cpus", "1")
    assert spec.ports == ("127.0.0.1::80/tcp", "127.0.0.1::53/udp")
    assert [volume.source for volume in spec.volumes] == ["cache", "/w"]
    assert "s3cret" not in repr(replace(spec, env={}, options=Options()))


def test_an_image_that_comes_out_empty_is_no_container() -> None:
    """As on GitHub, for containers and services."""
    assert not wanted(container={"image": "${{ matrix.image }}"}, services={"db": {"image": ""}})


@pytest.mark.parametrize(
    ("plan", "where"),
    [
        ({"container": "-v/:/x"}, "container"),
        ({"container": "a b"}, "container"),
        ({"container": {"image": "x", "volumes": ["/:/host"]}}, "container: volume"),
        ({"container": {"image": "x", "options": "-v /w/sub:/host"}}, "container: volume"),
        ({"services": {"db": {"image": "x", "volumes": ["/w/x:/host"]}}}, "services.db: volume"),
        ({"services": {"db": {"image": "x", "options": "--privileged"}}}, "services.db"),
        ({"services": {"-bad": "x"}}, "services.-bad"),
        ({"services": {"db": {"image": "x", "ports": ["http"]}}}, "services.db: port"),
        ({"services": {"db": {"image": "x", "command": "'"}}}, "services.db: command"),
    ],
)
def test_a_mistake_is_told_with_its_place(plan: dict[str, Any], where: str) -> None:
    """The message begins with the key."""
    with pytest.raises(OptionError, match=where):
        wanted(**plan)


# --------------------------------------------------------------------------- starting processes


def test_a_launch_script_gives_every_variable_and_becomes_the_program(tmp_path: Path) -> None:
    """Quotes, line breaks, dollars and names that no shell can export arrive whole."""
    env = {
        "PLAIN": "a b", "LINES": "one\ntwo\n", "QUOTES": "it's \"$HOME\" `id`", "EMPTY": "",
        "INPUT_MY-NAME": "x  y", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    pid = tmp_path / "pid"
    text = launch_script(["env", "-0"], env, str(tmp_path), str(pid), keep_modes=True)
    done = subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE, env={})
    variables = done.communicate()[0].decode().split("\0")
    found = dict(variable.partition("=")[::2] for variable in variables)
    assert {name: found[name] for name in env} == env
    assert (int(pid.read_text()), found["PWD"]) == (done.pid, str(tmp_path))


def test_a_launch_script_says_when_its_folder_is_not_there(tmp_path: Path) -> None:
    """The step fails with the folder's name, and nothing is run."""
    text = launch_script(["echo", "ran"], {}, "/none", str(tmp_path / "p"), keep_modes=True)
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/none" in done.stderr
    assert "ran" not in done.stdout


def test_variables_reach_a_container_without_an_argument() -> None:
    """One line by file, several by environment, and nothing that the program listens to."""
    text, through, left_out = split_variables(
        {"A": "1", "INPUT_TEXT": "a\nb", "LD_PRELOAD": "x\ny", "DOCKER_HOST": "a\nb", "#X": "1",
         "PATH": "/bin", "_CONTAINERS_ROOTLESS_UID": "0\n", "_OWN": "one line"}
    )  # fmt: skip
    assert text == "A=1\nPATH=/bin\n_OWN=one line\n"
    assert through == {"INPUT_TEXT": "a\nb"}
    assert left_out == ["LD_PRELOAD", "DOCKER_HOST", "#X", "_CONTAINERS_ROOTLESS_UID"]


# --------------------------------------------------------------------------- the engine


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"ServerVersion": "27.1", "SecurityOptions": ["name=seccomp"]},
            ("docker", "27.1", False, False),
        ),
        (
            {"ServerVersion": "27.1", "SecurityOptions": ["name=userns"]},
            ("docker", "27.1", True, True),
        ),
        (
            {"host": {"security": {"rootless": True}}, "version": {"Version": "5.0"}},
            ("podman", "5.0", True, False),
        ),
    ],
)
def test_an_engine_is_told_by_its_answer(info: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Whatever the program is called."""
    assert read_info(info) == expected


@pytest.mark.parametrize(
    "info", [{}, {"ID": "", "ServerErrors": ["no daemon"]}, {"host": {"serviceIsRemote": True}}]
)
def test_a_program_without_its_engine_is_none(info: dict[str, Any]) -> None:
    """Docker's program answers without its daemon; a remote podman can't see the job's files."""
    with pytest.raises(EngineError):
        read_info(info)


def _program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_auto_takes_the_first_engine_that_works(tmp_path: Path) -> None:
    """A docker without its daemon is passed over."""
    _program(tmp_path, "docker", "echo '{}'")
    answer = shlex.quote('{"host": {}, "version": {"Version": "4.3"}}')
    program = _program(tmp_path, "podman", f"echo {answer}")
    found = detect("auto", {"PATH": str(tmp_path)})
    assert found is not None
    assert (found.kind, found.version, found.program) == ("podman", "4.3", program)


@pytest.mark.parametrize("wanted", ["none", "auto", "docker", "/nowhere/podman"])
def test_without_an_engine_a_runner_has_none(tmp_path: Path, wanted: str) -> None:
    """It starts all the same, and the log says why."""
    _program(tmp_path, "docker", "echo broken >&2; exit 1")
    assert detect(wanted, {"PATH": str(tmp_path)}) is None


def _engine(program: str) -> Engine:
    return Engine(program=program, kind="podman", version="5", rootless=True, environment={})


@pytest.mark.parametrize("answer", ["", "no json", "[]", "{}", "1"])
def test_an_answer_that_can_t_be_read_is_the_engine_s_error(tmp_path: Path, answer: str) -> None:
    """The message says what was asked."""
    engine = _engine(_program(tmp_path, "podman", f"echo {shlex.quote(answer)}"))
    with pytest.raises(EngineError, match="podman container inspect"):
        engine.inspect("container", "c")


@pytest.mark.parametrize("answers", [0, 1])
def test_an_engine_that_fails_while_services_start_fails_the_job_by_name(
    tmp_path: Path, answers: int
) -> None:
    """Waiting for health and reading the ports too; it is no error of the runner's."""
    running = '[{"State": {"Running": true}}]'
    script = (
        f'[ "$1 $2" = "container inspect" ] || exit 0\n'
        f"echo >> {tmp_path}/asked\n"
        f"[ $(wc -l < {tmp_path}/asked) -gt {answers} ] ||"
        f" {{ echo {shlex.quote(running)}; exit; }}\n"
        "echo 'lost its store' >&2; exit 125"
    )
    plan = JobPlan(id="j", services={"db": "localhost/db:1"})
    clock = ManualClock()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        guard = Guard(ours)
        pump = Pump(
            guard, LogPacker(Masker(), lambda _: None), clock,
            accepts=lambda: True, interrupted=lambda _: None, deadline_ms=1,
        )  # fmt: skip
        (tmp_path / "work").mkdir()
        seat = Seat(0, None, tmp_path / "work", cleaner=Cleaner(), tool_cache=tmp_path / "tools")
        workplace = HostWorkplace(seat, seat.take("demo/hello"), guard, pump)
        engine = replace(
            _engine(_program(tmp_path, "podman", script)), environment={"PATH": "/usr/bin:/bin"}
        )
        containers = containers_for(
            engine, workplace, mark="m", key="j@1:1", clock=clock, say=lambda _: None,
            is_ending=lambda: False,
        )  # fmt: skip
        contexts: dict[str, Any] = {"github": {}, "job": {}, "matrix": {}, "secrets": {}}
        machine = StepMachine(plan, contexts, env={}, hash_files=lambda _: "")
        with pytest.raises(ContainerSetupError, match="lost its store") as caught:
            bring_up(plan, machine, workplace, containers)
        pump.close()
    assert caught.value.reason == "infra.container"


def test_podman_as_root_makes_a_container_s_root_the_job_s_user() -> None:
    """Ids above it are nobody else's; docker and rootless engines map by themselves."""
    values: dict[str, Any] = {"program": "p", "version": "", "environment": {}}
    podman = Engine(kind="podman", rootless=False, **values)
    assert podman.user_arguments(997, 996) == [
        "--uidmap=0:997:1", f"--uidmap=1:{0x70000000 + 997 * 65536}:65535",
        "--gidmap=0:996:1", f"--gidmap=1:{0x70000000 + 997 * 65536}:65535",
    ]  # fmt: skip
    for kind, rootless in (("podman", True), ("docker", False)):
        assert Engine(kind=kind, rootless=rootless, **values).user_arguments(997, 996) == []
    assert podman.user_arguments(None, None) == []


def test_published_ports_are_told_by_the_container_s_number() -> None:
    """A port of tcp by its number alone; one that is only exposed is not there."""
    bound = [{"HostIp": "127.0.0.1", "HostPort": "40001"}]
    ports = {"80/tcp": bound, "53/udp": bound, "90/tcp": None}
    assert published({"NetworkSettings": {"Ports": ports}}) == {"80": "40001", "53/udp": "40001"}
    assert published({"NetworkSettings": {}}) == {}
