"""How a process is started in a container: a script of its own, and variables by file. Pure.

Nothing of a job's variables ever is in an argument on the machine, where every user can read it.
Steps in the job's container have theirs from the script. Services and actions that are containers
have theirs from an env file; a value of several lines, which such a file can't hold, goes through
the environment of the engine's program, which runs with the runner's rights: not under a name that
it, its libraries or its helpers might listen to.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What a shell won't set, or what starting the process would change.
_READ_ONLY = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "PPID", "UID", "EUID", "GROUPS", "IFS",
                        "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "OPTIND"})  # fmt: skip
#: Variables that the engine's program, its libraries or its helpers listen to; those that begin
#: with _ are what programs like it tell themselves when they start again in another namespace.
_HEARD = re.compile(
    r"(?i)(LD|LC|GLIBC|MALLOC|GO|DOCKER|CONTAINER|CONTAINERS|PODMAN|BUILDAH|BUILDKIT|STORAGE|"
    r"REGISTRY|REGISTRIES|XDG|SSL|DBUS|SYSTEMD|NOTIFY|LISTEN|CNI|NETAVARK|AARDVARK|RES|NSS|TZ|TMP|"
    r"TEMP|HTTP|HTTPS|ALL|NO|FTP|OTEL|TAILRACE)(_.*|DIR|DEBUG|\Z)|PATH|HOME|USER|SHELL|ENV|"
    r"BASH_.*|IFS|PS4|LANG|LANGUAGE|NLSPATH|GCONV_PATH|LOCPATH|HOSTALIASES|LOCALDOMAIN|"
    r"GETCONF_DIR|RESOLV.*|CDPATH|TERM.*|_.*"
)


def launch_script(
    argv: Sequence[str], env: Mapping[str, str], cwd: str, pid_path: str, *, keep_modes: bool
) -> str:
    """Return a `sh` script that becomes the process.

    It writes its pid, which is that of the process group too, to `pid_path`: signals go there.
    With `keep_modes` False what the process makes is open to the machine's side of the job.
    """
    lines = [
        f"export {name}={shlex.quote(value)}"
        for name, value in env.items()
        if _NAME.fullmatch(name) and name not in _READ_ONLY
    ]
    odd = [f"{name}={value}" for name, value in env.items() if not _NAME.fullmatch(name)]
    if not keep_modes:
        lines.append("umask 0")
    missing = f"Working directory {cwd} does not exist or can't be entered in the container."
    lines += [
        f"cd {shlex.quote(cwd)} 2>/dev/null || {{ echo {shlex.quote(missing)} >&2; exit 1; }}",
        f"echo $$ >{shlex.quote(pid_path)}",
        # `env` for names that a shell can't export, as those of inputs with a dash
        f"exec {shlex.join([*(['env', *odd] if odd else []), *argv])}",
    ]
    return "\n".join(lines) + "\n"


def split_variables(env: Mapping[str, str]) -> tuple[str, dict[str, str], list[str]]:
    """Return (text of an env file, variables for the program's own environment, what is left out).

    An env file has one line a variable. A value of several lines goes through the environment of
    the engine's program, unless that would listen to it.
    """
    lines: list[str] = []
    through: dict[str, str] = {}
    left_out: list[str] = []
    for name, value in env.items():
        if not name or "\n" in name or "=" in name or name.startswith("#") or "\0" in value:
            left_out.append(name)
        elif "\n" not in value and "\r" not in value:
            lines.append(f"{name}={value}\n")
        elif _HEARD.fullmatch(name):
            left_out.append(name)
        else:
            through[name] = value
    return "".join(lines), through, left_out
