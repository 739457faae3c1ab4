"""Reusable workflows: how they come into the plan, and what is checked on the way."""

from __future__ import annotations

import textwrap

import pytest

from schemas.workflow.compile import Compiled, compile_workflow
from schemas.workflow.plan import InputPlan
from schemas.workflow.plan_json import plan_from_json, plan_to_json

PATH = ".github/workflows/main.yml"
CALLED = """
    on:
      workflow_call:
        inputs:
          env: {type: string, required: true}
          dry: {type: boolean}
          n: {type: number, default: 3}
        secrets:
          token: {required: true}
          extra:
        outputs:
          url: {value: "${{ jobs.deploy.outputs.url }}"}
    env: {INNER: "1"}
    defaults: {run: {shell: sh}}
    jobs:
      prepare: {runs-on: x, steps: [{run: a}]}
      deploy:
        needs: prepare
        runs-on: x
        outputs: {url: u}
        steps: [{run: b}]
"""


def compiled(main: str, **files: str) -> Compiled:
    """Compiles a workflow beside others of the same folder."""
    texts = {
        f".github/workflows/{name}.yml": textwrap.dedent(text).encode()
        for name, text in files.items()
    }
    return compile_workflow(PATH, textwrap.dedent(main).encode(), read_file=texts.get)


def messages(result: Compiled) -> list[str]:
    """The errors with their places."""
    assert result.plan is None
    return [str(problem).removeprefix(".github/workflows/") for problem in result.problems]


def test_a_called_workflow_is_in_line_behind_its_caller() -> None:
    """Ids and needs have the caller's id before them; env, defaults and outputs are its own."""
    result = compiled(
        """
        on: push
        env: {OUTER: "1"}
        jobs:
          build: {runs-on: x, steps: [{run: a}]}
          ship:
            needs: build
            uses: ./.github/workflows/called.yml
            with: {env: prod, dry: true}
            secrets: {token: "${{ secrets.T }}"}
          after: {runs-on: x, needs: [ship], steps: [{run: "${{ needs.ship.outputs.url }}"}]}
        """,
        called=CALLED,
    )
    plan = result.plan
    assert plan is not None, result.problems
    ship, deploy = plan.job("ship"), plan.job("ship.deploy")

    assert [job.id for job in plan.jobs] == [
        "build",
        "ship",
        "ship.prepare",
        "ship.deploy",
        "after",
    ]
    assert (deploy.needs, deploy.parent, deploy.local_id) == (("ship.prepare",), "ship", "deploy")
    assert deploy.defaults_run.shell == "sh"
    assert plan.workflow_env(deploy) == {"INNER": "1"}
    assert plan.workflow_env(ship) == {"OUTER": "1"}
    assert ship.call is not None
    assert ship.call.outputs == {"url": "${{ jobs.deploy.outputs.url }}"}
    assert ship.call.secrets == {"token": True, "extra": False}
    assert ship.call.inputs["n"] == InputPlan(type="number", default=3)
    assert ship.with_ == {"env": "prod", "dry": True}
    assert [job.id for job in plan.children("ship")] == ["ship.prepare", "ship.deploy"]
    assert plan.ancestors("ship.deploy") == ("ship.prepare",)
    assert plan_from_json(plan_to_json(plan)) == plan


def test_calls_can_be_nested() -> None:
    """Ids grow at the front; a file that is called twice is there twice."""
    inner = "on: workflow_call\njobs: {x: {runs-on: l, steps: [{run: a}]}}\n"
    result = compiled(
        "on: push\njobs: {a: {uses: ./.github/workflows/middle.yml}}\n",
        middle="""
            on: workflow_call
            jobs:
              b: {uses: ./.github/workflows/inner.yml}
              c: {uses: ./.github/workflows/inner.yml, needs: b}
        """,
        inner=inner,
    )
    assert result.plan is not None, result.problems

    assert [job.id for job in result.plan.jobs] == ["a", "a.b", "a.b.x", "a.c", "a.c.x"]
    assert result.plan.job("a.c").needs == ("a.b",)


def test_a_remote_workflow_is_read_at_its_ref() -> None:
    """What it calls by a relative path is in its own repository."""
    asked = []
    files = {
        ".github/workflows/r.yml": b"on: workflow_call\n"
        b"jobs: {i: {uses: ./.github/workflows/s.yml}}",
        ".github/workflows/s.yml": b"on: workflow_call\njobs: {j: {runs-on: x}}",
    }

    def read_remote(repository: str, path: str, ref: str) -> bytes | None:
        asked.append((repository, path, ref))
        return files.get(path)

    main = "on: push\njobs: {a: {uses: o/r/.github/workflows/r.yml@v1}}\n"
    result = compile_workflow(PATH, main, read_remote=read_remote)
    unread = compile_workflow(PATH, main)

    assert result.plan is not None, result.problems
    assert [job.id for job in result.plan.jobs] == ["a", "a.i", "a.i.j"]
    assert asked == [("o/r", name, "v1") for name in files]
    assert unread.plan is not None
    assert unread.plan.jobs[0].call is None


def test_a_default_does_not_stand_in_for_a_required_input() -> None:
    """GitHub refuses such a call, and the called file is warned of its useless default."""
    called = CALLED.replace(
        "{type: string, required: true}", "{type: string, required: true, default: a}"
    )

    found = messages(compiled(CALL + "    secrets: inherit\n", called=called))

    assert found == ["main.yml:4:11: Input env is required, but not provided while calling"]


CALL = "on: push\njobs:\n  a:\n    uses: ./.github/workflows/called.yml\n"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            "",
            [
                "main.yml:4:11: Input env is required, but not provided while calling",
                "main.yml:4:11: Secret token is required, but not provided while calling",
            ],
        ),
        (
            "    with: {ENV: a, dry: 'x', n: '1', zz: 1}\n    secrets: inherit\n",
            [
                "main.yml:5:25: Unexpected value 'x': the input 'dry' is a boolean",
                "main.yml:5:33: Unexpected value '1': the input 'n' is a number",
                "main.yml:5:38: Invalid input, zz is not defined in the referenced workflow",
            ],
        ),
        (
            "    with: {env: '${{ github.ref }}', n: '${{ 1 }}'}\n    secrets: {token: a, b: c}\n",
            ["main.yml:6:25: Invalid secret, b is not defined in the referenced workflow"],
        ),
    ],
)
def test_what_a_caller_passes_must_fit(rest: str, expected: list[str]) -> None:
    """Names ignore case, literals have their types, required ones are there."""
    assert messages(compiled(CALL + rest, called=CALLED)) == expected


def test_a_called_file_must_exist_and_be_callable() -> None:
    """Its own mistakes are reported in it and at the call."""
    ok = "jobs: {x: {runs-on: l}}\n"

    assert messages(compiled(CALL)) == [
        "main.yml:4:11: Unable to find reusable workflow './.github/workflows/called.yml'"
    ]
    assert messages(compiled(CALL, called="on: push\n" + ok)) == [
        "main.yml:4:11: workflow_call key is not defined in the referenced workflow "
        "'./.github/workflows/called.yml'"
    ]
    assert messages(compiled(CALL, called="on: workflow_call\njob: 1\n" + ok)) == [
        "main.yml:4:11: the called workflow './.github/workflows/called.yml' has errors: 'job' is "
        "not a key of a workflow; expected one of: concurrency, defaults, description, env, jobs, "
        "name, on, permissions, run-name (.github/workflows/called.yml:2:1)",
        "called.yml:2:1: 'job' is not a key of a workflow; expected one of: concurrency, "
        "defaults, description, env, jobs, name, on, permissions, run-name",
    ]


def test_calls_end() -> None:
    """A circle is found, and so is too great a depth or number."""
    loop = "on: workflow_call\njobs: {x: {uses: ./.github/workflows/called.yml}}\n"
    chain = {
        f"c{n}": f"on: workflow_call\njobs: {{x: {{uses: ./.github/workflows/c{n + 1}.yml}}}}\n"
        for n in range(12)
    }
    fan = {
        f"f{n}": "on: workflow_call\njobs:\n"
        + "".join(f"  x{i}: {{uses: ./.github/workflows/f{n + 1}.yml}}\n" for i in range(20))
        for n in range(7)
    }
    start = "on: push\njobs: {a: {uses: ./.github/workflows/%s.yml}}\n"

    assert "calls itself" in messages(compiled(CALL, called=loop))[0]
    assert any("levels deep" in text for text in messages(compiled(start % "c0", **chain)))
    assert any("more than 2000 jobs" in text for text in messages(compiled(start % "f0", **fan)))


@pytest.mark.parametrize(
    ("caller", "called", "refused"),
    [
        ("{contents: read}", "{contents: read}", False),
        ("{contents: read}", "{contents: write}", True),
        ("read-all", "{contents: read, packages: read}", False),
        ("read-all", "write-all", True),
        ("{}", "{issues: read}", True),
        ("write-all", "{id-token: write}", False),
        ("read-all", "{id-token: write}", True),
    ],
)
def test_a_called_workflow_gets_no_more_than_its_caller(
    caller: str, called: str, *, refused: bool
) -> None:
    """Permissions only shrink on the way."""
    result = compiled(
        f"on: push\npermissions: {caller}\njobs: {{a: {{uses: ./.github/workflows/b.yml}}}}\n",
        b=f"on: workflow_call\njobs: {{x: {{runs-on: l, permissions: {called}}}}}\n",
    )

    assert (result.plan is None) is refused
    assert all("Error calling workflow" in problem.message for problem in result.problems)
