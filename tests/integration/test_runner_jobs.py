"""A real runner on a real Kafka: what a job's steps see, say and come to."""

from __future__ import annotations

import hashlib
import os

import pytest

from schemas.events import AssignmentDeclined, JobFinished, JobStarted, StepFinished, StepStarted
from schemas.streams import Heartbeat
from schemas.workflow.plan import DefaultsPlan, StepPlan
from tests.integration.runner_fixtures import boot, driver, open_home, runner
from tests.support.eventually import eventually
from tests.support.lanes import LaneDriver, RunnerProcess

__all__ = ["boot", "driver", "open_home", "runner"]


def script(text: str, **values: object) -> StepPlan:
    """Return a step that runs `text`."""
    return StepPlan(id=str(values.pop("id", "__run")), run=text, **values)  # type: ignore[arg-type]


def test_a_job_is_accepted_run_and_reported_in_order(driver: LaneDriver, boot: Heartbeat) -> None:
    """Started, step started, step finished and finished, each caused by an earlier one."""
    assignment = driver.assignment(boot, "echo hello")

    driver.send(assignment)
    finished = driver.finished(assignment)

    assert finished.conclusion == "success"
    kinds = (JobStarted, StepStarted, StepFinished, JobFinished)
    reports = [driver.of(assignment, kind)[0] for kind in kinds]
    offsets = [driver.offsets[report.event_id] for report in reports]
    assert offsets == sorted(offsets)
    assert reports[0].caused_by == assignment.order_id
    assert {report.caused_by for report in reports[1:]} == {reports[0].event_id}
    token = {(report.attempt, report.runner_id, report.boot_id) for report in reports}
    assert token == {(1, boot.runner_id, boot.boot_id)}


def test_the_log_is_whole_and_provable(driver: LaneDriver, boot: Heartbeat) -> None:
    """Line count and sha256 of the last batch and of JobFinished are those of the lines."""
    finished, log, steps = driver.run(boot, "for i in $(seq 1 3000); do echo line $i; done")

    texts = [line.text for line in log.lines()]
    digest = hashlib.sha256("".join(f"{text}\n" for text in texts).encode()).hexdigest()
    last = log.ended
    assert last is not None
    assert (last.total_lines, last.total_sha256) == (len(texts), digest)
    assert (finished.log_lines, finished.log_sha256) == (len(texts), digest)
    assert log.texts() == [f"line {i}" for i in range(1, 3001)]
    assert (steps[0].first_line, steps[0].lines) == (0, len(texts))


def test_groups_of_a_step_are_reported_with_their_lines(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """The runner's own and the step's, where the log has them; the next one ends the one before."""
    text = "echo a; echo ::group::One; echo b; echo '##[group]Two'; echo c; echo ::endgroup::; echo"
    _, log, steps = driver.run(boot, text)

    texts = [line.text for line in log.lines()]
    found = [(group.title, texts[group.first_line], group.lines) for group in steps[0].groups]
    assert [(shown, lines) for _, shown, lines in found[1:]] == [
        ("##[group]One", 2),
        ("##[group]Two", 2),
    ]
    assert [title for title, _, _ in found[1:]] == ["One", "Two"]
    own = steps[0].groups[0]
    assert texts[own.first_line + own.lines] == "##[endgroup]"


def test_a_failing_step_fails_the_job_and_skips_the_rest(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """Only steps whose condition holds after a failure run."""
    finished, log, steps = driver.run(
        boot,
        (
            script("exit 3"),
            script("echo never"),
            script("echo always", condition="always()"),
            script("echo failed", condition="failure()"),
        ),
    )

    assert (finished.conclusion, finished.reason) == ("failure", "user.exit_code")
    assert [step.conclusion for step in steps] == ["failure", "skipped", "success", "success"]
    assert steps[0].exit_code == 3
    assert log.texts() == ["always", "failed"]


def test_outputs_env_path_state_and_summary_reach_later_steps_and_the_job(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """The command files work, heredocs included."""
    steps = (
        script(
            'echo "one=1" >> $GITHUB_OUTPUT\n'
            'printf "many<<END\\na\\nb\\nEND\\n" >> $GITHUB_OUTPUT\n'
            'echo "COLOUR=blue" >> $GITHUB_ENV\n'
            'mkdir -p "$RUNNER_TEMP/bin" && echo "echo mine" > "$RUNNER_TEMP/bin/mytool"\n'
            'chmod +x "$RUNNER_TEMP/bin/mytool"; echo "$RUNNER_TEMP/bin" >> $GITHUB_PATH\n'
            'echo "# Done" >> $GITHUB_STEP_SUMMARY\n',
            id="first",
        ),
        script("echo $COLOUR ${{ steps.first.outputs.one }} ${{ env.COLOUR }}; mytool"),
    )
    plan = {"outputs": {"both": "${{ steps.first.outputs.one }}-${{ steps.first.outputs.many }}"}}

    finished, log, _ = driver.run(boot, steps, plan=plan)

    assert log.texts() == ["blue 1 blue", "mine"]
    assert finished.outputs == {"both": "1-a\nb"}
    assert finished.summary.strip() == "# Done"


def test_commands_in_the_output_mask_annotate_and_fail(driver: LaneDriver, boot: Heartbeat) -> None:
    """add-mask hides from its own line on, annotations become data, stop-commands stops."""
    text = (
        "echo '::add-mask::hunter22'\n"
        "echo the password is hunter22\n"
        "echo '::error file=a.py,line=3,title=Bad::hunter22 is weak'\n"
        "echo '::group::Title'; echo in; echo '::endgroup::'\n"
        "echo '::stop-commands::tok123456'; echo '::warning::not one'; echo '::tok123456::'\n"
        "echo '::set-output name=old::style'\n"
    )
    plan = {"outputs": {"old": "${{ steps.s.outputs.old }}"}}

    finished, log, _ = driver.run(boot, (script(text, id="s"),), plan=plan)

    everything = "\n".join(line.text for line in log.lines() if line.stream != "s")
    assert "hunter22" not in everything
    assert "the password is ***" in everything
    assert "::warning::not one" in everything
    assert "##[group]Title" in everything
    [note] = finished.annotations
    assert (note.level, note.path, note.line, note.title) == ("error", "a.py", 3, "Bad")
    assert note.message == "*** is weak"
    assert finished.outputs == {"old": "style"}


def test_an_output_with_a_secret_in_it_is_left_out(driver: LaneDriver, boot: Heartbeat) -> None:
    """As on GitHub: what jobs pass to each other is no secret."""
    text = 'echo "::add-mask::s3cr3t-value"; echo "leak=x s3cr3t-value" >> $GITHUB_OUTPUT'
    plan = {"outputs": {"leak": "${{ steps.s.outputs.leak }}", "fine": "yes"}}

    finished, log, _ = driver.run(boot, (script(text, id="s"),), plan=plan)

    assert finished.outputs == {"fine": "yes"}
    assert any("Output 'leak'" in line.text for line in log.lines())


@pytest.mark.parametrize(
    ("shell", "text", "expected"),
    [
        (None, 'false | true; echo "$-" | tr -d "\\n"; echo', "success"),
        ("bash", "false | true", "failure"),
        ("sh", "echo from sh", "success"),
        ("python", "import sys; print('from python'); sys.exit(0)", "success"),
        ("bash -x {0}", "echo own", "success"),
        ("cat {0}", "just a text", "success"),
        ("nonsense", "echo no", "failure"),
    ],
)
def test_the_shell_rules_are_githubs(
    driver: LaneDriver, boot: Heartbeat, shell: str | None, text: str, expected: str
) -> None:
    """`bash` unspecified lacks pipefail, `shell: bash` has it, others are as documented."""
    finished, _, _ = driver.run(boot, (script(text, shell=shell),))

    assert finished.conclusion == expected


def test_the_environment_is_what_was_allowed(driver: LaneDriver, boot: Heartbeat) -> None:
    """GitHub's variables are there, the runner's own settings and secrets are not."""
    finished, log, _ = driver.run(boot, "env; id -u; ls -ld . ; pwd; umask")

    found = dict(line.partition("=")[::2] for line in log.texts() if "=" in line)
    assert finished.conclusion == "success"
    assert found["CI"] == found["GITHUB_ACTIONS"] == "true"
    assert found["GITHUB_REPOSITORY"] == "demo/hello"
    assert found["GITHUB_WORKSPACE"] == found["PWD"]
    assert found["RUNNER_OS"] == "Linux"
    assert not [name for name in found if name.startswith("TAILRACE_") and name != "TAILRACE_JOB"]
    assert "HOME" in found
    assert found["HOME"] != os.environ.get("HOME")
    if os.geteuid() == 0:
        assert "0" not in log.texts(), "a job of a runner that is root is not root"


def test_every_attempt_has_an_empty_workspace(driver: LaneDriver, boot: Heartbeat) -> None:
    """Nothing of one job is there for the next, in workspace, home, temp or tmp."""
    leave = 'for d in . "$HOME" "$RUNNER_TEMP" "$TMPDIR"; do mkdir -p $d/sub; touch $d/.left; done'
    look = 'ls -A . "$HOME" "$RUNNER_TEMP" "$TMPDIR" | grep -c left || true'

    for _ in range(6):
        driver.run(boot, leave)
        _, log, _ = driver.run(boot, look)
        assert log.texts() == ["0"]


def test_working_directory_and_defaults(driver: LaneDriver, boot: Heartbeat) -> None:
    """A step's own folder comes before the job's default; one that is missing fails clearly."""
    steps = (
        script("mkdir -p a/b; pwd", working_directory="."),
        script("pwd"),
        script("pwd", working_directory="nowhere"),
    )
    plan = {"defaults_run": DefaultsPlan(working_directory="a/b")}

    finished, log, found = driver.run(boot, steps, plan=plan)

    first, second = log.texts()
    assert second == f"{first}/a/b"
    assert [step.conclusion for step in found] == ["success", "success", "failure"]
    assert found[2].reason == "user.not_started"
    assert any("nowhere" in line.text and "No such file" in line.text for line in log.lines())
    assert finished.conclusion == "failure"


def test_continue_on_error_and_step_timeout(driver: LaneDriver, boot: Heartbeat) -> None:
    """A step over its own limit fails; continue-on-error turns failures to success."""
    steps = (
        script("trap 'echo got it; exit 9' INT; sleep 60 & wait", timeout_minutes=0.005, id="slow",
               continue_on_error=True),
        script("echo ${{ steps.slow.outcome }} ${{ steps.slow.conclusion }}"),
    )  # fmt: skip

    finished, log, found = driver.run(boot, steps)

    assert finished.conclusion == "success"
    assert (found[0].outcome, found[0].conclusion) == ("failure", "success")
    assert found[0].reason == "user.step_timeout"
    assert log.texts() == ["got it", "failure success"]


def test_an_unknown_action_fails_by_name(driver: LaneDriver, boot: Heartbeat) -> None:
    """What can't be run is named."""
    finished, log, _ = driver.run(boot, (StepPlan(id="__u", uses="docker://alpine:3"),))

    assert (finished.conclusion, finished.reason) == ("failure", "user.unsupported_action")
    assert any("docker://alpine:3" in line.text for line in log.lines())


def test_outputs_over_the_limit_fail_the_job(driver: LaneDriver, boot: Heartbeat) -> None:
    """64 KiB a job is the limit."""
    text = 'echo "big=$(head -c 70000 /dev/zero | tr "\\0" x)" >> $GITHUB_OUTPUT'
    plan = {"outputs": {"big": "${{ steps.s.outputs.big }}"}}

    finished, _, _ = driver.run(boot, (script(text, id="s"),), plan=plan)

    assert (finished.conclusion, finished.reason) == ("failure", "user.outputs_too_large")
    assert "65536" in finished.message


def test_an_assignment_beside_its_withdrawal_never_starts(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """A batch is read whole before anything is done."""
    assignment = driver.assignment(boot, "echo never")

    driver.send(assignment, driver.withdraw(assignment))
    declined = driver.declined(assignment)

    assert isinstance(declined, AssignmentDeclined)
    driver.run(boot, "true")
    assert not driver.of(assignment, JobStarted)


def test_orders_to_another_boot_and_repeats_are_ignored(
    driver: LaneDriver, boot: Heartbeat
) -> None:
    """Only this boot's orders count, and each assignment once."""
    stranger = driver.assignment(boot, "echo no", boot_id="00000000-0000-7000-8000-000000000000")
    twice = driver.assignment(boot, "echo once")

    driver.send(stranger, twice, twice)
    driver.finished(twice)
    driver.send(twice)
    driver.run(boot, "true")

    assert not driver.of(stranger, JobStarted)
    assert len(driver.of(twice, JobStarted)) == 1
    assert len(driver.of(twice, JobFinished)) == 1


def test_the_runner_says_that_it_is_welcomed_and_what_it_runs(
    driver: LaneDriver, boot: Heartbeat, runner: RunnerProcess
) -> None:
    """Heartbeats name the boot, its welcome, and the attempts under way."""
    assignment = driver.assignment(boot, "sleep 30")
    driver.send(assignment)

    beat = eventually(
        lambda: next(
            (
                beat
                for beat in driver.heartbeats
                if beat.runner_id == runner.runner_id
                and any(running.job_id == assignment.job_id for running in beat.running)
            ),
            None,
        ),
        what="a heartbeat with the job",
    )

    assert beat.welcomed
    assert beat.boot_id == boot.boot_id
    driver.cancel(assignment, grace_ms=1_000)
    driver.finished(assignment)


def test_a_first_heartbeat_is_not_welcomed(driver: LaneDriver, boot: Heartbeat) -> None:
    """Until the welcome is read the runner asks for it."""
    first = next(beat for beat in driver.heartbeats if beat.boot_id == boot.boot_id)

    assert not first.welcomed
