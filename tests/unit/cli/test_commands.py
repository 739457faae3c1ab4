"""What each command sends, prints and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli.errors import Exit
from tests.support.stub_api import Answer, Request, StubApi, problem
from tests.unit.cli.conftest import RUN_ID, Tailrace, a_job, a_run, page


def test_runs_are_a_table_and_filters_are_sent(api: StubApi, tailrace: Tailrace) -> None:
    """One line a run; the options become the API's filters."""
    api.on("GET /runs", page(a_run(), a_run(run_id="20261123-aaaaaaaaaaaa", conclusion=None,
                                            status="running", finished_at=None)))  # fmt: skip
    result = tailrace("runs", "--repo", "acme/shop", "--branch", "main", "-n", "2")
    lines = result.stdout.splitlines()
    assert result.exit_code == Exit.OK
    assert lines[0].split()[:4] == ["RUN", "STATE", "REPOSITORY", "WORKFLOW"]
    assert lines[1].startswith(f"{RUN_ID}  success  acme/shop")
    assert "4.2s" in lines[1]
    assert "running" in lines[2]
    assert api.requests[0].query == {"repository": "acme/shop", "branch": "main", "limit": "2"}


def test_lists_follow_the_cursor_and_stop_at_the_limit(api: StubApi, tailrace: Tailrace) -> None:
    """Pages are fetched until there are enough items."""

    def runs(request: Request) -> Answer:
        size = int(request.query["limit"])
        return Answer(content=page(*[a_run()] * size, next_cursor="more"))

    api.on("GET /runs", runs)
    result = tailrace("runs", "-n", "250", "--json")
    assert len(json.loads(result.stdout)) == 250
    assert [r.query.get("cursor") for r in api.requests] == [None, "more", "more"]


def test_foreign_text_cannot_drive_the_terminal(api: StubApi, tailrace: Tailrace) -> None:
    """Control codes in a commit's message are shown, not sent to the terminal."""
    api.on("GET /runs", page(a_run(run_name="\x1b]52;c;ZXZpbA==\x07\x9bpwned")))
    result = tailrace("runs")
    assert "\x1b" not in result.stdout
    assert "\x9b" not in result.stdout
    assert "\\x1b]52" in result.stdout


@pytest.mark.parametrize("text", [RUN_ID, "20261123-5f", "5f0c", "latest", "acme/shop#7"])
def test_a_run_is_found_by_what_people_type(api: StubApi, tailrace: Tailrace, text: str) -> None:
    """A full id, a unique beginning with or without the day, latest, REPO#NUMBER."""
    api.on("GET /runs", page(a_run(), a_run(run_id="20261122-aaaaaaaaaaaa", run_number=6)))
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[a_job("build")]))
    result = tailrace("run", "show", text, "--json")
    assert result.exit_code == Exit.OK
    assert json.loads(result.stdout)["run_id"] == RUN_ID


def test_a_beginning_of_several_runs_names_them(api: StubApi, tailrace: Tailrace) -> None:
    """An ambiguous RUN is wrong use, and the candidates are listed."""
    api.on("GET /runs", page(a_run(), a_run(run_id="20261123-5faaaaaaaaaa")))
    result = tailrace("cancel", "5f")
    assert result.exit_code == Exit.USAGE
    assert RUN_ID in result.stderr
    assert "20261123-5faaaaaaaaaa" in result.stderr


def test_run_show_tells_why_a_job_waits_and_what_failed(api: StubApi, tailrace: Tailrace) -> None:
    """Blocked jobs show their reason, failed steps their exit code and how to see the log."""
    waiting = a_job(
        "deploy",
        status="waiting",
        conclusion=None,
        attempts=0,
        blocked={"reason": "no_runner", "detail": "no runner has label gpu"},
    )
    step = {"number": 2, "name": "make test", "status": "completed", "conclusion": "failure",
            "exit_code": 3}  # fmt: skip
    failed = a_job("test", conclusion="failure", reason="user.exit_code", steps=[step])
    api.on(f"GET /runs/{RUN_ID}", a_run(status="running", conclusion=None, jobs=[failed, waiting]))
    text = tailrace("run", "show", RUN_ID).stdout
    assert "no_runner: no runner has label gpu" in text
    assert "test, step 2 `make test` ended with 3" in text
    assert f"tailrace logs {RUN_ID} test" in text
    assert "Fix the till" in text


def test_run_show_tells_why_a_job_without_steps_failed(api: StubApi, tailrace: Tailrace) -> None:
    """A job that no runner could take shows the whole message, not its code alone."""
    failed = a_job(
        "build", conclusion="failure", reason="user.unsupported_container",
        message="no runner of pool default has a container engine",
    )  # fmt: skip
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[failed]))
    text = tailrace("run", "show", RUN_ID).stdout
    assert "build: no runner of pool default has a container engine" in text


def test_a_rejected_run_shows_each_mistake_with_its_place(api: StubApi, tailrace: Tailrace) -> None:
    """File, line, column, message."""
    mistake = {"path": "ci.yml", "line": 4, "column": 7, "message": "unknown key `step`"}
    api.on(f"GET /runs/{RUN_ID}", a_run(conclusion="failure", problems=[mistake]))
    assert "ci.yml:4:7: unknown key `step`" in tailrace("run", "show", RUN_ID).stdout


def test_events_are_one_line_each_and_all_of_them_in_json(api: StubApi, tailrace: Tailrace) -> None:
    """The audit trail shows the chain of causes."""
    api.on(f"GET /runs/{RUN_ID}", a_run())
    first = {"offset": 3, "event_id": "aaaaaaaa-1", "kind": "RunPlanned", "occurred_at": 1,
             "caused_by": None, "job_id": None, "attempt": None,
             "data": {"run_number": 7, "jobs": [{}, {}], "fork": False, "x_json": "{}",
                      "sha": "0123456789abcdef0123456789abcdef01234567"}}  # fmt: skip
    second = {"offset": 5, "event_id": "bbbbbbbb-1", "kind": "JobScheduled", "occurred_at": 2,
              "caused_by": "aaaaaaaa-1", "job_id": f"{RUN_ID}.build", "attempt": 1,
              "data": {"pool": "default"}}  # fmt: skip
    api.on(f"GET /runs/{RUN_ID}/events", page(first, second))
    lines = tailrace("events", RUN_ID).stdout.splitlines()
    assert "sha=0123456789ab run_number=7 jobs=2" in lines[1]
    assert lines[2].split()[2:6] == ["JobScheduled", "bbbbbbbb", "aaaaaaaa", "build@1"]
    assert json.loads(tailrace("events", RUN_ID, "--json").stdout) == [first, second]


def test_cancel_names_the_repository_so_that_the_cell_is_known(
    api: StubApi, tailrace: Tailrace
) -> None:
    """The command carries reason and repository."""
    api.on(f"GET /runs/{RUN_ID}", a_run(status="running", conclusion=None))
    api.on(f"POST /runs/{RUN_ID}/cancel", Answer(202, {"event_id": "e", "offset": 9}))
    result = tailrace("cancel", RUN_ID, "--reason", "too hot")
    assert result.exit_code == Exit.OK
    [sent] = api.sent(f"POST /runs/{RUN_ID}/cancel")
    assert (sent.body, sent.query) == ({"reason": "too hot"}, {"repository": "acme/shop"})


def test_cancel_of_a_run_that_has_ended_is_refused(api: StubApi, tailrace: Tailrace) -> None:
    """Nothing is sent, and the exit code is negative."""
    api.on(f"GET /runs/{RUN_ID}", a_run())
    result = tailrace("cancel", RUN_ID)
    assert result.exit_code == Exit.NEGATIVE
    assert "has ended already: success" in result.stderr


def test_approve_of_a_run_that_has_ended_is_refused(api: StubApi, tailrace: Tailrace) -> None:
    """There is nothing left to let start."""
    api.on(f"GET /runs/{RUN_ID}", a_run(conclusion="cancelled"))
    result = tailrace("approve", RUN_ID)
    assert result.exit_code == Exit.NEGATIVE
    assert "has ended already: cancelled" in result.stderr


def test_approve_sends_the_approval(api: StubApi, tailrace: Tailrace) -> None:
    """One request to the run."""
    api.on(f"GET /runs/{RUN_ID}", a_run(status="waiting", conclusion=None))
    api.on(f"POST /runs/{RUN_ID}/approve", Answer(202, {"event_id": "e", "offset": 9}))
    assert tailrace("approve", RUN_ID).exit_code == Exit.OK
    assert len(api.sent(f"POST /runs/{RUN_ID}/approve")) == 1


@pytest.mark.parametrize(
    ("conclusion", "code"),
    [("success", Exit.OK), ("failure", Exit.NEGATIVE), ("timed_out", Exit.NEGATIVE),
     ("cancelled", Exit.CANCELLED)],
)  # fmt: skip
def test_trigger_waits_for_the_run_and_exits_by_its_conclusion(
    api: StubApi, tailrace: Tailrace, conclusion: str, code: Exit
) -> None:
    """The delivery leads to the run, the run to the exit code."""
    api.on("POST /repositories/acme/shop/dispatches",
           Answer(202, {"delivery_id": "dispatch:1", "event_id": "e", "offset": 1}))  # fmt: skip
    answers = iter([problem(404, "not yet"), Answer(content={"status": "received"}),
                    Answer(content={"status": "planned", "run_ids": [RUN_ID]})])  # fmt: skip
    api.on("GET /deliveries/dispatch:1", lambda _: next(answers))
    api.on(f"GET /runs/{RUN_ID}", a_run(conclusion=conclusion))
    result = tailrace("trigger", "acme/shop", "ci.yml", "-i", "who=me", "-i", "eq=a=b",
                      "--ref", "dev", "--wait")  # fmt: skip
    assert result.exit_code == code
    [sent] = api.sent("POST /repositories/acme/shop/dispatches")
    assert sent.body == {
        "workflow": "ci.yml", "inputs": {"who": "me", "eq": "a=b"}, "ref": "dev",
    }  # fmt: skip


def test_trigger_says_why_nothing_started(api: StubApi, tailrace: Tailrace) -> None:
    """An ignored dispatch is a negative answer with the reason."""
    api.on("POST /repositories/acme/shop/dispatches", Answer(202, {"delivery_id": "dispatch:1"}))
    api.on(
        "GET /deliveries/dispatch:1",
        {"status": "ignored", "run_ids": [], "detail": "ci.yml has no workflow_dispatch"},
    )
    result = tailrace("trigger", "acme/shop", "ci.yml", "--wait")
    assert result.exit_code == Exit.NEGATIVE
    assert "ci.yml has no workflow_dispatch" in result.stderr


def test_repo_add_makes_a_folder_absolute_and_chooses_git(
    api: StubApi, tailrace: Tailrace, tmp_path: Path
) -> None:
    """A local clone needs neither --provider nor a webhook by hand."""
    made = {"name": "acme/shop", "webhook_url": "http://x/webhooks/git/acme/shop", "secret": "s",
            "hook_installed": True}  # fmt: skip
    api.on("POST /repositories", Answer(201, made))
    folder = tmp_path / "shop.git"
    folder.mkdir()
    result = tailrace("repo", "add", "acme/shop", "--clone-url", str(folder))
    assert api.requests[0].body == {
        "name": "acme/shop", "clone_url": str(folder), "provider": "git",
    }  # fmt: skip
    assert "post-receive hook was installed" in result.stdout


def test_repo_add_prints_url_and_secret_and_keeps_the_token_out_of_the_arguments(
    api: StubApi, tailrace: Tailrace
) -> None:
    """The forge is known by its host; the token comes from a file or standard input."""
    made = {"name": "acme/shop", "webhook_url": "http://x/webhooks/github/acme/shop",
            "secret": "s3cret", "hook_installed": False}  # fmt: skip
    api.on("POST /repositories", Answer(201, made))
    result = tailrace("repo", "add", "acme/shop", "--clone-url", "https://github.com/acme/shop",
                      "--token-file", "-", "--pool", "gpu", "--pool", "default",
                      input="ghp_x\n")  # fmt: skip
    body = api.requests[0].body
    assert (body["provider"], body["token"], body["pools"]) == ("github", "ghp_x",
                                                                ["gpu", "default"])  # fmt: skip
    assert "http://x/webhooks/github/acme/shop" in result.stdout
    assert "s3cret" in result.stdout


def test_repo_add_asks_for_the_provider_of_an_unknown_host(tailrace: Tailrace) -> None:
    """A guess would make a webhook that is never accepted."""
    result = tailrace("repo", "add", "a/b", "--clone-url", "https://git.example.org/a/b")
    assert result.exit_code == Exit.USAGE
    assert "--provider github|gitea" in result.stderr


def test_repo_rm_never_guesses_a_yes(api: StubApi, tailrace: Tailrace) -> None:
    """Without a terminal it needs --yes."""
    assert tailrace("repo", "rm", "acme/shop").exit_code == Exit.USAGE
    api.on("DELETE /repositories/acme/shop", Answer(202, {"event_id": "e", "offset": 1}))
    assert tailrace("repo", "rm", "acme/shop", "--yes").exit_code == Exit.OK


def test_secrets_are_set_from_standard_input_without_the_last_newline(
    api: StubApi, tailrace: Tailrace
) -> None:
    """The value is no argument, and `echo value |` sets `value`."""
    api.on("PUT /repositories/acme/shop/secrets/TOKEN", Answer(204))
    result = tailrace("secret", "set", "acme/shop", "TOKEN", input="a\nb\n")
    assert result.exit_code == Exit.OK
    assert api.requests[0].body == {"value": "a\nb"}
    assert "a\nb" not in result.output


def test_an_empty_secret_is_wrong_use(api: StubApi, tailrace: Tailrace) -> None:
    """Nothing is sent: an empty pipe is a mistake."""
    assert tailrace("secret", "set", "acme/shop", "TOKEN", input="\n").exit_code == Exit.USAGE
    assert api.requests == []


@pytest.mark.parametrize(
    ("words", "request_line"),
    [
        (("secret", "set", "acme/shop", "TOKEN"), "PUT /repositories/acme/shop/secrets/TOKEN"),
        (("secret", "set", "acme/shop", "TOKEN", "--env", "prod"),
         "PUT /repositories/acme/shop/secrets/TOKEN?environment=prod"),
        (("secret", "set", "--global", "TOKEN"), "PUT /secrets/TOKEN"),
        (("secret", "rm", "--global", "TOKEN"), "DELETE /secrets/TOKEN"),
        (("secret", "rm", "acme/shop", "TOKEN", "--env", "prod"),
         "DELETE /repositories/acme/shop/secrets/TOKEN?environment=prod"),
        (("var", "set", "acme/shop", "REGION", "eu"),
         "PUT /repositories/acme/shop/variables/REGION"),
        (("var", "set", "--global", "REGION", "eu"), "PUT /variables/REGION"),
        (("var", "set", "acme/shop", "REGION", "--env", "prod"),
         "PUT /repositories/acme/shop/variables/REGION?environment=prod"),
        (("var", "rm", "--global", "REGION"), "DELETE /variables/REGION"),
    ],
)  # fmt: skip
def test_a_value_goes_to_the_scope_that_is_named(
    api: StubApi, tailrace: Tailrace, words: tuple[str, ...], request_line: str
) -> None:
    """An environment's, the repository's, or everybody's."""
    method_and_path, _, query = request_line.partition("?")
    api.on(method_and_path, Answer(202, {"event_id": "e", "offset": 1}))

    result = tailrace(*words, input="a value\n")

    assert result.exit_code == Exit.OK, result.output
    [sent] = api.requests
    assert sent.query.get("environment", "") == query.partition("=")[2]
    if words[1] == "set":
        assert sent.body == {"value": "eu" if "eu" in words else "a value"}


@pytest.mark.parametrize(
    "words",
    [
        ("secret", "set", "acme/shop"),
        ("secret", "set", "--global", "acme/shop", "TOKEN"),
        ("secret", "set", "--global", "--env", "prod", "TOKEN"),
        ("secret", "list"),
        ("var", "set", "acme/shop"),
        ("var", "set", "acme/shop", "A", "1", "2"),
        ("var", "rm", "A"),
    ],
)
def test_a_scope_that_is_not_clear_is_wrong_use(
    api: StubApi, tailrace: Tailrace, words: tuple[str, ...]
) -> None:
    """Nothing is sent, and the right form is shown."""
    assert tailrace(*words, input="a value\n").exit_code == Exit.USAGE
    assert api.requests == []


def test_variables_are_listed_with_their_values(api: StubApi, tailrace: Tailrace) -> None:
    """They are no secrets."""
    api.on("GET /repositories/acme/shop/variables",
           Answer(200, {"items": [{"name": "REGION", "value": "eu"}], "as_of": 1}))  # fmt: skip

    assert tailrace("var", "list", "acme/shop").stdout.split()[-2:] == ["REGION", "eu"]


def test_config_hides_the_token(tailrace: Tailrace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are secrets are shown as ***."""
    monkeypatch.setenv("TAILRACE_API_TOKEN", "abc123secret")
    assert "abc123secret" not in tailrace("config").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(tailrace: Tailrace, shell: str) -> None:
    """Each shell gets its script."""
    result = tailrace("completion", shell)
    assert result.exit_code == Exit.OK
    assert "_TAILRACE_COMPLETE" in result.stdout


# --------------------------------------------------------------------------- what fails


def test_nothing_runs(tailrace: Tailrace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection says how to start the system."""
    monkeypatch.setenv("TAILRACE_API_URL", "http://127.0.0.1:9")
    result = tailrace("runs")
    assert result.exit_code == Exit.UNREACHABLE
    assert "make up" in result.stderr


def test_a_wrong_token_says_where_it_comes_from(
    tailrace: Tailrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5, and both places of the token are named."""
    monkeypatch.setenv("TAILRACE_API_TOKEN", "wrong")
    result = tailrace("runs")
    assert result.exit_code == Exit.UNAUTHORIZED
    assert "TAILRACE_API_TOKEN" in result.stderr
    assert "secrets/token" in result.stderr


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, Exit.NOT_FOUND), (403, Exit.UNAUTHORIZED), (409, Exit.NEGATIVE), (422, Exit.NEGATIVE),
     (503, Exit.UNREACHABLE)],
)  # fmt: skip
def test_problem_details_are_the_message(
    api: StubApi, tailrace: Tailrace, status: int, code: Exit
) -> None:
    """The detail of RFC 9457 reaches the person; each status has its exit code."""
    api.on("GET /runs", problem(status, "because of the till"))
    result = tailrace("runs")
    assert result.exit_code == code
    assert "because of the till" in result.stderr


def test_another_server_at_the_address_is_recognised(api: StubApi, tailrace: Tailrace) -> None:
    """Not JSON: a sentence instead of a stack trace."""
    api.on("GET /runs", Answer(chunks=(b"<html>hello</html>",), content_type="text/html"))
    result = tailrace("runs")
    assert result.exit_code == Exit.NEGATIVE
    assert "not JSON" in result.stderr
