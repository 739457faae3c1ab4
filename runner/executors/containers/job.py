"""The containers of one attempt: its network, services and own container, from pull to removal.

Whatever is made has the labels of runner and attempt, so that the runner's next start finds what
a crash left. Secrets reach the engine by standard input or by files of the runner's own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.clock import Clock
from runner.environment import MARKER
from runner.executors.containers.engine import Engine, EngineError
from runner.executors.containers.launch import split_variables
from runner.executors.containers.options import Volume
from runner.executors.containers.place import ContainerSetupError, ContainerWorkplace, job_mounts
from runner.executors.containers.wanted import Spec, Wanted
from runner.folders import JobFolders
from runner.pump import Ending
from schemas.workflow.expressions.values import Value

logger = logging.getLogger(__name__)

RUNNER_LABEL, JOB_LABEL = "tailrace.runner", "tailrace.job"
#: What an attempt makes, in the order of its removal.
KINDS = ("container", "network", "volume", "image")
HEALTH_MS_MAX = 300_000
_HEALTH_TURN_S = 0.5
_LOG_LINES = "200"
_LOCAL = "localhost/"
_PULLS = 2
#: Keeps a job's container alive, buries its orphans and ends at once when it is stopped.
_ALIVE = "trap 'exit 0' TERM; while :; do sleep 86400 & wait $!; done"
_GONE = "no such"
#: `sh -c _END engine label removal…`: ends what has the label. More than once, because a command
#: that the runner gave before it died may still be at work.
_END = """
label=$1; shift
for pause in 0 1 2 4; do
  sleep $pause
  found=$("$0" ps --all --quiet --no-trunc --filter "$label") && [ -n "$found" ] && "$0" "$@" $found
done
"""


class JobContainers:
    """Makes and removes what one attempt has of the engine's; used by the slot's thread."""

    def __init__(
        self,
        engine: Engine,
        folders: JobFolders,
        *,
        mark: str,
        key: str,
        clock: Clock,
        say: Callable[[str], None],
        run: Callable[[list[str], Mapping[str, str]], Ending],
        is_ending: Callable[[], bool],
        at_end: Callable[[Sequence[str], Mapping[str, str]], None],
    ) -> None:
        """Make nothing yet; `mark` tells the runners of a machine apart, `key` their attempts.

        `run` runs a command of the engine with its words in the job's log, `is_ending` takes
        orders that came and says whether the job is being ended. `at_end` leaves a command with the
        guard, for when the runner is dead or stands still.
        """
        self.engine = engine
        self.network = ""
        self._folders = folders
        self._labels = (f"{RUNNER_LABEL}={mark}", f"{JOB_LABEL}={key}")
        self._mark = f"{MARKER}={mark}"
        self._prefix = f"tailrace-{hashlib.sha256(f'{mark} {key}'.encode()).hexdigest()[:16]}"
        self._clock = clock
        self._say = say
        self._run = run
        self._is_ending = is_ending
        self._at_end = at_end
        self._is_guarded = False
        self._made: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._services: dict[str, Spec] = {}
        self._job: Spec | None = None
        self._serial = 0

    # ----------------------------------------------------------------- making

    def make(self, wanted: Wanted, workplace: ContainerWorkplace | None) -> None:
        """Bring up what the job wants; `workplace` enters its container.

        Raises ContainerSetupError and EngineError.
        """
        self._guarded()
        self._say("##[group]Set up containers")
        self._make_network()
        for service in wanted.services:
            self.pull(service)
            self._start(service)
        if wanted.container is not None and workplace is not None:
            self.pull(wanted.container)
            inside = workplace.enter(self._start(wanted.container))
            self._say(f"Steps run in {wanted.container.image} as user {inside.uid}")
        self._say("##[endgroup]")
        for service in wanted.services:
            self._wait_healthy(service)

    def _guarded(self) -> None:
        """Before the first container: have the guard end them all should the runner not."""
        if not self._is_guarded:
            label = f"label={self._labels[1]}"
            words = ("sh", "-c", _END, self.engine.program, label, *self.engine.removal)
            self._at_end(words, self.engine.environment)
            self._is_guarded = True

    def _make_network(self) -> None:
        self.network = self._prefix
        self._made["network"].append(self.network)
        self.engine.call("network", "create", *self.labels(), self.network)

    def pull(self, spec: Spec) -> None:
        """Bring a container's image. Raises ContainerSetupError."""
        if spec.image.startswith(_LOCAL):
            return  # made on this machine; there is no place to pull it from
        with self._login(spec) as words:
            for _ in range(_PULLS):
                if self._is_ending():
                    raise ContainerSetupError("the job is being ended", "cancel.interrupted")
                if self._run(self.engine.argv(*words, spec.image), {}).code == 0:
                    return
        raise ContainerSetupError(
            f"{spec.shown}: the image {spec.image!r} can't be pulled: {self.engine.kind}'s words "
            "are above; check its name, that this machine reaches its registry, and `credentials`"
        )

    @contextmanager
    def _login(self, spec: Spec) -> Iterator[list[str]]:
        """Yield the words of a pull, with the credentials in a folder that goes away after it."""
        if not spec.username:
            yield ["pull"]
            return
        folder = Path(self._folders.root, f".login-{self._next()}")
        folder.mkdir(mode=0o700)
        registry, _, rest = spec.image.partition("/")
        where = [registry] if rest and ("." in registry or ":" in registry) else []
        login = ["--username", spec.username, "--password-stdin", *where]
        try:
            if self.engine.kind == "podman":
                path = str(folder / "auth.json")
                Path(path).touch(mode=0o600)
                Path(path).write_text("{}")
                self.engine.call("login", "--authfile", path, *login, given=spec.password)
                yield ["pull", "--authfile", path]
            else:
                config = ["--config", str(folder)]
                self.engine.call(*config, "login", *login, given=spec.password)
                yield [*config, "pull"]
        except EngineError as error:
            raise ContainerSetupError(
                f"{spec.shown}: the registry does not take the credentials: {error}"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, spec: Spec) -> str:
        """Create and start a container of the job; returns its name."""
        name = self._container_name(spec.name)
        folders = self._folders
        command = list(spec.command)
        words = [
            *spec.options.arguments, "--name", name, *self.network_arguments(spec),
            *(word for port in spec.ports for word in ("--publish", port)),
        ]  # fmt: skip
        if spec.name:
            words += ["--entrypoint", spec.entrypoint] if spec.entrypoint else []
            words += self.volume_arguments((), spec.volumes)
            env = dict(spec.env)
            self._services[spec.name] = spec
        else:
            words += ["--workdir", str(folders.workspace), "--entrypoint", "sh"]
            words += self.volume_arguments(job_mounts(folders), spec.volumes)
            command, env = ["-c", _ALIVE], {}  # its variables come with each step
            self._job = spec
        self._made["container"].append(name)
        with self.variables(env, spec.shown) as (given, through):
            if through:
                raise ContainerSetupError(
                    f"{spec.shown}: the variable {next(iter(through))} has several lines, which "
                    "can't be given to a service"
                )
            self.engine.call(
                "create", *words, *given, *self.common_arguments(), "--pull", "never",
                spec.image, *command,
            )  # fmt: skip
        self._say(f"Start {spec.shown}: {spec.image}")
        self.engine.call("start", name)
        return name

    def network_arguments(self, spec: Spec | None = None) -> list[str]:
        """Return the options that put a container into the job's network, if it has one."""
        if spec is not None and spec.options.network:
            return ["--network", spec.options.network]
        alias = ["--network-alias", spec.name] if spec is not None and spec.name else []
        return ["--network", self.network, *alias] if self.network else []

    def labels(self) -> list[str]:
        """Return the options that tell whose something is, for all that is made."""
        return [word for label in self._labels for word in ("--label", label)]

    def common_arguments(self) -> list[str]:
        """Return the options that every container of the attempt has; they come last and win."""
        user = self._folders.user
        ids = (None, None) if user is None else (user.uid, user.gid)
        return [
            *self.labels(),
            "--env", self._mark,
            # a device node that a container made would be one on the machine as well
            "--cap-drop", "MKNOD",
            *self.engine.user_arguments(*ids),
        ]  # fmt: skip

    def own_user_arguments(self) -> list[str]:
        """Return the option that makes a step's container the job's user, where it must be.

        Steps on the machine run beside it, with a way to more rights (sudo): were it the machine's
        root, it could leave them a program of root's in a folder that both have.
        """
        user, engine = self._folders.user, self.engine
        uid, gid = (os.geteuid(), os.getegid()) if user is None else (user.uid, user.gid)
        is_free = self._folders.open or engine.rootless or engine.any_options or uid == 0
        return [] if is_free or engine.maps_users(uid) else ["--user", f"{uid}:{gid}"]

    def image_for(self, mark: str) -> tuple[str, bool]:
        """Return the name of an image that the attempt builds, and whether it has."""
        tag = f"{_LOCAL}{self._prefix}:{mark}"
        return tag, tag in self._made["image"]

    def built(self, mark: str) -> None:
        """Remove that image at the end."""
        self._made["image"].append(self.image_for(mark)[0])

    def volume_arguments(
        self, mounts: Sequence[tuple[str, str]], volumes: Sequence[Volume]
    ) -> list[str]:
        """Return the options of folders and volumes; a volume with a name is the job's own."""
        found = [f"{source}:{target}" for source, target in mounts]
        for volume in volumes:
            source = volume.source
            if source and not volume.is_path:
                source = self._volume(source)
            found.append(":".join(p for p in (source, volume.target, volume.mode) if p))
        return [word for text in found for word in ("--volume", text)]

    def _volume(self, name: str) -> str:
        own = f"{self._prefix}-{name}"
        if own not in self._made["volume"]:
            self._made["volume"].append(own)
            self.engine.call("volume", "create", *self.labels(), own)
        return own

    @contextmanager
    def variables(
        self, env: Mapping[str, str], shown: str
    ) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Yield (options that give a container its variables, what its program's environment gets).

        The file that they are in is the runner's alone and lives as long as the block.
        """
        text, through, left_out = split_variables(env)
        for name in left_out:
            self._say(f"##[warning]{shown} can't have the variable {name!r}")
        path = Path(self._folders.root, f".env-{self._next()}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                file.write(text)
            words = ["--env-file", str(path)] if text else []
            yield [*words, *(word for name in through for word in ("--env", name))], through
        finally:
            path.unlink(missing_ok=True)

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    # ----------------------------------------------------------------- steps with a container

    def name_for(self, what: str) -> str:
        """Return the name of one more container of the attempt, which `remove` removes."""
        self._guarded()
        name = f"{self._prefix}-{what}-{self._next()}"
        self._made["container"].append(name)
        return name

    def discard(self, name: str) -> None:
        """Remove a container now, whatever runs in it."""
        if name in self._made["container"]:
            self._made["container"].remove(name)
            self._remove("container", name)

    # ----------------------------------------------------------------- health

    def _wait_healthy(self, spec: Spec) -> None:
        """Wait until a service is healthy, where its image or options say how to tell."""
        name = self._container_name(spec.name)
        status = self._health(name)
        if status == "healthy":
            return
        if status:
            self._say(f"Wait until {spec.shown} is healthy")
        give_up_ms = self._clock.steady_ms() + HEALTH_MS_MAX
        waiting = threading.Event()
        while status == "starting" and self._clock.steady_ms() < give_up_ms:
            if self._is_ending():
                raise ContainerSetupError("the job is being ended", "cancel.interrupted")
            waiting.wait(_HEALTH_TURN_S)
            status = self._health(name)
        if status in ("", "healthy"):
            return
        self._say(f"##[group]Log of {spec.shown}")
        self._run(self.engine.argv("logs", "--tail", _LOG_LINES, name), {})
        self._say("##[endgroup]")
        why = {"starting": f"did not become healthy within {HEALTH_MS_MAX // 1000} s",
               "exited": "has ended"}.get(status, "is unhealthy")  # fmt: skip
        raise ContainerSetupError(f"{spec.shown} ({spec.image}) {why}: its log is above")

    def _health(self, name: str) -> str:
        """Return starting, healthy, unhealthy, exited; "" for a container without a check."""
        found = self.engine.inspect("container", name)
        test = ((found.get("Config") or {}).get("Healthcheck") or {}).get("Test") or []
        state = found.get("State") or {}
        if not state.get("Running"):
            return "exited"
        if not test or test[0] == "NONE":
            return ""
        if self.engine.kind == "podman":
            # podman leaves the checks to systemd, which is not everywhere
            with _ignored():
                self.engine.call("healthcheck", "run", name)
            state = self.engine.inspect("container", name).get("State") or {}
        health = state.get("Health") or state.get("Healthcheck") or {}
        return str(health.get("Status") or "starting").lower()

    # ----------------------------------------------------------------- what the job may read

    @property
    def env(self) -> Mapping[str, str]:
        """The variables of the container that steps run in."""
        return {} if self._job is None else self._job.env

    def context(self) -> dict[str, Value]:
        """Return `container` and `services` of the `job` context. Raises EngineError."""
        found: dict[str, Value] = {}
        if self._job is not None:
            found["container"] = {"id": self._id(""), "network": self.network}
        services: dict[str, Value] = {}
        for name in self._services:
            inspected = self.engine.inspect("container", self._container_name(name))
            ports: dict[str, Value] = dict(published(inspected))
            services[name] = {
                "id": str(inspected.get("Id", "")), "network": self.network, "ports": ports,
            }  # fmt: skip
        if services:
            found["services"] = services
        return found

    def _id(self, name: str) -> str:
        return str(self.engine.inspect("container", self._container_name(name)).get("Id", ""))

    def _container_name(self, service: str) -> str:
        """Return the name of a service's container, of the job's own for ""."""
        return f"{self._prefix}-service-{service}" if service else f"{self._prefix}-job"

    # ----------------------------------------------------------------- the end

    def remove(self) -> None:
        """Remove everything; may be repeated. What can't be is left to the runner's next start."""
        for kind in KINDS:
            names = self._made[kind]
            while names:
                self._remove(kind, names.pop())

    def _remove(self, kind: str, name: str) -> None:
        try:
            self.engine.call(*removal(self.engine, kind), name)
        except EngineError as error:
            if _GONE not in str(error).lower() and "not found" not in str(error).lower():
                logger.warning("%s %s is left to the next start: %s", kind, name, error)


def removal(engine: Engine, kind: str) -> tuple[str, ...]:
    """Return the words that remove one of `KINDS`."""
    if kind == "container":
        return engine.removal
    return (kind, "rm", *(("--force",) if kind in ("volume", "image") else ()))


@contextmanager
def _ignored() -> Iterator[None]:
    """A check that fails says so by its exit code; what it says is in the state."""
    try:
        yield
    except EngineError as error:
        logger.debug("health check: %s", error)


def published(inspected: Mapping[str, Any]) -> dict[str, str]:
    """Return the machine's port by the container's, of what `inspect` said.

    A port of tcp goes by its number alone, as on GitHub.
    """
    ports = (inspected.get("NetworkSettings") or {}).get("Ports") or {}
    found: dict[str, str] = {}
    for name, bindings in sorted(ports.items()):
        number, _, protocol = name.partition("/")
        if bindings:
            found[number if protocol == "tcp" else name] = str(bindings[0].get("HostPort", ""))
    return found


def remove_leftovers(engine: Engine, mark: str) -> int:
    """Remove what an earlier boot of the runner left with the engine; returns how many.

    Called at the start, when nothing of this runner may run.
    """
    removed = 0
    labelled = f"label={RUNNER_LABEL}={mark}"
    for kind, listing in (
        ("container", ("ps", "--all", "--quiet", "--no-trunc")),
        ("network", ("network", "ls", "--quiet")),
        ("volume", ("volume", "ls", "--quiet")),
        ("image", ("images", "--quiet", "--no-trunc")),
    ):
        try:
            names = engine.call(*listing, "--filter", labelled).split()
        except EngineError as error:
            logger.warning("what an earlier boot left can't be listed: %s", error)
            continue
        for name in dict.fromkeys(names):
            try:
                engine.call(*removal(engine, kind), name)
            except EngineError as error:
                logger.warning("%s of an earlier boot can't be removed: %s", name, error)
            else:
                removed += 1
    if removed:
        logger.warning("removed %d containers, networks and images of an earlier boot", removed)
    return removed
