"""`tailrace run-local`: whole runs in processes of their own, without any service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.gitrepo import git

ARGV = [sys.executable, "-c", "from infra.cli import main; main()", "run-local"]
MAIN = """
name: Shop
on: [push, workflow_dispatch]
jobs:
  build:
    runs-on: windows-latest
    outputs: {version: '${{ steps.v.outputs.version }}'}
    steps:
      - uses: actions/checkout@v4
      - id: v
        run: |
          echo "version=$(cat version)" >> "$GITHUB_OUTPUT"
          echo "### built $(cat version)" >> "$GITHUB_STEP_SUMMARY"
      - run: echo "token is ${{ secrets.TOKEN }}, length ${#T}"
        env: {T: '${{ secrets.TOKEN }}'}
      - run: echo "::warning file=version,line=1::old"
  test:
    needs: build
    strategy: {matrix: {n: [1, 2]}}
    runs-on: ubuntu-latest
    steps:
      - run: echo "leg ${{ matrix.n }} of ${{ needs.build.outputs.version }} as $(id -un)"
"""


def run(folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command on a tree."""
    return subprocess.run(
        [*ARGV, str(folder), *arguments], capture_output=True, text=True, timeout=60,
        check=False, **more,
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with one workflow and no repository around it."""
    return a_tree(tmp_path / "shop", MAIN)


def a_tree(folder: Path, text: str) -> Path:
    """Make a tree with a workflow."""
    (folder / ".github" / "workflows").mkdir(parents=True)
    (folder / ".github" / "workflows" / "main.yml").write_text(text)
    (folder / "version").write_text("1.2\n")
    return folder


def test_a_tree_s_workflow_runs_and_its_json_says_everything(tree: Path) -> None:
    """Conclusions, legs, contexts, outputs, summary and the masked log, and only JSON on stdout."""
    done = run(tree, "--secret", "TOKEN=hush-hush", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (only,) = found["runs"]
    assert (found["conclusion"], only["name"], only["event"]) == ("success", "Shop", "push")
    assert only["job_conclusions"] == {"build": "success", "test": "success"}
    assert only["matrix_legs"] == [
        {"job": "test", "matrix": {"n": n}, "conclusion": "success"} for n in (1, 2)
    ]
    assert only["steps_context"]["build"] == {
        "v": {"outputs": {"version": "1.2"}, "outcome": "success", "conclusion": "success"}
    }
    build, first, second = only["jobs"]
    assert build["summary"].strip() == "### built 1.2"
    assert [(each["level"], each["message"]) for each in build["annotations"]] == [
        ("warning", "old")
    ]
    texts = [line["text"] for line in build["log"]]
    assert "token is ***, length 9" in texts
    assert "hush-hush" not in done.stdout + done.stderr
    me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert [line["text"] for line in first["log"] + second["log"] if line["s"] == "out"] == [
        f"leg {n} of 1.2 as {me}" for n in (1, 2)
    ]


def test_a_pull_request_is_checked_out_as_its_merge(tmp_path: Path) -> None:
    """The commit that nobody but the planner made, with the files of both sides."""
    text = """
on: pull_request
jobs:
  look:
    runs-on: x
    steps:
      - uses: actions/checkout@v4
      - run: |
          test "$(git rev-parse HEAD)" = "$GITHUB_SHA"
          echo "$GITHUB_REF of $GITHUB_HEAD_REF into $GITHUB_BASE_REF: $(cat version ours)"
"""
    tree = a_tree(tmp_path / "work", text)
    git(tree, "init", "-q", "-b", "main")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "Begin")
    git(tree, "checkout", "-qb", "feature")
    (tree / "ours").write_text("mine\n")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "Ours")
    git(tree, "checkout", "-q", "main")
    (tree / "version").write_text("2.0\n")
    git(tree, "commit", "-qam", "Theirs")
    git(tree, "checkout", "-q", "feature")

    done = run(tree, "-e", "pull_request")

    assert done.returncode == 0, done.stdout
    assert "refs/pull/1/merge of feature into main: 2.0\nlook | mine" in done.stdout


def test_lines_are_shown_behind_their_job_and_a_table_at_the_end(tree: Path) -> None:
    """What a person sees."""
    done = run(tree, "-s", "TOKEN", "-j", "build", env={**os.environ, "TOKEN": "hush-hush"})

    assert done.returncode == 0, done.stderr
    assert "build | token is ***, length 9\n" in done.stdout
    assert "Shop: success" in done.stdout
    assert "test" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-e", "release"), 1, "trigger"),
        (("-j", "none"), 4, "there is no job 'none'; there are: build, test"),
        (("-W", "none.yml"), 4, "there is no workflow file none.yml"),
        (("-s", "NO_SUCH_VARIABLE"), 2, "the environment has no variable NO_SUCH_VARIABLE"),
        (("-i", "a=b", "-e", "push"), 2, "--input is for `-e workflow_dispatch`"),
    ],
)
def test_what_can_not_run_is_said(
    tree: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """With an exit code of its own and the reason on standard error."""
    done = run(tree, *arguments)

    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_folder_without_workflows_is_named(tmp_path: Path) -> None:
    """Whether it is a repository or not, with where workflows would be looked for."""
    for name in ("plain", "repository"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "repository":
            git(folder, "init", "-q")

        done = run(folder)

        words = f"{folder} has no workflow: they are read from .github/workflows and"
        assert (done.returncode, words in done.stderr) == (4, True), done.stderr


def test_a_broken_workflow_is_shown_with_its_places(tmp_path: Path) -> None:
    """As a run of the services shows it."""
    tree = a_tree(tmp_path / "broken", "on: push\njobs:\n  a: {runs-on: x, stepz: []}\n")

    done = run(tree)

    assert done.returncode == 1
    assert ".github/workflows/main.yml:3:" in done.stdout


def test_an_interrupt_cancels_the_run_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Steps that always run still do; exit code 6, and no folder or process is left."""
    mark = tmp_path / "begun"
    text = f"""
on: push
jobs:
  long:
    runs-on: x
    steps:
      - run: touch {mark}; exec sleep 4747
      - if: always()
        run: echo cleaned up
"""
    tree = a_tree(tmp_path / "long", text)
    temp = tmp_path / "temp"
    temp.mkdir()
    process = subprocess.Popen(
        [*ARGV, str(tree)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temp)},
    )  # fmt: skip
    eventually(mark.exists, timeout_ms=30_000)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 6
    assert "long | cleaned up" in out
    assert list(temp.iterdir()) == []
