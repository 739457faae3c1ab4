"""What a workflow may ask of the engine: options, volumes, ports. Pure.

`options` are those of the engine's `create`. An option that is not known to stay within the
container is refused, so that one that an engine adds tomorrow is refused too.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from schemas.late import dataclass

#: Options with a value that stay within the container.
_VALUES = frozenset(
    {
        "--add-host", "--attach", "--blkio-weight", "--cap-drop", "--cpu-period", "--cpu-quota",
        "--cpu-shares", "--cpus", "--cpuset-cpus", "--cpuset-mems", "--dns", "--dns-option",
        "--dns-search", "--domainname", "--expose", "--health-cmd", "--health-interval",
        "--health-retries", "--health-start-interval", "--health-start-period",
        "--health-timeout", "--hostname", "--label", "--mac-address", "--memory",
        "--memory-reservation", "--memory-swap", "--memory-swappiness", "--network-alias",
        "--pids-limit", "--platform", "--shm-size", "--stop-signal", "--stop-timeout", "--tmpfs",
        "--ulimit", "--user", "--workdir",
    }
)  # fmt: skip
#: Options without one. `--rm` and `--detach` are what happens anyway.
_FLAGS = frozenset(
    {"--init", "--interactive", "--no-healthcheck", "--read-only", "--tty", "--rm", "--detach"}
)
_DROPPED = frozenset({"--rm", "--detach", "--interactive", "--tty", "--attach"})
_SHORT = {
    "-a": "--attach", "-c": "--cpu-shares", "-d": "--detach", "-e": "--env", "-h": "--hostname",
    "-i": "--interactive", "-l": "--label", "-m": "--memory", "-t": "--tty", "-u": "--user",
    "-v": "--volume", "-w": "--workdir", "-p": "--publish",
}  # fmt: skip
_ALIASES = {"--net": "--network", "--net-alias": "--network-alias", "--dns-opt": "--dns-option"}
_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL",
        "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
        "SYS_NICE", "SYS_PTRACE",
    }
)  # fmt: skip
_SECURITY = frozenset({"no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"})
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VOLUME_MODES = frozenset({"ro", "rw", "z", "Z", "nocopy", "delegated", "cached", "consistent"})
_PORT = re.compile(
    r"(?:(?:(?P<host>\d{1,5})?:)?)(?P<inside>\d{1,5})(?:/(?P<protocol>tcp|udp|sctp))?"
)
_PORT_MAX = 65_535
_WAY_OUT = "the runner's setting container_options=any allows it"


class OptionError(ValueError):
    """The workflow asks for what it may not have, or what can't be read; the text says which."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume: `source` is "" for one without a name, a name, or an absolute path."""

    source: str
    target: str
    mode: str = ""

    @property
    def is_path(self) -> bool:
        """Say whether it is a folder of the machine."""
        return self.source.startswith("/")


@dataclass(frozen=True, slots=True)
class Options:
    """Options that were read: `arguments` for the engine, and what it gets in our own way."""

    arguments: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    ports: tuple[str, ...] = ()
    network: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


def read_options(text: str, *, is_job: bool, any_options: bool) -> Options:
    """Return the options of a container. Raises OptionError.

    `is_job` is the container that steps run in: it is kept alive by a command of the runner's, so
    that it takes no entry point.
    """
    arguments: list[str] = []
    volumes: list[Volume] = []
    ports: list[str] = []
    network = ""
    env: dict[str, str] = {}
    for name, value in _pairs(text):
        if name == "--volume" and value is not None:
            volumes.append(read_volume(value))
        elif name == "--publish" and value is not None:
            ports.append(value)
        elif name == "--name" and value is not None:
            # names are the machine's: beside the job's others it is called so
            arguments += ["--network-alias", value]
        elif name == "--entrypoint" and is_job:
            raise OptionError("--entrypoint is not supported for a job's container, as on GitHub")
        elif name == "--network" and value is not None:
            if not any_options:
                raise OptionError(
                    "--network is not supported, as on GitHub: each job has a network of its own "
                    f"({_WAY_OUT})"
                )
            network = value
        elif name == "--env":
            # by file with the others: an argument is there for every user of the machine to read
            env.update([_variable(value or "")])
        elif name not in _DROPPED:
            _check(name, value, any_options=any_options)
            arguments += [name] if value is None else [name, value]
    return Options(tuple(arguments), tuple(volumes), tuple(ports), network, env)


def _variable(text: str) -> tuple[str, str]:
    name, is_given, value = text.partition("=")
    if not is_given or not name:  # a name alone stands for a variable of the runner's
        raise OptionError(f"--env {text} lacks its name or value: write --env NAME=value")
    return name, value


def _pairs(text: str) -> Iterator[tuple[str, str | None]]:
    """Take the text apart into (long name, value or None for a flag)."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise OptionError(f"can't be read: {error}") from error
    waiting = iter(words)
    for word in waiting:
        name, is_joined, value = word.partition("=")
        if not name.startswith("-") or name in ("-", "--"):
            raise OptionError(f"{word!r} is no option")
        if not name.startswith("--"):
            if len(name) > 2 and name[:2] in _SHORT:  # noqa: PLR2004 - "-u1000"
                name, is_joined, value = name[:2], "=", word[2:].removeprefix("=")
                if _SHORT[name] in _FLAGS:
                    yield from _cluster(word)
                    continue
            name = _SHORT.get(name, name)
        name = _ALIASES.get(name, name)
        if is_joined:
            yield (name, None) if name in _FLAGS and value == "true" else (name, value)
        elif name in _FLAGS or name in _OTHER_FLAGS:
            yield name, None
        else:
            following = next(waiting, None)
            if following is None:
                raise OptionError(f"{word} lacks its value")
            yield name, following


#: Flags that are refused, but must not swallow the word that follows.
_OTHER_FLAGS = frozenset({"--privileged", "--oom-kill-disable", "--publish-all", "-P", "--help"})


def _cluster(word: str) -> Iterator[tuple[str, None]]:
    """Read `-it`."""
    for letter in word[1:]:
        name = _SHORT.get(f"-{letter}", f"-{letter}")
        if name not in _FLAGS:
            raise OptionError(f"{word!r} can't be read: write its options apart")
        yield name, None


def _check(name: str, value: str | None, *, any_options: bool) -> None:
    if any_options or name in _FLAGS or name in _VALUES or name == "--entrypoint":
        return
    shown = name if value is None else f"{name} {value}"
    if name == "--cap-add" and value is not None:
        wanted = value.upper().removeprefix("CAP_")
        if wanted in _CAPABILITIES:
            return
        raise OptionError(f"{shown} is refused: it reaches beyond the container ({_WAY_OUT})")
    if name == "--security-opt" and value in _SECURITY:
        return
    raise OptionError(f"{shown} is refused: it may reach beyond the container ({_WAY_OUT})")


def read_volume(text: str) -> Volume:
    """Return `[source:]target[:mode]`. Raises OptionError."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 1 and not parts[-1].startswith("/") else ""
    if any(part not in _VOLUME_MODES for part in mode.split(",") if part):
        raise OptionError(f"volume {text!r}: {mode!r} is no mode; expected ro or rw")
    if len(parts) == 1:
        volume = Volume("", parts[0], mode)
    elif len(parts) == 2:  # noqa: PLR2004
        volume = Volume(parts[0], parts[1], mode)
    else:
        raise OptionError(f"volume {text!r}: expected source:target, or a target alone")
    if not volume.target.startswith("/"):
        raise OptionError(f"volume {text!r}: the place in the container must begin with /")
    if volume.source and not volume.is_path and not _VOLUME_NAME.fullmatch(volume.source):
        raise OptionError(f"volume {text!r}: the source must be a name or an absolute path")
    return volume


def check_volume(volume: Volume, own: Sequence[str], *, any_options: bool) -> None:
    """Refuse a folder of the machine that is not itself one of the job's `own`.

    Nothing within them is accepted: the engine follows links, and a service that was started
    before may have left one there that leads anywhere.
    """
    if not volume.is_path or any_options or volume.source in own:
        return
    raise OptionError(
        f"volume {volume.source}:{volume.target} is refused: a container gets no folders of the "
        f"machine but the job's own as a whole, as ${{{{ github.workspace }}}} ({_WAY_OUT})"
    )


def port_argument(text: str) -> str:
    """Return `--publish`'s value for `80`, `8080:80` or `53/udp`: on loopback. Raises OptionError.

    A port that is not named is the engine's choice.
    """
    found = _PORT.fullmatch(text.strip())
    if found is None or not all(
        0 < int(number) <= _PORT_MAX for number in (found["host"], found["inside"]) if number
    ):
        raise OptionError(
            f"port {text!r} can't be read: expected a number, host:container, or either with "
            "/tcp or /udp"
        )
    return f"127.0.0.1:{found['host'] or ''}:{found['inside']}/{found['protocol'] or 'tcp'}"
