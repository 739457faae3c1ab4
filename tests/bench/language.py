"""The workflow language: expressions per second, and the time to compile a large workflow.

Both are processor time of this process, the best of several rounds, beside what the machine can do
at that moment: the same reading and comparing as plain Python, and libyaml alone over the text.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import yaml
from yaml._yaml import CParser

from schemas.workflow.compile import compile_workflow
from schemas.workflow.expressions import Value, evaluate, parse_expression
from tests.bench.figures import Report, Row

JOBS = 300
ROUNDS = 25
_TIMES = 2_000

_CONTEXTS: dict[str, Value] = {
    "github": {"ref": "refs/heads/main", "event_name": "push", "event": {"number": 7}},
    "matrix": {"os": "linux", "python": 3.11},
    "env": {"MODE": "fast"},
}
_EXPRESSIONS = (
    "github.ref == 'refs/heads/main'",
    "github.event_name != 'pull_request' && matrix.os == 'linux'",
    "matrix.python >= 3.10",
    "env.MODE || 'slow'",
    "startsWith(github.ref, 'refs/tags/')",
    "github.event.number",
)


def large_workflow(jobs: int = JOBS) -> str:
    """Return a workflow of so many jobs as projects write them: needs, if, matrix, env, steps."""
    head = (
        "name: Large\non:\n  push:\n    branches: [main, 'release/**']\n  pull_request:\n"
        "permissions:\n  contents: read\nenv:\n  MODE: fast\njobs:\n"
    )
    return head + "".join(map(_job, range(jobs)))


def _job(number: int) -> str:
    needs = "" if number < 10 else f"    needs: [job-{number - 10}, job-{number // 2}]\n"
    matrix = (
        "    strategy:\n      fail-fast: false\n      matrix:\n        python: ['3.11', '3.12']\n"
        "        include:\n          - python: '3.13'\n            extra: true\n"
    )
    return (
        f"  job-{number}:\n    name: Part {number}\n    runs-on: ubuntu-latest\n{needs}"
        "    if: github.event_name == 'push' || !github.event.pull_request.draft\n"
        f"    timeout-minutes: 30\n    env:\n      PART: {number}\n"
        f"      REF: ${{{{ github.ref }}}}\n{matrix if number % 10 == 0 else ''}"
        "    steps:\n      - uses: actions/checkout@v4\n        with:\n          fetch-depth: 0\n"
        f"      - name: Build {number}\n        id: build\n        run: |\n"
        f"          make part-{number} MODE=${{{{ env.MODE }}}}\n"
        '          echo "sum=$(sha256sum out | cut -c1-8)" >> "$GITHUB_OUTPUT"\n'
        "      - name: Check\n        if: always() && steps.build.outputs.sum != ''\n"
        f"        run: ./check {number} ${{{{ steps.build.outputs.sum }}}}\n"
        "        shell: bash\n        env:\n          TOKEN: ${{ secrets.TOKEN }}\n"
    )


def measure(report: Report) -> None:
    """Add the figures of both parts."""
    _expressions(report)
    _compiling(report)


def _expressions(report: Report) -> None:
    parsed = [parse_expression(text) for text in _EXPRESSIONS]

    def evaluated() -> None:
        for _ in range(_TIMES):
            for expression in parsed:
                evaluate(expression, _CONTEXTS)

    count = _TIMES * len(parsed)
    report.add(
        Row("simple expressions after parsing", count / cpu_seconds(evaluated), "1/s",
            ">= 50,000", count / cpu_seconds(_plain_python), "the same as Python code")
    )  # fmt: skip


def _plain_python() -> None:
    """What the expressions say, written by hand on the same data."""
    found: dict[str, dict[str, object]] = _CONTEXTS  # type: ignore[assignment]
    github, matrix, env = found["github"], found["matrix"], found["env"]
    for _ in range(_TIMES):
        for each in (
            lambda: str(github["ref"]).upper() == "REFS/HEADS/MAIN",
            lambda: github["event_name"] != "pull_request" and matrix["os"] == "linux",
            lambda: float(str(matrix["python"])) >= 3.10,
            lambda: env["MODE"] or "slow",
            lambda: str(github["ref"]).upper().startswith("REFS/TAGS/"),
            lambda: github["event"]["number"],  # type: ignore[index]
        ):
            each()


def _compiling(report: Report) -> None:
    text = large_workflow()
    compiled = compile_workflow("large.yml", text)
    if compiled.plan is None or len(compiled.plan.jobs) != JOBS or compiled.warnings:
        raise RuntimeError(f"the workflow is not as meant: {compiled.problems[:3]}")
    taken = cpu_seconds(lambda: compile_workflow("large.yml", text))
    limit = cpu_seconds(lambda: _events(text))
    report.add(
        Row(f"a workflow of {JOBS} jobs to its plan, CPU", taken * 1000, "ms", "<= 100",
            limit * 1000, "libyaml's events alone")
    )  # fmt: skip
    report.details["language"] = {"bytes": len(text), "lines": text.count("\n")}


def _events(text: str) -> None:
    parser = CParser(text)
    while not isinstance(parser.get_event(), yaml.StreamEndEvent):
        pass
    parser.dispose()


def cpu_seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the processor time of the quickest of several rounds, each from a clean heap."""
    taken = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)
