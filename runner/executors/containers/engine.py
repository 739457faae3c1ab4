"""The container engine of this machine, by its command line: docker or podman.

The only place that starts the engine's program by itself. What takes long and prints (pulling,
building, steps) is started by the slot's guard with `argv`, so that it can be cancelled.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from schemas.late import dataclass

logger = logging.getLogger(__name__)

DETECT_S = 15.0
CALL_S = 120.0
AUTO, NONE = "auto", "none"
_KNOWN = ("docker", "podman")
_WORDS_MAX = 2_000
#: Where the ids of containers begin on a machine whose root gives each job ids of its own: above
#: all that distributions, systemd and useradd hand out.
_IDS_FROM = 0x7000_0000
_IDS_EACH = 65_536
_SEATS_MAX = 4_000


class EngineError(Exception):
    """The engine refused or did not answer; the message is its own words with what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A working engine.

    `rootless` says that a container's root is not the machine's, `remapped` that it is nobody whom
    the machine knows instead of the engine's own user. `environment` is that of the
    engine's program, which is the runner's own and never holds a variable of a job. With
    `any_options` a workflow may ask for what reaches beyond its containers.
    """

    program: str
    kind: str
    version: str
    rootless: bool
    environment: Mapping[str, str]
    remapped: bool = False
    any_options: bool = False

    def argv(self, *words: str) -> list[str]:
        """Return a command of the engine."""
        return [self.program, *words]

    def call(self, *words: str, given: str | None = None, timeout_s: float = CALL_S) -> str:
        """Run a command that answers soon and return what it says. Raises EngineError."""
        try:
            done = subprocess.run(
                self.argv(*words), env=dict(self.environment), capture_output=True, cwd="/",
                input=None if given is None else given.encode(),
                stdin=subprocess.DEVNULL if given is None else None,
                timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            text = f"{self.kind} {words[0]} did not answer within {timeout_s:g} s"
            raise EngineError(text) from error
        except OSError as error:
            raise EngineError(f"{self.program} can't be started: {error.strerror}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-_WORDS_MAX:]
            raise EngineError(f"{self.kind} {words[0]} failed: {said or done.returncode}")
        return done.stdout.decode("utf-8", "replace").strip()

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """Return what the engine knows of a container or an image. Raises EngineError."""
        try:
            found: dict[str, Any] = json.loads(self.call(kind, "inspect", name))[0]
        except (ValueError, LookupError, TypeError) as error:
            raise EngineError(f"{self.kind} {kind} inspect can't be read: {error}") from error
        return found

    @property
    def removal(self) -> tuple[str, ...]:
        """The words that kill and remove a container; podman would ask it to end for 10 s."""
        return ("rm", "--force", "--volumes", *(("--time", "0") if self.kind == "podman" else ()))

    def maps_users(self, uid: int | None) -> bool:
        """Say whether a container's root can be made the user of that id on the machine.

        Podman as root can: then no process of a container is the machine's root, and files of
        both sides have one owner. Docker maps users for all containers alike, or for none.
        """
        return uid is not None and self.kind == "podman" and not self.rootless

    def user_arguments(self, uid: int | None, gid: int | None) -> list[str]:
        """Return the options that make the container's root the job's user; [] where it is not."""
        if uid is None or gid is None or not self.maps_users(uid):
            return []
        first = _IDS_FROM + (uid % _SEATS_MAX) * _IDS_EACH
        return [
            f"--uidmap=0:{uid}:1", f"--uidmap=1:{first}:{_IDS_EACH - 1}",
            f"--gidmap=0:{gid}:1", f"--gidmap=1:{first}:{_IDS_EACH - 1}",
        ]  # fmt: skip


def detect(wanted: str, environ: Mapping[str, str], *, any_options: bool = False) -> Engine | None:
    """Return the engine that answers now, None where there is none; the log says why.

    `wanted` is auto, none, a program's name or its path.
    """
    if wanted == NONE:
        return None
    for name in _KNOWN if wanted == AUTO else (wanted,):
        program = shutil.which(name, path=environ.get("PATH"))
        if program is None:
            if wanted != AUTO:
                logger.error("container engine %r is not on the PATH: no containers run", name)
            continue
        try:
            engine = _asked(program, environ, any_options=any_options)
        except EngineError as error:
            level = logging.INFO if wanted == AUTO else logging.ERROR
            logger.log(level, "container engine %s does not work: %s", program, error)
            continue
        logger.info("containers run by %s %s (%s)", engine.kind, engine.version, program)
        return engine
    return None


def _asked(program: str, environ: Mapping[str, str], *, any_options: bool) -> Engine:
    engine = Engine(
        program=program, kind=os.path.basename(program), version="", rootless=False,  # noqa: PTH119
        environment=dict(environ), any_options=any_options,
    )  # fmt: skip
    try:
        info = json.loads(engine.call("info", "--format", "{{json .}}", timeout_s=DETECT_S))
    except ValueError as error:
        raise EngineError(f"its answer is no JSON: {error}") from error
    kind, version, rootless, remapped = read_info(info)
    return Engine(
        program=program, kind=kind, version=version, rootless=rootless,
        environment=engine.environment, remapped=remapped, any_options=any_options,
    )  # fmt: skip


def read_info(info: Mapping[str, Any]) -> tuple[str, str, bool, bool]:
    """Return kind, version, `rootless` and `remapped` of what `info` said. Raises EngineError.

    Docker's program answers without its daemon too, but then names no version of a server. The
    `docker` of some distributions is podman.
    """
    host = info.get("host")
    if isinstance(host, dict):
        version = (info.get("version") or {}).get("Version", "")
        if host.get("serviceIsRemote"):
            raise EngineError("it is a podman on another machine, which can't see a job's files")
        rootless = bool((host.get("security") or {}).get("rootless"))
        return "podman", str(version), rootless, False
    version = info.get("ServerVersion") or ""
    if not version:
        words = "; ".join(map(str, info.get("ServerErrors") or ())) or "its daemon is not running"
        raise EngineError(words)
    security = " ".join(map(str, info.get("SecurityOptions") or ()))
    remapped = "name=userns" in security
    return "docker", str(version), "name=rootless" in security or remapped, remapped
