"""Whole workflows that check themselves, by `tailrace run-local`: as on GitHub they succeed.

Each folder of `workflows/` is the tree of a repository; a step that finds something else fails.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREES = Path(__file__).parent / "workflows"
ARGV = [sys.executable, "-c", "from infra.cli import main; main()", "run-local"]
VARIABLES = {"LEVEL": "high", "LIMIT": "20", "ACTIONS_STEP_DEBUG": "true"}
NAMES = {"calls": {"call 1 / work", "call 2 / work", "plain of push / work", "after"}}

ERRORS = {"matchers": ["##[error]a.c:2:1: error: just right"]}


@pytest.mark.parametrize("name", sorted(path.name for path in TREES.iterdir()))
def test_a_workflow_finds_what_githubs_runner_would_give_it(tmp_path: Path, name: str) -> None:
    """Every job succeeds, under GitHub's names, and nothing else is shown as an error."""
    tree = tmp_path / name
    shutil.copytree(TREES / name, tree)
    variables = [part for pair in VARIABLES.items() for part in ("--var", "=".join(pair))]

    done = subprocess.run(
        [*ARGV, str(tree), "-W", ".github/workflows/main.yml", *variables, "--json"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip

    [run] = json.loads(done.stdout)["runs"]
    errors = [line["text"] for job in run["jobs"] for line in job["log"] if "##[" in line["text"]]
    assert (run["conclusion"], done.returncode) == ("success", 0), "\n".join(errors)
    assert [text for text in errors if text.startswith("##[error]")] == ERRORS.get(name, [])
    if name in NAMES:
        assert {job["name"] for job in run["jobs"]} >= NAMES[name]
