"""The sets `workflows_valid`, its templates, and `workflows_invalid`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from schemas.workflow.compile import Compiled, compile_workflow
from tests.conformance.cases import Case, Outcome, checked, differs
from tests.conformance.official_form import comparable_jobs, official_jobs

PATH = ".github/workflows/case.yml"
_OFFICIAL_PLACE = re.compile(r"(\S+) \(Line: (\d+), Col: \d+\)")


def _cases(folder: Path) -> Iterator[tuple[Case, Path]]:
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".yml")


def _compiled(case: Case, path: Path) -> Compiled:
    files = {
        name.removeprefix("./"): text.encode() for name, text in (case.get("files") or {}).items()
    }
    return compile_workflow(PATH, path.read_bytes(), read_file=files.get)


def run_valid(root: Path) -> Iterator[Outcome]:
    """Workflows that GitHub accepts, with the ids of their jobs."""
    for case, path in _cases(root / "workflows_valid"):
        yield checked(case["id"], lambda case=case, path=path: _valid(case, path))  # type: ignore[misc]


def _valid(case: Case, path: Path) -> str | None:
    compiled = _compiled(case, path)
    if compiled.plan is None:
        return "; ".join(map(str, compiled.problems))
    return differs(case["jobs"], [job.id for job in compiled.plan.children(None)])


def run_templates(root: Path) -> Iterator[Outcome]:
    """Of those that come with what GitHub's parser makes of them: the plan says the same."""
    for case, path in _cases(root / "workflows_valid"):
        if "expected_template" in case:
            yield checked(case["id"], lambda case=case, path=path: _template(case, path))  # type: ignore[misc]


def _template(case: Case, path: Path) -> str | None:
    plan = _compiled(case, path).plan
    if plan is None:
        return "not accepted"
    expected = case["expected_template"]["jobs"]
    return differs(comparable_jobs(expected), comparable_jobs(official_jobs(plan)))


def run_invalid(root: Path) -> Iterator[Outcome]:
    """Workflows that GitHub refuses, with an error on a line where one is expected."""
    for case, path in _cases(root / "workflows_invalid"):
        yield checked(case["id"], lambda case=case, path=path: _invalid(case, path))  # type: ignore[misc]


def _invalid(case: Case, path: Path) -> str | None:
    found = _compiled(case, path).problems
    if not found:
        return "accepted"
    wanted = _places(case)
    actual = {(_file(problem.path), problem.line) for problem in found}
    if wanted and not wanted & actual:
        return f"expected an error at one of {sorted(wanted)}, got {sorted(actual)}"
    return None


def _file(path: str) -> str:
    return Path(path).name


def _places(case: Case) -> set[tuple[str, int]]:
    """The file and line of every error that may be reported."""
    called = {_file(name) for name in case.get("files") or {}}
    main = _file(PATH)
    places = {
        (_file(error["file"]) if error.get("file") else main, error["line"])
        for error in case["errors"]
        if "line" in error
    }
    for message in case.get("official_parser_errors", ()):
        match = _OFFICIAL_PLACE.match(message)
        if match:
            name = _file(match.group(1))
            places.add((name if name in called else main, int(match.group(2))))
    return places
