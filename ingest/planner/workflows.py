"""The workflow files of a commit, compiled: each version of a file once."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from ingest.git_objects import Commit, TreeEntry
from ingest.mirrors import Mirror
from schemas.events import PlanProblem
from schemas.late import dataclass
from schemas.workflow.compile import compile_workflow
from schemas.workflow.compiler.unit import compile_unit
from schemas.workflow.errors import Problem
from schemas.workflow.plan import Triggers, WorkflowPlan
from schemas.workflow.plan_json import plan_to_json

FOLDERS = (".github/workflows", ".tailrace/workflows")
SUFFIXES = (b".yml", b".yaml")
FILES_MAX = 500
CACHED_FILES_MAX = 2_000
PROBLEMS_MAX = 100

#: (repository, path, ref) -> (text, commit id) of a file in another registered repository.
RemoteReader = Callable[[str, str, str], tuple[bytes, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One compiled file. `on` is None when the file is too broken to say when it runs.

    `read` names the files that it calls with their blob ids, `uses` remote ones with their
    commits. `triggers_json` is `on` in the form that it has in a plan's JSON.
    """

    path: str
    name: str
    on: Triggers | None
    plan_json: str | None = None
    problems: tuple[PlanProblem, ...] = ()
    read: tuple[tuple[str, str], ...] = ()
    uses: tuple[str, ...] = ()
    triggers_json: str = "{}"


class Workflows:
    """Compiles workflow files; used by many threads, a compiled file is a value."""

    def __init__(self) -> None:
        """Nothing is cached."""
        self._cache: OrderedDict[tuple[str, str], Workflow] = OrderedDict()

    def at(
        self, mirror: Mirror, commit: Commit, read_remote: RemoteReader | None = None
    ) -> list[Workflow]:
        """Return every workflow file of a commit, by path."""
        files = [
            (f"{folder}/{entry.name.decode('utf-8', 'replace')}", entry)
            for folder in FOLDERS
            for entry in mirror.folder(commit, folder)
            if entry.is_file and entry.name.endswith(SUFFIXES)
        ]
        files = files[:FILES_MAX]
        found = {path: self._cached(mirror, commit, path, entry) for path, entry in files}
        missing = [(path, entry) for path, entry in files if found[path] is None]
        texts = mirror.blobs([entry.oid for _, entry in missing])
        for path, entry in missing:
            workflow = _compiled(mirror, commit, path, texts[entry.oid], read_remote)
            if not workflow.uses:
                self._cache[(path, entry.oid)] = workflow
            found[path] = workflow
        while len(self._cache) > CACHED_FILES_MAX:
            self._cache.popitem(last=False)
        return [workflow for _, workflow in sorted(found.items()) if workflow is not None]

    def _cached(
        self, mirror: Mirror, commit: Commit, path: str, entry: TreeEntry
    ) -> Workflow | None:
        known = self._cache.get((path, entry.oid))
        if known is None:
            return None
        # a file that it calls may have changed while it did not
        same = all(_blob_id(mirror, commit, called) == oid for called, oid in known.read)
        return known if same else None


def _blob_id(mirror: Mirror, commit: Commit, path: str) -> str:
    entry = mirror.file(commit, path)
    return entry.oid if entry is not None else ""


def _compiled(
    mirror: Mirror, commit: Commit, path: str, text: bytes, read_remote: RemoteReader | None
) -> Workflow:
    read: dict[str, str] = {}
    uses: dict[str, str] = {}

    def file(called: str) -> bytes | None:
        entry = mirror.file(commit, called)
        read[called] = entry.oid if entry is not None else ""
        return mirror.blobs([entry.oid])[entry.oid] if entry is not None else None

    def remote(repository: str, called: str, ref: str) -> bytes | None:
        found = read_remote(repository, called, ref) if read_remote is not None else None
        if found is None:
            return None
        uses[f"{repository}/{called}@{ref}"] = found[1]
        return found[0]

    compiled = compile_workflow(path, text, read_file=file, read_remote=remote)
    resolved = tuple(f"{name}={sha}" for name, sha in sorted(uses.items()))
    if compiled.plan is not None:
        return Workflow(
            path=path,
            name=compiled.plan.name,
            on=compiled.plan.on,
            triggers_json=_triggers_json(compiled.plan.on),
            plan_json=plan_to_json(compiled.plan),
            read=tuple(sorted(read.items())),
            uses=resolved,
        )
    alone = compile_unit(path, text).plan
    on = alone.on if alone is not None and alone.on.events else None
    return Workflow(
        path=path,
        name=alone.name if alone is not None else path,
        on=on,
        triggers_json=_triggers_json(on) if on is not None else "{}",
        problems=plan_problems(compiled.problems),
        read=tuple(sorted(read.items())),
        uses=resolved,
    )


def _triggers_json(on: Triggers) -> str:
    plan = plan_to_json(WorkflowPlan(path="", name="", on=on))
    return json.dumps(json.loads(plan).get("on", {}), separators=(",", ":"))


def plan_problems(problems: Sequence[Problem]) -> tuple[PlanProblem, ...]:
    """Return the compiler's problems as the event has them."""
    shown = [
        PlanProblem(
            path=problem.path,
            line=problem.line,
            column=problem.column,
            message=problem.message + (f" ({problem.hint})" if problem.hint else ""),
        )
        for problem in problems[:PROBLEMS_MAX]
    ]
    if len(problems) > PROBLEMS_MAX:
        more = f"and {len(problems) - PROBLEMS_MAX} more problems"
        shown.append(replace(shown[-1], message=more))
    return tuple(shown)


__all__ = ["RemoteReader", "Workflow", "Workflows", "plan_problems"]
