"""`action.yml`: what an action is, and every mistake with its place."""

from __future__ import annotations

import pytest

from schemas.workflow.action_file import read_action
from schemas.workflow.errors import WorkflowError
from schemas.workflow.expressions.values import Value
from schemas.workflow.secrets import secrets_inside

COMPOSITE = """
name: Greet
description: says hello
branding: {icon: x}
inputs:
  who: {description: whom, required: true}
  how: {default: "${{ github.actor }}", deprecationMessage: use who}
  none:
outputs:
  said: {description: it, value: "${{ steps.s.outputs.said }}"}
runs:
  using: composite
  steps:
    - id: s
      run: echo ${{ inputs.who }}
      shell: ${{ inputs.how }}
      if: always() && hashFiles('x') == ''
    - uses: ./other
      with: {a: "${{ env.B }}"}
"""


def test_a_composite_action_is_read() -> None:
    """Inputs, outputs and steps; a shell may come from an input."""
    plan = read_action(COMPOSITE, "action.yml")

    assert (plan.name, plan.using) == ("Greet", "composite")
    assert [(name, item.default, item.required) for name, item in plan.inputs.items()] == [
        ("who", None, True),
        ("how", "${{ github.actor }}", False),
        ("none", None, False),
    ]
    assert plan.outputs == {"said": "${{ steps.s.outputs.said }}"}
    assert [step.uses or step.run for step in plan.steps] == ["echo ${{ inputs.who }}", "./other"]


@pytest.mark.parametrize("using", ["node12", "node16", "NODE20", "node24"])
def test_a_javascript_action_is_read(using: str) -> None:
    """Whatever node it was written for, this machine's runs it."""
    plan = read_action(
        f"runs: {{using: {using}, main: a.js, post: b.js, post-if: success()}}", "action.yml"
    )

    assert (plan.using, plan.main, plan.post, plan.post_if) == ("node", "a.js", "b.js", "success()")
    assert (plan.pre, plan.pre_if) == ("", "always()")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: x", 1, "missing: runs"),
        ("runs: composite", 1, "mapping"),
        ("runs: {using: composite}", 1, "missing: steps"),
        ("runs: {using: node20}", 1, "missing: main"),
        ("runs: {using: rust}", 1, "'using: rust'"),
        ("runs:\n  using: node20\n  main: a\n  mian: b", 4, "mian"),
        ("runs:\n  using: composite\n  steps:\n  - run: x", 4, "missing: shell"),
        ("runs:\n  using: composite\n  steps:\n  - name: x", 4, "missing: run"),
        ("runs:\n  using: composite\n  steps:\n  - uses: Foo/Bar", 4, "names no action"),
        (
            "runs:\n  using: composite\n  steps:\n  - {run: x, shell: sh, timeout-minutes: 1}",
            4,
            "timeout-minutes",
        ),
        (
            "runs:\n  using: composite\n  steps:\n  - run: ${{ secrets.X }}\n    shell: sh",
            4,
            "Unrecognized named-value: 'secrets'",
        ),
        (
            "runs:\n  using: composite\n  steps:\n  - run: ${{ needs.x }}\n    shell: sh",
            4,
            "Unrecognized named-value: 'needs'",
        ),
        ("- a", 1, "mapping with `runs`"),
        ("a: b: c", 1, ""),
    ],
)
def test_a_mistake_has_its_place(text: str, line: int, words: str) -> None:
    """File, line and what is wrong."""
    with pytest.raises(WorkflowError) as caught:
        read_action(text, "act/action.yml")

    problem = caught.value.problems[0]
    assert (problem.path, problem.line) == ("act/action.yml", line)
    assert words in problem.message


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ([], {"A": "1", "B": "2", "GITHUB_TOKEN": "t"}),
        (["inherit"], {"A": "1", "B": "2", "GITHUB_TOKEN": "t"}),
        ([{}], {"GITHUB_TOKEN": "t"}),
        ([{"mine": "${{ secrets.A }}"}], {"MINE": "1", "GITHUB_TOKEN": "t"}),
        ([{"X": "${{ secrets.Y }}"}, {"Y": "p-${{ secrets.B }}"}], {"X": "p-2"}),
        ([{"X": "${{ secrets.A }}"}, {"Y": "${{ secrets.B }}"}], {}),
        (["inherit", {"Y": "${{ secrets.B }}"}], {"Y": "2"}),
        ([{"X": "${{ secrets.A }}"}, "inherit"], {"X": "1"}),
        ([{"X": "${{ inputs.name }}"}], {"X": "ada"}),
    ],
)
def test_callers_hand_secrets_on(maps: list[Value], expected: dict[str, str]) -> None:
    """A called workflow sees what each caller on the way gives, and the token."""
    secrets = {"A": "1", "B": "2", "GITHUB_TOKEN": "t"}

    contexts: Value = {"inputs": {"name": "ada"}}
    given: list[Value] = [
        {"values": each, "contexts": contexts} if isinstance(each, dict) else each for each in maps
    ]

    found = secrets_inside(secrets, given, {})

    assert found == {"GITHUB_TOKEN": "t", **expected}
