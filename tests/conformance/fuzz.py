"""Mutates the shared cases: `python -m tests.conformance.fuzz DIR --inputs 200000`.

`make fuzz N=200000 SEED=1` does the same; `--table` prints a row for this folder's README.
No input may raise anything but the language's own errors, take more than 200 ms of CPU or make the
process grow by more than 64 MiB. The seed makes a finding repeatable.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from schemas.workflow.command_files import parse_environment
from schemas.workflow.command_processor import CommandProcessor
from schemas.workflow.compile import compile_workflow
from schemas.workflow.errors import LanguageError
from schemas.workflow.expressions import evaluate, evaluate_template
from schemas.workflow.filters import matches_paths, validate_pattern
from schemas.workflow.matrix import expand_matrix
from schemas.workflow.plan_json import plan_from_json, plan_to_json
from tests.conformance.cases import Case, read_lines

INPUT_MS_MAX = 200
_SHOWN_MAX = 400
GROWTH_BYTES_MAX = 64 << 20
_PIECES = (
    b"${{", b"}}", b"'", b'"', b": ", b"- ", b"\n", b"  ", b"[", b"]", b"{", b"}", b"&a ", b"*a",
    b"!!int ", b"null", b"true", b"0x", b".nan", b"secrets", b"always()", b"|", b">", b"\t",
    b"\xff", b"\xe2\x80\xa8", b"env", b"**", b"::", b"%0A", b"<<EOF\n", b"\\", b"fromJSON(",
)  # fmt: skip


@dataclass(slots=True)
class Findings:
    """What a run has shown."""

    inputs: int = 0
    slowest_ms: float = 0.0
    slowest: bytes = b""
    cpu_s: float = 0.0
    growth_bytes: int = 0
    failures: list[str] = field(default_factory=list)


class Fuzzer:
    """Takes texts from a folder of cases, changes them and feeds them to the language."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- repeatable, not secret
        self.workflows = [path.read_bytes() for path in sorted(root.glob("workflows_*/*.yml"))]
        self.expressions = read_lines(root / "expressions" / "cases.jsonl")
        self.lines = [
            line["line"].encode()
            for case in read_lines(root / "commands" / "sequences.jsonl")
            for line in case["lines"]
        ]
        self.files = [
            (case["content"] or "").encode()
            for case in read_lines(root / "commands" / "files.jsonl")
        ]
        self.patterns = [
            case["pattern"].encode() for case in read_lines(root / "filters" / "validate.jsonl")
        ]

    def run(self, inputs: int) -> Findings:
        """Tries a number of inputs of all sorts."""
        findings = Findings()
        sorts: list[Callable[[], tuple[bytes, Callable[[], object]]]] = [
            self._workflow,
            self._expression,
            self._line,
            self._file,
            self._pattern,
        ]
        start = _resident_bytes_max()
        for number in range(inputs):
            text, attempt = sorts[number % len(sorts)]()
            began = time.process_time()
            try:
                attempt()
            except LanguageError:
                pass
            except Exception as error:  # noqa: BLE001 -- that is what is looked for
                findings.failures.append(f"{type(error).__name__}: {error} for {text!r}")
            took_ms = (time.process_time() - began) * 1000
            if took_ms > INPUT_MS_MAX:
                findings.failures.append(f"{took_ms:.0f} ms for {text!r}")
            if took_ms > findings.slowest_ms:
                findings.slowest_ms, findings.slowest = took_ms, text
            findings.cpu_s += took_ms / 1000
            findings.inputs += 1
        findings.growth_bytes = _resident_bytes_max() - start
        if findings.growth_bytes > GROWTH_BYTES_MAX:
            findings.failures.append(f"the process grew by {findings.growth_bytes} bytes")
        return findings

    def _workflow(self) -> tuple[bytes, Callable[[], object]]:
        text = self._changed(self.random.choice(self.workflows))
        other = self.random.choice(self.workflows)
        return text, lambda: _compile(text, other)

    def _expression(self) -> tuple[bytes, Callable[[], object]]:
        case: Case = self.random.choice(self.expressions)
        text = self._changed(case["expr"].encode())
        return text, lambda: _evaluate(text.decode(errors="replace"), case)

    def _line(self) -> tuple[bytes, Callable[[], object]]:
        text = b"\n".join(self._changed(self.random.choice(self.lines)) for _ in range(3))
        return text, lambda: _process(text.decode(errors="replace"))

    def _file(self) -> tuple[bytes, Callable[[], object]]:
        text = self._changed(self.random.choice(self.files))
        return text, lambda: parse_environment(text)

    def _pattern(self) -> tuple[bytes, Callable[[], object]]:
        text = self._changed(self.random.choice(self.patterns))
        name = self._changed(text).decode(errors="replace")
        return text, lambda: _match(text.decode(errors="replace"), name)

    def _changed(self, text: bytes) -> bytes:
        return changed(text, self.random, self.workflows)


def changed(text: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    """Return the text with one to four random changes; some bring in a piece of another text."""
    result = bytearray(text)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(result) + 1)
        kind = draw.random()
        if kind < 0.4:
            result[place:place] = draw.choice(_PIECES)
        elif kind < 0.6:
            del result[place : place + draw.randint(1, 12)]
        elif kind < 0.75:
            result[place:place] = result[place : place + draw.randint(1, 60)]
        elif kind < 0.85:
            result[place : place + 1] = bytes((draw.randrange(256),))
        else:
            other = draw.choice(others)
            start = draw.randrange(len(other))
            result[place:place] = other[start : start + draw.randint(1, 40)]
    return bytes(result)


def _compile(text: bytes, other: bytes) -> None:
    plan = compile_workflow(".github/workflows/x.yml", text, read_file=lambda _: other).plan
    if plan is not None:
        assert repr(plan_from_json(plan_to_json(plan))) == repr(plan)


def _evaluate(text: str, case: Case) -> None:
    value = evaluate(text, case["context"], hash_files=lambda _: "")
    expand_matrix(value)
    evaluate_template(text, case["context"])


def _process(text: str) -> None:
    processor = CommandProcessor(env={"ACTIONS_ALLOW_UNSECURE_COMMANDS": "true"})
    for line in text.split("\n"):
        processor.process(line)


def _match(pattern: str, name: str) -> None:
    validate_pattern(pattern, is_ref=True)
    validate_pattern(pattern, is_ref=False)
    matches_paths([pattern], [name])


def _resident_bytes_max() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_HEAD = """\
| inputs | seed | findings | slowest | mean | memory | machine | commit |
| ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""


def _commit() -> str:
    """What is checked out when the run begins; others may commit while it goes on."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _row(seed: int, findings: Findings, commit: str) -> str:
    """A row of the table in README.md."""
    machine = f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"
    return (
        f"| {findings.inputs:,} | {seed} | {len(findings.failures)} "
        f"| {findings.slowest_ms:.1f} ms | {findings.cpu_s / findings.inputs * 1e6:.0f} us "
        f"| +{findings.growth_bytes / (1 << 20):.1f} MiB | {machine} | {commit} |\n"
    )


def main() -> int:
    """Runs the fuzzer and prints what it found as JSON; 1 when there is anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.fuzz", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print a row of a table, not JSON")
    arguments = parser.parse_args()
    commit = _commit()
    findings = Fuzzer(arguments.folder, arguments.seed).run(arguments.inputs)
    if arguments.table:
        sys.stdout.write(_HEAD + _row(arguments.seed, findings, commit))
        sys.stdout.writelines(f"{failure}\n" for failure in findings.failures)
        return 1 if findings.failures else 0
    report = {
        "seed": arguments.seed,
        "inputs": findings.inputs,
        "cpu_s": round(findings.cpu_s, 1),
        "slowest_ms": round(findings.slowest_ms, 1),
        "slowest": findings.slowest.decode(errors="replace")[:_SHOWN_MAX],
        "growth_bytes": findings.growth_bytes,
        "failures": findings.failures,
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
