"""`tailrace eval`: values, errors and exit codes; alone and as a stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.cli import main

CONTEXTS = {"github": {"ref": "refs/heads/main", "n": 1.5}, "list": [{"a": 1}, {"a": 2}]}


@pytest.fixture
def context(tmp_path: Path) -> str:
    """Return the path of a file with contexts."""
    path = tmp_path / "context.json"
    path.write_text(json.dumps(CONTEXTS))
    return str(path)


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    """Run `tailrace eval`."""
    return CliRunner().invoke(main, ["eval", *arguments], input=text, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["github.ref"], '"refs/heads/main"'),
        (["github.n"], "1.5"),
        (["github.nope"], "null"),
        (["list.*.a"], "[\n  1,\n  2\n]"),
        (["github.n == '1.5' && list[1].a"], "2"),
        (["github.ref", "--raw"], "refs/heads/main"),
        (["list", "--raw"], "Array"),
        (["true", "--raw"], "true"),
        (["NaN"], '"NaN"'),
        (["-Infinity"], '"-Infinity"'),
        (["at ${{ github.ref }}: ${{ 1 }}", "--template"], '"at refs/heads/main: 1"'),
        (["at ${{ github.ref }}", "--template", "--raw"], "at refs/heads/main"),
        (["1 == 1", "--json"], '{"value": true, "kind": "Boolean"}'),
        (["failure() || cancelled()", "--status", "failure"], "true"),
        (["success()", "--status", "failure"], "false"),
    ],
)
def test_a_value_is_printed(context: str, arguments: list[str], printed: str) -> None:
    """As JSON, or as it appears in a text."""
    result = run(*arguments, "--context", context)
    assert result.exit_code == 0
    assert result.output == printed + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["github.ref +"], "lexing: Unexpected symbol: '+'"),
        (["nope.x"], "parsing: Unrecognized named-value: 'nope'"),
        (["success()"], "parsing: Unrecognized function: 'success'"),
        (["fromJSON('{')"], "evaluation: Error parsing fromJSON input"),
        (["${{ 1 }}"], "hint: leave ${{ }} out, or use --template"),
        (["a ${{ 1", "--template"], "lexing: The expression is not closed"),
    ],
)
def test_a_wrong_expression_ends_with_1(context: str, arguments: list[str], message: str) -> None:
    """With its stage, GitHub's words and the place."""
    result = run(*arguments, "--context", context)
    assert result.exit_code == 1
    assert message in result.output


def test_the_place_is_marked() -> None:
    """The mark stands under the symbol."""
    assert "\n  1 == nope.x\n       ^\n" in run("1 == nope.x").output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], None),
        (["1", "--jsonl"], ""),
        (["--jsonl", "--raw"], ""),
        (["1", "--context", "-"], "[1]"),
        (["1", "--context", "-"], "{"),
        (["1", "--context", "-"], b"\xff"),
        (["1", "--context", "/nonexistent"], None),
        (["1", "--status", "odd"], None),
        (["1", "--odd"], None),
    ],
)
def test_wrong_use_ends_with_2(arguments: list[str], text: str | bytes | None) -> None:
    """Contexts that are no JSON object included."""
    assert run(*arguments, text=text).exit_code == 2


def test_hash_files_reads_the_workspace(tmp_path: Path) -> None:
    """The same function as in a job."""
    (tmp_path / "a.lock").write_text("1")
    (tmp_path / "b.txt").write_text("2")
    one = run("hashFiles('*.lock')", "--raw", "--workspace", str(tmp_path)).output
    (tmp_path / "b.txt").write_text("3")
    assert run("hashFiles('*.lock')", "--raw", "--workspace", str(tmp_path)).output == one
    (tmp_path / "a.lock").write_text("4")
    assert run("hashFiles('*.lock')", "--raw", "--workspace", str(tmp_path)).output != one


def test_a_stream_answers_each_case(context: str) -> None:
    """A line a case, in order; errors are data; --context is what all cases share."""
    cases: list[object] = [
        {"expr": "github.ref"},
        {"expr": "a.b", "context": {"a": {"b": [1]}}},
        {"template": "x${{ a.b }}", "context": {"a": {"b": None}}},
        {"id": "one", "expr": "x${{ 1 }}", "mode": "template"},
        {"expr": "1 +"},
        {"expr": "failure()", "status": "failure"},
    ]
    text = "\n\n".join(map(json.dumps, cases)) + "\n"
    result = run("--jsonl", "--context", context, text=text)
    found = [json.loads(line) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert found[0] == {"value": "refs/heads/main", "kind": "String"}
    assert found[1] == {"value": [1], "kind": "Array"}
    assert found[2] == {"value": "x", "kind": "String"}
    assert found[3] == {"id": "one", "value": "x1", "kind": "String"}
    assert found[4]["error"]["stage"] == "lexing"
    assert found[5]["value"] is True


@pytest.mark.parametrize(
    "line",
    [
        b"nope", b"[]", b"{}", b'{"expr": 1}', b'{"expr": "1", "template": "1"}', b"\xff",
        b'{"expr": "1", "context": []}', b'{"expr": "1", "status": "odd"}',
        b'{"expr": "1", "workspace": 1}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_line_that_is_no_case_is_answered_too(line: bytes) -> None:
    """The others are answered as well, and the end says that something was wrong."""
    result = run("--jsonl", text=line + b'\n{"expr": "1"}\n')
    first, second = map(json.loads, result.output.splitlines())
    assert result.exit_code == 2
    assert first["error"]["stage"] == "input"
    assert "line 1: " in first["error"]["message"]
    assert second == {"value": 1, "kind": "Number"}


def test_half_a_surrogate_pair_can_be_printed(tmp_path: Path) -> None:
    """JSON lets one in, by an expression or a file of contexts; UTF-8 cannot hold it."""
    context = tmp_path / "context.json"
    context.write_text('{"env": {"half": "\\ud800"}}')

    assert json.loads(run("fromJSON('\"\\ud800\"')").output) == "\ufffd"
    found = run("env.half", "--context", str(context))
    assert ascii(json.loads(found.output)) == ascii("\ud800")
    assert run("env.half", "--context", str(context), "--raw").exit_code == 0
