"""How a `run:` script becomes a command: GitHub's shell rules. Pure.

Source of the rules: GitHub's workflow syntax, `jobs.<job_id>.steps[*].shell`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from schemas.late import dataclass

#: shell -> (the command's template, the script's suffix, lines put before and after the script)
_BUILT_IN: dict[str, tuple[str, str, str, str]] = {
    "bash": ("bash --noprofile --norc -e -o pipefail {0}", ".sh", "", ""),
    "sh": ("sh -e {0}", ".sh", "", ""),
    "python": ("python {0}", ".py", "", ""),
    "node": ("node {0}", ".js", "", ""),
    "pwsh": (
        "pwsh -command \". '{0}'\"",
        ".ps1",
        "$ErrorActionPreference = 'stop'\n",
        "\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit $LASTEXITCODE }\n",
    ),
}
_UNSPECIFIED = "bash -e {0}"
_PLACE = "{0}"


class ShellError(ValueError):
    """`shell:` names no shell: use a built-in one or a command that contains `{0}`."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the command that runs it; `{0}` in `argv` stands for the script's path."""

    argv: tuple[str, ...]
    suffix: str
    text: str
    shown: str

    def command(self, path: str) -> list[str]:
        """Return the argv with the script's path in its place."""
        return [part.replace(_PLACE, path) for part in self.argv]


def script_for(
    text: str, shell: str | None, exists: Callable[[str], bool], *, in_container: bool = False
) -> Script:
    """Return how to run `text`; `exists` says whether a program is on the job's PATH.

    A step in a container that names no shell gets `sh`, even where there is a bash.
    Raises ShellError for a `shell:` that is neither built in nor a template.
    """
    if not shell or not shell.strip():
        has_bash = exists("bash") and not in_container
        template = _UNSPECIFIED if has_bash else "sh -e {0}"
        return Script(tuple(shlex.split(template)), ".sh", text, template)
    built_in = _BUILT_IN.get(shell.strip())
    if built_in is not None:
        template, suffix, before, after = built_in
        argv = shlex.split(template)
        if argv[0] == "python" and not exists("python") and exists("python3"):
            argv[0] = "python3"
        return Script(tuple(argv), suffix, f"{before}{text}{after}", template)
    if _PLACE not in shell:
        raise ShellError(
            f"shell {shell!r} is not built in ({', '.join(sorted(_BUILT_IN))}); "
            "a command of your own must contain {0}, the place of the script's path"
        )
    try:
        argv = shlex.split(shell)
    except ValueError as error:
        raise ShellError(f"shell {shell!r}: {error}") from error
    known = _BUILT_IN.get(argv[0].rpartition("/")[2])
    return Script(tuple(argv), known[1] if known else "", text, shell)
