"""The parts of a local run: the tree as a commit, the pretended event, the plan that is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.cli.errors import CliError
from infra.cli.local.delivery import Wanted, delivery_of, merged, repository_name
from infra.cli.local.system import LABEL, NoSuchJobError, for_here
from infra.cli.local.tree import Snapshot, root_of, take
from schemas.events import DeliveryPlanned, Outcome, WorkflowOutcome
from schemas.workflow.plan_json import plan_from_json, plan_to_json
from tests.support.gitrepo import git
from tests.support.workflows import PATH, compiled

NOW_MS = 1_790_000_000_000
CHAIN = """
on: push
jobs:
  a: {runs-on: windows-latest, steps: [{run: 'true'}]}
  b: {needs: a, runs-on: [self-hosted, gpu], pool: big, steps: [{run: 'true'}]}
  call: {needs: a, uses: ./.github/workflows/called.yml}
  last: {needs: call, runs-on: ubuntu-latest, steps: [{run: 'true'}]}
"""
CALLED = """
on: workflow_call
jobs:
  one: {runs-on: x, steps: [{run: 'true'}]}
  two: {needs: one, runs-on: x, steps: [{run: 'true'}]}
  other: {runs-on: x, steps: [{run: 'true'}]}
"""


def said(at: Path, *arguments: str) -> str:
    """Return what git says in a folder."""
    return git(at, *arguments).strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    folder = tmp_path / "shop"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "work")
    (folder / "kept.txt").write_text("first\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Begin")
    return folder


# ----------------------------------------------------------------- the tree


def test_a_clean_tree_is_its_own_commit(tree: Path, tmp_path: Path) -> None:
    """Nothing new is made: sha, branch and message are those of HEAD."""
    snapshot = take(tree, tmp_path / "copy.git", now_ms=NOW_MS)

    assert snapshot.sha == said(tree, "rev-parse", "HEAD")
    assert (snapshot.branch, snapshot.before, snapshot.message) == ("work", "", "Begin")


def test_uncommitted_files_are_in_the_copy_and_the_tree_stays_as_it_is(
    tree: Path, tmp_path: Path
) -> None:
    """Changed, new and removed files, but no ignored ones; index, refs and objects unchanged."""
    (tree / "kept.txt").write_text("second\n")
    (tree / "new.txt").write_text("new\n")
    (tree / "noise.log").write_text("noise\n")
    said(tree, "add", "new.txt")
    before = (said(tree, "status", "--porcelain"), said(tree, "count-objects"))
    head = said(tree, "rev-parse", "HEAD")

    snapshot = take(tree, tmp_path / "copy.git", now_ms=NOW_MS)

    assert snapshot.before == head
    copy = snapshot.folder
    assert said(copy, "show", "work:kept.txt") == "second"
    assert said(copy, "ls-tree", "--name-only", snapshot.sha).split() == [
        ".gitignore", "kept.txt", "new.txt",
    ]  # fmt: skip
    assert said(copy, "rev-parse", "work^") == head
    assert (said(tree, "status", "--porcelain"), said(tree, "count-objects")) == before


def test_a_folder_without_a_repository_is_a_first_commit(tmp_path: Path) -> None:
    """Its files are all there is; the branch is main."""
    folder = tmp_path / "plain"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("x")

    snapshot = take(folder, tmp_path / "copy.git", now_ms=NOW_MS)

    assert (snapshot.before, snapshot.branch) == ("", "main")
    assert said(snapshot.folder, "show", "main:sub/file") == "x"
    assert not (folder / ".git").exists()


def test_a_folder_stands_for_the_repository_it_is_in_unless_it_has_workflows(tree: Path) -> None:
    """So a sample with workflows of its own can lie inside of another repository."""
    inner = tree / "samples" / "one"
    (inner / "src").mkdir(parents=True)
    assert root_of(inner / "src") == tree
    (inner / ".github" / "workflows").mkdir(parents=True)
    assert root_of(inner) == inner


# ----------------------------------------------------------------- the event


def a_snapshot() -> Snapshot:
    """Return a snapshot that nothing is read from."""
    return Snapshot(
        root=Path("/src/shop"), folder=Path("/copy.git"), sha="a" * 40, before="b" * 40,
        message="Fix the till\n\nIt jammed.", branch="work", default="main", base="c" * 40,
        remote="git@example.org:acme/shop.git",
    )  # fmt: skip


def wanted(event: str = "", **payload: Any) -> Wanted:
    """Return a request for an event."""
    return Wanted(event=event, payload=payload, workflow=PATH, inputs={})


def test_a_push_is_of_the_tree_after_the_commit_before() -> None:
    """What a webhook would say of it, with the repository's name from its remote."""
    found = delivery_of(wanted(), a_snapshot(), None, now_ms=NOW_MS)

    assert (found.event, found.ref) == ("push", "refs/heads/work")
    assert (found.repository, found.before, found.sha) == ("acme/shop", "b" * 40, "a" * 40)


def test_a_pull_request_goes_from_the_tree_into_the_default_branch() -> None:
    """It is of the same repository, so that it has its secrets."""
    found = delivery_of(wanted("pull_request"), a_snapshot(), None, now_ms=NOW_MS)

    assert (found.ref, found.action) == ("refs/pull/1/merge", "opened")
    assert (found.head_ref, found.sha) == ("work", "a" * 40)
    assert (found.base_ref, found.base_sha, found.fork) == ("main", "c" * 40, False)


def test_a_payload_goes_over_what_is_pretended_but_commits_stay_those_of_the_tree() -> None:
    """A recorded webhook can be used as it is."""
    payload = {"ref": "refs/tags/v1", "after": "f" * 40, "repository": {"full_name": "x/y"}}

    found = delivery_of(wanted("push", **payload), a_snapshot(), None, now_ms=NOW_MS)

    assert (found.repository, found.ref, found.sha) == ("x/y", "refs/tags/v1", "a" * 40)


def test_without_an_event_the_one_workflow_says_which() -> None:
    """Push when it lists it, else the first that it lists."""
    by_hand = compiled("on: [workflow_call, issues]\njobs: {a: {runs-on: x, steps: [{run: a}]}}")
    both = compiled("on: [issues, push]\njobs: {a: {runs-on: x, steps: [{run: a}]}}")

    assert delivery_of(wanted(), a_snapshot(), by_hand.on, now_ms=NOW_MS).event == "issues"
    assert delivery_of(wanted(), a_snapshot(), both.on, now_ms=NOW_MS).event == "push"


def test_a_payload_of_another_event_is_refused_by_name() -> None:
    """The message says which field is wrong."""
    with pytest.raises(CliError, match="none of push: `ref`"):
        delivery_of(wanted("push", ref=5), a_snapshot(), None, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("git@example.org:acme/shop.git", "acme/shop"),
        ("https://example.org/group/acme/shop", "acme/shop"),
        ("ssh://git@example.org:22/acme/shop.git/", "acme/shop"),
        ("/srv/git/shop.git", "local/my-shop"),
        ("", "local/my-shop"),
    ],
)
def test_a_repository_is_named_after_its_remote_or_its_folder(remote: str, name: str) -> None:
    """Owner and name, as `github.repository` has them."""
    assert repository_name(remote, "my shop") == name


def test_objects_are_merged_key_by_key() -> None:
    """Anything else is replaced whole."""
    assert merged({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}, "d": None}) == {
        "a": {"b": 1, "c": [2]},
        "d": None,
    }


# ----------------------------------------------------------------- the plan


def planned(job: str = "", workflow: str = "") -> DeliveryPlanned:
    """Return a planner's answer as a local run takes it."""
    files = {"./.github/workflows/called.yml": CALLED, ".github/workflows/called.yml": CALLED}
    plan = plan_to_json(compiled(CHAIN, files=files))
    outcomes = (
        WorkflowOutcome(path=PATH, outcome=Outcome.PLANNED, plan_json=plan),
        WorkflowOutcome(path="other.yml", outcome=Outcome.IGNORED, reason="trigger: no"),
    )
    return for_here(DeliveryPlanned(event_id="x", workflows=outcomes), workflow, job)


def jobs(answer: DeliveryPlanned) -> list[str]:
    """Return the jobs of the first workflow."""
    return [job.id for job in plan_from_json(answer.workflows[0].plan_json or "").jobs]


@pytest.mark.parametrize("first", [PATH, "other.yml"])
def test_a_job_is_looked_for_in_every_workflow(first: str) -> None:
    """Whichever has it is run, those without it are not, in either order."""
    other = "on: push\njobs: {only: {runs-on: x, steps: [{run: 'true'}]}}\n"
    texts = {PATH: CHAIN, "other.yml": other}
    files = {"./.github/workflows/called.yml": CALLED, ".github/workflows/called.yml": CALLED}
    outcomes = tuple(
        WorkflowOutcome(path=path, outcome=Outcome.PLANNED,
                        plan_json=plan_to_json(compiled(texts[path], files=files)))
        for path in sorted(texts, key=lambda path: path != first)
    )  # fmt: skip

    answer = for_here(DeliveryPlanned(event_id="x", workflows=outcomes), "", "a")

    assert [outcome.path for outcome in answer.workflows] == [PATH]
    assert jobs(answer) == ["a"]


def test_every_job_is_for_this_machine() -> None:
    """Labels and pools are not looked at."""
    plan = plan_from_json(planned().workflows[0].plan_json or "")

    assert {(job.runs_on, job.pool) for job in plan.jobs if job.uses is None} == {(LABEL, None)}


@pytest.mark.parametrize(
    ("job", "kept"),
    [
        ("a", ["a"]),
        ("b", ["a", "b"]),
        ("call", ["a", "call", "call.one", "call.two", "call.other"]),
        ("call.two", ["a", "call", "call.one", "call.two"]),
        ("last", ["a", "call", "call.one", "call.two", "call.other", "last"]),
    ],
)
def test_a_job_is_run_with_what_it_needs_alone(job: str, kept: list[str]) -> None:
    """Its needs, its callers, and all that a needed call brings."""
    assert jobs(planned(job)) == kept


def test_a_job_that_does_not_exist_is_an_error_with_those_that_do() -> None:
    """Nothing is run instead."""
    with pytest.raises(NoSuchJobError, match="no job 'z'; there are: a, b, call"):
        planned("z")


def test_one_workflow_is_run_when_one_is_asked_for() -> None:
    """The others are not even named."""
    assert [outcome.path for outcome in planned(workflow=PATH).workflows] == [PATH]
