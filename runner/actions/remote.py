"""Actions of other repositories: `uses: owner/repository[/path]@ref`.

All that a job names are fetched before its first step, so that an action that can't be had fails
the job at once and `pre` scripts come first, as on GitHub. A ref is looked up once a job, and the
commit that it names then is what runs; commits are kept in mirrors that all jobs share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.actions import ActionError, Source, is_remote, no_containers
from runner.actions.container import ContainerStage
from runner.actions.javascript import Stage
from runner.actions.local import DOCKERFILES, read_plan
from runner.executors import Command, Workplace
from runner.gateway_client import Clone
from runner.mirrors import MirrorError, Mirrors, local_path
from runner.pump import Ending
from runner.steps import Hook, StepMachine, display_name
from schemas.late import dataclass
from schemas.workflow.action_file import FILE_NAMES, ActionPlan
from schemas.workflow.errors import ExpressionError
from schemas.workflow.plan import StepPlan
from schemas.workflow.reader import BYTES_MAX

_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)(?P<path>/[^@\s]*)?@(?P<ref>\S+)"
)
_DEPTH_MAX = 10
_UNREACHABLE = "infra.action_download"


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A remote action's name, taken apart; `path` is "" for the repository's top."""

    repository: str
    path: str
    ref: str


def read_name(uses: str) -> Name:
    """Return the parts of `uses`. Raises ActionError."""
    found = _NAME.fullmatch(uses)
    path = (found["path"] or "").strip("/") if found else ""
    if found is None or ".." in (*found["repository"].split("/"), *path.split("/")):
        raise ActionError(
            f"{uses!r} names no action: expected owner/repository@ref or owner/repository/path@ref",
            "user.bad_action",
        )
    return Name(repository=found["repository"], path=path, ref=found["ref"])


class RemoteActions:
    """Where remote actions come from; one for all jobs of a runner."""

    def __init__(self, url: str, mirrors: Mirrors) -> None:
        """Take repositories below `url`; `mirrors` keeps what was fetched."""
        self.url = url.rstrip("/")
        self.mirrors = mirrors

    def clone(self, repository: str) -> Clone:
        """Return where a repository is."""
        url = f"{self.url}/{repository}"
        folder = local_path(url)
        if folder is not None and not folder.is_dir():
            url += ".git"
        return Clone(url)

    def fetch(self, name: Name) -> tuple[Path, str]:
        """Return a mirror that has the commit, and the commit. Raises ActionError."""
        clone = self.clone(name.repository)
        try:
            sha = self.mirrors.resolve(clone, name.ref).sha
            return self.mirrors.prepare(clone, sha, depth=1), sha
        except MirrorError as error:
            raise ActionError(
                f"can't get the action {name.repository}@{name.ref} from {clone.url}: {error}; "
                "check its name, and that this machine reaches the place (setting `actions_url`)",
                _UNREACHABLE,
            ) from error


class Fetcher:
    """Brings remote actions for one attempt."""

    def __init__(
        self,
        remote: RemoteActions,
        workplace: Workplace,
        *,
        say: Callable[[str], None],
        run: Callable[[Command], Ending],
        command: Callable[..., Command],
        has_engine: bool,
    ) -> None:
        """Unpack below the attempt's folder of actions, as the job's user."""
        self._remote = remote
        self._folders = workplace.folders
        self._say = say
        self._run = run
        self._command = command
        self._has_engine = has_engine
        self._sources: dict[str, Source] = {}
        self._commits: dict[tuple[str, str], tuple[Path, str]] = {}
        self._unpacked: dict[str, str] = {}

    def source(self, uses: str) -> Source:
        """Return a remote action, unpacked. Raises ActionError."""
        found = self._sources.get(uses)
        if found is None:
            found = self._sources[uses] = self._fetch(uses)
        return found

    def hooks(self, machine: StepMachine) -> tuple[Hook, ...]:
        """Bring all that a job's steps name; returns the `pre` scripts of its JavaScript actions.

        An action that only a composite one names is brought too, its `pre` is not run.
        """
        hooks: list[Hook] = []
        for index, step in enumerate(machine.job.steps):
            if step.uses is None or not is_remote(step.uses):
                continue
            source = self.source(step.uses)
            if source.plan.using == "docker" and not self._has_engine:
                raise no_containers(step.uses)
            if source.plan.using == "composite":
                self._bring(source.plan.steps, 1)
            elif source.plan.pre:
                hooks.append(_pre_hook(machine, step, source, key=str(index)))
        return tuple(hooks)

    def _bring(self, steps: Sequence[StepPlan], depth: int) -> None:
        for step in steps:
            if step.uses is not None and is_remote(step.uses) and depth < _DEPTH_MAX:
                self._bring(self.source(step.uses).plan.steps, depth + 1)

    def _fetch(self, uses: str) -> Source:
        name = read_name(uses)
        known = (name.repository, name.ref)
        if known not in self._commits:
            self._commits[known] = self._remote.fetch(name)
            sha = self._commits[known][1]
            self._say(f"Download action repository '{name.repository}@{name.ref}' (SHA:{sha})")
        mirror, sha = self._commits[known]
        prefix = f"{name.path}/" if name.path else ""
        for file in FILE_NAMES:
            data = self._remote.mirrors.read_file(mirror, sha, f"{prefix}{file}", BYTES_MAX + 1)
            if data is not None:
                plan = read_plan(data, f"{name.repository}/{prefix}{file}@{name.ref}")
                return self._source_of(uses, name, plan, mirror, sha)
        for file in DOCKERFILES:
            if self._remote.mirrors.read_file(mirror, sha, f"{prefix}{file}", 1) is not None:
                plan = ActionPlan(path=f"{uses}: {file}", using="docker", image=file)
                return self._source_of(uses, name, plan, mirror, sha)
        raise ActionError(
            f"{uses}: there is no {' or '.join(FILE_NAMES)} and no Dockerfile at {sha}",
            "user.bad_action",
        )

    def _source_of(self, uses: str, name: Name, plan: ActionPlan, mirror: Path, sha: str) -> Source:
        folder = f"{self._folder(name, mirror, sha)}/{name.path}".rstrip("/")
        return Source(
            uses=uses, plan=plan, folder=folder, repository=name.repository, ref=name.ref, sha=sha
        )

    def _folder(self, name: Name, mirror: Path, sha: str) -> str:
        """Return the folder of a commit, unpacked once an attempt."""
        known = self._unpacked.get(f"{name.repository}@{sha}")
        if known is not None:
            return known
        folder = f"{self._folders.actions}/{name.repository.replace('/', '_')}/{sha}"
        script = 'mkdir -p "$1" && cd "$1" && exec tar -xof -'
        with self._remote.mirrors.archive(mirror, sha) as stream:
            ending = self._run(
                self._command(argv=["sh", "-c", script, "unpack", folder], fds={0: stream.fileno()})
            )
        if ending.code != 0:
            raise ActionError(f"{name.repository}@{sha} can't be unpacked", _UNREACHABLE)
        self._unpacked[f"{name.repository}@{sha}"] = folder
        return folder


def _pre_hook(machine: StepMachine, step: StepPlan, source: Source, *, key: str) -> Hook:
    inputs: dict[str, str] = {}
    for name, text in step.with_.items():
        try:
            inputs[name] = machine.evaluate(str(text))
        except ExpressionError:  # what steps before it are to give is not there yet
            inputs[name] = ""
    stage = ContainerStage if source.plan.using == "docker" else Stage
    return Hook(
        name=f"Pre {display_name(step)}",
        condition=source.plan.pre_if,
        payload=stage(source, source.plan.pre, None, given=inputs),
        key=key,
        step_id=step.id,
    )
