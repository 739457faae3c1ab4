"""From one delivery to one DeliveryPlanned: which workflows run, and why the others do not.

Reads through a `Mirror` and decides nothing that the commit does not determine. Reasons and
errors are `code: sentence`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any

import msgspec

from infra.git import GitError, merge_message, shown_url
from ingest.git_objects import Commit
from ingest.mirrors import EMPTY, Mirror, UnreachableError
from ingest.planner.context import github_json
from ingest.planner.targets import At, Target, targets
from ingest.planner.workflows import RemoteReader, Workflow, Workflows
from schemas.codec import event_id
from schemas.events import (
    DeliveryPlanned,
    DeliveryReceived,
    IndexedWorkflow,
    Outcome,
    PlanProblem,
    Provider,
    RepositoryConfigured,
    WorkflowOutcome,
    WorkflowsIndexed,
)
from schemas.late import dataclass
from schemas.workflow.triggers import Trigger, match, needs_paths, resolve_inputs

PLAN_BYTES_MAX = 2 * 1024 * 1024
DELIVERY_PLAN_BYTES_MAX = 6 * 1024 * 1024
CHANGED_PATHS_MAX = 20_000
_DEPLOYED = frozenset({"deployment", "deployment_status"})
#: Events of a given commit whose message may ask for no workflows.
_ASKED = frozenset({"push", "pull_request"})
_BRANCHES, _TAGS = "refs/heads/", "refs/tags/"


class IgnoredError(Exception):
    """Nothing of the target runs, whatever its workflows say; the text is `code: sentence`."""


@dataclass(slots=True, kw_only=True)
class _Place:
    """A target with the commit that its workflows are read at."""

    target: Target
    commit: Commit
    sha: str
    message: str | None = None
    paths: tuple[str, ...] | None = None
    paths_known: bool = False
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Planner:
    """Plans deliveries; used by many threads, each with a repository of its own."""

    workflows: Workflows = field(default_factory=Workflows)
    public_url: str = ""

    def plan(
        self,
        delivery: DeliveryReceived,
        configured: RepositoryConfigured,
        mirror: Mirror,
        *,
        now_ms: int,
        read_remote: RemoteReader | None = None,
        listed: frozenset[str] | None = None,
    ) -> DeliveryPlanned:
        """Return the answer to a delivery; UnreachableError when git has none now.

        `listed` are the events that the default branch's workflows list, as far as is known: a
        remote is not asked about events of no interest (each status that is set makes one).
        """
        default = configured.default_branch or delivery.default_branch
        wanted = targets(delivery, default)
        reason = _pointless(delivery) or (
            "" if wanted else f"event: {delivery.event} starts no workflows"
        )
        if reason:
            return answer(delivery, now_ms=now_ms, ignored=reason)
        outcomes: list[WorkflowOutcome] = []
        first: _Place | None = None
        for target in wanted:
            if _is_unlisted(target, listed, mirror):
                outcomes.append(_ignored("", f"trigger: no workflow lists {target.event}", target))
                continue
            try:
                place = self._place(delivery, target, default, mirror)
                found = self._outcomes(delivery, place, default, mirror, read_remote)
            except IgnoredError as error:
                found = [_ignored("", str(error), target)]
            else:
                first = first or place
            outcomes += found
        outcomes = _within_size(outcomes)
        return answer(
            delivery,
            now_ms=now_ms,
            workflows=tuple(outcomes),
            github=_github(delivery, configured, first, self.public_url) if first else "{}",
        )

    def index(
        self,
        configured: RepositoryConfigured,
        mirror: Mirror,
        *,
        cause: str,
        now_ms: int,
        sha: str | None = None,
    ) -> WorkflowsIndexed | None:
        """Return what the default branch's head has, or None for a repository without commits.

        `sha` is the head where it is known; otherwise the branch is looked up.
        """
        ref = f"refs/heads/{configured.default_branch}"
        sha = sha or mirror.resolve(ref)
        if sha is None:
            return None
        found = self.workflows.at(mirror, mirror.commit(sha))
        return WorkflowsIndexed(
            event_id=event_id("WorkflowsIndexed", configured.repository, sha, cause),
            occurred_at=now_ms,
            repository=configured.repository,
            caused_by=cause,
            sha=sha,
            ref=ref,
            workflows=tuple(
                IndexedWorkflow(
                    path=workflow.path,
                    name=workflow.name,
                    triggers_json=workflow.triggers_json,
                    problems=workflow.problems,
                )
                for workflow in found
            ),
        )

    # ----------------------------------------------------------------- where

    def _place(
        self, delivery: DeliveryReceived, target: Target, default: str, mirror: Mirror
    ) -> _Place:
        match target.at:
            case At.GIVEN:
                commit = mirror.commit(target.sha, hint=target.ref)
                message = _message(delivery, commit, mirror) if target.event in _ASKED else None
                if target.event in _DEPLOYED and not target.ref and delivery.head_ref:
                    target = replace(target, ref=_full_ref(delivery.head_ref, mirror))
                return _Place(target=target, commit=commit, sha=commit.oid, message=message)
            case At.MERGE:
                return _merge_place(delivery, target, mirror)
            case At.REF | At.DEFAULT:
                return _ref_place(target, default, mirror)

    # ----------------------------------------------------------------- what

    def _outcomes(
        self,
        delivery: DeliveryReceived,
        place: _Place,
        default: str,
        mirror: Mirror,
        read_remote: RemoteReader | None,
    ) -> list[WorkflowOutcome]:
        found = self.workflows.at(mirror, place.commit, read_remote)
        if not found:
            where = " and ".join((".github/workflows", ".tailrace/workflows"))
            raise IgnoredError(f"no_workflows: commit {place.commit.oid[:12]} has none in {where}")
        named = _named(delivery, found)
        if named is not None and not named:
            raise IgnoredError(
                f"no_workflow: commit {place.commit.oid[:12]} has no workflow {delivery.workflow}"
            )
        return [
            self._outcome(delivery, place, workflow, default, mirror)
            for workflow in (found if named is None else named)
        ]

    def _outcome(
        self,
        delivery: DeliveryReceived,
        place: _Place,
        workflow: Workflow,
        default: str,
        mirror: Mirror,
    ) -> WorkflowOutcome:
        event = place.target.event
        if workflow.on is None:
            # it can't be said when the file runs: shown where its author looks, at a push
            shown = event == "push" or bool(delivery.workflow)
            reason = "invalid: the file is no workflow"
            return (
                _rejected(workflow, place, reason)
                if shown
                else _ignored(workflow.path, reason, place.target, workflow.name)
            )
        by_path = needs_paths(workflow.on, event) and not place.target.ref.startswith(_TAGS)
        if by_path and not place.paths_known:
            place.paths, place.note = _changed_paths(delivery, place, default, mirror)
            place.paths_known = True
        decision = match(workflow.on, _trigger(delivery, place))
        if not decision.runs:
            return _ignored(
                workflow.path, f"trigger: {decision.reason}", place.target, workflow.name
            )
        if workflow.problems or workflow.plan_json is None:
            return _rejected(workflow, place, "invalid: the file has mistakes")
        inputs_json, problems = _inputs(delivery, workflow)
        if problems:
            return _rejected(replace(workflow, problems=problems), place, "inputs: not accepted")
        note = f" ({place.note})" if place.note and by_path else ""
        return WorkflowOutcome(
            path=workflow.path,
            outcome=Outcome.PLANNED,
            name=workflow.name,
            reason=f"trigger: {decision.reason}{note}",
            plan_json=workflow.plan_json,
            event=event,
            sha=place.sha,
            ref=place.target.ref,
            inputs_json=inputs_json,
            uses=workflow.uses,
        )


def answer(
    delivery: DeliveryReceived,
    *,
    now_ms: int,
    workflows: tuple[WorkflowOutcome, ...] = (),
    github: str = "{}",
    error: str = "",
    ignored: str = "",
) -> DeliveryPlanned:
    """Return the one DeliveryPlanned of a delivery; whoever answers again gives the same id."""
    if ignored:
        workflows = (
            WorkflowOutcome(path="", outcome=Outcome.IGNORED, reason=ignored, event=delivery.event),
        )
    return DeliveryPlanned(
        event_id=event_id("DeliveryPlanned", delivery.repository, delivery.delivery_id),
        occurred_at=now_ms,
        repository=delivery.repository,
        delivery_id=delivery.delivery_id,
        caused_by=delivery.event_id,
        workflows=workflows,
        github_json=github,
        error=error,
    )


def moves_default_branch(delivery: DeliveryReceived, configured: RepositoryConfigured) -> bool:
    """Tell whether a delivery says that the default branch has a new head."""
    return (
        delivery.event == "push"
        and not delivery.deleted
        and delivery.ref == f"refs/heads/{configured.default_branch}"
    )


def _is_unlisted(target: Target, listed: frozenset[str] | None, mirror: Mirror) -> bool:
    known = listed is not None and target.at is At.DEFAULT and not mirror.is_local
    return known and target.event not in (listed or ())


def _pointless(delivery: DeliveryReceived) -> str:
    if delivery.inert or delivery.event != "push":
        return delivery.inert
    if delivery.deleted:
        return "deleted: the push deleted the ref"
    if not delivery.ref.startswith((_BRANCHES, _TAGS)):
        return f"ref: {delivery.ref} is neither a branch nor a tag"
    if delivery.before and delivery.before == delivery.sha:
        return "test: before and after are one commit, nothing was pushed (a forge's test button)"
    return ""


def _message(delivery: DeliveryReceived, commit: Commit, mirror: Mirror) -> str | None:
    """Return the message that may ask for no workflows: a merged pull request's is its head's."""
    if delivery.event != "pull_request":
        return commit.message
    try:
        return _head(delivery, mirror).message
    except UnreachableError:
        return None  # its branch, or its fork, is gone


def _merge_place(delivery: DeliveryReceived, target: Target, mirror: Mirror) -> _Place:
    head, base = _head(delivery, mirror), _base(delivery, mirror)
    if base is None:
        raise UnreachableError(f"the base branch {delivery.base_ref} does not exist")
    try:
        merged = mirror.merge(base.oid, head.oid, merge_message(base.oid, head.oid))
    except GitError as error:
        raise UnreachableError(f"the merge commit could not be made: {error}") from error
    if merged is None:
        raise IgnoredError(
            f"merge_conflict: {head.oid[:12]} does not merge into {delivery.base_ref} "
            f"({base.oid[:12]}); resolve the conflict and push"
        )
    return _Place(target=target, commit=mirror.commit(merged), sha=merged, message=head.message)


def _base(delivery: DeliveryReceived, mirror: Mirror) -> Commit | None:
    """Return what a pull request is compared with: the base branch before it was merged."""
    hint = f"{_BRANCHES}{delivery.base_ref}"
    if delivery.base_sha:
        return mirror.commit(delivery.base_sha, hint=hint)
    if delivery.merged:
        # the branch has it already; without a merge commit there is nothing to tell what it was
        parents = mirror.commit(delivery.merge_sha, hint=hint).parents if delivery.merge_sha else ()
        return mirror.commit(parents[0], hint=hint) if parents else None
    found = mirror.resolve(hint)
    return mirror.commit(found, hint=hint) if found is not None else None


def _head(delivery: DeliveryReceived, mirror: Mirror) -> Commit:
    folder = "merge-requests" if delivery.provider == Provider.GITLAB else "pull"
    pull = f"refs/{folder}/{delivery.number}/head"
    if delivery.sha:
        hint = f"{_BRANCHES}{delivery.head_ref}" if not delivery.fork else pull
        try:
            return mirror.commit(delivery.sha, hint=hint)
        except UnreachableError:
            return mirror.commit(delivery.sha, hint=pull)
    # Gogs names no commit
    found = mirror.resolve(pull) or mirror.resolve(f"{_BRANCHES}{delivery.head_ref}")
    if found is None:
        raise UnreachableError(f"the pull request's head {delivery.head_ref} is not to be found")
    return mirror.commit(found, hint=pull)


def _full_ref(name: str, mirror: Mirror) -> str:
    """Return the branch or tag of a short name, "" where there is neither (any more)."""
    names = (f"refs/heads/{name}", f"refs/tags/{name}")
    return next((full for full in names if mirror.resolve(full) is not None), "")


def _ref_place(target: Target, default: str, mirror: Mirror) -> _Place:
    found = mirror.resolve(target.ref)
    if found is None and target.at is At.DEFAULT:
        raise IgnoredError(f"no_default_branch: the repository has no branch {default}")
    if found is None:
        raise IgnoredError(f"no_ref: the repository has no {target.ref} any more")
    commit = mirror.commit(found, hint=target.ref)
    return _Place(target=target, commit=commit, sha=commit.oid)


def _trigger(delivery: DeliveryReceived, place: _Place) -> Trigger:
    event = place.target.event
    of_base = event.startswith("pull_request") or event == "merge_group"
    return Trigger(
        event=event,
        action=delivery.action or None,
        ref=place.target.ref,
        base_ref=delivery.base_ref if of_base else None,
        head_ref=delivery.head_ref or None,
        changed_paths=place.paths,
        schedule=delivery.schedule or None,
        commit_message=place.message,
        deleted=delivery.deleted,
        workflow_name=delivery.workflow if event == "workflow_run" else None,
    )


def _named(delivery: DeliveryReceived, found: list[Workflow]) -> list[Workflow] | None:
    """Return the workflows that a dispatch or a cron tick names; None when it names none."""
    if not delivery.workflow or delivery.event not in ("workflow_dispatch", "schedule"):
        return None
    named = named_workflow(found, delivery.workflow)
    return [named] if named is not None else []


def named_workflow(found: list[Workflow], wanted: str) -> Workflow | None:
    """Return the workflow of a path, else of a file name, else of a name."""
    ways: tuple[Callable[[Workflow], str], ...] = (
        lambda workflow: workflow.path,
        lambda workflow: workflow.path.rpartition("/")[2],
        lambda workflow: workflow.name,
    )
    for way in ways:
        for workflow in found:
            if way(workflow) == wanted:
                return workflow
    return None


def _changed_paths(
    delivery: DeliveryReceived, place: _Place, default: str, mirror: Mirror
) -> tuple[tuple[str, ...] | None, str]:
    """Return the changed paths, or None and why there are none to be had."""
    try:
        old, new = _compared(delivery, place, default, mirror)
        if old is None:
            return None, "no common ancestor to compare with: path filters were not applied"
        paths = mirror.changed_paths(old, new)
    except (UnreachableError, GitError) as error:
        return None, f"path filters were not applied: {error}"
    if len(paths) > CHANGED_PATHS_MAX:
        return None, f"path filters were not applied to {len(paths)} changed paths"
    return paths, ""


def _compared(
    delivery: DeliveryReceived, place: _Place, default: str, mirror: Mirror
) -> tuple[str | None, str]:
    """Return the two commits to compare: push two dots, new branch and pull request three."""
    if place.target.event.startswith("pull_request"):
        head, base = _head(delivery, mirror).oid, _base(delivery, mirror)
        return (mirror.merge_base(base.oid, head) if base is not None else None), head
    pushed = place.commit.oid
    if delivery.before and delivery.before.strip("0"):
        return mirror.commit(delivery.before).oid, pushed
    default_ref = f"{_BRANCHES}{default}"
    # the default branch's first push, and the repository's first branch: everything is new
    head_of_default = mirror.resolve(default_ref) if place.target.ref != default_ref else None
    if head_of_default is None:
        return EMPTY, pushed
    return mirror.merge_base(head_of_default, pushed), pushed


def _inputs(
    delivery: DeliveryReceived, workflow: Workflow
) -> tuple[str | None, tuple[PlanProblem, ...]]:
    if delivery.event != "workflow_dispatch" or workflow.on is None:
        return None, ()
    given: Mapping[str, Any] = json.loads(delivery.inputs_json or "{}")
    values, wrong = resolve_inputs(workflow.on.dispatch_inputs, given)
    event = workflow.on.event("workflow_dispatch")
    line = event.line if event is not None else 1
    problems = tuple(
        PlanProblem(path=workflow.path, line=line, column=1, message=message) for message in wrong
    )
    return msgspec.json.encode(values).decode(), problems


def _ignored(path: str, reason: str, target: Target, name: str = "") -> WorkflowOutcome:
    return WorkflowOutcome(
        path=path, outcome=Outcome.IGNORED, name=name, reason=reason, event=target.event
    )


def _rejected(workflow: Workflow, place: _Place, reason: str) -> WorkflowOutcome:
    return WorkflowOutcome(
        path=workflow.path,
        outcome=Outcome.REJECTED,
        name=workflow.name,
        reason=reason,
        problems=workflow.problems,
        event=place.target.event,
        sha=place.sha,
        ref=place.target.ref,
    )


def _within_size(outcomes: list[WorkflowOutcome]) -> list[WorkflowOutcome]:
    """Reject the plans that an event has no room for."""
    left = DELIVERY_PLAN_BYTES_MAX
    kept = []
    for outcome in outcomes:
        size = len((outcome.plan_json or "").encode())
        limit = min(PLAN_BYTES_MAX, left)
        if size > limit:
            whose = "a workflow" if limit == PLAN_BYTES_MAX else "the workflows of a delivery"
            most = PLAN_BYTES_MAX if limit == PLAN_BYTES_MAX else DELIVERY_PLAN_BYTES_MAX
            message = f"the compiled plan has {size} bytes; {whose} may have {most}: split it"
            kept.append(
                replace(
                    outcome,
                    outcome=Outcome.REJECTED,
                    reason="too_large: the compiled plan is over the limit",
                    plan_json=None,
                    problems=(PlanProblem(path=outcome.path, line=1, column=1, message=message),),
                )
            )
            continue
        left -= size
        kept.append(outcome)
    return kept


def _github(
    delivery: DeliveryReceived,
    configured: RepositoryConfigured,
    place: _Place,
    public_url: str,
) -> str:
    return github_json(
        delivery,
        event=place.target.event,
        ref=place.target.ref,
        sha=place.sha,
        clone_url=shown_url(configured.clone_url),
        public_url=public_url,
    )


def dispatch_problems(found: list[Workflow], workflow: str, inputs: Mapping[str, Any]) -> list[str]:
    """Return why a workflow can't be dispatched with these inputs; [] when it can."""
    named = named_workflow(found, workflow)
    if named is None:
        known = ", ".join(w.path.rpartition("/")[2] for w in found) or "none"
        return [f"there is no workflow {workflow} at this ref (there are: {known})"]
    if named.problems:
        return [f"{p.path}:{p.line}:{p.column}: {p.message}" for p in named.problems]
    event = named.on.event("workflow_dispatch") if named.on is not None else None
    if named.on is None or event is None:
        return [f"{named.path} does not list workflow_dispatch in its `on:`"]
    wrong = resolve_inputs(named.on.dispatch_inputs, inputs)[1]
    return [f"{named.path}:{event.line}: {problem}" for problem in wrong]
