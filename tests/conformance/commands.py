"""The sets `commands/files`, `commands/parse` and `commands/sequences`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas.workflow.command_files import (
    CommandFileError,
    parse_entries,
    parse_environment,
)
from schemas.workflow.command_processor import CommandProcessor
from schemas.workflow.commands import parse_brackets, parse_colons
from tests.conformance.cases import Case, Outcome, checked, differs, read_lines

_KNOWN = ("do-something", "set-output")


def run_files(root: Path) -> Iterator[Outcome]:
    """What steps may write to GITHUB_ENV and its relatives."""
    for case in read_lines(root / "commands" / "files.jsonl"):
        yield checked(case["id"], lambda case=case: _file(case))  # type: ignore[misc]


def _file(case: Case) -> str | None:
    parse = parse_environment if case["file"] == "GITHUB_ENV" else parse_entries
    try:
        entries = parse(case["content"] or "")
    except CommandFileError as error:
        return None if "error" in case else f"unexpected error: {error}"
    if "error" in case:
        return f"expected an error, got {entries.values!r}"
    found = differs(case["expected"], entries.values)
    if found is None and "expected_issues" in case:
        found = differs(case["expected_issues"], len(entries.issues))
    return found


def run_parse(root: Path) -> Iterator[Outcome]:
    """Lines of output in the new (v2) and the old (v1) form."""
    for case in read_lines(root / "commands" / "parse.jsonl"):
        yield checked(case["id"], lambda case=case: _parse(case))  # type: ignore[misc]


def _parse(case: Case) -> str | None:
    parse = parse_colons if case["syntax"] == "v2" else parse_brackets
    command = parse(case["line"], _KNOWN)
    actual = (
        None
        if command is None
        else {"command": command.name, "properties": command.properties, "data": command.data}
    )
    return differs(case["expected"], actual)


def run_sequences(root: Path) -> Iterator[Outcome]:
    """Several lines in order: stopping, echo, masks, annotations, environment."""
    for case in read_lines(root / "commands" / "sequences.jsonl"):
        yield checked(case["id"], lambda case=case: _sequence(case))  # type: ignore[misc]


def _sequence(case: Case) -> str | None:
    processor = CommandProcessor(env=case.get("env", {}))
    properties: dict[str, str] = {}
    for number, line in enumerate(case["lines"]):
        outcome = processor.process(line["line"])
        actual = "error" if outcome.error and line["processed"] == "error" else (outcome.processed)
        if actual != line["processed"]:
            return f"line {number}: expected {line['processed']}, got {actual}"
        if "echo" in line and processor.echo != line["echo"]:
            return f"line {number}: echo is {processor.echo}"
        if "command_result" in line:
            failed = str(line["command_result"]).lower().startswith("fail")
            if failed != (outcome.error is not None):
                return f"line {number}: expected {line['command_result']}, got {outcome.error}"
        if outcome.annotation is not None:
            properties = outcome.annotation.properties
    return _state_differs(case, processor, properties)


def _state_differs(
    case: Case, processor: CommandProcessor, properties: dict[str, str]
) -> str | None:
    if "expected_env" in case and processor.variables != case["expected_env"]:
        return f"expected env {case['expected_env']}, got {processor.variables}"
    if "expected_path_prepend" in case and list(processor.path) != case["expected_path_prepend"]:
        return f"expected path {case['expected_path_prepend']}, got {processor.path}"
    missing = [mask for mask in case.get("masked", ()) if mask not in processor.masks]
    if missing:
        return f"not masked: {missing}"
    for name, value in case.get("expected_properties", {}).items():
        if properties.get(name) != value:
            return f"property {name}: expected {value}, got {properties.get(name)}"
    present = [name for name in case.get("absent_properties", ()) if name in properties]
    return f"properties that should be absent: {present}" if present else None
