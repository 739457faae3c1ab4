"""What `uses:` can name: the registry of actions, and the contract of one.

An action is built in, read from the workspace (`./path`), or fetched by commit; all come from
`find`, so that the attempt knows no action by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from runner.composite_machine import CompositeMachine
from runner.depot import Depot
from runner.executors import Command, Workplace
from runner.executors.containers.job import JobContainers
from runner.folders import JobFolders
from runner.gateway_client import Clone
from runner.masking import Masker
from runner.mirrors import Mirrors
from runner.pump import Ending
from runner.steps import Ended, Ready, StepEnd, StepMachine
from schemas.late import dataclass
from schemas.workflow.action_file import ActionPlan
from schemas.workflow.expressions.values import Value

_LOCAL = ("./", ".\\")
_DOCKER = "docker://"


class ActionError(Exception):
    """The action can't do what was asked; the message is for the step's log.

    `reason` is the code beside the step's failure.
    """

    def __init__(self, message: str, reason: str = "user.action_failed") -> None:
        """Fail the step with `reason`."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An action that was read from a file: what it is, and where its folder is for the job.

    `repository`, `ref` and `sha` are empty for one of the workspace.
    """

    uses: str
    plan: ActionPlan
    folder: str
    repository: str = ""
    ref: str = ""
    sha: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action works with.

    `run(command(...))` runs a process as the job's user, its output in the step's log, and
    `ended` makes a StepEnd of that; `clone` asks for a repository's URL and credential, just in
    time; `run_steps` runs a composite action's; `fetch` brings a remote action. What takes its
    time without a process calls `check` now and then, which raises once the job is ended.
    `serial` is a number of this step's own within the attempt, `state` what earlier stages of it
    saved. `bare_env` is `env` without what the machine adds, for a container of the step's own;
    `containers` is None on a runner without an engine.
    """

    step: Ready
    serial: int
    env: Mapping[str, str]
    bare_env: Mapping[str, str]
    state: Mapping[str, str]
    machine: StepMachine
    folders: JobFolders
    workplace: Workplace
    github: Mapping[str, Value]
    masker: Masker
    mirrors: Mirrors
    depot: Depot
    containers: JobContainers | None
    clone: Callable[[str], Clone]
    fetch: Callable[[str], Source]
    check: Callable[[], None]
    say: Callable[[str], None]
    run: Callable[[Command], Ending]
    ended: Callable[[Ending], StepEnd]
    run_steps: Callable[[CompositeMachine], Ended]
    command: Callable[..., Command]


class Action(Protocol):
    """Something that a step can use; the payload of a `Hook` is one too."""

    def run(self, context: ActionContext) -> StepEnd:
        """Do it. Raises ActionError; whatever processes raise goes through."""
        ...


def built_in(uses: str) -> Action | None:
    """Return the action that this runner brings along under that name, of whatever version."""
    from runner.actions.artifacts import DownloadArtifact, UploadArtifact
    from runner.actions.cache import Cache, RestoreCache, SaveCache
    from runner.actions.checkout import Checkout

    known: dict[str, Callable[[], Action]] = {
        "actions/checkout": Checkout,
        "actions/upload-artifact": UploadArtifact,
        "actions/download-artifact": DownloadArtifact,
        "actions/cache": Cache,
        "actions/cache/restore": RestoreCache,
        "actions/cache/save": SaveCache,
    }
    make = known.get(uses.partition("@")[0].lower())
    return make() if make is not None else None


def brings_steps(uses: str) -> bool:
    """Say whether `uses` names an action with a file of its own, in the workspace or elsewhere."""
    return built_in(uses) is None and not uses.startswith(_DOCKER)


def is_remote(uses: str) -> bool:
    """Say whether `uses` names an action of another repository that is not built in."""
    return brings_steps(uses) and uses != "." and not uses.startswith(_LOCAL)


def find(uses: str, context: ActionContext) -> Action:
    """Return the action that `uses` names. Raises ActionError when there is none."""
    from runner.actions.composite import Composite
    from runner.actions.container import ContainerAction
    from runner.actions.javascript import Javascript
    from runner.actions.local import read_local

    action = built_in(uses)
    if action is not None:
        return action
    if uses.startswith(_DOCKER):
        plan = ActionPlan(path=uses, using="docker", image=uses)
        return ContainerAction(Source(uses=uses, plan=plan, folder=""))
    source = context.fetch(uses) if is_remote(uses) else read_local(uses, context.folders)
    match source.plan.using:
        case "composite":
            return Composite(source)
        case "node":
            return Javascript(source)
        case _:
            return ContainerAction(source)


def no_containers(uses: str) -> ActionError:
    """Return why an action that needs a container can't be run."""
    return ActionError(
        f"the action {uses!r} runs in a container, and this runner has no container engine: use "
        "an action that runs on the machine (composite or node), or a `run` step",
        reason="user.unsupported_action",
    )
