"""A runner with its gateway: artifacts and caches from one job to the next, and who may not."""

from __future__ import annotations

from typing import Any

from infra.auth import RUNNER_TOKEN_FILE
from schemas.events import ArtifactUploaded, JobCancelled, JobFinished
from schemas.lanes import Assignment
from schemas.workflow.plan import StepPlan
from tests.integration.runner_fixtures import driver, open_home
from tests.integration.test_runner_gateway import Site, site
from tests.support.eventually import eventually
from tests.support.lanes import Log

__all__ = ["driver", "open_home", "site"]

REPOSITORY = "demo/artifacts"
UPLOAD, DOWNLOAD = "actions/upload-artifact@v4", "actions/download-artifact@v4"
CACHE = "actions/cache@v4"


def use(uses: str, id: str = "__use", **inputs: str) -> StepPlan:
    """Return a step that uses an action; `_` in an input's name is a dash."""
    given: dict[str, Any] = {name.replace("_", "-"): text for name, text in inputs.items()}
    return StepPlan(id=id, uses=uses, with_=given)


def run(text: str, **values: Any) -> StepPlan:
    """Return a step that runs a script."""
    return StepPlan(id=values.pop("id", "__run"), run=text, **values)


def job(
    site: Site, run_id: str, name: str, *steps: StepPlan, **values: Any
) -> tuple[JobFinished, Log, Assignment]:
    """Run a job of a run."""
    return site.run(
        steps, REPOSITORY, job_id=f"{run_id}.{name}", order_id=f"{run_id}.{name}", **values
    )


def everything(log: Log) -> str:
    """Return the whole log."""
    return "\n".join(line.text for line in log.lines())


def test_an_artifact_goes_from_job_to_job(site: Site) -> None:
    """Contents, folders and the right to be run; hidden files only when asked for."""
    make = run(
        "mkdir -p dist/sub dist/.hid; printf one > dist/a; printf two > dist/sub/b; "
        "printf x > dist/.hid/c; printf '#!/bin/sh\\necho ran' > dist/tool; chmod +x dist/tool; "
        "ln -s a dist/link"
    )
    finished, log, assignment = job(
        site, "art1", "build", make,
        use(UPLOAD, "up", name="result", path="dist"),
        run("echo id=${{ steps.up.outputs.artifact-id }}"),
    )  # fmt: skip

    assert finished.conclusion == "success", everything(log)
    [fact] = site.driver.of(assignment, ArtifactUploaded)
    assert (fact.name, fact.files, fact.run_id) == ("result", 4, "art1")
    assert len(log.texts()[-1]) > len("id=")
    finished, log, _ = job(
        site, "art1", "test",
        use(DOWNLOAD, name="result", path="in"),
        use(DOWNLOAD, path="all"),
        run("cat in/a in/sub/b in/link; ls -A in; in/tool; cat all/result/a"),
    )  # fmt: skip
    assert finished.conclusion == "success", everything(log)
    assert "".join(log.texts()) == "onetwooneaalinksubtoolranone".replace("aalink", "alink")


def test_a_name_is_taken_and_other_runs_see_nothing(site: Site) -> None:
    """An artifact belongs to its run; absent ones say what there is."""
    make = run("echo x > f; echo y > g")
    job(site, "art2", "a", make, use(UPLOAD, name="n", path="f"))

    again, log, _ = job(site, "art2", "b", make, use(UPLOAD, name="n", path="f"))
    over, _, _ = job(site, "art2", "c", make, use(UPLOAD, name="n", path="g", overwrite="true"))
    other, other_log, _ = job(site, "art3", "a", use(DOWNLOAD, name="n"))

    assert (again.conclusion, over.conclusion) == ("failure", "success")
    assert "`overwrite: true`" in everything(log)
    assert other.reason == "user.no_artifact"
    assert "it has: none" in everything(other_log)


def test_no_files_are_a_warning_or_an_error(site: Site) -> None:
    """As the input says."""
    fine, log, _ = job(site, "art4", "a", use(UPLOAD, path="none"))
    bad, _, _ = job(site, "art4", "b", use(UPLOAD, path="none", if_no_files_found="error"))

    assert fine.conclusion == "success"
    assert "##[warning]No files were found" in everything(log)
    assert bad.reason == "user.no_files"


def test_a_job_gives_away_only_what_its_user_can_read(site: Site) -> None:
    """A link to the runner's token is of no use, for tar runs with the job's rights."""
    token = site.home / "secrets" / RUNNER_TOKEN_FILE
    steps = (run(f"mkdir d; ln -s {token} d/t; echo x > d/f"), use(UPLOAD, name="n", path="d"))

    finished, log, assignment = job(site, "art5", "a", *steps)

    assert token.read_text().strip() not in everything(log)
    facts = site.driver.of(assignment, ArtifactUploaded)
    assert finished.conclusion == "failure" or [fact.files for fact in facts] == [1]


def test_a_cache_is_saved_after_the_job_and_restored_in_the_next(site: Site) -> None:
    """Links and modes stay; an exact key is a hit, the beginning of one is not."""
    paths = {"path": "deps\n~/.tool", "key": "k-1"}
    fill = run(
        "test -e deps/x || { mkdir -p deps ~/.tool; echo x > deps/x; ln -s x deps/y; "
        'echo h > ~/.tool/h; chmod 700 deps/x; }; echo "hit=${{ steps.c.outputs.cache-hit }}."'
    )
    check = run("cat deps/y ~/.tool/h; test -x deps/x && test -L deps/y && echo kept")

    first, log, _ = job(site, "cache1", "a", use(CACHE, "c", **paths), fill)
    second, log_2, _ = job(site, "cache2", "a", use(CACHE, "c", **paths), fill, check)
    more = {**paths, "key": "k-2", "restore_keys": "k-"}
    third, log_3, _ = job(site, "cache3", "a", use("actions/cache/restore@v4", "c", **more), fill)

    assert (first.conclusion, second.conclusion, third.conclusion) == ("success",) * 3
    assert log.texts() == ["hit=."], everything(log)
    assert "Cache saved with key: k-1" in everything(log)
    assert log_2.texts() == ["hit=true.", "x", "h", "kept"], everything(log_2)
    assert "Cache saved" not in everything(log_2)
    assert log_3.texts() == ["hit=false."], everything(log_3)


def test_a_cache_miss_fails_only_when_it_is_to(site: Site) -> None:
    """By `fail-on-cache-miss`; and another branch's cache is none."""
    save = use("actions/cache/save@v4", path="f", key="only-side")
    side = {"github": {"ref": "refs/heads/side"}}
    job(site, "cache4", "a", run("echo x > f"), save, **side)
    restore = use("actions/cache/restore@v4", path="f", key="only-side", fail_on_cache_miss="true")

    other, _, _ = job(site, "cache5", "a", restore)
    same, _, _ = job(site, "cache6", "a", restore, **side)

    assert (other.conclusion, other.reason) == ("failure", "user.cache_miss")
    assert same.conclusion == "success"


def test_only_a_live_attempt_reaches_the_depot(site: Site) -> None:
    """With the runner token, too."""
    assignment = site.driver.assignment(site.tester, "true", repository=REPOSITORY)
    site.driver.assigned(assignment)
    without = site.signed("GET", "/v1/artifacts", assignment)
    without.remove_header("Authorization")

    assert site.send("GET", "/v1/artifacts", assignment)[0] == 200
    assert site.send_once(without)[0] == 401
    site.driver.append(
        JobCancelled(
            event_id="00000000-0000-5000-8000-0000000000a6", repository=REPOSITORY,
            job_id=assignment.job_id, attempt=1,
        )
    )  # fmt: skip
    eventually(
        lambda: site.send("GET", "/v1/artifacts", assignment)[0] == 409,
        what="the gateway has read that the attempt is over",
    )
    assert site.send("GET", f"/v1/pieces/{'0' * 64}", assignment)[0] == 409
