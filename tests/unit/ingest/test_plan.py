"""Deliveries to plans, on real git repositories."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.clock import ManualClock
from infra.metrics import Meters
from ingest.mirrors import Mirrors, Origin, UnreachableError
from ingest.planner import plan as plan_module
from ingest.planner.plan import Planner, dispatch_problems
from schemas.events import DeliveryPlanned, DeliveryReceived, RepositoryConfigured, WorkflowOutcome
from tests.support.gitrepo import GitRepo, workflow

NULL = "0" * 40
CI = ".github/workflows/ci.yml"


class Bench:
    """A repository with its planner."""

    def __init__(self, folder: Path) -> None:
        """Make a repository with one workflow for pushes."""
        (folder / "git").mkdir()
        self.git = GitRepo(folder / "git")
        self.planner = Planner(public_url="http://ci.example")
        self.mirrors = Mirrors(folder / "home", Meters(), ManualClock())
        self.configured = RepositoryConfigured(
            event_id="c", repository="ada/demo", provider="git", clone_url=str(self.git.bare)
        )

    @property
    def origin(self) -> Origin:
        """Where the repository lies."""
        return Origin(
            repository="ada/demo",
            clone_url=self.configured.clone_url,
            default_branch=self.configured.default_branch,
        )

    def plan(self, event: str = "push", **fields: Any) -> DeliveryPlanned:
        """Return the answer to a delivery."""
        delivery = DeliveryReceived(
            event_id="e", repository="ada/demo", delivery_id="git:1", source="webhook",
            provider="git", event=event, actor="ada", payload_json="{}", **fields,
        )  # fmt: skip
        with self.mirrors.use(self.origin) as mirror:
            return self.planner.plan(delivery, self.configured, mirror, now_ms=5)

    def outcome(self, event: str = "push", path: str = CI, **fields: Any) -> WorkflowOutcome:
        """Return the answer's outcome for one workflow file."""
        found = self.plan(event, **fields).workflows
        return next(outcome for outcome in found if outcome.path == path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield a repository with a first commit."""
    made = Bench(tmp_path)
    yield made
    made.mirrors.close()


def pushed(sha: str, before: str = NULL, ref: str = "refs/heads/main") -> dict[str, str]:
    """Return the fields of a push."""
    return {"sha": sha, "before": before, "ref": ref}


def test_a_push_plans_the_workflows_of_its_commit(bench: Bench) -> None:
    """Both folders are read, by path, and the answer's id derives from the delivery."""
    sha = bench.git.commit(
        {CI: workflow(), ".tailrace/workflows/z.yaml": workflow(name="Own"),
         ".github/workflows/readme.md": "no"}
    )  # fmt: skip
    answer = bench.plan(**pushed(sha))

    assert [(w.path, w.name, w.outcome) for w in answer.workflows] == [
        (CI, "CI", "planned"),
        (".tailrace/workflows/z.yaml", "Own", "planned"),
    ]
    assert {w.sha for w in answer.workflows} == {sha}
    assert {w.ref for w in answer.workflows} == {"refs/heads/main"}
    assert json.loads(answer.workflows[0].plan_json or "")["path"] == CI
    assert answer.caused_by == "e"
    assert answer.event_id == bench.plan(**pushed(sha)).event_id
    assert json.loads(answer.github_json)["sha"] == sha


def test_the_commit_decides_and_not_the_branch(bench: Bench) -> None:
    """A push is planned by its own commit although the branch has moved on."""
    first = bench.git.commit({CI: workflow(name="First")})
    bench.git.commit({CI: workflow(name="Second")})

    assert bench.outcome(**pushed(first)).name == "First"


def test_a_commit_pushed_after_the_mirror_was_made_is_read(bench: Bench) -> None:
    """Borrowed objects need no fetch, loose or packed."""
    first = bench.git.commit({CI: workflow()})
    bench.plan(**pushed(first))
    second = bench.git.commit({CI: workflow(name="Second")})
    assert bench.outcome(**pushed(second, first)).name == "Second"
    third = bench.git.commit({CI: workflow(name="Third")})
    bench.git.run("-C", str(bench.git.bare), "gc", "-q", "--prune=now")

    assert bench.outcome(**pushed(third, second)).name == "Third"
    assert bench.outcome(**pushed(first)).name == "CI"


PATHS = "{push: {paths: ['src/**']}}"


def test_a_path_filter_sees_the_real_diff(bench: Bench) -> None:
    """Two dots for a push: before..after, whatever the body's list of commits says."""
    first = bench.git.commit({CI: workflow(PATHS), "src/a": "1"})
    docs = bench.git.commit({"docs/a": "1"})
    both = bench.git.commit({"src/a": "2", "docs/a": "2"})

    assert bench.outcome(**pushed(docs, first)).outcome == "ignored"
    assert bench.outcome(**pushed(both, docs)).outcome == "planned"
    assert bench.outcome(**pushed(both, first)).outcome == "planned"


def test_a_moved_or_removed_file_counts_under_both_names(bench: Bench) -> None:
    """A rename out of the filtered folder is a change of it."""
    first = bench.git.commit({CI: workflow(PATHS), "src/deep/a": "1", "src/b": "1"})
    moved = bench.git.commit({"src/deep/a": None, "lib/a": "1"})
    removed = bench.git.commit({"src/b": None})

    assert bench.outcome(**pushed(moved, first)).outcome == "planned"
    assert bench.outcome(**pushed(removed, moved)).outcome == "planned"


def test_a_new_branch_is_compared_with_where_it_left_the_default_branch(bench: Bench) -> None:
    """From the merge base: what main got meanwhile does not count."""
    base = bench.git.commit({CI: workflow(PATHS)})
    docs = bench.git.commit({"docs/a": "1"}, branch="docs", since=base)
    code = bench.git.commit({"src/a": "1"}, branch="code", since=base)
    bench.git.commit({"src/main": "1"})

    assert bench.outcome(**pushed(docs, ref="refs/heads/docs")).outcome == "ignored"
    assert bench.outcome(**pushed(code, ref="refs/heads/code")).outcome == "planned"


def test_a_new_branch_without_commits_of_its_own_has_changed_nothing(bench: Bench) -> None:
    """Wherever it points: at the default branch's head, or at an older commit."""
    base = bench.git.commit({CI: workflow(PATHS), "src/a": "1"})
    head = bench.git.commit({"src/b": "1"})
    for sha in (base, head):
        found = bench.outcome(**pushed(sha, ref="refs/heads/release"))
        assert (found.outcome, found.reason) == (
            "ignored", "trigger: no changed path matches paths:",
        )  # fmt: skip


def test_the_default_branchs_first_push_is_all_new_however_late_it_is_planned(
    bench: Bench,
) -> None:
    """The branch may have moved on by then."""
    first = bench.git.commit({CI: workflow(PATHS), "src/a": "1"})
    bench.git.commit({"docs/a": "1"})

    assert bench.outcome(**pushed(first)).outcome == "planned"


def test_a_forced_push_is_compared_with_what_was_there(bench: Bench) -> None:
    """Two dots, also between commits of which neither is the other's ancestor."""
    base = bench.git.commit({CI: workflow(PATHS), "src/a": "1"})
    left = bench.git.commit({"src/a": "2"}, branch="left", since=base)
    right = bench.git.commit({"docs/a": "1"}, branch="right", since=base)
    same = bench.git.commit({"src/a": "2"}, "again", branch="same", since=base)

    topic = "refs/heads/topic"
    # that src/a went back is a change
    assert bench.outcome(**pushed(right, left, topic)).outcome == "planned"
    assert bench.outcome(**pushed(same, left, topic)).outcome == "ignored"


def test_every_changed_path_counts_however_many_there_are(bench: Bench) -> None:
    """GitHub looks at the first 300 alone; here the last of 400 is enough."""
    base = bench.git.commit({CI: workflow("{push: {paths: ['z/**']}}")})
    files: dict[str, str | None] = {f"docs/{n:03d}": "1" for n in range(400)}
    docs = bench.git.commit({**files})
    both = bench.git.commit({**dict.fromkeys(files, "2"), "z/last": "1"})

    assert bench.outcome(**pushed(docs, base)).outcome == "ignored"
    assert bench.outcome(**pushed(both, docs)).outcome == "planned"


def test_tags_have_no_paths(bench: Bench) -> None:
    """Filters of paths are not asked about them; those of branches keep them out."""
    on = "{push: {tags: ['v*'], paths: ['src/**']}}"
    other = ".github/workflows/other.yml"
    sha = bench.git.commit({CI: workflow(on), other: workflow(PATHS), "docs/a": "1"})
    answer = bench.plan(**pushed(sha, ref="refs/tags/v1"))

    assert [w.outcome for w in answer.workflows] == ["planned", "planned"]
    only_branches = workflow("{push: {branches-ignore: [dev], paths: ['src/**']}}")
    sha = bench.git.commit({CI: only_branches})
    assert "another sort of ref" in bench.outcome(**pushed(sha, ref="refs/tags/v2")).reason


def test_the_first_branch_of_a_repository_is_all_new(bench: Bench) -> None:
    """There is nothing to compare with: every path counts."""
    sha = bench.git.commit({CI: workflow("{push: {paths: ['docs/**']}}")})
    assert bench.outcome(**pushed(sha)).outcome == "ignored"

    sha = bench.git.commit({CI: workflow(PATHS), "src/a": "1"})
    assert bench.outcome(**pushed(sha)).outcome == "planned"


def test_a_push_whose_old_commit_is_gone_runs_and_says_so(bench: Bench) -> None:
    """No diff to be had: the workflow runs, and the event has the reason."""
    sha = bench.git.commit({CI: workflow(PATHS)})
    found = bench.outcome(**pushed(sha, "e" * 40))

    assert found.outcome == "planned"
    assert "path filters were not applied" in found.reason


def pull_request(base: str, head: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a pull request."""
    return {
        "action": "opened", "number": 7, "ref": "refs/pull/7/merge", "sha": head,
        "base_sha": base, "base_ref": "main", "head_ref": "topic", **more,
    }  # fmt: skip


def test_a_pull_request_runs_on_the_merge_of_both(bench: Bench) -> None:
    """The workflow is read from the merge commit, whose id is the same for everybody."""
    old = bench.git.commit({CI: workflow("pull_request"), "a": "1"})
    topic = bench.git.commit({"topic": "1"}, branch="topic", since=old)
    base = bench.git.commit({CI: workflow("pull_request", "Newer")})
    found = bench.outcome("pull_request", **pull_request(base, topic))

    assert (found.outcome, found.name, found.ref) == ("planned", "Newer", "refs/pull/7/merge")
    assert found.sha not in (old, topic, base)
    assert found.sha == bench.outcome("pull_request", **pull_request(base, topic)).sha
    assert bench.git.run("-C", str(bench.git.bare), "cat-file", "-t", topic).strip() == "commit"
    with pytest.raises(AssertionError):
        # what we make does not end up in the user's repository
        bench.git.run("-C", str(bench.git.bare), "cat-file", "-t", found.sha)


def test_a_pull_request_that_conflicts_starts_nothing_and_says_so(bench: Bench) -> None:
    """The reason names both commits and what to do."""
    old = bench.git.commit({CI: workflow("pull_request"), "a": "1"})
    topic = bench.git.commit({"a": "2"}, branch="topic", since=old)
    base = bench.git.commit({"a": "3"})
    found = bench.plan("pull_request", **pull_request(base, topic)).workflows[0]

    assert found.outcome == "ignored"
    assert found.reason.startswith("merge_conflict: ")


def test_a_pull_requests_paths_are_those_of_its_own_changes(bench: Bench) -> None:
    """Three dots: from the merge base to the head."""
    on = "{pull_request: {paths: ['src/**']}}"
    old = bench.git.commit({CI: workflow(on)})
    topic = bench.git.commit({"docs/a": "1"}, branch="topic", since=old)
    base = bench.git.commit({"src/a": "1"})

    assert bench.outcome("pull_request", **pull_request(base, topic)).outcome == "ignored"


@pytest.mark.parametrize("squash", [False, True], ids=["merge", "squash"])
@pytest.mark.parametrize("named", [False, True], ids=["base_unknown", "base_named"])
def test_a_merged_pull_requests_paths_are_still_its_own(
    bench: Bench, *, squash: bool, named: bool
) -> None:
    """The base branch has them by then: compared is with what it was before."""
    on = "{pull_request: {types: [closed], paths: ['src/**']}}"
    old = bench.git.commit({CI: workflow(on)})
    code = bench.git.commit({"src/a": "1"}, branch="topic", since=old)
    docs = bench.git.commit({"docs/a": "1"}, branch="prose", since=old)
    base = bench.git.commit({"other": "1"})
    for head, outcome in ((code, "planned"), (docs, "ignored")):
        merged = bench.git.merge(base, head, squash=squash)
        fields = pull_request(base if named else "", head, merged=True, action="closed")
        fields |= {"ref": "refs/heads/main", "merge_sha": merged}
        found = bench.outcome("pull_request", **fields)
        assert found.outcome == outcome, found.reason
        assert found.sha in (merged, "")


def test_a_merged_pull_requests_head_can_ask_for_no_workflows(bench: Bench) -> None:
    """As when it was open; the merge commit's own message asks for nothing here."""
    on = "{pull_request: {types: [closed]}}"
    old = bench.git.commit({CI: workflow(on)})
    head = bench.git.commit({"a": "1"}, "typo [skip ci]", branch="topic", since=old)
    merged = bench.git.merge(old, head)
    fields = pull_request(old, head, merged=True, action="closed", merge_sha=merged)
    fields |= {"ref": "refs/heads/main"}

    assert "asks to skip" in bench.outcome("pull_request", **fields).reason


def test_a_closed_pull_request_runs_on_its_merge_commit(bench: Bench) -> None:
    """One that was not merged is still about the merge of both."""
    old = bench.git.commit({CI: workflow("{pull_request: {types: [closed]}}")})
    topic = bench.git.commit({"topic": "1"}, branch="topic", since=old)
    found = bench.outcome("pull_request", **pull_request(old, topic, action="closed"))

    assert (found.outcome, found.ref) == ("planned", "refs/pull/7/merge")
    assert found.sha not in (old, topic)


def test_a_conflict_does_not_keep_pull_request_target_from_running(bench: Bench) -> None:
    """Its workflow needs no merge commit; the answer says both."""
    old = bench.git.commit({CI: workflow("[pull_request, pull_request_target]"), "a": "1"})
    topic = bench.git.commit({"a": "2"}, branch="topic", since=old)
    base = bench.git.commit({"a": "3"})
    found = bench.plan("pull_request", **pull_request(base, topic)).workflows

    assert [(w.event, w.outcome) for w in found] == [
        ("pull_request", "ignored"), ("pull_request_target", "planned"),
    ]  # fmt: skip
    assert found[0].reason.startswith("merge_conflict: ")


def test_pull_request_target_runs_on_the_default_branch(bench: Bench) -> None:
    """Its workflow is the default branch's, whatever the pull request changed."""
    old = bench.git.commit({CI: workflow("pull_request_target")})
    topic = bench.git.commit({CI: workflow("pull_request_target", "Evil")}, branch="topic",
                             since=old)  # fmt: skip
    answer = bench.plan("pull_request", **pull_request(old, topic, fork=True))
    [found] = [w for w in answer.workflows if w.outcome == "planned"]

    assert (found.event, found.name, found.sha, found.ref) == (
        "pull_request_target", "CI", old, "refs/heads/main",
    )  # fmt: skip


def test_a_merged_pull_request_runs_on_its_merge_commit(bench: Bench) -> None:
    """On the branch that it went into."""
    sha = bench.git.commit({CI: workflow("{pull_request: {types: [closed]}}")})
    fields = pull_request(sha, sha, merged=True, action="closed") | {"ref": "refs/heads/main"}
    found = bench.outcome("pull_request", **fields)

    assert (found.outcome, found.sha, found.ref) == ("planned", sha, "refs/heads/main")


def test_an_annotated_tags_run_is_about_the_commit(bench: Bench) -> None:
    """The push names the tag object, the run the commit."""
    sha = bench.git.commit({CI: workflow("{push: {tags: ['v*']}}")})
    tag = bench.git.tag("v1", annotated=True)
    found = bench.outcome(**pushed(tag, ref="refs/tags/v1"))

    assert tag != sha
    assert (found.outcome, found.sha) == ("planned", sha)


@pytest.mark.parametrize("event", ["issues", "schedule", "release"])
def test_other_events_are_read_where_github_reads_them(bench: Bench, event: str) -> None:
    """Issues at the default branch's head, a release at its tag."""
    on = {"schedule": "{schedule: [{cron: '0 5 * * *'}]}"}.get(event, event)
    sha = bench.git.commit({CI: workflow(on)})
    bench.git.tag("v1")
    fields = {"ref": "refs/tags/v1"} if event == "release" else {}
    if event == "schedule":
        fields = {"schedule": "0 5 * * *", "workflow": CI}

    found = bench.outcome(event, **fields)

    assert (found.outcome, found.sha) == ("planned", sha)


SCHEDULES = "{schedule: [{cron: '0 5 * * *'}, {cron: '0 6 * * *'}]}"


def test_a_tick_runs_one_workflow_at_the_commit_that_was_indexed(bench: Bench) -> None:
    """Not where the branch has got to since; and `[skip ci]` is for pushes."""
    other = ".github/workflows/other.yml"
    sha = bench.git.commit({CI: workflow(SCHEDULES), other: workflow(SCHEDULES)}, "x [skip ci]")
    bench.git.commit({CI: workflow(SCHEDULES, "Newer")})
    fields = {"sha": sha, "ref": "refs/heads/main", "workflow": CI}
    answer = bench.plan("schedule", schedule="0 6 * * *", **fields)

    assert [(w.path, w.outcome, w.name, w.sha, w.ref) for w in answer.workflows] == [
        (CI, "planned", "CI", sha, "refs/heads/main")
    ]
    assert bench.outcome("schedule", schedule="0 7 * * *", **fields).outcome == "ignored"


@pytest.mark.parametrize(
    ("on", "fields", "outcome"),
    [
        ("{workflow_run: {workflows: [CI]}}", {}, "planned"),
        ("{workflow_run: {workflows: [Other]}}", {}, "ignored"),
        ("{workflow_run: {workflows: [CI], types: [requested]}}", {}, "ignored"),
        ("{workflow_run: {workflows: [CI], branches: [main]}}", {}, "planned"),
        ("{workflow_run: {workflows: [CI], branches: [main]}}", {"head_ref": "x"}, "ignored"),
    ],
)
def test_a_finished_run_starts_who_waits_for_it(
    bench: Bench, on: str, fields: dict[str, str], outcome: str
) -> None:
    """By the name of its workflow, what happened to it, and its branch."""
    sha = bench.git.commit({CI: workflow(on, "After")})
    given = {"sha": sha, "ref": "refs/heads/main", "workflow": "CI", "action": "completed",
             "head_ref": "main", **fields}  # fmt: skip

    assert bench.outcome("workflow_run", **given).outcome == outcome


@pytest.mark.parametrize(
    ("on", "outcome"),
    [
        ("repository_dispatch", "planned"),
        ("{repository_dispatch: {types: [deploy]}}", "planned"),
        ("{repository_dispatch: {types: [test]}}", "ignored"),
    ],
)
def test_a_repository_dispatch_starts_what_lists_its_type(
    bench: Bench, on: str, outcome: str
) -> None:
    """`event_type` is the activity type."""
    sha = bench.git.commit({CI: workflow(on)})
    found = bench.outcome("repository_dispatch", action="deploy", sha=sha, ref="refs/heads/main")

    assert found.outcome == outcome


def test_a_deployments_short_ref_is_a_branch_or_a_tag(bench: Bench) -> None:
    """GITHUB_REF is full; empty when the deployment was made of a bare commit."""
    sha = bench.git.commit({CI: workflow("deployment")})
    bench.git.tag("v1")
    found = [bench.outcome("deployment", sha=sha, head_ref=name).ref for name in ("main", "v1", "")]

    assert found == ["refs/heads/main", "refs/tags/v1", ""]


def test_a_merge_group_is_filtered_by_the_branch_that_it_goes_to(bench: Bench) -> None:
    """Its commit and ref are the group's own."""
    sha = bench.git.commit({CI: workflow("{merge_group: {branches: [main]}}")})
    fields = {"sha": sha, "ref": "refs/heads/queue/pr-7", "action": "checks_requested"}
    found = bench.outcome("merge_group", base_ref="refs/heads/main", **fields)

    assert (found.outcome, found.sha, found.ref) == ("planned", sha, "refs/heads/queue/pr-7")
    assert bench.outcome("merge_group", base_ref="refs/heads/x", **fields).outcome == "ignored"


@pytest.mark.parametrize("words", ["[skip ci]", "[no ci]", "[actions skip]"])
def test_a_commit_can_ask_for_no_workflows(bench: Bench, words: str) -> None:
    """The message is the commit's own, not the webhook's."""
    sha = bench.git.commit({CI: workflow()}, f"quick fix {words}")

    assert "skip" in bench.outcome(**pushed(sha), message="harmless").reason


def test_mistakes_are_rejected_with_their_place(bench: Bench) -> None:
    """Only a workflow that would have run is rejected."""
    broken = workflow().replace("runs-on", "runs-onn")
    sha = bench.git.commit({CI: broken, ".github/workflows/pr.yml": broken.replace(
        "on: push", "on: pull_request")})  # fmt: skip

    found = bench.outcome(**pushed(sha))
    assert (found.outcome, found.problems[0].path, found.problems[0].line) == ("rejected", CI, 5)
    assert bench.outcome(path=".github/workflows/pr.yml", **pushed(sha)).outcome == "ignored"


@pytest.mark.parametrize("text", ["{", "", "- a\n", "on: {}\n", "\x00", "a: [" * 5_000])
def test_a_file_that_is_no_workflow_is_rejected_at_a_push(bench: Bench, text: str) -> None:
    """It can't be said when it would run: its author sees it where they look."""
    sha = bench.git.commit({CI: text})

    assert bench.outcome(**pushed(sha)).outcome == "rejected"


def test_a_called_workflow_is_read_at_the_same_commit(bench: Bench) -> None:
    """A changed callee gives another plan although the caller did not change."""
    caller = "on: push\njobs:\n  call:\n    uses: ./.github/workflows/called.yml\n"
    called = ".github/workflows/called.yml"
    first = bench.git.commit({CI: caller, called: workflow("workflow_call")})
    renamed = workflow("workflow_call").replace("build:", "test:")
    second = bench.git.commit({called: renamed})

    one, two = (bench.outcome(**pushed(sha)) for sha in (first, second))
    assert '"call.build"' in (one.plan_json or "")
    assert '"call.test"' in (two.plan_json or "")
    assert bench.outcome(**pushed(first)) == one


@pytest.mark.parametrize(
    ("event", "action", "outcome"),
    [
        ("check_suite", "completed", "planned"),
        ("check_suite", "requested", "ignored"),
        ("watch", "started", "planned"),
        ("watch", "stopped", "ignored"),
        ("issues", "typed", "planned"),
        ("merge_group", "destroyed", "ignored"),
        ("fork", "", "planned"),
        ("gollum", "", "planned"),
        ("status", "", "planned"),
    ],
)
def test_only_what_github_lists_as_a_type_starts_a_workflow(
    bench: Bench, event: str, action: str, outcome: str
) -> None:
    """Forges send more than that; a workflow without `types` takes all that are listed."""
    sha = bench.git.commit({CI: workflow(event)})
    fields = {"sha": sha, "ref": "refs/heads/q"} if event == "merge_group" else {}

    assert bench.outcome(event, action=action, **fields).outcome == outcome


@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/heads/topic", "refs/tags/v1"])
def test_a_dispatch_is_about_the_ref_that_was_chosen(bench: Bench, ref: str) -> None:
    """Its workflow is read there, and GITHUB_REF is that branch or tag."""
    base = bench.git.commit({CI: workflow("workflow_dispatch", "Old")})
    bench.git.tag("v1")
    topic = bench.git.commit({CI: workflow("workflow_dispatch", "Topic")}, branch="topic",
                             since=base)  # fmt: skip
    main = bench.git.commit({CI: workflow("workflow_dispatch", "Main")})
    sha, name = {"refs/heads/main": (main, "Main"), "refs/heads/topic": (topic, "Topic"),
                 "refs/tags/v1": (base, "Old")}[ref]  # fmt: skip
    answer = bench.plan("workflow_dispatch", sha=sha, ref=ref, workflow="ci.yml")
    github = json.loads(answer.github_json)

    assert [(w.outcome, w.name, w.sha, w.ref) for w in answer.workflows] == [
        ("planned", name, sha, ref)
    ]
    assert (github["ref"], github["sha"], github["event_name"]) == (ref, sha, "workflow_dispatch")
    assert (github["ref_name"], github["ref_type"]) == (
        ref.split("/")[2], "tag" if "tags" in ref else "branch",
    )  # fmt: skip


def test_a_created_ref_and_a_deleted_one_are_read_in_two_places(bench: Bench) -> None:
    """What was created at itself, what was deleted at the default branch."""
    base = bench.git.commit({CI: workflow("[create, delete]", "Main")})
    topic = bench.git.commit({CI: workflow("[create, delete]", "Topic")}, branch="topic",
                             since=base)  # fmt: skip
    created = bench.outcome("create", ref="refs/heads/topic")
    deleted = bench.outcome("delete", ref="refs/heads/gone", deleted=True)

    assert (created.name, created.sha, created.ref) == ("Topic", topic, "refs/heads/topic")
    assert (deleted.name, deleted.sha, deleted.ref) == ("Main", base, "refs/heads/main")


DISPATCH = "{workflow_dispatch: {inputs: {who: {type: choice, options: [ada, bob]}}}}"


def dispatched(sha: str, inputs: object, name: str = "ci.yml") -> dict[str, Any]:
    """Return the fields of a dispatch."""
    return {"sha": sha, "ref": "refs/heads/main", "workflow": name,
            "inputs_json": json.dumps(inputs)}  # fmt: skip


def test_a_dispatch_runs_the_workflow_that_it_names(bench: Bench) -> None:
    """By file name, path or name; inputs arrive typed and with their defaults."""
    other = ".github/workflows/other.yml"
    sha = bench.git.commit({CI: workflow(DISPATCH), other: workflow(DISPATCH, "Other")})

    for name in ("ci.yml", CI, "CI"):
        answer = bench.plan("workflow_dispatch", **dispatched(sha, {}, name))
        assert [(w.path, w.outcome) for w in answer.workflows] == [(CI, "planned")]
        assert json.loads(answer.workflows[0].inputs_json or "") == {"who": "ada"}
    rejected = bench.outcome("workflow_dispatch", **dispatched(sha, {"who": "eve"}))
    assert (rejected.outcome, rejected.problems[0].line) == ("rejected", 2)
    missing = bench.plan("workflow_dispatch", **dispatched(sha, {}, "none.yml")).workflows[0]
    assert missing.reason.startswith("no_workflow: ")


def test_a_dispatch_is_checked_before_it_is_accepted(bench: Bench) -> None:
    """The command's answer has the planner's own words."""
    sha = bench.git.commit({CI: workflow(DISPATCH), ".github/workflows/p.yml": workflow()})
    with bench.mirrors.use(bench.origin) as mirror:
        found = bench.planner.workflows.at(mirror, mirror.commit(sha))

    assert dispatch_problems(found, "ci.yml", {"who": "bob"}) == []
    [eve] = dispatch_problems(found, "ci.yml", {"who": "eve"})
    assert eve == f"{CI}:2: the input 'who' must be one of ada, bob, not 'eve'"
    [what] = dispatch_problems(found, "ci.yml", {"what": 1})
    assert what == f"{CI}:2: the input 'what' is not declared (there are: who)"
    assert "workflow_dispatch" in dispatch_problems(found, "p.yml", {})[0]
    assert "ci.yml" in dispatch_problems(found, "x.yml", {})[0]


@pytest.mark.parametrize(
    ("event", "fields", "reason"),
    [
        ("push", {"deleted": True, "ref": "refs/heads/x"}, "deleted: "),
        ("push", {"sha": "a" * 40, "before": "a" * 40, "ref": "refs/heads/x"}, "test: "),
        ("push", {"sha": "a" * 40, "ref": "refs/notes/commits"}, "ref: refs/notes/commits is"),
        ("release", {"inert": "draft: the release v1 is a draft"}, "draft: "),
        ("pull_request", {"inert": "unreadable: `number` is None"}, "unreadable: "),
        ("workflow_call", {}, "event: "),
        ("ping", {}, "event: "),
        ("gitlab_pipeline", {}, "event: "),
        ("release", {"ref": "refs/tags/none"}, "no_ref: "),
        ("issues", {}, "no_default_branch: "),
    ],
)
def test_what_starts_nothing_has_a_reason(
    bench: Bench, event: str, fields: dict[str, Any], reason: str
) -> None:
    """Every delivery has an answer; an empty repository too."""
    [found] = bench.plan(event, **fields).workflows

    assert found.outcome == "ignored"
    assert found.reason.startswith(reason)


def test_a_commit_without_workflows_says_where_they_would_be(bench: Bench) -> None:
    """The sentence names both folders."""
    sha = bench.git.commit({"README": "hi"})

    assert ".tailrace/workflows" in bench.plan(**pushed(sha)).workflows[0].reason


@pytest.mark.parametrize(
    "sha", ["e" * 40, "e" * 64, "main", "--upload-pack=touch /tmp/x", "HEAD^{/x}\n"]
)
def test_a_commit_that_is_not_there_is_unreachable(bench: Bench, sha: str) -> None:
    """Nothing but a commit id ever reaches git."""
    bench.git.commit({CI: workflow()})

    with pytest.raises(UnreachableError):
        bench.plan(**pushed(sha))


def test_plans_over_the_limit_are_rejected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per workflow and per delivery; the others still run."""
    files = {f".github/workflows/{n}.yml": workflow(name=n * 5) for n in "abc"}
    sha = bench.git.commit(files)
    size = len(bench.plan(**pushed(sha)).workflows[0].plan_json or "")

    monkeypatch.setattr(plan_module, "DELIVERY_PLAN_BYTES_MAX", 2 * size + 10)
    assert [w.outcome for w in bench.plan(**pushed(sha)).workflows] == [
        "planned", "planned", "rejected",
    ]  # fmt: skip
    monkeypatch.setattr(plan_module, "PLAN_BYTES_MAX", size - 1)
    assert {w.outcome for w in bench.plan(**pushed(sha)).workflows} == {"rejected"}


def test_the_index_has_every_workflow_of_the_default_branch(bench: Bench) -> None:
    """With its triggers in the plan's form, also of a file with mistakes."""
    bench.git.commit(
        {CI: workflow("{schedule: [{cron: '0 5 * * *'}]}"),
         ".github/workflows/z.yml": workflow().replace("steps", "stepz")}
    )  # fmt: skip
    with bench.mirrors.use(bench.origin) as mirror:
        index = bench.planner.index(bench.configured, mirror, cause="c", now_ms=1)

    assert index is not None
    assert (index.ref, index.sha) == ("refs/heads/main", bench.git.head())
    first, second = index.workflows
    assert json.loads(first.triggers_json)["schedules"][0]["cron"] == "0 5 * * *"
    assert second.problems


def test_an_empty_repository_has_no_index(bench: Bench) -> None:
    """There is no default branch yet."""
    with bench.mirrors.use(bench.origin) as mirror:
        assert bench.planner.index(bench.configured, mirror, cause="c", now_ms=1) is None


def test_a_remote_is_not_asked_about_events_that_nothing_lists(bench: Bench) -> None:
    """A server that posts statuses is told of each: no round trip for that."""
    bench.configured = dataclasses.replace(bench.configured, clone_url="https://127.0.0.1:1/x.git")
    delivery = DeliveryReceived(
        event_id="e", repository="ada/demo", delivery_id="1", source="webhook", provider="gitea",
        event="status",
    )  # fmt: skip
    with bench.mirrors.use(bench.origin) as mirror:
        answer = bench.planner.plan(
            delivery, bench.configured, mirror, now_ms=1, listed=frozenset({"push"})
        )
    assert answer.workflows[0].reason == "trigger: no workflow lists status"
