"""Whether a workflow runs for what has happened, and with which inputs."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.late import dataclass
from schemas.workflow.events import EVENTS
from schemas.workflow.expressions.values import Value, is_number, parse_number, to_string
from schemas.workflow.filters import (
    ignores_paths,
    ignores_ref,
    matches_paths,
    matches_refs,
)
from schemas.workflow.plan import EventPlan, InputPlan, Triggers

_SKIP_WORDS = ("[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]")
_SKIP_TRAILERS = frozenset({"skip-checks:true", "skip-checks: true"})
_SKIPPABLE = frozenset({"push", "pull_request"})
_HEADS, _TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """Something that happened in a repository.

    `ref` is a full name. `base_ref` is the branch that a pull request or merge group goes to;
    `head_ref` the one it comes from, or that of the finished run of a workflow_run. Changed paths
    of None mean that they are not known: the workflow runs.
    """

    event: str
    action: str | None = None
    ref: str = ""
    base_ref: str | None = None
    head_ref: str | None = None
    changed_paths: tuple[str, ...] | None = None
    inputs: Mapping[str, Value] | None = None
    schedule: str | None = None
    workflow_name: str | None = None
    commit_message: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class TriggerDecision:
    """Whether a workflow runs, and the reason in words for the log."""

    runs: bool
    reason: str


def match(on: Triggers, trigger: Trigger) -> TriggerDecision:
    """Decides whether a workflow with these triggers runs."""
    event = on.event(trigger.event)
    if event is None:
        return TriggerDecision(runs=False, reason=f"on: does not list {trigger.event}")
    reason = (
        _skipped(trigger)
        or _unwanted_type(event, trigger)
        or _unwanted_schedule(on, trigger)
        or _unwanted_source(event, trigger)
        or _unwanted_ref(event, trigger)
        or _unwanted_paths(event, trigger)
    )
    if reason:
        return TriggerDecision(runs=False, reason=reason)
    action = f" ({trigger.action})" if trigger.action else ""
    return TriggerDecision(runs=True, reason=f"on: lists {trigger.event}{action}")


def skips_ci(commit_message: str) -> bool:
    """Whether a commit message asks for no workflows: `[skip ci]` and the like, or the trailer.

    The trailer is the message's last line, and an empty line parts its section from the rest.
    GitHub's documentation speaks of two; `git commit` makes them one, so one has to be enough.
    """
    lower = commit_message.lower()
    if any(word in lower for word in _SKIP_WORDS):
        return True
    before, blank, trailers = lower.replace("\r\n", "\n").rstrip().rpartition("\n\n")
    return bool(before and blank) and trailers.rpartition("\n")[2].strip() in _SKIP_TRAILERS


def _skipped(trigger: Trigger) -> str:
    if trigger.deleted and trigger.event == "push":
        return "the push deleted the ref"
    message = trigger.commit_message
    if trigger.event in _SKIPPABLE and message is not None and skips_ci(message):
        return "the commit message asks to skip workflows"
    return ""


def _unwanted_type(event: EventPlan, trigger: Trigger) -> str:
    rule = EVENTS.get(event.event)
    if trigger.action is None:
        return ""
    types: tuple[str, ...] | None = event.types or (rule.default_types if rule else None)
    if types:
        listed = trigger.action in types
        said = f"is not one of {', '.join(types)}"
    else:
        # forges send more than starts workflows: a merge group destroyed, a check suite requested
        listed = rule is None or not rule.types or trigger.action in rule.types
        said = "starts no workflows"
    return "" if listed else f"{trigger.event}: the type {trigger.action} {said}"


def _unwanted_schedule(on: Triggers, trigger: Trigger) -> str:
    if trigger.event != "schedule" or trigger.schedule is None:
        return ""
    if any(schedule.cron == trigger.schedule for schedule in on.schedules):
        return ""
    return f"schedule: '{trigger.schedule}' is no longer listed"


def _unwanted_source(event: EventPlan, trigger: Trigger) -> str:
    if trigger.event != "workflow_run" or not event.workflows or trigger.workflow_name is None:
        return ""
    if trigger.workflow_name in event.workflows:
        return ""
    return f"workflow_run: '{trigger.workflow_name}' is not one of the workflows"


def _unwanted_ref(event: EventPlan, trigger: Trigger) -> str:
    if trigger.event == "push":
        if trigger.ref.startswith(_TAGS):
            return _unwanted_name(
                "tag",
                trigger.ref.removeprefix(_TAGS),
                event.tags,
                event.tags_ignore,
                others=bool(event.branches or event.branches_ignore),
            )
        return _unwanted_name(
            "branch",
            trigger.ref.removeprefix(_HEADS),
            event.branches,
            event.branches_ignore,
            others=bool(event.tags or event.tags_ignore),
        )
    of_run = trigger.event == "workflow_run"
    branch = trigger.head_ref if of_run else trigger.base_ref
    if branch is None:
        return "the run that it is about has no branch" if of_run and event.branches else ""
    return _unwanted_name(
        "branch",
        branch.removeprefix(_HEADS),
        event.branches,
        event.branches_ignore,
        others=False,
    )


def _unwanted_name(
    what: str, name: str, wanted: tuple[str, ...], ignored: tuple[str, ...], *, others: bool
) -> str:
    """`others` says that only the other sort of ref is filtered: then this sort does not run."""
    if wanted:
        return "" if matches_refs(wanted, name) else f"the {what} {name} matches no pattern"
    if ignored:
        return f"the {what} {name} is ignored" if ignores_ref(ignored, name) else ""
    return f"on: filters another sort of ref than the {what} {name}" if others else ""


def _unwanted_paths(event: EventPlan, trigger: Trigger) -> str:
    paths = trigger.changed_paths
    if paths is None or (trigger.event == "push" and trigger.ref.startswith(_TAGS)):
        return ""
    if event.paths and not matches_paths(event.paths, paths):
        return "no changed path matches paths:"
    if event.paths_ignore and ignores_paths(event.paths_ignore, paths):
        return "all changed paths are in paths-ignore:"
    return ""


def needs_paths(on: Triggers, event_name: str) -> bool:
    """Whether the decision needs the changed paths: finding them costs a diff."""
    event = on.event(event_name)
    return event is not None and bool(event.paths or event.paths_ignore)


def resolve_inputs(
    declared: Mapping[str, InputPlan], given: Mapping[str, Value]
) -> tuple[dict[str, Value], tuple[str, ...]]:
    """The `inputs` context for values given, and what is wrong with them.

    For workflow_dispatch and workflow_call alike; defaults must have been evaluated before.
    Names ignore case; a value that came as text is read as its type says.
    """
    by_name = {name.lower(): (name, value) for name, value in given.items()}
    values: dict[str, Value] = {}
    problems: list[str] = []
    for name, spec in declared.items():
        found = by_name.pop(name.lower(), None)
        if found is None or _is_nothing(spec, found[1]):
            if spec.required and spec.default is None:
                problems.append(f"the input '{name}' is required")
            values[name] = _default(spec)
            continue
        try:
            values[name] = _typed(spec, found[1])
        except ValueError as error:
            problems.append(f"the input '{name}' {error}")
    known = ", ".join(declared) or "none"
    problems.extend(
        f"the input '{name}' is not declared (there are: {known})" for name, _ in by_name.values()
    )
    return values, tuple(problems)


def _is_nothing(spec: InputPlan, value: Value) -> bool:
    # a form's empty field; only a text can be meant to be empty
    return value is None or (
        value == "" and (spec.default is not None or spec.type in ("boolean", "number"))
    )


def _default(spec: InputPlan) -> Value:
    if spec.default is not None:
        return spec.default
    if spec.type == "choice" and spec.options:
        return spec.options[0]
    return {"boolean": False, "number": 0}.get(spec.type, "")


def _typed(spec: InputPlan, value: Value) -> Value:
    if isinstance(value, (list, dict)):
        raise ValueError("must be a single value")  # noqa: TRY004 -- told to the user as one
    if spec.type == "boolean":
        if isinstance(value, bool):
            return value
        if to_string(value).lower() in ("true", "false"):
            return to_string(value).lower() == "true"
        raise ValueError(f"must be true or false, not '{to_string(value)}'")
    if spec.type == "number":
        number = value if is_number(value) else parse_number(to_string(value) or "NaN")
        if isinstance(value, bool) or number != number:  # noqa: PLR0124 -- NaN
            raise ValueError(f"must be a number, not '{to_string(value)}'")
        return number
    text = to_string(value)
    if spec.type == "choice" and spec.options and text not in spec.options:
        raise ValueError(f"must be one of {', '.join(spec.options)}, not '{text}'")
    return text
