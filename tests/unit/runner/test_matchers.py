"""Problem matchers: which files are accepted, and what lines of output come to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from runner.commands import StepCommands
from runner.masking import Masker
from runner.matchers import JobMatchers, MatcherError, read_matchers
from schemas.events import Annotation

GCC = {
    "owner": "gcc",
    "pattern": [
        {
            "regexp": r"^(?<path>.*?):(\d+):(\d+): (error|warning|note): (.*)$",
            "file": 1, "line": 2, "column": 3, "severity": 4, "message": 5,
        }
    ],
}  # fmt: skip
STYLISH: dict[str, Any] = {
    "owner": "stylish",
    "severity": "warning",
    "pattern": [
        {"regexp": r"^([^\s].*)$", "file": 1},
        {"regexp": r"^\s+(\d+):(\d+)\s+(.*)$", "line": 1, "column": 2, "message": 3, "loop": True},
    ],
}
SLOW = {"owner": "slow", "pattern": [{"regexp": "^(a+)+$", "message": 1}]}


def file_of(*matchers: dict[str, Any]) -> bytes:
    """Return a matcher file."""
    return json.dumps({"problemMatcher": matchers}).encode()


class Job:
    """The matchers and annotations of a job, its warnings too."""

    def __init__(self) -> None:
        """Match nothing."""
        self.said: list[str] = []
        self.annotations: list[Annotation] = []
        self.masker = Masker(["hush-hush"])
        self.matchers = JobMatchers(self.masker, workspace="/w", say=self.said.append)

    def step(self, **files: bytes) -> StepCommands:
        """Return the commands of its next step."""
        return StepCommands(
            self.masker, self.annotations, step=1, env={}, matchers=self.matchers,
            read_matcher=files.get,
        )  # fmt: skip


@pytest.fixture
def job() -> Iterator[Job]:
    """Yield a job; its process is ended after."""
    found = Job()
    yield found
    found.matchers.close()


def test_lines_become_annotations_from_the_command_on_until_it_is_taken_back(job: Job) -> None:
    """Colours do not matter, and secrets are masked; the next step still matches."""
    step = job.step(gcc=file_of(GCC))
    before = b"a.c:1:2: error: early\n"
    assert step.on_lines(before) == before
    assert step.on_command(b"::add-matcher::gcc") is None

    shown = step.on_lines(b"plain\n\x1b[31m/w/src/a.c:3:5: warning: is hush-hush\x1b[0m\nend\n")
    later = job.step().on_lines(b"b.c:7:1: note: no level of GitHub's\nb.c:7:1: error: bad\n")
    step.on_command(b"::remove-matcher owner=gcc::")

    assert shown == b"plain\n##[warning]/w/src/a.c:3:5: warning: is hush-hush\nend\n"
    assert later.endswith(b"\n##[error]b.c:7:1: error: bad\n")
    assert step.on_lines(before) == before
    assert [(a.level, a.path, a.line, a.column, a.message) for a in job.annotations] == [
        ("warning", "src/a.c", 3, 5, "is ***"),
        ("error", "b.c", 7, 1, "bad"),
    ]


def test_a_pattern_of_several_lines_goes_on_while_its_last_one_matches(job: Job) -> None:
    """A file's name, then a problem a line, over the borders of what is read at once."""
    step = job.step(stylish=file_of(STYLISH))
    step.on_command(b"##[add-matcher]stylish")

    for part in (b"one.js\n", b"  1:2  first\n  3:4  second\n", b"\n  5:6  of no file\n"):
        step.on_lines(part)
    step.on_lines(b"two.js\n  7:8  third\n")

    assert [(a.path, a.line, a.message) for a in job.annotations] == [
        ("one.js", 1, "first"), ("one.js", 3, "second"), ("two.js", 7, "third"),
    ]  # fmt: skip


def test_an_expression_that_takes_too_long_ends_the_matching_and_not_the_job(job: Job) -> None:
    """Exponential backtracking: the log goes on, and says why there are no more annotations."""
    step = job.step(slow=file_of(SLOW), gcc=file_of(GCC))
    step.on_command(b"::add-matcher::slow")
    line = b"a" * 60 + b"!\n"

    assert step.on_lines(line) == line
    assert step.on_command(b"::add-matcher::gcc") is None
    assert step.on_lines(b"a.c:1:1: error: x\n") == b"a.c:1:1: error: x\n"
    assert len(job.said) == 1
    assert "slow" in job.said[0]


def test_a_file_that_is_not_there_fails_the_step(job: Job) -> None:
    """As on GitHub; the words name it."""
    shown = job.step().on_command(b"::add-matcher::nowhere.json")

    assert shown is not None
    assert b"##[error]" in shown
    assert b"nowhere.json" in shown


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[", "no JSON"),
        (b"[]", "problemMatcher"),
        (file_of(), "problemMatcher"),
        (file_of({"pattern": []}), "owner"),
        (file_of({**GCC, "pattern": []}), "pattern"),
        (file_of({**GCC, "pattern": [{"regexp": "("}]}), "can't be read"),
        (file_of({**GCC, "pattern": [{"regexp": "x", "message": 1}]}), "groups 0 to 0"),
        (file_of({**GCC, "pattern": [{"regexp": "(x)", "file": 1}]}), "message"),
        (file_of({**STYLISH, "pattern": [*STYLISH["pattern"], {"regexp": "x"}]}), "loop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_matcher_file_is_refused_with_what_is_wrong(data: bytes, words: str) -> None:
    """Before anything is matched."""
    with pytest.raises(MatcherError, match=words):
        read_matchers(data)
