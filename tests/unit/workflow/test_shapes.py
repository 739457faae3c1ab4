"""What GitHub's parser lets pass and what it refuses, key by key: shapes beyond the usual ones."""

from __future__ import annotations

import pytest

from schemas.workflow.compile import Compiled, compile_workflow

STEPS = "runs-on: x, steps: [{run: a}]"
JOBS = f"jobs:\n  a: {{{STEPS}}}\n"
NEEDS_BOTH = "jobs:\n  b:\n    runs-on: x\n    uses: ./w.yml\n    steps: [{run: a}]\n"


def compiled(text: str) -> Compiled:
    """Compiles a workflow by itself."""
    return compile_workflow(".github/workflows/w.yml", text.encode())


def of_job(job: str) -> Compiled:
    """Compiles a workflow of one job, written as the inside of a flow mapping."""
    return compiled(f"on: push\njobs:\n  a: {{{job}}}\n")


@pytest.mark.parametrize(
    "job",
    [
        f"{STEPS}, container: {{image: i, credentials: \"${{{{ fromJSON('{{}}') }}}}\"}}",
        f"{STEPS}, container: {{image: i, ports: '${{{{ matrix.p }}}}'}}",
        f"{STEPS}, container: {{image: i, volumes: '${{{{ vars.v }}}}'}}",
        f"{STEPS}, container: {{image: i, env: {{A: '${{{{ steps.x.outputs.y }}}}'}}}}",
        f"{STEPS}, services: {{s: {{image: i, credentials: '${{{{ matrix.c }}}}'}}}}",
        f"{STEPS}, container: ''",
        f"{STEPS}, snapshot: my-image",
        f"{STEPS}, snapshot: {{image-name: i, version: 2.*, if: '${{{{ github.ref }}}}'}}",
        f"{STEPS}, cancel-timeout-minutes: '${{{{ vars.n }}}}'",
        "runs-on: {group: organization/big}, steps: [{run: a}]",
        "runs-on: {group: '${{ vars.a }}/b/c'}, steps: [{run: a}]",
        "runs-on: x, steps: [{uses: own er/re po/sub folder@v1}]",
        "runs-on: x, if: \"success('a') || failure('a', 'b')\", steps: [{run: a}]",
    ],
)
def test_a_job_of_this_shape_is_accepted(job: str) -> None:
    """An expression may stand for a whole list or mapping; odd names are the forge's business."""
    assert [str(problem) for problem in of_job(job).problems] == []


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (f"{STEPS}, services: {{s: }}", "the service 's' must not be empty"),
        (f"{STEPS}, services: {{s: ''}}", "the service 's' must not be empty"),
        (f"{STEPS}, container: {{image: i, ports: 80}}", "ports must be a list, not '80'"),
        (f"{STEPS}, container: {{image: i, volumes: {{a: b}}}}", "must be a list, not a mapping"),
        (f"{STEPS}, cancel-timeout-minutes: soon", "cancel-timeout-minutes must be a number"),
        (f"{STEPS}, cancel-timeout-minutes: '${{{{ env.x }}}}'", "Unrecognized named-value: 'env'"),
        (f"{STEPS}, snapshot: ''", "snapshot must not be empty"),
        (f"{STEPS}, snapshot: {{version: 1.*}}", "Required property is missing: image-name"),
        (f"{STEPS}, snapshot: {{image-name: i, name: b}}", "'name' is not a key of snapshot"),
        ("runs-on: {group: team/big}, steps: [{run: a}]", "'team/big' names no runner group"),
        ("runs-on: {group: org/a/b}, steps: [{run: a}]", "'org/a/b' names no runner group"),
        ("runs-on: {group: org/}, steps: [{run: a}]", "'org/' names no runner group"),
        ("runs-on: x, steps: [{run: a, if: success('b')}]", "Too many parameters supplied"),
        ("runs-on: x, steps: [{run: a, if: '!FAILURE(1)'}]", "supplied: 'FAILURE'"),
    ],
)
def test_a_job_of_this_shape_is_refused(job: str, message: str) -> None:
    """Each with a message of its own."""
    assert [problem.message for problem in of_job(job).problems if message in problem.message]


@pytest.mark.parametrize(
    "on",
    [
        "{workflow_call: {outputs: {o: {value: ''}}}}",
        "{workflow_call: {outputs: {o: {value: }}}}",
        "{workflow_dispatch: {inputs: {c: {type: choice, options: ['', a]}}}}",
        "{workflow_dispatch: {inputs: }}",
        "{pull_request: {types: [stacked]}, issues: {types: [field_added, field_removed]}}",
    ],
)
def test_triggers_of_this_shape_are_accepted(on: str) -> None:
    """An empty text is a text; the newest activity types are known."""
    assert [str(problem) for problem in compiled(f"on: {on}\n{JOBS}").problems] == []


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("{workflow_call: {inputs: }}", "inputs must be a mapping, not nothing"),
        ("{workflow_call: {secrets: }}", "secrets must be a mapping, not nothing"),
        ("{workflow_call: {outputs: }}", "outputs must be a mapping, not nothing"),
        (
            "{workflow_dispatch: {inputs: {c: {type: choice, options: a}}}}",
            "options must be a list",
        ),
        ("{schedule: [{cron: '*/60 * * * *'}]}", "the step of '*/60' is above 59 (minute)"),
    ],
)
def test_triggers_of_this_shape_are_refused(on: str, message: str) -> None:
    """Where GitHub wants a mapping or a list, nothing else will do."""
    found = [problem.message for problem in compiled(f"on: {on}\n{JOBS}").problems]

    assert [text for text in found if message in text]


def test_other_keys_of_a_dispatch_are_overlooked_with_a_word() -> None:
    """GitHub reads over them; a misspelt `inputs` should still be noticed."""
    found = compiled("on: {workflow_dispatch: {imputs: {a: }}}\n" + JOBS)

    assert found.problems == ()
    assert [(p.message, p.hint) for p in found.warnings] == [
        (
            "'imputs' is not a key of on.workflow_dispatch and has no effect",
            "did you mean 'inputs'?",
        )
    ]


def test_a_job_that_runs_and_calls_is_refused_at_the_call() -> None:
    """The key that comes second is the one that GitHub names; the others are listed as well."""
    found = compiled("on: push\n" + NEEDS_BOTH)

    assert [(p.line, p.column) for p in found.problems] == [(4, 5), (5, 5), (6, 5)]
    assert "either runs steps or calls a workflow" in found.problems[1].message
