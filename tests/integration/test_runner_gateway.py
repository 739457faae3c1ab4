"""A runner with its gateway: secrets just in time, and checkouts the job's user can't cheat."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from infra.auth import RUNNER_TOKEN_FILE
from infra.clock import SystemClock
from infra.embedded.ports import free_port
from infra.vault import Registration, Vault
from runner.signing import ATTEMPT_HEADER, EPOCH_HEADER, SIGNATURE_HEADER, Asking, BootKey
from schemas.events import JobFinished, RunPlanned, SecretsReleased
from schemas.lanes import Assignment
from schemas.streams import Heartbeat
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import StepPlan
from tests.integration.runner_fixtures import driver, open_home
from tests.support.eventually import eventually
from tests.support.lanes import GITHUB, LaneDriver, Log, runner_process

__all__ = ["driver", "open_home"]

SECRET = "correct-horse-battery"
CHECKOUT = "actions/checkout@v4"


@dataclass(slots=True)
class Site:
    """A gateway, a runner that knows it, and the vault behind them."""

    driver: LaneDriver
    boot: Heartbeat
    vault: Vault
    home: Path
    url: str
    key: BootKey
    tester: Heartbeat
    #: What the gateway calls its present start.
    epoch: list[str] = field(default_factory=lambda: [""])

    def run(
        self, steps: tuple[StepPlan, ...], repository: str, sha: str = "", **values: object
    ) -> tuple[JobFinished, Log, Assignment]:
        """Run an assigned job to its end."""
        github = {**GITHUB, "repository": repository, "sha": sha or GITHUB["sha"]}
        contexts = {
            "github": {**github, **values.pop("github", {})},  # type: ignore[dict-item]
            **values.pop("contexts", {}),  # type: ignore[dict-item]
        }
        assignment = self.driver.assignment(
            self.boot, steps, repository=repository, contexts=contexts, **values
        )
        self.driver.assigned(assignment)
        self.driver.send(assignment)
        return self.driver.finished(assignment), self.driver.log(assignment), assignment

    def ask(self, assignment: Assignment, *names: str, **changed: object) -> tuple[int, Any]:
        """Ask the gateway for secrets as the attempt would; its boot has to be `tester`."""
        return self.send("POST", "/v1/secrets", assignment, {"names": names}, **changed)

    def send(
        self, method: str, path: str, assignment: Assignment, body: object = None, **changed: object
    ) -> tuple[int, Any]:
        """Send a request that is signed with the key of `tester`, whatever else is changed."""
        status, answer, headers = self.send_once(
            self.signed(method, path, assignment, body, **changed)
        )
        if headers.get(EPOCH_HEADER):
            self.epoch[0] = headers[EPOCH_HEADER]
            status, answer, _ = self.send_once(
                self.signed(method, path, assignment, body, **changed)
            )
        return status, answer

    def signed(
        self, method: str, path: str, assignment: Assignment, body: object = None, **changed: object
    ) -> urllib.request.Request:
        """Return a request; `changed` are values of the attempt that are not its own."""
        who = {
            "job_id": assignment.job_id, "attempt": assignment.attempt,
            "runner_id": assignment.runner_id, "boot_id": assignment.boot_id,
            "position": 0, **changed,
        }  # fmt: skip
        data = None if body is None else json.dumps(body).encode()
        asking = Asking(method, path, data or b"", json.dumps(who))
        proof = self.key.prove(
            asking, epoch=self.epoch[0], time_ms=SystemClock().now_ms(), nonce=os.urandom(16)
        )
        token = (self.home / "secrets" / RUNNER_TOKEN_FILE).read_text().strip()
        return urllib.request.Request(  # noqa: S310
            f"{self.url}{path}", data,
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json",
             ATTEMPT_HEADER: asking.attempt, SIGNATURE_HEADER: proof.to_header()},
            method=method,
        )  # fmt: skip

    def send_once(self, request: urllib.request.Request) -> tuple[int, Any, Message]:
        """Send a request as it is."""
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error), error.headers


@pytest.fixture(scope="module")
def site(driver: LaneDriver, open_home: Path, postgres_url: str) -> Iterator[Site]:
    """Yield a site of its own."""
    import psycopg

    name = f"gateway_{os.getpid()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    database = postgres_url.rpartition("/")[0] + f"/{name}"
    secrets = open_home / "secrets"
    secrets.mkdir(mode=0o700)
    vault = Vault(database, secrets)
    vault.migrate()
    port = free_port()
    settings = {
        "TAILRACE_HOME": str(open_home), "TAILRACE_KAFKA_BOOTSTRAP": driver.bootstrap,
        "TAILRACE_DATABASE_URL": database, "TAILRACE_GATEWAY_PORT": str(port),
        "TAILRACE_LOG_FORMAT": "text",
    }  # fmt: skip
    output = (open_home / "gateway.log").open("wb")
    gateway = subprocess.Popen(
        [sys.executable, "-m", "runner.gateway"], env={**os.environ, **settings},
        cwd=Path(__file__).parents[2], stdout=output, stderr=output,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(
            lambda: answers(f"{url}/readyz"),
            what="the gateway",
        )
        with runner_process(driver, open_home, runner_slots=2, gateway_url=url) as runner:
            key = BootKey()
            tester = Heartbeat(
                runner_id=f"{driver.pool}-tester", boot_id="tester-1", pool=driver.pool, labels=(),
                slots=1, lane=0, public_key=key.public,
            )  # fmt: skip
            driver.joined(tester)
            boot = driver.welcome(runner.runner_id)
            yield Site(driver, boot, vault, open_home, url, key, tester)
    finally:
        gateway.terminate()
        gateway.wait(10)
        output.close()
        vault.close()
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def answers(url: str) -> bool:
    """Say whether a URL gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def git(folder: Path, *argv: str) -> str:
    """Run git in a repository of the test."""
    done = subprocess.run(
        ["git", "-c", "user.name=T", "-c", "user.email=t@t", "-c", "init.defaultBranch=main",
         "-c", "protocol.file.allow=always", *argv],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(site: Site) -> tuple[str, Path]:
    """Return a registered repository with two commits, a branch and a tag; closed to others."""
    folder = site.home / "closed" / "source"
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for number in (1, 2):
        (folder / "file.txt").write_text(f"version {number}\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"Commit {number}")
    git(folder, "tag", "v1", "HEAD~1")
    git(folder, "branch", "side", "HEAD~1")
    (site.home / "closed").chmod(0o700)
    name = "demo/source"
    register(site, name, str(folder))
    return name, folder


def register(site: Site, name: str, url: str, token: str = "") -> None:
    """Register a repository."""
    site.vault.register(
        Registration(
            repository=name, provider="git", clone_url=url, default_branch="main",
            webhook_secret=b"x" * 32,
        ),
        token,
    )  # fmt: skip


def steps_of(*texts: str, **inputs: str) -> tuple[StepPlan, ...]:
    """Return a checkout and scripts after it."""
    checkout = StepPlan(id="checkout", uses=CHECKOUT, with_=dict(inputs))
    return (checkout, *(StepPlan(id="__run", run=text) for text in texts))


def test_checkout_brings_the_commit_of_the_run(site: Site, repository: tuple[str, Path]) -> None:
    """The job's user gets a repository it could not read itself, one commit deep, on a branch."""
    name, folder = repository
    look = (
        "cat file.txt; git rev-list --count HEAD; git branch --show-current; git status -s; id -u"
    )

    finished, log, _ = site.run(steps_of(look), name, git(folder, "rev-parse", "HEAD"))

    assert finished.conclusion == "success", [line.text for line in log.lines()]
    assert log.texts()[-4:-1] == ["version 2", "1", "main"]
    assert any("Commit 2" in text for text in log.texts())


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"ref": "v1"}, ["version 1", "1"]),
        ({"ref": "side"}, ["version 1", "1"]),
        ({"ref": "refs/heads/side"}, ["version 1", "1"]),
        ({"fetch-depth": "0"}, ["version 2", "2"]),
        ({"fetch-depth": "2"}, ["version 2", "2"]),
    ],
)
def test_checkout_follows_its_inputs(
    site: Site, repository: tuple[str, Path], inputs: dict[str, str], expected: list[str]
) -> None:
    """Ref and depth are as on GitHub."""
    name, folder = repository

    finished, log, _ = site.run(
        steps_of("cat file.txt; git rev-list --count HEAD", **inputs),
        name, git(folder, "rev-parse", "HEAD"),
    )  # fmt: skip

    assert finished.conclusion == "success", [line.text for line in log.lines()]
    assert log.texts()[-2:] == expected


def test_checkout_into_a_path_and_its_outputs(site: Site, repository: tuple[str, Path]) -> None:
    """`path` is below the workspace; the commit is an output."""
    name, folder = repository
    sha = git(folder, "rev-parse", "HEAD")

    _, log, _ = site.run(
        steps_of("cat sub/dir/file.txt; echo ${{ steps.checkout.outputs.commit }}", path="sub/dir"),
        name, sha,
    )  # fmt: skip
    outside, _, _ = site.run(steps_of("true", path="../up"), name, sha)

    assert log.texts()[-2:] == ["version 2", sha]
    assert (outside.conclusion, outside.reason) == ("failure", "user.bad_input")


def test_checkout_of_a_commit_that_is_not_there_fails_clearly(
    site: Site, repository: tuple[str, Path]
) -> None:
    """What git says is in the log."""
    finished, log, _ = site.run(steps_of("true", ref="nowhere"), repository[0])

    assert finished.conclusion == "failure"
    assert any("nowhere" in line.text for line in log.lines())


def test_a_second_push_is_seen(site: Site, repository: tuple[str, Path]) -> None:
    """The mirror is brought up to date when a commit is new."""
    name, folder = repository
    git(folder, "checkout", "-q", "-b", "later")
    (folder / "file.txt").write_text("later\n")
    git(folder, "commit", "-qam", "Later")

    _, log, _ = site.run(
        steps_of("cat file.txt; git branch --show-current"), name,
        git(folder, "rev-parse", "HEAD"), github={"ref": "refs/heads/later"},
    )  # fmt: skip
    git(folder, "checkout", "-q", "main")

    assert log.texts()[-2:] == ["later", "later"]


def test_submodules_are_brought_in(site: Site) -> None:
    """`submodules: recursive` follows them, with the rights of the job's user."""
    base = site.home / "open"
    for part in ("inner", "outer"):
        (base / part).mkdir(parents=True)
        git(base / part, "init", "-q")
        (base / part / f"{part}.txt").write_text(part)
        git(base / part, "add", ".")
        git(base / part, "commit", "-q", "-m", part)
    git(base / "outer", "submodule", "--quiet", "add", str(base / "inner"), "lib")
    git(base / "outer", "commit", "-q", "-m", "Add lib")
    if os.geteuid() == 0:  # git refuses repositories of others: the job's user owns its source
        subprocess.run(["chown", "-R", "nobody", str(base)], check=True)
    register(site, "demo/outer", str(base / "outer"))
    sha = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(base / "outer"), "rev-parse", "HEAD"],
        check=True, capture_output=True, text=True, env={**os.environ, "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
    ).stdout.strip()  # fmt: skip

    without, log, _ = site.run(steps_of("ls lib | wc -l"), "demo/outer", sha)
    with_, deep, _ = site.run(steps_of("cat lib/inner.txt", submodules="true"), "demo/outer", sha)

    assert without.conclusion == "success"
    assert log.texts()[-1] == "0"
    assert with_.conclusion == "success", [line.text for line in deep.lines()]
    assert deep.texts()[-1] == "inner"


def test_a_secret_is_released_used_and_masked(site: Site, repository: tuple[str, Path]) -> None:
    """The value reaches the step and nothing else; the release is a fact with the name only."""
    site.vault.set_secret(repository[0], "PASSPHRASE", SECRET)
    step = StepPlan(
        id="__run",
        run='printf "%s" "$P" | wc -c; echo "$P"; echo "$P" | base64; echo "${{ secrets.NONE }}."',
        env={"P": "${{ secrets.PASSPHRASE }}"},
    )

    finished, log, assignment = site.run((step,), repository[0], secrets=("NONE", "PASSPHRASE"))

    texts = [line.text for line in log.lines()]
    assert finished.conclusion == "success", texts
    assert log.texts()[0] == str(len(SECRET))
    assert SECRET not in "\n".join(texts)
    assert base64.b64encode(SECRET.encode()).decode()[:20] not in "\n".join(texts)
    assert log.texts()[1] == "***"
    assert log.texts()[-1] == "."
    [fact] = eventually(lambda: site.driver.of(assignment, SecretsReleased), what="the release")
    assert fact.names == ("PASSPHRASE",)
    assert "NONE" in fact.refused


def test_no_secret_leaves_a_job_by_any_way_out(site: Site, repository: tuple[str, Path]) -> None:
    """Names, groups, annotations, summary, outputs, artifact names and errors; derived ones too."""
    inner = "inner-pass-word"
    site.vault.set_secret(repository[0], "PASSPHRASE", SECRET)
    site.vault.set_secret(repository[0], "CONFIG", json.dumps({"password": inner}))
    say = (
        'echo "$P $D"; echo "::group::open $P"; echo ::endgroup::\n'
        'echo "::error file=$P.py,line=3,title=about $D::it is $P"; echo "::notice::$D"\n'
        'echo "# $P and $D" >> $GITHUB_STEP_SUMMARY; echo "o=$P" >> $GITHUB_OUTPUT; echo x > f\n'
    )
    env: dict[str, Value] = {"P": "${{ secrets.PASSPHRASE }}", "D": "${{ secrets.DERIVED }}"}
    steps = (
        StepPlan(id="say", name="Use ${{ secrets.PASSPHRASE }}", run=say, env=env),
        StepPlan(id="up", name="Up ${{ secrets.DERIVED }}", uses="actions/upload-artifact@v4",
                 with_={"name": "of-${{ secrets.DERIVED }}", "path": "f"},
                 continue_on_error=True),
        StepPlan(id="bad", name="Bad", run="true",
                 env={"X": "${{ fromJSON(format('{0}{1}', secrets.PASSPHRASE, '{')) }}"}),
    )  # fmt: skip
    maps = [
        {"values": {"PASSPHRASE": "${{ secrets.PASSPHRASE }}",
                    "DERIVED": "${{ fromJSON(secrets.CONFIG).password }}"}, "contexts": {}}
    ]  # fmt: skip

    finished, log, assignment = site.run(
        steps, repository[0], secrets=("CONFIG", "PASSPHRASE"),
        contexts={"secret_maps": maps}, plan={"outputs": {"o": "${{ steps.say.outputs.o }}"}},
    )  # fmt: skip

    texts = "\n".join(line.text for line in log.lines())
    told = repr([event for event in site.driver.events if event.job_id == assignment.job_id])
    assert texts.count("***") >= 4, texts
    assert finished.summary.strip() == "# *** and ***"
    assert finished.outputs == {}
    assert [remark.title for remark in finished.annotations if remark.title] == ["about ***"]
    assert "Use ***" in told
    assert "a secret in it" in texts
    for secret in (SECRET, inner):
        for form in (secret, base64.b64encode(secret.encode()).decode()[:12]):
            assert form not in texts
            assert form not in told


def test_an_environments_secrets_are_for_jobs_of_that_environment(
    site: Site, repository: tuple[str, Path]
) -> None:
    """By the name in the assignment's decision, whatever the runner says; the nearest wins."""
    name = repository[0]
    site.vault.set_secret("", "WHERE", "everywhere")
    site.vault.set_secret(name, "WHERE", "repository")
    site.vault.set_secret(name, "WHERE", "production", environment="production")
    site.vault.set_secret(name, "DEPLOY_KEY", "production-key", environment="production")
    answers = {}
    for environment in ("Production", "test", ""):
        assignment = site.driver.assignment(site.tester, "true", repository=name)
        site.driver.assigned(assignment, environment=environment)
        answers[environment] = site.ask(assignment, "WHERE", "DEPLOY_KEY")[1]["secrets"]

    assert answers == {
        "Production": {"WHERE": "production", "DEPLOY_KEY": "production-key"},
        "test": {"WHERE": "repository"},
        "": {"WHERE": "repository"},
    }


@pytest.mark.parametrize(
    ("token", "fork", "released"),
    [("tok-abcdef", False, {"GITHUB_TOKEN": "tok-abcdef"}), ("", False, {}), ("tok", True, {})],
)
def test_the_token_is_the_forges_and_empty_for_forks(
    site: Site, token: str, released: dict[str, str], *, fork: bool
) -> None:
    """`github.token` and `secrets.GITHUB_TOKEN` have no other source."""
    name = f"demo/token-{token or 'none'}"
    register(site, name, "https://forge.example/x.git", token)
    assignment = site.driver.assignment(site.tester, "true", repository=name)
    if fork:
        site.driver.append(
            RunPlanned(
                event_id="00000000-0000-5000-8000-00000000f0f0", repository=name,
                run_id=assignment.run_id, workflow="w", workflow_name="w", run_name="w",
                run_number=1, secrets_withheld="fork_event",
            )
        )  # fmt: skip
    site.driver.assigned(assignment)

    answer = site.ask(assignment, "GITHUB_TOKEN")[1]

    assert answer["secrets"] == released
    assert bool(answer["refused"]) != bool(released)


def test_only_the_live_attempt_gets_an_answer(site: Site, repository: tuple[str, Path]) -> None:
    """A wrong token, another boot, an ended attempt: refused."""
    site.vault.set_secret(repository[0], "PASSPHRASE", SECRET)
    assignment = site.driver.assignment(
        site.tester, "sleep 30", repository=repository[0], secrets=("PASSPHRASE",)
    )
    site.driver.assigned(assignment)

    assert site.ask(assignment, "PASSPHRASE")[0] == 200
    assert site.ask(assignment, "PASSPHRASE", boot_id="other")[0] == 401
    assert site.ask(assignment, "PASSPHRASE", attempt=2)[0] == 409
    site.driver.append(
        JobFinished(
            event_id="00000000-0000-5000-8000-000000000001", repository=repository[0],
            job_id=assignment.job_id, attempt=1, runner_id=assignment.runner_id,
            boot_id=assignment.boot_id, conclusion="success",
        )
    )  # fmt: skip

    def refused() -> bool:
        return site.ask(assignment, "PASSPHRASE")[0] == 409

    eventually(refused, what="the refusal after the end")


def test_without_the_runner_token_nothing_is_answered(site: Site) -> None:
    """The port is open to every user of the machine, the answers are not."""
    request = urllib.request.Request(  # noqa: S310
        f"{site.url}/v1/secrets", b"{}", {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)  # noqa: S310
    with caught.value:
        assert caught.value.code == 401


def test_what_another_signed_is_refused_and_a_request_counts_once(
    site: Site, repository: tuple[str, Path]
) -> None:
    """The runner token alone, another boot's key and a copied request get nothing."""
    site.vault.set_secret(repository[0], "PASSPHRASE", SECRET)
    assignment = site.driver.assignment(site.tester, "true", repository=repository[0])
    site.driver.assigned(assignment)
    body = {"names": ["PASSPHRASE"]}
    assert site.ask(assignment, "PASSPHRASE")[0] == 200

    copied = site.signed("POST", "/v1/secrets", assignment, body)
    first, again = site.send_once(copied), site.send_once(copied)
    stranger = dataclasses.replace(site, key=BootKey())
    foreign = stranger.send("POST", "/v1/secrets", assignment, body)
    theirs = site.driver.assignment(site.boot, "true", repository=repository[0])
    site.driver.assigned(theirs)

    assert (first[0], again[0], again[1]["title"]) == (200, 401, "Repeated")
    assert (foreign[0], foreign[1]["title"]) == (401, "Wrong signature")
    assert site.ask(theirs, "PASSPHRASE")[1]["title"] == "Wrong signature"


def test_a_forks_run_gets_no_secrets(site: Site, repository: tuple[str, Path]) -> None:
    """The gateway knows by itself that a run comes from a fork, whatever the runner asks."""
    assignment = site.driver.assignment(site.tester, "true", repository=repository[0])
    site.driver.append(
        RunPlanned(
            event_id="00000000-0000-5000-8000-000000000002", repository=repository[0],
            run_id=assignment.run_id, workflow="w", workflow_name="w", run_name="w",
            run_number=1, fork=True,
        )
    )  # fmt: skip
    site.driver.assigned(assignment)

    status, answer = site.ask(assignment, "PASSPHRASE", "GITHUB_TOKEN")

    assert status == 200
    assert answer["secrets"] == {}
    assert set(answer["refused"]) == {"PASSPHRASE", "GITHUB_TOKEN"}


def test_an_action_of_the_workspace_gets_the_token_that_no_step_mentions(site: Site) -> None:
    """As the default of an input, the way actions are written; it is masked there, too."""
    register(site, "demo/acts", "https://forge.example/acts.git", "tok-a-b-c-d-e")
    action = (
        "inputs: {token: {default: '${{ github.token }}'}}\n"
        "runs:\n  using: composite\n  steps:\n"
        "  - {shell: bash, run: 'echo ${#T} $T', env: {T: '${{ inputs.token }}'}}\n"
    )
    # in base64: the step that writes the file must not evaluate it
    coded = base64.b64encode(action.encode()).decode()
    steps = (
        StepPlan(id="__write", run=f"mkdir act; echo {coded} | base64 -d > act/action.yml"),
        StepPlan(id="__use", uses="./act"),
    )

    finished, log, _ = site.run(steps, "demo/acts")

    assert finished.conclusion == "success", [line.text for line in log.lines()]
    assert log.texts() == ["13 ***"]


def test_persisted_credentials_lie_beside_the_workspace(site: Site) -> None:
    """With a token the checkout keeps it out of argv and of the workspace, and out of the log."""
    folder = site.home / "closed" / "web.git"
    source = site.home / "closed" / "source"
    git(source, "clone", "-q", "--bare", ".", str(folder))
    git(folder, "update-server-info")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(
            lambda: answers(f"http://127.0.0.1:{port}/"),
            what="the web server",
        )
        register(site, "demo/web", f"http://127.0.0.1:{port}/web.git", "tok-123456789")
        look = (
            "grep -rc tok-123456789 . | grep -v ':0$' | wc -l; "
            "git config --get-regexp 'http.*extraheader' | wc -l; "
            "git config --get-regexp 'http.*extraheader'"
        )
        steps = steps_of(look, ref="refs/heads/main")
        sha = git(source, "rev-parse", "main")
        finished, log, _ = site.run(steps, "demo/web", sha)
        bare, without, _ = site.run(
            steps_of(look.rpartition(";")[0], ref="refs/heads/main",
                     **{"persist-credentials": "false"}),
            "demo/web", sha,
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait(5)

    assert finished.conclusion == "success", [line.text for line in log.lines()]
    assert log.texts()[-3:-1] == ["0", "1"]
    assert "***" in log.texts()[-1]
    assert bare.conclusion == "success"
    assert without.texts()[-2:] == ["0", "0"]


def test_a_gateway_that_cannot_follow_the_log_ends(site: Site, tmp_path: Path) -> None:
    """With a code that lets its supervisor start it again; here it looks for a partition too many.

    One that stayed would answer nobody for good.
    """
    settings = {
        "TAILRACE_HOME": str(tmp_path), "TAILRACE_KAFKA_BOOTSTRAP": site.driver.bootstrap,
        "TAILRACE_GATEWAY_PORT": str(free_port()), "TAILRACE_CELLS": "9",
        "TAILRACE_LOG_FORMAT": "text",
    }  # fmt: skip

    ended = subprocess.run(
        [sys.executable, "-m", "runner.gateway"], env={**os.environ, **settings},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 1
    assert "the gateway can't follow the log" in ended.stderr
