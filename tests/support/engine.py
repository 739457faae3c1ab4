"""A container engine of the tests' own: its settings, its storage, and images made from nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IMAGE = "localhost/tailrace-test:box"
WITH_NODE = "localhost/tailrace-test:node"
_APPLETS = (
    "sh", "cat", "chmod", "chown", "echo", "env", "false", "grep", "httpd", "id", "kill", "ls",
    "mkdir", "nc", "nslookup", "ps", "readlink", "rm", "sed", "sleep", "stat", "tail", "test",
    "touch", "tr", "true", "wc", "wget",
)  # fmt: skip
_NODE = (
    '#!/bin/sh\necho "node of the image runs $1 with $INPUT_GREETING and ${STATE_KEY:-no state}"\n'
)
_CALL_S = 120


class NoEngineError(Exception):
    """There is no engine to test with; the message says what to install."""


@dataclass(frozen=True, slots=True)
class TestEngine:
    """A working engine with the tests' images; `environ` is what its program needs."""

    __test__ = False

    program: str
    environ: Mapping[str, str]

    def call(self, *words: str) -> str:
        """Run a command of the engine and return what it says."""
        done = subprocess.run(
            [self.program, *words], env={**os.environ, **self.environ}, capture_output=True,
            text=True, timeout=_CALL_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise NoEngineError(f"{self.program} {words[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()


@contextmanager
def test_engine() -> Iterator[TestEngine]:
    """Yield an engine that has run a container. Raises NoEngineError."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise NoEngineError("images for tests are made of busybox: install busybox-static")
    folder = Path(tempfile.mkdtemp(prefix="tailrace-engine-"))
    try:
        yield _working(folder, busybox)
    finally:
        _clear(folder)


test_engine.__test__ = False  # type: ignore[attr-defined]


def _working(folder: Path, busybox: str) -> TestEngine:
    found: list[str] = []
    for name in ("podman", "docker"):
        program = shutil.which(name)
        if program is None:
            continue
        environ = _podman_settings(folder) if name == "podman" else {}
        engine = TestEngine(program, environ)
        try:
            for image, node in ((IMAGE, ""), (WITH_NODE, _NODE)):
                engine.call("import", str(_archive(folder, busybox, node)), image)
            engine.call("run", "--rm", IMAGE, "true")
        except NoEngineError as error:
            found.append(str(error))
        else:
            return engine
    raise NoEngineError(
        "no container engine works here: install podman (with runc or crun, netavark and "
        f"aardvark-dns) or start docker. {'; '.join(found)}"
    )


def _podman_settings(folder: Path) -> dict[str, str]:
    """Write settings that work in most places, with storage that is nobody else's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    runtime = 'runtime = "runc"\n' if shutil.which("runc", path=_SBIN) else ""
    settings, storage = folder / "containers.conf", folder / "storage.conf"
    settings.write_text(
        f'[engine]\n{runtime}cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'[network]\nnetwork_backend = "netavark"\n{_own_subnets(os.getpid())}'
        f'network_config_dir = "{folder / "networks"}"\n'
        f'[containers]\ndefault_ulimits = ["nofile={soft}:{hard}", "nproc=1000:1000"]\n'
    )
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{folder / "root"}"\n'
        f'runroot = "{folder / "run"}"\n'
    )
    (folder / "networks").mkdir(exist_ok=True)
    return {"CONTAINERS_CONF": str(settings), "CONTAINERS_STORAGE_CONF": str(storage)}


def _own_subnets(pid: int) -> str:
    """Return settings for networks of this run's own.

    Engines with storages of their own know nothing of each other's networks, but share the
    machine: two of one subnet answer for each other's names.
    """
    second, third = 64 + (pid >> 4) % 128, pid % 16 * 16
    return (
        f'default_subnet = "10.{second}.{third + 15}.0/24"\n'
        f'default_subnet_pools = [{{"base" = "10.{second}.{third}.0/21", "size" = 24}}]\n'
    )


_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _archive(folder: Path, busybox: str, node: str) -> Path:
    root = folder / ("with-node" if node else "box")
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nguest:x:1234:1234::/:/bin/sh\n")
    (root / "tmp").chmod(0o1777)
    if node:
        (root / "bin/node").write_text(node)
        (root / "bin/node").chmod(0o755)
    path = root.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(root, arcname=".", filter=_of_root)
    return path


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


def _clear(folder: Path) -> None:
    environ = {**os.environ, **_environ_of(folder)}
    podman = shutil.which("podman")
    if podman is not None and environ.keys() & {"CONTAINERS_CONF"}:
        for words in (("rm", "--all", "--force"), ("network", "prune", "--force")):
            subprocess.run([podman, *words], env=environ, capture_output=True, timeout=_CALL_S,
                           check=False)  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)


def _environ_of(folder: Path) -> dict[str, str]:
    return {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }
