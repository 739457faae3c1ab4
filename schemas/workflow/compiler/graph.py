"""`needs:` as a graph: unknown jobs and cycles, each reported where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from schemas.workflow.compiler.check import Check
from schemas.workflow.plan import JobPlan
from schemas.workflow.reader import MappingNode, Node, ScalarNode, SequenceNode

PATHS_SHOWN_MAX = 20


def resolve_needs(
    check: Check, jobs: list[JobPlan], nodes: Mapping[str, MappingNode], jobs_node: Node
) -> list[JobPlan]:
    """The jobs with their needs in the spelling of the ids; reports what cannot be."""
    canonical = {job.id.lower(): job.id for job in jobs}
    names = (
        {key.text.lower() for key, _ in jobs_node.entries}
        if (isinstance(jobs_node, MappingNode))
        else set()
    )
    resolved: list[JobPlan] = []
    for job in jobs:
        if not job.needs:
            resolved.append(job)
            continue
        needs: dict[str, None] = {}
        for need, place in zip(job.needs, _places(nodes[job.id], len(job.needs)), strict=False):
            known = canonical.get(need.lower())
            if known is not None:
                needs[known] = None
            elif need and need.lower() not in names:
                check.report(
                    place,
                    f"Job '{job.id}' depends on unknown job '{need}'",
                    hint=check.guess(need, canonical.values()),
                    rule="needs",
                )
        resolved.append(job if tuple(needs) == job.needs else replace(job, needs=tuple(needs)))
    _report_cycles(check, resolved, nodes)
    if resolved and all(job.needs for job in resolved):
        check.report(
            jobs_node,
            "The workflow must contain at least one job with no dependencies",
            rule="needs",
        )
    return resolved


def _places(node: MappingNode, count: int) -> list[Node]:
    needs = node.get("needs")
    if isinstance(needs, SequenceNode):
        return list(needs.items)
    return [needs or node] * count


def _report_cycles(check: Check, jobs: list[JobPlan], nodes: Mapping[str, MappingNode]) -> None:
    """Reports needs that lead back to their own job; the first ones, for each needs a search."""
    needs_of = {job.id: job.needs for job in jobs}
    component = _components(needs_of)
    shown = 0
    for job in jobs:
        for need in job.needs:
            if component[need] != component[job.id]:
                continue
            place = next(
                (
                    item
                    for item in _places(nodes[job.id], 1)
                    if isinstance(item, ScalarNode) and item.text.lower() == need.lower()
                ),
                nodes[job.id],
            )
            shown += 1
            if shown > PATHS_SHOWN_MAX:
                return
            path = " -> ".join(_path(needs_of, need, job.id, component))
            check.report(
                place,
                f"Job '{job.id}' depends on job '{need}' which creates a cycle in the dependency "
                f"graph ({job.id} -> {path})",
                rule="needs",
            )


def _path(
    needs: Mapping[str, tuple[str, ...]], start: str, end: str, component: Mapping[str, int]
) -> list[str]:
    """A shortest way from one job of a cycle to another along the needs."""
    before: dict[str, str | None] = {start: None}
    queue = [start]
    for current in queue:
        if current == end:
            break
        for need in needs[current]:
            if need not in before and component[need] == component[start]:
                before[need] = current
                queue.append(need)
    way, step = [], end if end in before else None
    while step is not None:
        way.append(step)
        step = before[step]
    return way[::-1] or [start]


def _components(edges: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The strongly connected component of each job (Tarjan, without recursion).

    A job that needs itself is in one component with itself, so that is found as well.
    """
    search = _Search(edges)
    for root in edges:
        if root not in search.index:
            search.visit(root)
    return search.component


class _Search:
    """Tarjan's search; `work` holds jobs with the position of the need to look at next."""

    def __init__(self, edges: Mapping[str, tuple[str, ...]]) -> None:
        self.edges = edges
        self.index: dict[str, int] = {}
        self.low: dict[str, int] = {}
        self.component: dict[str, int] = {}
        self.path: list[str] = []

    def visit(self, root: str) -> None:
        """Finds the components of everything that a job leads to."""
        work: list[tuple[str, int]] = [(root, 0)]
        while work:
            node, position = work.pop()
            if node not in self.index:
                self.index[node] = self.low[node] = len(self.index)
                self.path.append(node)
            for offset in range(position, len(self.edges[node])):
                need = self.edges[node][offset]
                if need not in self.index:
                    work.extend(((node, offset), (need, 0)))
                    break
                if need not in self.component:
                    self.low[node] = min(self.low[node], self.low[need])
            else:
                self._close(node)

    def _close(self, node: str) -> None:
        """Takes a component off the path when its first job is done."""
        if self.low[node] != self.index[node]:
            return
        while True:
            member = self.path.pop()
            self.component[member] = self.index[node]
            if member == node:
                return
