"""A real runner: actions of the workspace and of other repositories, before and after steps."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.events import JobFinished, StepFinished
from schemas.streams import Heartbeat
from schemas.workflow.compile import compile_workflow
from schemas.workflow.plan import JobPlan, StepPlan
from schemas.workflow.plan_json import job_to_json
from tests.integration.runner_fixtures import driver, open_home
from tests.support.lanes import LaneDriver, Log, runner_process
from tests.support.shared_data import shared_folder

__all__ = ["driver", "open_home"]

LOCAL = ("./", ".\\")


@pytest.fixture(scope="module")
def boot(driver: LaneDriver, open_home: Path) -> Iterator[Heartbeat]:
    """Yield a runner that takes remote actions from a folder of the test's."""
    url = f"file://{open_home / 'actions'}"
    with runner_process(driver, open_home, runner_slots=2, actions_url=url) as runner:
        yield driver.welcome(runner.runner_id)


def write(**files: str) -> StepPlan:
    """Return a step that writes files; `__` in a name is a slash, `_yml` its ending.

    In base64: expressions of an action's file are the action's, the step must not evaluate them.
    """
    parts = []
    for name, text in files.items():
        path = name.replace("__", "/").replace("_yml", ".yml").replace("_js", ".js")
        coded = base64.b64encode(text.encode()).decode()
        parts.append(f"mkdir -p $(dirname {path}); echo {coded} | base64 -d > {path}\n")
    return StepPlan(id="__write", run="".join(parts))


def use(uses: str, **values: Any) -> StepPlan:
    """Return a step that uses an action."""
    return StepPlan(id=values.pop("id", "__use"), uses=uses, **values)


def run(text: str, **values: Any) -> StepPlan:
    """Return a step that runs a script."""
    return StepPlan(id=values.pop("id", "__run"), run=text, **values)


# --------------------------------------------------------------------------- shared cases


def cases() -> list[str]:
    """Return the shared runs whose jobs stand alone and use actions of their own repository."""
    root = shared_folder("conformance", "runs")
    found = []
    for path in sorted(root.glob("*/expect.json")):
        plan = _plan(path.parent, json.loads(path.read_text("utf-8")))
        uses = [step.uses or "" for job in plan for step in job.steps]
        alone = all(not job.needs and job.strategy is None and job.uses is None for job in plan)
        if alone and any(name.startswith(LOCAL) for name in uses):
            found.append(path.parent.name)
    return found


def _plan(case: Path, expected: dict[str, Any]) -> tuple[JobPlan, ...]:
    text = (case / "repo" / expected["workflow"]).read_text("utf-8")
    compiled = compile_workflow(expected["workflow"], text)
    return compiled.plan.jobs if compiled.plan is not None else ()


@pytest.mark.parametrize("case", cases())
def test_a_shared_case_comes_to_what_it_expects(
    driver: LaneDriver, boot: Heartbeat, open_home: Path, case: str
) -> None:
    """Every job's conclusion and what the log must and must not say."""
    folder = shared_folder("conformance", "runs") / case
    expected = json.loads((folder / "expect.json").read_text("utf-8"))
    copy = open_home / "cases" / case
    shutil.copytree(folder / "repo", copy)
    subprocess.run(["chmod", "-R", "a+rX", str(copy.parent)], check=True)
    said: list[str] = []
    conclusions = {}
    for job in _plan(folder, expected):
        steps = tuple(
            replace(step, uses=None, with_={}, run=f"cp -r {copy}/. .")
            if (step.uses or "").startswith("actions/checkout@")
            else step
            for step in job.steps
        )
        plan = job_to_json(replace(job, steps=steps))
        finished, log, _ = driver.run(boot, (), job_json=plan, contexts=_contexts(expected))
        conclusions[job.id] = str(finished.conclusion)
        said += log.texts()
    assert conclusions == expected["job_conclusions"]
    whole = "\n".join(said)
    assert [text for text in expected["must_contain_in_logs"] if text not in whole] == []
    assert [text for text in expected["must_not_contain"] if text in whole] == []


def _contexts(expected: dict[str, Any]) -> dict[str, Any]:
    payload = expected.get("event_payload") or {}
    return {"inputs": payload.get("inputs") or {}}


# --------------------------------------------------------------------------- composite actions

ECHO = """
inputs:
  who: {default: nobody}
outputs:
  said: {value: "${{ steps.s.outputs.said }} ${{ env.OWN }}"}
runs:
  using: composite
  steps:
  - {id: s, shell: bash, run: 'echo "said=hi ${{ inputs.who }}" >> $GITHUB_OUTPUT'}
  - {shell: bash, run: 'echo KEPT=$OWN >> $GITHUB_ENV; echo "path=$GITHUB_ACTION_PATH"'}
  - {shell: bash, run: 'echo "kept=$KEPT steps=${{ toJSON(steps.outer) }}"'}
"""


def test_a_composite_action_has_steps_and_variables_of_its_own(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """It sees its caller's variables, not its steps; what it sets with GITHUB_ENV is the job's."""
    steps = (
        write(act__action_yml=ECHO),
        run("echo x=1 >> $GITHUB_OUTPUT", id="outer"),
        use("./act", id="a", with_={"WHO": "ada"}, env={"OWN": "mine"}),
        run('echo "out=${{ steps.a.outputs.said }} env=$KEPT own=$OWN s=${{ steps.s }}"'),
    )

    finished, log, reports = driver.run(boot, steps)

    assert finished.conclusion == "success"
    workspace_path, inner, outer = log.texts()
    assert workspace_path.startswith("path=/")
    assert workspace_path.endswith("/act")
    assert inner == "kept=mine steps=null"
    assert outer == "out=hi ada mine env=mine own= s="
    assert len(reports) == 4


FAILING = """
runs:
  using: composite
  steps:
  - {shell: bash, run: 'exit 1', continue-on-error: true}
  - {shell: bash, run: 'echo went on'}
  - {shell: bash, run: 'exit 3'}
  - {shell: bash, run: 'echo never'}
  - {shell: bash, run: 'echo status=${{ github.action_status }}/${{ job.status }}', if: failure()}
"""


def test_status_functions_of_a_composite_action_are_its_own(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """A step that failed before the action is none of the action's failures."""
    steps = (
        write(
            act__action_yml=FAILING,
            fine__action_yml="runs: {using: composite, steps: "
            "[{run: 'echo inside', shell: bash}, {run: 'echo no', shell: bash, if: failure()}]}",
        ),
        use("./act"),
        use("./fine", condition="always()"),
    )

    finished, log, reports = driver.run(boot, steps)

    assert log.texts() == ["went on", "status=failure/success", "inside"]
    assert (finished.conclusion, finished.reason) == ("failure", "user.exit_code")
    assert [step.conclusion for step in reports] == ["success", "failure", "success"]


def test_an_action_that_uses_itself_ends(driver: LaneDriver, boot: Heartbeat) -> None:
    """Not by exhaustion: at a depth that is said."""
    text = "runs: {using: composite, steps: [{uses: ./loop}]}"

    finished, log, _ = driver.run(boot, (write(loop__action_yml=text), use("./loop")))

    assert finished.conclusion == "failure"
    assert any("10 levels deep" in line.text for line in log.lines())


def test_a_step_limit_holds_for_all_of_a_composite_action(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """The limit is the step's, however many steps are within it."""
    text = "runs: {using: composite, steps: [" + "{run: sleep 20, shell: bash}," * 2 + "]}"
    steps = (write(slow__action_yml=text), use("./slow", timeout_minutes=0.005))

    finished, _, reports = driver.run(boot, steps)

    assert (finished.conclusion, finished.reason) == ("failure", "user.step_timeout")
    assert reports[-1].finished_at - reports[-1].started_at < 15_000


@pytest.mark.parametrize(
    ("files", "uses", "reason", "words"),
    [
        ({}, "./none", "user.bad_action", "actions/checkout"),
        ({}, "./../out", "user.bad_action", "not in the workspace"),
        ({}, "docker://alpine:3", "user.unsupported_action", "no container engine"),
        (
            {"d__action_yml": "runs: {using: docker, image: Dockerfile}"},
            "./d",
            "user.unsupported_action",
            "no container engine",
        ),
        (
            {"b__action_yml": "runs:\n  using: composite\n  steps:\n  - run: x"},
            "./b",
            "user.bad_action",
            "b/action.yml:4:5",
        ),
    ],
)
def test_what_can_t_be_used_says_why(
    driver: LaneDriver, boot: Heartbeat, files: dict[str, str], uses: str, reason: str, words: str
) -> None:
    """The step fails with its reason and words to act on."""
    finished, log, _ = driver.run(boot, (write(**files, x="x"), use(uses)))

    assert (finished.conclusion, finished.reason) == ("failure", reason)
    assert words in "\n".join(line.text for line in log.lines())


# --------------------------------------------------------------------------- JavaScript actions

NODE = """
inputs:
  some name: {default: "dflt-${{ github.actor }}"}
runs: {using: node20, main: main.js, post: post.js, post-if: "%s"}
"""
MAIN = """
const fs = require('fs');
console.log('main ' + process.env['INPUT_SOME_NAME'] + ' ' + process.env.OWN);
fs.appendFileSync(process.env.GITHUB_STATE, 'token=' + process.env['INPUT_SOME_NAME'] + '\\n');
fs.appendFileSync(process.env.GITHUB_OUTPUT, 'o=1\\n');
console.log('::save-state name=old::style');
"""
POST = (
    "console.log('post ' + process.env.STATE_token + ' ' + process.env.STATE_old + ' ' +"
    " process.env['INPUT_SOME_NAME'] + ' ' + process.env.OWN);"
)


def test_post_scripts_run_in_reverse_with_the_state_of_their_main(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """After the job's steps, the last one first, each with its inputs and variables."""
    steps = (
        write(
            js__action_yml=NODE % "always()",
            js__main_js=MAIN,
            js__post_js=POST,
            no__action_yml=NODE % "failure()",
            no__main_js="",
            no__post_js="console.log('never')",
            in__action_yml="runs: {using: composite, steps: [{uses: ./js, with: {some name: c}}]}",
        ),
        use("./js", id="one", env={"OWN": "x"}),
        use("./no"),
        use("./in"),
        run('echo "o=${{ steps.one.outputs.o }}"'),
    )

    finished, log, reports = driver.run(boot, steps)

    assert finished.conclusion == "success"
    assert log.texts() == [
        "main dflt-ada x",
        "main c undefined",
        "o=1",
        "post c style c undefined",
        "post dflt-ada style dflt-ada x",
    ]
    skipped = [step.name for step in reports if step.conclusion == "skipped"]
    assert skipped == ["Post Run ./no"]


# --------------------------------------------------------------------------- remote actions


@pytest.fixture(scope="module")
def remote(open_home: Path) -> str:
    """Return the commit of a repository of actions, below the configured URL."""
    folder = open_home / "actions" / "team" / "tools.git"
    folder.mkdir(parents=True)
    files = {
        "action.yml": "runs: {using: node20, pre: pre.js, main: main.js, post: post.js}",
        "pre.js": "console.log('pre'); console.log('::save-state name=s::from-pre')",
        "main.js": "console.log('main ' + process.env.STATE_s + ' ' + "
        "process.env.GITHUB_ACTION_REPOSITORY + '@' + process.env.GITHUB_ACTION_REF)",
        "post.js": "console.log('post ' + process.env.STATE_s)",
        "deep/action.yaml": "runs: {using: composite, steps: ["
        "{run: 'bash $GITHUB_ACTION_PATH/x.sh ${{ github.action_ref }}', shell: bash}]}",
        "deep/x.sh": "echo deep $1",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for argv in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "v1"]):
        subprocess.run(
            ["git", "-c", "user.name=T", "-c", "user.email=t@t", *argv], cwd=folder, check=True
        )
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_remote_action_runs_at_the_commit_that_is_said(
    driver: LaneDriver, boot: Heartbeat, remote: str
) -> None:
    """Fetched before the first step; pre before it, main, post after all."""
    steps = (run("echo first"), use("team/tools@v1"), use(f"team/tools/deep@{remote}"))

    finished, log, reports = driver.run(boot, steps)

    assert finished.conclusion == "success"
    assert log.texts() == [
        "pre",
        "first",
        "main from-pre team/tools@v1",
        f"deep {remote}",
        "post from-pre",
    ]
    fetched = f"'team/tools@v1' (SHA:{remote})"
    assert any(fetched in line.text for line in log.lines())
    assert reports[0].name == "Pre Run team/tools@v1"


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize(
    ("uses", "reason", "words"),
    [
        ("team/absent@v1", "infra.action_download", "`actions_url`"),
        ("team/tools@v9", "infra.action_download", "no branch, tag or commit 'v9'"),
        ("team/tools/absent@v1", "user.bad_action", "no action.yml or action.yaml"),
    ],
)
def test_a_remote_action_that_can_t_be_had_fails_the_job_at_once(
    driver: LaneDriver, boot: Heartbeat, uses: str, reason: str, words: str
) -> None:
    """With the place that was asked, and the setting that says where."""
    finished, log, _ = driver.run(boot, (run("echo never"), use(uses)))

    assert (finished.conclusion, finished.reason) == ("failure", reason)
    assert log.texts() == []
    assert words in finished.message


def outcome(result: tuple[JobFinished, Log, list[StepFinished]]) -> str:
    """Return a job's conclusion."""
    return str(result[0].conclusion)


def test_hash_files_reads_the_workspace_in_steps_and_actions(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """The same hash on both sides; nothing selected is an empty text."""
    act = (
        "runs: {using: composite, steps: [{shell: bash, "
        "run: \"echo in=${{ hashFiles('a.txt') }}\"}]}"
    )
    steps = (
        write(act__action_yml=act, a="x"),
        run("printf x > a.txt"),
        use("./act"),
        run("echo out=${{ hashFiles('*.txt') }} none=${{ hashFiles('*.none') }}"),
    )

    result = driver.run(boot, steps)

    assert outcome(result) == "success"
    inside, outside = result[1].texts()
    assert outside == f"out={inside.removeprefix('in=')} none="
    assert len(inside) == 3 + 64
