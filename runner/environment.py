"""What a job's processes see: variables by allow-list, GitHub's defaults, contexts. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.late import dataclass
from schemas.workflow.command_files import prepended
from schemas.workflow.contexts import DEFAULT_ENVIRONMENT
from schemas.workflow.expressions.values import Value, to_string

#: What a job gets of the runner's own environment; everything else stays behind.
ALLOWED = frozenset({"LANG", "LANGUAGE", "TZ", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES",
                     "LC_MONETARY", "LC_NUMERIC", "LC_TIME", "SSL_CERT_FILE", "SSL_CERT_DIR",
                     "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
                     "no_proxy", "JAVA_HOME"})  # fmt: skip
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Marks every process of a runner's jobs, so that a later boot finds what a crash left behind.
MARKER = "TAILRACE_JOB"
_FILES = ("ENV", "OUTPUT", "PATH", "STATE", "STEP_SUMMARY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders of an attempt as its processes see them."""

    workspace: str
    temp: str
    home: str
    tmp: str
    tool_cache: str
    event_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFacts:
    """What a job may know of its runner."""

    name: str
    arch: str
    debug: bool = False
    retention_days: int = 90


def inherited(environ: Mapping[str, str], *, own_programs: str | None = None) -> dict[str, str]:
    """Return what a job gets of the runner's environment.

    `own_programs` is the folder of the runner's own virtual environment: its programs and
    packages are none of the job's.
    """
    found = {name: environ[name] for name in sorted(ALLOWED) if environ.get(name)}
    folders = [
        folder
        for folder in environ.get("PATH", SYSTEM_PATH).split(":")
        if folder and folder != own_programs
    ]
    found["PATH"] = ":".join([*folders, *(f for f in SYSTEM_PATH.split(":") if f not in folders)])
    found.setdefault("LANG", "C.UTF-8")
    return found


def github_context(
    given: Mapping[str, Value], *, job_id: str, places: Places, facts: RunnerFacts, token: str = ""
) -> dict[str, Value]:
    """Return the `github` context of a job: what came with it and what only its runner knows."""
    found: dict[str, Value] = {
        "job": job_id,
        "workspace": places.workspace,
        "event_path": places.event_path,
        "token": token,
        "retention_days": str(facts.retention_days),
    }
    return {**found, **{k: v for k, v in given.items() if v is not None},
        "workspace": places.workspace,
        "event_path": places.event_path,
        "token": token
    }  # fmt: skip


def runner_context(facts: RunnerFacts, places: Places, *, debug: bool = False) -> dict[str, Value]:
    """Return the `runner` context; `debug` says that this job shall tell more."""
    found: dict[str, Value] = {
        "name": facts.name,
        "os": "Linux",
        "arch": facts.arch,
        "environment": "self-hosted",
        "temp": places.temp,
        "tool_cache": places.tool_cache,
        "workspace": places.workspace,
    }
    if facts.debug or debug:
        found["debug"] = "1"
    return found


def default_variables(
    github: Mapping[str, Value], runner: Mapping[str, Value], *, action: str
) -> dict[str, str]:
    """Return GITHUB_*, RUNNER_* and CI for a step; `action` is the step's id."""
    contexts = {"github": {**github, "action": action}, "runner": runner}
    found = {"CI": "true", "GITHUB_ACTIONS": "true"}
    for name, source in {**DEFAULT_ENVIRONMENT, "RUNNER_WORKSPACE": "runner.workspace"}.items():
        if source is None:
            continue
        context, _, key = source.partition(".")
        value = contexts[context].get(key)
        if value is not None:
            found[name] = to_string(value)
    return found


def file_variables(paths: Mapping[str, str]) -> dict[str, str]:
    """Return GITHUB_ENV and its relatives; `paths` is by the name without `GITHUB_`."""
    return {f"GITHUB_{name}": paths[name] for name in _FILES}


def file_contexts(paths: Mapping[str, str]) -> dict[str, str]:
    """Return what `github` says of the command files: `github.env`, `github.path` and so on."""
    return {name.lower(): paths[name] for name in _FILES}


FILE_NAMES = _FILES


def step_variables(
    base: Mapping[str, str],
    own: Mapping[str, str],
    defaults: Mapping[str, str],
    paths: tuple[str, ...],
) -> dict[str, str]:
    """Return the whole environment of a step.

    `own` are the workflow's, job's and step's variables: they can't change GITHUB_* and RUNNER_*,
    as on GitHub; CI they can. `paths` were added by GITHUB_PATH, the last one first.
    """
    found = {**base, "CI": "true", **own, **{k: v for k, v in defaults.items() if k != "CI"}}
    if paths:
        found["PATH"] = search_path(found.get("PATH", SYSTEM_PATH), paths)
    return {name: value for name, value in found.items() if _is_name(name)}


def search_path(path: str, added: tuple[str, ...]) -> str:
    """Return a PATH with the folders that GITHUB_PATH added before it, the last one first."""
    if not added:
        return path
    folders = tuple(folder for folder in path.split(":") if folder)
    return ":".join(prepended(folders, tuple(reversed(added))))


def _is_name(name: str) -> bool:
    return bool(name) and "=" not in name and "\0" not in name
