"""How soon `tailrace run-local` begins its first step, and what a start of the command costs.

Each figure is the median of several runs and stands beside the same work without Tailrace, done
in turns with it: a bare Python, the git commands that make a commit of a tree, and a shell.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Report, Row

ROUNDS = 9
COMMAND = Path(sys.executable).parent / "tailrace"
_WORKFLOW = (
    "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: date +%s%N > '{mark}'\n"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians in milliseconds: until the point that counts, and processor time of all processes."""

    wall_ms: float
    cpu_ms: float


def measure(report: Report, folder: Path) -> None:
    """Add the figures; `folder` is for a tree with one workflow."""
    tree, mark = folder / "tree", folder / "mark"
    (tree / ".github" / "workflows").mkdir(parents=True)
    workflow = tree / ".github" / "workflows" / "a.yml"
    workflow.write_text(_WORKFLOW.format(mark=mark), encoding="utf-8")
    _run("git", "-C", str(tree), "init", "-q")

    def local() -> float:
        began = time.time_ns()
        _run(str(COMMAND), "run-local", str(tree))
        return (int(mark.read_text(encoding="utf-8")) - began) / 1e6

    first, bare = alternately(local, lambda: _bare(tree, folder / "index"))
    goal = "<= 500"
    report.add(
        Row("run-local to its first step", first.wall_ms, "ms", goal, bare.wall_ms,
            "python, git add, write-tree, commit-tree, bash")
    )  # fmt: skip
    report.add(Row("run-local with one step, CPU", first.cpu_ms, "ms", "", bare.cpu_ms, "the same"))
    shown, python = alternately(
        lambda: _timed(str(COMMAND), "--help"), lambda: _timed(sys.executable, "-c", "pass")
    )
    report.add(Row("tailrace --help", shown.wall_ms, "ms", "", python.wall_ms, "a bare Python"))
    report.add(Row("tailrace --help, CPU", shown.cpu_ms, "ms", "", python.cpu_ms, "a bare Python"))


def alternately(*works: Callable[[], float]) -> list[Cost]:
    """Do each work in turns, so that all meet the same machine; the first round is not counted."""
    walls: list[list[float]] = [[] for _ in works]
    cpus: list[list[float]] = [[] for _ in works]
    for number in range(ROUNDS + 1):
        for wall, cpu, work in zip(walls, cpus, works, strict=True):
            before = _children_ms()
            taken = work()
            if number:
                wall.append(taken)
                cpu.append(_children_ms() - before)
    return [
        Cost(statistics.median(wall), statistics.median(cpu))
        for wall, cpu in zip(walls, cpus, strict=True)
    ]


def _bare(tree: Path, index: Path) -> float:
    """Do what a local run can't do without, one after the other; returns milliseconds."""
    env = {"GIT_INDEX_FILE": str(index)}
    who = [f"GIT_{each}_{what}" for each in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    env |= dict.fromkeys(who, "bench")
    began = time.perf_counter()
    _run(sys.executable, "-c", "pass")
    _run("git", "-C", str(tree), "add", "-A", env=env)
    written = _run("git", "-C", str(tree), "write-tree", env=env)
    _run("git", "-C", str(tree), "commit-tree", "-m", "x", written, env=env)
    _run("bash", "-c", "true")
    return (time.perf_counter() - began) * 1000


def _timed(*argv: str) -> float:
    began = time.perf_counter()
    _run(*argv)
    return (time.perf_counter() - began) * 1000


def _run(*argv: str, env: dict[str, str] | None = None) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        argv, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def _children_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000
