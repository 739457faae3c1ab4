"""Advice below messages: what an author should do about a usual mistake."""

from __future__ import annotations

import pytest

from schemas.workflow.compile import compile_workflow

STEPS = "jobs:\n  a:\n    runs-on: x\n    steps:\n"


def advice(text: str) -> list[tuple[str, str | None]]:
    """The places of all errors of a workflow, each with its hint."""
    found = compile_workflow(".github/workflows/w.yml", text.encode())
    return [(f"{problem.line}:{problem.column}", problem.hint) for problem in found.problems]


@pytest.mark.parametrize(
    ("condition", "column", "hint"),
    [
        ("github.ref = 'x'", 24, "compare with =="),
        ('github.ref == "x"', 27, "a text stands in single quotes: 'main'"),
        ("always() and failure()", 22, "'and' is written &&"),
        ("always() OR failure()", 22, "'OR' is written ||"),
        ("always() & failure()", 22, "both conditions: &&"),
        ("always() | failure()", 22, "one of the conditions: ||"),
        ("1 + 1", 15, "there is no arithmetic; format('{0}{1}', a, b) puts texts together"),
        (
            "secrets.TOKEN != ''",
            13,
            "put the secret into `env` of the job or the step, and ask for env.NAME here",
        ),
    ],
)
def test_a_condition_with_a_usual_mistake_gets_advice(
    condition: str, column: int, hint: str
) -> None:
    """At the sign or the name that is wrong."""
    found = advice(f"on: push\n{STEPS}      - run: a\n        if: {condition}\n")

    assert found == [(f"7:{column}", hint)]


@pytest.mark.parametrize(
    ("run", "hint"),
    [
        ("echo ${{ github.ref }", "an expression ends with }}"),
        ("echo ${{ 'it's' }}", "a single quote inside a text is doubled: 'it''s'"),
        ("echo ${{ git.ref }}", "did you mean 'github'?"),
        ("echo ${{ ${{ github.ref }} }}", "inside an expression there is no further ${{ }}"),
    ],
)
def test_a_template_with_a_usual_mistake_gets_advice(run: str, hint: str) -> None:
    """Whatever is meant is said in the terms of the language."""
    found = advice(f"on: push\n{STEPS}      - run: {run}\n")

    assert [text for _, text in found if (text or "").startswith(hint)], found


DISPATCH = "on: {workflow_dispatch: {inputs: {a: {type: choise, options: [b]}}}}"
COLUMNS = "keys of one mapping start in the same column, and so do items of one list"
EARLY = (
    "a job's `if` is decided before there is any env; available here: github, inputs, needs, vars"
)


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (f"on: pull-request\n{STEPS}      - run: a\n", "1:5", "did you mean 'pull_request'?"),
        (f"{DISPATCH}\n{STEPS}      - run: a\n", "1:45", "did you mean 'choice'?"),
        (
            f"on: push\nsteps: []\n{STEPS}      - run: a\n",
            "2:1",
            "it belongs to a job: jobs.<id>.steps",
        ),
        (
            f"on: push\n{STEPS}      - run: [a, b]\n",
            "6:14",
            "write `run: |` and the lines below it",
        ),
        (f"on: push\n{STEPS}        run: a\n", "6:9", "each step begins with '- '"),
        (f"on: push\n{STEPS}      - run: a\n     name: b\n", "7:6", COLUMNS),
        ("on: push\njobs: {a: {runs-on: x, timeout-minutes: '5'}}", "2:41", "without quotes: 5"),
        ("on: push\njobs: {a: {runs-on: x, timeout-minutes: '5m'}}", "2:41", None),
        (
            "on: push\njobs: {a: {runs-on: x, continue-on-error: 'true'}}",
            "2:43",
            "without quotes: true",
        ),
        ("on: push\njobs: {a: {uses: ./w.yml@main}}", "2:18", None),
        ("on: push\njobs: {a: {runs-on: x, if: env.A}}", "2:28", EARLY),
    ],
)
def test_a_mistake_is_said_once_with_what_to_do(text: str, place: str, hint: str | None) -> None:
    """No second message for what follows from the first."""
    assert advice(text) == [(place, hint)]
