"""Secrets that a job mentions, hashFiles patterns, and the plan's own questions."""

from __future__ import annotations

import hashlib
import textwrap

import pytest

from schemas.workflow.compile import compile_workflow
from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions.values import Value
from schemas.workflow.hashfiles import HashPatterns, check_patterns, combined_digest
from schemas.workflow.plan import WorkflowPlan
from schemas.workflow.plan_json import PlanFormatError, plan_from_json, plan_to_json
from schemas.workflow.secrets import (
    mentioned_contexts,
    reads_token,
    repository_secret_names,
    secret_names,
    secrets_inside,
)


def compiled(text: str) -> WorkflowPlan:
    """The plan of a workflow."""
    found = compile_workflow("w.yml", textwrap.dedent(text))
    assert found.plan is not None, found.problems
    return found.plan


def test_the_secrets_of_a_job_are_those_it_mentions() -> None:
    """In any place and spelling; a computed name or all of them is a star."""
    plan = compiled("""
        on: push
        env: {TOP: "${{ secrets.top }}"}
        jobs:
          named:
            runs-on: x
            env: {A: "${{ secrets.a }}-${{ secrets['B'] }}"}
            steps:
              - run: echo ${{ SECRETS.c }}
                if: env.A != 'secrets.no'
              - uses: o/r@v1
                with: {d: "${{ format('{0}', secrets.d) }}"}
          all:
            runs-on: x
            steps: [{run: "${{ toJSON(secrets) }}"}]
          computed:
            runs-on: x
            steps: [{run: "${{ secrets[matrix.name] }}"}]
          none:
            runs-on: x
            steps: [{run: "echo secrets.x"}]
    """)

    assert secret_names(plan.job("named")) == ("A", "B", "C", "D")
    assert secret_names(plan.job("named"), plan) == ("A", "B", "C", "D", "TOP")
    assert secret_names(plan.job("all")) == ("*",)
    assert secret_names(plan.job("computed")) == ("*",)
    assert secret_names(plan.job("none")) == ()


@pytest.mark.parametrize(
    ("step", "reads"),
    [
        ("run: echo ${{ github.token }}", True),
        ("run: echo ${{ GITHUB . Token }}", True),
        ("run: echo ${{ github['token'] }}", True),
        ("run: echo ${{ fromJSON('{}').a || github.token }}", True),
        ("run: echo ${{ toJSON(github) }}", True),
        ("{run: x, if: github.token != ''}", True),
        ("{uses: a/b@v1, with: {t: '${{ github.token }}'}}", True),
        ("run: echo ${{ github.sha }} github.token", False),
        ("run: echo ${{ 'github.token' }}", False),
    ],
)
def test_a_job_that_reads_the_token_is_known(step: str, *, reads: bool) -> None:
    """By what its expressions refer to, wherever they stand."""
    text = f"on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - {step}\n"
    compiled = compile_workflow("w.yml", text)

    assert compiled.plan is not None, compiled.problems
    assert reads_token(compiled.plan.jobs[0]) is reads


def test_the_repositorys_secrets_are_found_through_callers() -> None:
    """Under the caller's names; inherited ones keep theirs, others stay out."""
    files = {
        "b.yml": b"""
            on: {workflow_call: {secrets: {x: , y: }}}
            jobs:
              j: {runs-on: l, steps: [{run: "${{ secrets.x }}${{ secrets.z }}"}]}
              k: {uses: ./c.yml, secrets: inherit}
        """,
        "c.yml": b"""
            on: workflow_call
            jobs: {m: {runs-on: l, steps: [{run: "${{ secrets.y }}${{ secrets.GITHUB_TOKEN }}"}]}}
        """,
    }
    main = """
        on: push
        jobs:
          a: {uses: ./b.yml, secrets: {x: "${{ secrets.OUT_X }}", y: "${{ secrets.OUT_Y }}"}}
          i: {uses: ./b.yml, secrets: inherit}
    """
    plan = compile_workflow("a.yml", textwrap.dedent(main), read_file=files.get).plan
    assert plan is not None

    assert repository_secret_names(plan, plan.job("a.j")) == ("OUT_X",)
    assert repository_secret_names(plan, plan.job("a.k.m")) == ("GITHUB_TOKEN", "OUT_Y")
    assert repository_secret_names(plan, plan.job("i.j")) == ("X", "Z")


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["**/package-lock.json"], ["package-lock.json", "a/b/package-lock.json"]),
        (["a"], ["a/b/package-lock.json", "a/x.go"]),
        (["./a/*.go", "!a/x.go"], []),
        (["*.g?"], []),
        (["**/*.g?"], ["a/x.go"]),
        (["**", "!**/*.json"], ["a/x.go", "c+d!.txt"]),
        (["c+d!.txt"], ["c+d!.txt"]),
        (["[a-c]*"], ["a/b/package-lock.json", "a/x.go", "c+d!.txt"]),
        (["/work/a/x.go"], ["a/x.go"]),
        (["# comment", ""], []),
        (["**.go"], []),
        (["a/**/b/**"], ["a/b/package-lock.json"]),
        (["[!a-b]*"], ["package-lock.json", "c+d!.txt"]),
        (["a/[^x].go", "[^c]ackage-loc[!abc].json"], ["package-lock.json"]),
        (["a[!x]x.go"], []),
        (["c+d[!].txt"], ["c+d!.txt"]),
    ],
)
def test_hash_patterns_select_files(patterns: list[str], selected: list[str]) -> None:
    """Folders count with all below them; the last pattern that matches decides."""
    files = ["package-lock.json", "a/b/package-lock.json", "a/x.go", "c+d!.txt"]
    wanted = HashPatterns(patterns, workspace="/work")

    assert [path for path in files if wanted.matches(path)] == selected


@pytest.mark.parametrize("pattern", ["../x", "a/../b", "!a/./b", "x\n  a/.."])
def test_hash_patterns_do_not_lead_elsewhere(pattern: str) -> None:
    """As GitHub's globs have it: `./` may only begin a pattern."""
    with pytest.raises(ExpressionError, match="are not allowed in the pattern"):
        check_patterns([pattern])
    check_patterns(["./a", "# ../x", ".hidden/..a", ""])


def test_no_files_have_no_hash() -> None:
    """An empty text, so that a cache key shows it."""
    assert combined_digest([]) == ""
    assert combined_digest([b"x"]) == hashlib.sha256(b"x").hexdigest()


def test_ancestors_are_all_jobs_before() -> None:
    """Not only the direct needs, in the order of the file."""
    plan = compiled("""
        on: push
        jobs:
          a: {runs-on: x, steps: [{run: a}]}
          b: {runs-on: x, needs: a, steps: [{run: b}]}
          c: {runs-on: x, needs: [B], steps: [{run: c}]}
    """)

    assert plan.ancestors("c") == ("a", "b")
    assert plan.job("c").needs == ("b",)


def test_a_plan_survives_its_json_with_every_number() -> None:
    """NaN and the infinities too, and names that look like their notation."""
    plan = compiled("""
        on: push
        jobs:
          a:
            runs-on: x
            strategy:
              matrix:
                n: [.nan, .inf, -.inf, 1.5, {$number: NaN, $$number: x, $$: 1}]
            steps: [{run: a}]
    """)
    text = plan_to_json(plan)
    again = plan_from_json(text)

    assert repr(again) == repr(plan)
    assert plan_to_json(again) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"v":1}', '{"v":1,"path":"a","name":"b","x":1}'])
def test_a_text_that_is_no_plan_is_refused(text: str) -> None:
    """With the language's own error."""
    with pytest.raises(PlanFormatError):
        plan_from_json(text)


def test_a_called_workflow_has_the_secrets_that_its_callers_hand_on() -> None:
    """Through two callers, one of which inherits; the job's token is always among them."""
    released = {"OUT": "s3cret", "OTHER": "x", "GITHUB_TOKEN": "t0ken"}
    outer: Value = {
        "values": {"handed": "${{ secrets.out }}-${{ matrix.n }}", "fixed": "text"},
        "contexts": {"matrix": {"n": 2.0}},
    }

    assert secrets_inside(released, [], {}) == released
    assert secrets_inside(released, ["inherit"], {}) == released
    assert secrets_inside(released, ["inherit", outer], {}) == {
        "GITHUB_TOKEN": "t0ken",
        "HANDED": "s3cret-2",
        "FIXED": "text",
    }
    assert secrets_inside(released, [{"values": {}, "contexts": {}}], {}) == {
        "GITHUB_TOKEN": "t0ken"
    }
    assert mentioned_contexts({"a": "${{ secrets.x }}${{ needs.b.outputs.c }}"}) == {
        "secrets",
        "needs",
    }
