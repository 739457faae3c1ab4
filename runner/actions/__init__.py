"""What `uses:` can name: the registry of actions, and the contract of one.

An action is built in (`checkout`) or, later, read from the workspace or fetched by commit; all
come from `find`, so that the attempt knows no action by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from runner.executors import Command, Workplace
from runner.folders import JobFolders
from runner.gateway_client import Clone
from runner.masking import Masker
from runner.mirrors import Mirrors
from runner.pump import Ending
from runner.steps import Ready, StepEnd
from schemas.workflow.expressions.values import Value


class ActionError(Exception):
    """The action can't do what was asked; the message is for the step's log.

    `reason` is the code beside the step's failure.
    """

    def __init__(self, message: str, reason: str = "user.action_failed") -> None:
        """Fail the step with `reason`."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionContext:
    """What an action works with.

    `run(argv, cwd, extra environment, descriptors)` starts a process as the job's user, its output
    in the step's log; `clone` asks for a repository's URL and credential, just in time.
    """

    step: Ready
    env: Mapping[str, str]
    folders: JobFolders
    workplace: Workplace
    github: Mapping[str, Value]
    masker: Masker
    mirrors: Mirrors
    clone: Callable[[str], Clone]
    say: Callable[[str], None]
    run: Callable[[Command], Ending]
    command: Callable[..., Command]


class Action(Protocol):
    """Something that a step can use."""

    def run(self, context: ActionContext) -> StepEnd:
        """Do it. Raises ActionError; whatever processes raise goes through."""
        ...

    def post(self, context: ActionContext, payload: object) -> StepEnd:
        """Do what `run` asked for after the job's steps."""
        ...


def find(uses: str) -> Action:
    """Return the action that `uses` names. Raises ActionError when there is none."""
    from runner.actions.checkout import Checkout

    name, _, _ = uses.partition("@")
    built_in: dict[str, Callable[[], Action]] = {"actions/checkout": Checkout}
    make = built_in.get(name.lower())
    if make is None:
        raise ActionError(
            f"this runner can't run the action {uses!r}: built in are "
            f"{', '.join(sorted(built_in))}; replace it by a `run` step",
            reason="user.unsupported_action",
        )
    return make()
