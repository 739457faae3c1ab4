"""A real runner with a real container engine: jobs, services and actions in containers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.events import CONTAINERS, Conclusion
from schemas.streams import Heartbeat
from schemas.workflow.plan import StepPlan
from tests.integration.runner_fixtures import driver, open_home
from tests.support.engine import IMAGE, WITH_NODE, NoEngineError, TestEngine, test_engine
from tests.support.eventually import eventually
from tests.support.lanes import LaneDriver, RunnerProcess, runner_process

__all__ = ["driver", "open_home"]

REQUIRED = "TAILRACE_REQUIRE_ENGINE"


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    """Yield an engine of the test's own; without one these tests are skipped, saying so."""
    try:
        with test_engine() as found:
            yield found
    except NoEngineError as error:
        if os.environ.get(REQUIRED):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def runner(driver: LaneDriver, open_home: Path, engine: TestEngine) -> Iterator[RunnerProcess]:
    """Yield a runner with that engine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in engine.environ.items():
            patch.setenv(name, value)
        settings = {"container_engine": engine.program, "runner_slots": 2}
        with runner_process(driver, open_home, **settings) as runner:
            yield runner


@pytest.fixture
def boot(driver: LaneDriver, runner: RunnerProcess) -> Heartbeat:
    """Return the runner's boot, welcomed."""
    return driver.welcome(runner.runner_id)


def run(text: str, **values: Any) -> StepPlan:
    """Return a step that runs a script."""
    return StepPlan(id=values.pop("id", "__run"), run=text, **values)


def test_a_runner_with_an_engine_says_so(boot: Heartbeat) -> None:
    """The announcement has the capability that the scheduler looks for."""
    assert boot.capabilities == (CONTAINERS,)


def test_steps_run_in_the_job_s_container(driver: LaneDriver, boot: Heartbeat) -> None:
    """Shell, variables, folders and command files are those of a job in a container."""
    steps = (
        run('cat /etc/passwd | wc -l; echo $0; echo "home $HOME"; id -u'),
        run('echo "$GREETING $OWN"; pwd; echo text > made; mkdir -p sub', env={"OWN": "step's"}),
        run("pwd; ls ../made; touch made-in-sub", working_directory="sub"),
        run(
            "echo answer=42 >> $GITHUB_OUTPUT; echo FROM_FILE=yes >> $GITHUB_ENV;"
            "mkdir -p /tmp/tools; printf '#!/bin/sh\\necho a tool' > /tmp/tools/tool;"
            "chmod +x /tmp/tools/tool; echo /tmp/tools >> $GITHUB_PATH",
            id="out",
        ),
        run(
            'echo "${{ steps.out.outputs.answer }} $FROM_FILE"; tool;'
            "echo '${{ toJSON(job.container) }}'"
        ),
        run(
            "ls /__w/hello/hello /github/workspace;"
            "test -s $GITHUB_EVENT_PATH && test -s /github/workflow/event.json"
        ),
        run("exit 3"),
    )
    plan = {"container": {"image": IMAGE, "env": {"GREETING": "hello"}}}
    finished, log, ended = driver.run(boot, steps, plan=plan)
    texts = log.texts()
    assert (finished.conclusion, finished.reason) == (
        Conclusion.FAILURE,
        "user.exit_code",
    ), (finished.message, texts)
    assert ended[-1].exit_code == 3
    for expected in ("2", "home /github/home", "0", "hello step's", "../made", "42 yes", "a tool"):
        assert expected in texts
    assert sum(text == "made" for text in texts) == 2
    assert '"network"' in "".join(texts)
    assert not any("bash" in line.text for line in log.lines())


def test_a_step_s_time_limit_ends_all_that_it_started(driver: LaneDriver, boot: Heartbeat) -> None:
    """Its children in the container die with it, and the job goes on."""
    steps = (
        run("sleep 611 & sh -c 'sleep 612; true'", timeout_minutes=0.02, continue_on_error=True),
        run("ps | grep -v grep | grep 'sleep 61' || echo none is left"),
    )
    finished, log, ended = driver.run(boot, steps, plan={"container": IMAGE})
    assert finished.conclusion == Conclusion.SUCCESS, (finished.message, log.texts())
    assert ended[0].reason == "user.step_timeout"
    assert "none is left" in log.texts()


def test_a_cancelled_job_leaves_no_container(
    driver: LaneDriver, boot: Heartbeat, engine: TestEngine
) -> None:
    """The step is ended within its grace, and everything of the engine's is removed."""
    assignment = driver.assignment(
        boot, (run("echo begun; trap '' INT TERM; while :; do sleep 1; done"),),
        plan={"container": IMAGE},
    )  # fmt: skip
    driver.send(assignment)
    eventually(lambda: "begun" in driver.so_far(assignment), what="the step's first words")
    assert engine.call("ps", "--quiet")
    driver.cancel(assignment, grace_ms=1_000)
    assert driver.finished(assignment).conclusion == Conclusion.CANCELLED
    assert engine.call("ps", "--all", "--quiet") == ""
    assert "tailrace" not in engine.call("network", "ls")


# --------------------------------------------------------------------------- services

SERVE = "echo up > /tmp/index.html; exec httpd -f -p 8000 -h /tmp"
HEALTHY = "--health-cmd 'wget -q -O- http://127.0.0.1:8000/' --health-interval 1s"


def service(command: str, **values: Any) -> dict[str, Any]:
    """Return a service of a shell's command."""
    return {"image": IMAGE, "entrypoint": "sh", "command": f'-c "{command}"', **values}


def test_a_service_is_reached_by_its_name_from_the_job_s_container(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """It is healthy before the first step, and has the variables that it was given."""
    web = service(
        "sleep 1; echo $WORD > /tmp/index.html; exec httpd -f -p 8000 -h /tmp",
        env={"WORD": "fish & chips"}, options=HEALTHY,
    )  # fmt: skip
    steps = (run("wget -q -O- http://web:8000/; echo '${{ job.services.web.network }}'"),)
    # a service may be called as what the runner itself makes
    plan = {"container": IMAGE, "services": {"web": web, "job": service("exec sleep 100")}}
    finished, log, _ = driver.run(boot, steps, plan=plan)
    assert finished.conclusion == Conclusion.SUCCESS, (finished.message, log.texts())
    assert "fish & chips" in log.texts()
    assert any(text.startswith("tailrace-") for text in log.texts())


def test_a_service_is_reached_by_its_port_from_a_job_on_the_machine(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """The port is a free one of loopback, and the step runs outside."""
    steps = (
        run("wget -q -O- http://127.0.0.1:${{ job.services.web.ports['8000'] }}/; echo $0"),
        run("echo '${{ job.services.web.ports[8000] }}' | tr -d 0-9 | wc -c; id -u"),
    )
    web = service(SERVE, ports=["8000"], options=HEALTHY)
    finished, log, _ = driver.run(boot, steps, plan={"services": {"web": web}})
    assert finished.conclusion == Conclusion.SUCCESS, (finished.message, log.texts())
    assert log.texts()[0] == "up"
    assert "0" not in log.texts()[-1:]  # the job's user on the machine is not root


def test_a_service_that_does_not_become_healthy_fails_the_job_with_its_log(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """No step runs, and what the service said is there, with secrets masked."""
    options = "--health-cmd false --health-interval 1s --health-retries 1"
    web = service("echo 'cannot bind: in use'; exec sleep 100", options=options)
    finished, log, ended = driver.run(boot, "echo never", plan={"services": {"web": web}})
    assert (finished.conclusion, finished.reason) == (Conclusion.FAILURE, "user.container")
    assert "service 'web'" in finished.message
    assert "unhealthy" in finished.message
    assert "cannot bind: in use" in log.texts()
    assert not ended


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        ({"image": IMAGE, "options": "--privileged"}, "user.unsupported_option", "--privileged"),
        ({"image": IMAGE, "volumes": ["/:/host"]}, "user.unsupported_option", "/:/host"),
        ({"image": "localhost/tailrace-test:none"}, "infra.container", "tailrace-test:none"),
    ],
)
def test_a_container_that_can_t_be_had_fails_the_job(
    driver: LaneDriver, boot: Heartbeat, container: dict[str, Any], reason: str, words: str
) -> None:
    """Before any step, saying what was refused."""
    finished, _, ended = driver.run(boot, "echo never", plan={"container": container})
    assert (finished.conclusion, finished.reason) == (Conclusion.FAILURE, reason)
    assert words in finished.message
    assert not ended


# --------------------------------------------------------------------------- actions


def use(uses: str, **values: Any) -> StepPlan:
    """Return a step that uses an action."""
    return StepPlan(id=values.pop("id", "__use"), uses=uses, **values)


ACTION = """
name: greet
inputs: {who: {default: nobody}, text: {}}
outputs: {said: {description: what was said}}
runs:
  using: docker
  image: Dockerfile
  entrypoint: /greet.sh
  args: ["to ${{ inputs.who }}", "two words"]
  env: {FROM_FILE: "${{ inputs.who }}'s"}
  post-entrypoint: /after.sh
"""
GREET = r"""#!/bin/sh
echo "greet $1, $2, $FROM_FILE, $JOBS_OWN, $INPUT_WHO"
echo "$INPUT_TEXT" | wc -l
echo "in $(pwd), home $HOME, leaked ${LD_PRELOAD:-nothing}"
echo "said=hello $1" >> $GITHUB_OUTPUT
echo "kept=yes" >> $GITHUB_STATE
echo made > /github/workspace/by-action
"""
DOCKERFILE = f"FROM {IMAGE}\nCOPY *.sh /\n"


def write(**files: str) -> StepPlan:
    """Return a step of the machine's that writes an action."""
    parts = ["mkdir -p action && cd action"]
    for name, text in files.items():
        coded = base64.b64encode(text.encode()).decode()
        path = name.replace("_", ".") if name != "Dockerfile" else name
        parts.append(f"echo {coded} | base64 -d > {path}; chmod +x {path}")
    return run("\n".join(parts))


def test_a_docker_action_is_built_and_run_with_its_inputs(
    driver: LaneDriver, boot: Heartbeat, engine: TestEngine
) -> None:
    """Arguments, variables, outputs, state and its post entry point; nothing of it is left."""
    after = "#!/bin/sh\necho after $GITHUB_ACTION, with $STATE_kept and $INPUT_WHO\n"
    steps = (
        write(action_yml=ACTION, greet_sh=GREET, after_sh=after, Dockerfile=DOCKERFILE),
        use(
            "./action", id="greet", with_={"who": "ada", "text": "one\ntwo"},
            env={"JOBS_OWN": "own", "LD_PRELOAD": "/a\n/b"},
        ),
        run("echo '${{ steps.greet.outputs.said }}'; cat by-action; rm by-action; id -un"),
    )  # fmt: skip
    finished, log, _ = driver.run(boot, steps)
    texts = log.texts()
    assert finished.conclusion == Conclusion.SUCCESS, (finished.message, log.lines())
    for expected in (
        "greet to ada, two words, ada's, own, ada", "2",
        "in /github/workspace, home /github/home, leaked nothing", "hello to ada", "made",
        "after greet, with yes and ada",
    ):  # fmt: skip
        assert expected in texts, texts
    assert "tailrace-" not in engine.call("images", "--format", "{{.Repository}}").replace(
        "tailrace-test", ""
    )


def test_an_action_whose_build_failed_may_be_used_again(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """Each use says that it can't be built, and the one after the mistake is mended runs."""
    wrong = DOCKERFILE.replace("*.sh", "missing")
    step = use("./action", continue_on_error=True)
    steps = (
        write(action_yml=ACTION, greet_sh=GREET, after_sh="#!/bin/sh", Dockerfile=wrong),
        step, step, write(Dockerfile=DOCKERFILE), step,
    )  # fmt: skip
    finished, log, ended = driver.run(boot, steps)
    assert finished.conclusion == Conclusion.SUCCESS, (finished.message, log.lines())
    assert [end.reason for end in ended[1:5]] == ["user.action_failed"] * 2 + ["", ""]


def test_a_docker_step_runs_an_image_in_the_job_s_network(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """With entry point and arguments of the step; its exit code is the step's."""
    script = "wget -q -O- http://web:8000/ && echo $WORD && exit 5"
    step = use(
        f"docker://{IMAGE}", with_={"entrypoint": "sh", "args": f"-c '{script}'"},
        env={"WORD": "given"},
    )  # fmt: skip
    plan = {"services": {"web": service(SERVE, options=HEALTHY)}}
    finished, log, ended = driver.run(boot, (step,), plan=plan)
    assert log.texts() == ["up", "given"], (finished.message, log.lines())
    assert ended[0].exit_code == 5


@pytest.mark.parametrize("image", [IMAGE, WITH_NODE])
def test_a_javascript_action_runs_by_the_node_of_the_image(
    driver: LaneDriver, boot: Heartbeat, image: str
) -> None:
    """An image without one is told about; a composite action's steps run in the container too."""
    node = "runs: {using: node20, main: main.js}\ninputs: {greeting: {}}\n"
    steps = (
        run(f"mkdir -p a b; printf '{node}' > a/action.yml; echo > a/main.js;"
            "printf 'runs:\\n  using: composite\\n  steps:\\n  - {run: id -u, shell: sh}\\n'"
            "> b/action.yml"),
        use("./b"),
        use("./a", with_={"greeting": "hi"}, continue_on_error=True),
    )  # fmt: skip
    finished, log, ended = driver.run(boot, steps, plan={"container": image})
    assert finished.conclusion == Conclusion.SUCCESS, (finished.message, log.lines())
    assert log.texts()[0] == "0"
    if image == WITH_NODE:
        assert log.texts()[1].startswith("node of the image runs ")
        assert log.texts()[1].endswith("a/main.js with hi and no state")
    else:
        assert ended[-1].reason == "user.unsupported_action"


# --------------------------------------------------------------------------- the runner's end


def begun(
    driver: LaneDriver, boot: Heartbeat, engine: TestEngine, *steps: StepPlan, **plan: Any
) -> None:
    """Start a job whose last step goes on for ever; it has a service and one more container."""
    steps = (*steps, run("echo begun; sleep 600"))
    services = {"services": {"web": service(SERVE)}}
    assignment = driver.assignment(boot, steps, plan={**plan, **services})
    driver.send(assignment)
    eventually(lambda: "begun" in driver.so_far(assignment), what="the last step's first words")
    assert len(engine.call("ps", "--quiet").split()) == 1 + len(plan)


def test_a_killed_runner_leaves_no_container_running(
    driver: LaneDriver, runner: RunnerProcess, engine: TestEngine
) -> None:
    """The guard removes the job's container and its service; nobody has to start the runner."""
    boot = driver.welcome(runner.runner_id)
    begun(driver, boot, engine, container=IMAGE)
    runner.kill()
    eventually(
        lambda: engine.call("ps", "--all", "--quiet") == "",
        timeout_ms=15_000, what="the end of the job's containers",
    )  # fmt: skip
    runner.restart()
    driver.welcome(runner.runner_id, not_boot=boot.boot_id)


def test_what_a_killed_runner_and_its_guards_left_is_removed_at_its_next_start(
    driver: LaneDriver, runner: RunnerProcess, engine: TestEngine
) -> None:
    """Container, service, network and built image are gone before the new boot is announced."""
    boot = driver.welcome(runner.runner_id)
    action = "runs: {using: docker, image: Dockerfile, entrypoint: 'true'}"
    steps = (
        run(f'mkdir a; echo "{action}" > a/action.yml; echo "FROM {IMAGE}" > a/Dockerfile'),
        use("./a"),
    )
    begun(driver, boot, engine, *steps, container=IMAGE)
    images = ("images", "--quiet", "--filter", "label=tailrace.runner")
    assert engine.call(*images)
    family = psutil.Process(runner.process.pid).children(recursive=True)
    guards = [process for process in family if process.name().startswith("tailrace-guard")]
    for process in (psutil.Process(runner.process.pid), *guards):
        process.suspend()
    for process in guards:
        process.kill()
    runner.kill()
    assert len(engine.call("ps", "--quiet").split()) == 2
    runner.restart()
    driver.welcome(runner.runner_id, not_boot=boot.boot_id)
    assert engine.call("ps", "--all", "--quiet") == ""
    assert engine.call(*images) == ""
    assert "tailrace" not in engine.call("network", "ls")


# --------------------------------------------------------------------------- no engine


@pytest.fixture(scope="module")
def plain_boot(driver: LaneDriver, open_home: Path) -> Iterator[Heartbeat]:
    """Yield a runner that is told to have no engine."""
    with runner_process(driver, open_home, container_engine="none") as runner:
        yield driver.welcome(runner.runner_id)


@pytest.mark.parametrize("plan", [{"container": IMAGE}, {"services": {"db": IMAGE}}])
def test_a_runner_without_an_engine_refuses_a_container_job(
    driver: LaneDriver, plain_boot: Heartbeat, plan: dict[str, Any]
) -> None:
    """It announces no engine, and fails a job that reaches it all the same before any step."""
    assert plain_boot.capabilities == ()
    finished, _, ended = driver.run(plain_boot, "echo never", plan=plan)
    assert finished.reason == "user.unsupported_container"
    assert "container engine" in finished.message
    assert not ended


def test_a_runner_without_an_engine_refuses_a_docker_step(
    driver: LaneDriver, plain_boot: Heartbeat
) -> None:
    """The step fails and says what to do instead; the job may go on."""
    steps = (use("docker://alpine", continue_on_error=True), run("echo on"))
    finished, log, ended = driver.run(plain_boot, steps)
    assert finished.conclusion == Conclusion.SUCCESS
    assert ended[0].reason == "user.unsupported_action"
    assert "no container engine" in "".join(line.text for line in log.lines())
    assert log.texts() == ["on"]


# --------------------------------------------------------------------------- a whole run

WHOLE = f"""
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    container: {{image: {IMAGE}, options: --user 1234}}
    steps:
    - uses: actions/checkout@v4
    - run: |
        id -u; cat text.txt; echo more >> text.txt; echo new > new.txt
        test -z "$(ls -A $HOME | grep -v gitconfig)"
    - uses: actions/cache/save@v4
      with: {{path: new.txt, key: k}}
    - run: rm -f new.txt
    - uses: actions/cache/restore@v4
      with: {{path: new.txt, key: k}}
    - run: cat text.txt new.txt
  refused:
    runs-on: ubuntu-latest
    container: {{image: {IMAGE}, options: --pid host}}
    steps: [{{run: echo never}}]
"""


def test_a_workflow_of_containers_runs_on_this_machine(tmp_path: Path, engine: TestEngine) -> None:
    """A checkout and a cache by the machine serve a container whose user is not root."""
    (tmp_path / ".github/workflows").mkdir(parents=True)
    (tmp_path / ".github/workflows/ci.yml").write_text(WHOLE)
    (tmp_path / "text.txt").write_text("checked out\n")
    settings = {"HOME": str(tmp_path / "home"), "CONTAINER_ENGINE": engine.program}
    environ = {f"TAILRACE_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-c", "from infra.cli import main; main()", "run-local"]
    done = subprocess.run(
        [*command, str(tmp_path), "--json"], env={**os.environ, **engine.environ, **environ},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    jobs = {job["job_id"].rpartition(".")[2]: job for run in found["runs"] for job in run["jobs"]}
    assert jobs["build"]["conclusion"] == "success", done.stdout
    log = json.dumps(jobs["build"])
    assert [part in log for part in ("1234", "checked out", "more", "new")] == [True] * 4
    assert jobs["refused"]["conclusion"] == "failure"
    assert "--pid host is refused" in json.dumps(jobs["refused"])
    assert engine.call("ps", "--all", "--quiet") == ""
