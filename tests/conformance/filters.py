"""The sets `filters/match` and `filters/validate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas.workflow.filters import ignores_paths, matches_paths, validate_pattern
from tests.conformance.cases import Case, Outcome, checked, differs, read_lines


def run_match(root: Path) -> Iterator[Outcome]:
    """Whether a filter lets a change through, and whether its -ignore form keeps it out."""
    for case in read_lines(root / "filters" / "match.jsonl"):
        yield checked(case["id"], lambda case=case: _match(case))  # type: ignore[misc]


def _match(case: Case) -> str | None:
    found = differs(case["include_filter_runs"], matches_paths(case["patterns"], case["inputs"]))
    if found is None and "ignore_filter_skips" in case:
        ignored = ignores_paths(case["patterns"], case["inputs"])
        found = differs(case["ignore_filter_skips"], ignored)
    return found


def run_validate(root: Path) -> Iterator[Outcome]:
    """Which patterns a linter accepts: one with a warning counts as not accepted."""
    for case in read_lines(root / "filters" / "validate.jsonl"):
        yield checked(case["id"], lambda case=case: _validate(case))  # type: ignore[misc]


def _validate(case: Case) -> str | None:
    for key, is_ref in (("ref_filter_valid", True), ("path_filter_valid", False)):
        if key in case:
            problems = validate_pattern(case["pattern"], is_ref=is_ref)
            if case[key] == bool(problems):
                return f"{key}: expected {case[key]}, found {[p.message for p in problems]}"
    return None
