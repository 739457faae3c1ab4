"""Webhooks and commands over HTTP: what is accepted, what is refused, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from infra.embedded.ports import free_port
from infra.objects import FileStore
from ingest.signatures import sign
from schemas.events import (
    CancelRequested,
    DeliveryPlanned,
    DeliveryReceived,
    RepositoryConfigured,
    RepositoryRemoved,
    RunApproved,
    VariableRemoved,
    VariableSet,
)
from tests.integration.ingest_fixtures import broker, installed, module_database, repo
from tests.support.gitrepo import GitRepo, workflow
from tests.support.ingesting import Installation, Process

__all__ = ["broker", "installed", "module_database", "repo"]

CI = ".github/workflows/ci.yml"
MIB = 1024 * 1024
RUN = "20260131-5f0c2a9b7d31"
DISPATCH = "{workflow_dispatch: {inputs: {who: {type: choice, options: [ada, bob]}}}}"


@pytest.fixture(scope="module")
def known(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return a registered repository and its webhook secret."""
    made = GitRepo(tmp_path_factory.mktemp("known"))
    made.commit({CI: workflow(DISPATCH)})
    return "ada/known", installed.add("ada/known", str(made.bare))["secret"]


def payload_of(size: int) -> bytes:
    """Return a push payload of exactly this many bytes."""
    body = {"ref": "refs/heads/main", "before": "a" * 40, "after": "a" * 40, "pad": ""}
    body["pad"] = "x" * (size - len(json.dumps(body)))
    return json.dumps(body).encode()


# --------------------------------------------------------------------- webhooks


def test_the_answer_names_delivery_event_and_offset(
    installed: Installation, known: tuple[str, str]
) -> None:
    """What a sender or a person needs to find it again."""
    status, answer = installed.push(*known, payload_of(200), "n-1")
    event = installed.events()[answer["offset"]]

    assert (status, answer["delivery_id"]) == (202, f"git:{known[0]}:n-1")
    assert (event.event_id, event.delivery_id) == (answer["event_id"], f"git:{known[0]}:n-1")


def test_a_large_payload_goes_to_the_object_store(
    installed: Installation, known: tuple[str, str]
) -> None:
    """Above 1 MiB the event names it by its sha256; up to there it has it itself."""
    for size, inline in ((MIB, True), (MIB + 1, False), (3 * MIB, False)):
        body = payload_of(size)
        status, answer = installed.push(*known, body)
        [event] = [
            e for e in installed.of(DeliveryReceived, known[0])
            if e.event_id == answer["event_id"]
        ]  # fmt: skip

        assert status == 202
        assert (event.payload_json is not None) is inline
        assert (event.body_bytes, event.body_sha256) == (size, hashlib.sha256(body).hexdigest())
        if not inline:
            assert event.payload_uri == f"payloads/{hashlib.sha256(body).hexdigest()}"
            assert FileStore(installed.home / "objects").get(event.payload_uri or "") == body


def test_the_largest_body_is_accepted_and_one_byte_more_is_not(
    installed: Installation, known: tuple[str, str]
) -> None:
    """By its declared length, or while it comes in chunks."""
    assert installed.push(*known, payload_of(25 * MIB))[0] == 202
    path = f"/webhooks/git/{known[0]}"
    status, answer = installed.request("POST", path, None, {"Content-Length": str(25 * MIB + 1)})
    assert (status, answer["headers"]["content-type"]) == (413, "application/problem+json")

    def chunks() -> Iterator[bytes]:
        for _ in range(27):
            yield b"x" * MIB

    try:
        status, _ = installed.request("POST", path, chunks())
    except (BrokenPipeError, ConnectionResetError):
        status = 413  # the answer was there before the last chunk, the connection is closed
    assert status == 413
    assert installed.push(*known, payload_of(300))[0] == 202


def test_a_chunked_body_is_verified_as_a_whole(
    installed: Installation, known: tuple[str, str]
) -> None:
    """However it was cut."""
    body = payload_of(5_000)
    headers = {
        "X-Tailrace-Event": "push",
        "X-Tailrace-Signature-256": sign(body, known[1].encode()),
    }  # fmt: skip
    pieces = (body[i : i + 7] for i in range(0, len(body), 7))

    status, _ = installed.request("POST", f"/webhooks/git/{known[0]}", pieces, headers)
    assert status == 202


def test_strangers_get_one_answer_whatever_is_wrong(
    installed: Installation, known: tuple[str, str]
) -> None:
    """A wrong secret, an unknown repository, another provider's path, no signature at all."""
    name, secret = known
    answers = [
        installed.push(name, "wrong", payload_of(200)),
        installed.push("ada/unknown", secret, payload_of(200)),
        installed.request("POST", f"/webhooks/git/{name}", b"{}"),
        installed.request("POST", f"/webhooks/github/{name}", b"{}"),
        installed.request("POST", f"/webhooks/nonsense/{name}", b"{}"),
    ]

    assert {status for status, _ in answers} == {401}
    assert len({answer["detail"] for _, answer in answers}) == 1


@pytest.mark.parametrize(
    ("event", "body", "says"),
    [
        ("push", b"{", "not JSON"),
        ("push", b"{}", "`ref`"),
        ("issues", b"{}", "X-Tailrace-Event"),
    ],
)
def test_a_signed_body_that_is_something_else_is_400(
    installed: Installation, known: tuple[str, str], event: str, body: bytes, says: str
) -> None:
    """With a problem document that names the field; and on record, for who looks for it here."""
    status, answer = installed.push(*known, body, event=event)
    [planned, *_] = installed.wait_for(
        DeliveryPlanned, known[0], lambda e: e.caused_by == answer["event_id"]
    )

    assert (status, answer["status"], answer["title"]) == (400, 400, "Bad Request")
    assert says in answer["detail"]
    assert planned.workflows[0].reason == f"unreadable: {answer['detail']}"


def test_a_webhook_starts_what_it_names_and_says_why_not(
    installed: Installation, known: tuple[str, str]
) -> None:
    """Also a delivery that starts nothing has its answer in the log."""
    _, answer = installed.push(*known, payload_of(200), event="ping")
    [planned] = installed.wait_for(
        DeliveryPlanned, known[0], lambda e: e.caused_by == answer["event_id"]
    )

    assert planned.workflows[0].reason.startswith("event: ping")


# --------------------------------------------------------------------- commands


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Basic {token}", "{token}"])
def test_commands_want_the_token(
    installed: Installation, known: tuple[str, str], authorization: str
) -> None:
    """On loopback too."""
    headers = {"Authorization": authorization.format(token=installed.token)}
    for method, path in (("POST", "/repositories"), ("DELETE", f"/repositories/{known[0]}")):
        status, answer = installed.request(method, f"/api/v1{path}", b"{}", headers)

        assert (status, answer["headers"]["www-authenticate"]) == (401, "Bearer")


def test_a_repository_is_added_once(installed: Installation, repo: GitRepo) -> None:
    """Again with the same key it is the same answer; without it a conflict."""
    repo.commit({"a": "1"})
    body = {"name": "ada/once", "provider": "git", "clone_url": str(repo.bare)}
    first = installed.call("POST", "/repositories", body, **{"Idempotency-Key": "k"})
    again = installed.call("POST", "/repositories", body, **{"Idempotency-Key": "k"})
    other = installed.call("POST", "/repositories", body)

    assert (first[0], again[0], other[0]) == (201, 201, 409)
    assert first[1]["secret"] == again[1]["secret"]
    assert first[1]["event_id"] == again[1]["event_id"]
    assert first[1]["webhook_url"].endswith("/webhooks/git/ada/once")


def test_secrets_and_variables_belong_to_the_scope_of_their_path(
    installed: Installation, known: tuple[str, str]
) -> None:
    """Values of secrets never come back; a variable is an event with its actor."""
    at = f"/repositories/{known[0]}"
    value = {"value": "a-secret-value"}

    assert installed.call("PUT", f"{at}/secrets/key?environment=Prod", value)[0] == 201
    assert installed.call("PUT", f"{at}/secrets/KEY?environment=prod", value)[0] == 200
    assert installed.call("PUT", "/secrets/EVERYWHERE", value)[0] == 201
    assert installed.call("PUT", f"{at}/secrets/SHORT", {"value": "12345"})[0] == 422
    assert installed.call("PUT", f"{at}/secrets/GITHUB_X", value)[0] == 422
    assert installed.call("PUT", "/secrets/X?environment=prod", value)[0] == 422
    _, listed = installed.call("GET", f"{at}/secrets?environment=PROD")
    assert [item["name"] for item in listed["items"]] == ["KEY"]
    assert "a-secret-value" not in json.dumps(listed)
    assert installed.call("GET", f"{at}/secrets")[1]["items"] == []
    assert installed.call("DELETE", f"{at}/secrets/KEY")[0] == 404
    assert installed.call("DELETE", f"{at}/secrets/KEY?environment=prod")[0] == 204

    variable = f"{at}/variables/region?environment=Prod"
    assert installed.call("PUT", variable, {"value": "eu"})[0] == 202
    assert installed.call("DELETE", "/variables/REGION")[0] == 202
    found = [
        (event.repository, event.environment, event.name)
        for event in installed.events()
        if isinstance(event, VariableSet | VariableRemoved)
    ]
    assert found == [(known[0], "prod", "REGION"), ("", "", "REGION")]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "../x"}, 422),
        ({"name": ""}, 422),
        ({"provider": "svn"}, 422),
        ({"clone_url": "--upload-pack=x"}, 422),
        ({"clone_url": "/nowhere/at/all"}, 422),
        ({"clone_url": "https://user:pw@x/y"}, 422),
        ({"pools": ["No Such Pool"]}, 422),
        ({"pools": "default"}, 422),
        ({"fork_pull_requests": "sometimes"}, 422),
    ],
)
def test_a_repository_that_cannot_be_served_is_refused(
    installed: Installation, change: dict[str, Any], status: int
) -> None:
    """Nothing is registered and nothing is in the log."""
    body = {"name": "ada/bad", "provider": "git", "clone_url": "/x", **change}

    assert installed.call("POST", "/repositories", body)[0] == status
    assert installed.of(RepositoryConfigured, "ada/bad") == []


def test_a_rotated_secret_replaces_the_old_one_at_once(
    installed: Installation, repo: GitRepo
) -> None:
    """In the hook as well: the next push is signed with the new one."""
    repo.commit({CI: workflow()})
    old = installed.add("ada/rotated", str(repo.bare))["secret"]
    status, answer = installed.call("POST", "/repositories/ada/rotated/rotate-secret")

    assert (status, answer["hook_installed"]) == (200, True)
    assert installed.push("ada/rotated", old, payload_of(200))[0] == 401
    assert installed.push("ada/rotated", answer["secret"], payload_of(200))[0] == 202
    repo.run("commit", "-q", "--allow-empty", "-m", "next")
    assert "tailrace: queued" in repo.push("main")


def test_a_removed_repository_is_forgotten(installed: Installation, repo: GitRepo) -> None:
    """Its hook, its secrets and its webhook; its events stay."""
    repo.commit({CI: workflow()})
    secret = installed.add("ada/removed", str(repo.bare))["secret"]
    installed.call("PUT", "/repositories/ada/removed/secrets/KEY", {"value": "v"})
    assert installed.call("DELETE", "/repositories/ada/removed")[0] == 202

    assert installed.push("ada/removed", secret, payload_of(200))[0] == 401
    assert installed.call("DELETE", "/repositories/ada/removed")[0] == 404
    assert installed.call("GET", "/repositories/ada/removed/secrets")[0] == 404
    assert not (repo.bare / "hooks" / "post-receive").exists()
    assert len(installed.of(RepositoryRemoved, "ada/removed")) == 1
    installed.add("ada/removed", str(repo.bare))
    assert installed.call("GET", "/repositories/ada/removed/secrets")[1]["items"] == []


def test_a_dispatch_names_its_commit(installed: Installation, known: tuple[str, str]) -> None:
    """The ref is resolved when the command is accepted; the same key is the same delivery."""
    body = {"workflow": "ci.yml", "inputs": {"who": "bob"}}
    path = f"/repositories/{quote(known[0], safe='')}/dispatches"
    answers = [installed.call("POST", path, body, **{"Idempotency-Key": "d"}) for _ in range(2)]
    [planned, *_] = installed.wait_for(
        DeliveryPlanned, known[0], lambda e: e.delivery_id == f"dispatch:{known[0]}:d"
    )

    assert [status for status, _ in answers] == [202, 202]
    assert len({answer["event_id"] for _, answer in answers}) == 1
    assert answers[0][1]["ref"] == "refs/heads/main"
    assert [(w.outcome, w.sha) for w in planned.workflows] == [("planned", answers[0][1]["sha"])]
    assert json.loads(planned.workflows[0].inputs_json or "") == {"who": "bob"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"workflow": "none.yml"}, "ci.yml"),
        ({"workflow": "ci.yml", "inputs": {"who": "eve"}}, "must be one of"),
        ({"workflow": "ci.yml", "inputs": {"what": "x"}}, "not declared"),
        ({"workflow": "ci.yml", "ref": "no-such"}, "no branch or tag"),
        ({"workflow": "ci.yml", "ref": "--help"}, "no branch or tag"),
        ({"workflow": "ci.yml", "inputs": [1]}, "object"),
        ({}, "workflow"),
    ],
)
def test_a_dispatch_that_cannot_run_is_422(
    installed: Installation, known: tuple[str, str], body: dict[str, Any], says: str
) -> None:
    """The sentence says what there is instead."""
    status, answer = installed.call("POST", f"/repositories/{known[0]}/dispatches", body)

    assert status == 422
    assert says in answer["detail"]


def test_a_repository_dispatch_reaches_what_listens(installed: Installation, repo: GitRepo) -> None:
    """At the default branch's head, with the payload; the same key is the same delivery."""
    sha = repo.commit({CI: workflow("{repository_dispatch: {types: [deploy]}}")})
    installed.add("ada/dispatched", str(repo.bare))
    body = {"event_type": "deploy", "client_payload": {"to": "moon"}}
    path = "/repositories/ada%2Fdispatched/repository_dispatches"
    answers = [installed.call("POST", path, body, **{"Idempotency-Key": "k"}) for _ in range(2)]
    delivery_id = "repository_dispatch:ada/dispatched:k"
    [planned, *_] = installed.wait_for(
        DeliveryPlanned, "ada/dispatched", lambda e: e.delivery_id == delivery_id
    )
    [received, *_] = [
        event for event in installed.of(DeliveryReceived, "ada/dispatched")
        if event.delivery_id == delivery_id
    ]  # fmt: skip

    assert [status for status, _ in answers] == [202, 202]
    assert len({answer["event_id"] for _, answer in answers}) == 1
    assert [(w.outcome, w.sha, w.ref) for w in planned.workflows] == [
        ("planned", sha, "refs/heads/main")
    ]
    assert json.loads(received.payload_json or "")["client_payload"] == {"to": "moon"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "event_type"),
        ({"event_type": "x" * 101}, "event_type"),
        ({"event_type": "x", "client_payload": [1]}, "object"),
        ({"event_type": "x", "client_payload": {str(n): n for n in range(11)}}, "10 keys"),
        ({"event_type": "x", "client_payload": {"a": "x" * 70_000}}, "bytes"),
    ],
)
def test_a_repository_dispatch_that_is_none_is_422(
    installed: Installation, known: tuple[str, str], body: dict[str, Any], says: str
) -> None:
    """Limits are GitHub's, and the sentence names the field."""
    path = f"/repositories/{known[0]}/repository_dispatches"
    status, answer = installed.call("POST", path, body)

    assert status == 422
    assert says in answer["detail"]


def test_runs_are_cancelled_and_approved_by_events(installed: Installation) -> None:
    """Twice with one key is one request; approving is one fact however often."""
    query = "?repository=ada/runs"
    for _ in range(2):
        status, _ = installed.call(
            "POST", f"/runs/{RUN}/cancel{query}", {"reason": "wrong"}, **{"Idempotency-Key": "c"}
        )
        assert status == 202
        assert installed.call("POST", f"/runs/{RUN}/approve{query}")[0] == 202
    cancelled = installed.of(CancelRequested, "ada/runs")
    approved = installed.of(RunApproved, "ada/runs")

    assert {(e.run_id, e.reason) for e in cancelled} == {(RUN, "wrong")}
    assert len({e.event_id for e in cancelled}) == len({e.event_id for e in approved}) == 1
    assert installed.call("POST", f"/runs/{RUN}/cancel")[0] == 422
    assert installed.call("POST", f"/runs/nonsense/cancel{query}")[0] == 404


def test_a_secrets_value_never_comes_back(installed: Installation, known: tuple[str, str]) -> None:
    """Names and times alone; nothing of it in the log or in files."""
    path = f"/repositories/{known[0]}/secrets"
    value = "correct horse battery staple"
    assert installed.call("PUT", f"{path}/deploy_key", {"value": value})[0] == 201
    assert installed.call("PUT", f"{path}/DEPLOY_KEY", {"value": value})[0] == 200
    _, answer = installed.call("GET", path)

    assert [item["name"] for item in answer["items"]] == ["DEPLOY_KEY"]
    assert value not in json.dumps(answer)
    assert value not in repr(installed.events())
    for file in installed.home.rglob("*"):
        assert not file.is_file() or value.encode() not in file.read_bytes()
    assert installed.call("DELETE", f"{path}/Deploy_Key")[0] == 204
    assert installed.call("DELETE", f"{path}/deploy_key")[0] == 404
    for name, body in (("1x", {"value": "v"}), ("GITHUB_X", {"value": "v"}), ("A", {"value": ""})):
        assert installed.call("PUT", f"{path}/{name}", body)[0] == 422


def test_unknown_paths_are_problem_documents(installed: Installation) -> None:
    """As every other error."""
    status, answer = installed.call("GET", "/nothing")

    assert (status, answer["headers"]["content-type"]) == (404, "application/problem+json")
    assert installed.request("GET", "/webhooks/git/x")[0] == 405


def test_health_and_metrics_need_no_token(installed: Installation) -> None:
    """They say how the process is, and nothing of what it serves."""
    assert installed.request("GET", "/healthz")[0] == 200
    assert installed.ingest.readiness()["vault"] == "ok"


# --------------------------------------------------------------------- without PostgreSQL


def test_webhooks_go_on_while_postgresql_is_away(
    installed: Installation, known: tuple[str, str], tmp_path: Path
) -> None:
    """Started without it: secrets come from the sealed copy; commands are asked to wait."""
    port = free_port()
    env = {
        **installed.env,
        "TAILRACE_DATABASE_URL": f"postgresql://x@127.0.0.1:{free_port()}/x",
        "TAILRACE_INGEST_PORT": str(port),
    }
    alone = Process("ingest", port, env, tmp_path / "alone.log")
    alone.start()
    try:
        body = payload_of(200)
        headers = {
            "X-Tailrace-Event": "push",
            "X-Tailrace-Signature-256": sign(body, known[1].encode()),
        }
        installed_port, installed.ingest.port = installed.ingest.port, port
        try:
            accepted = installed.request("POST", f"/webhooks/git/{known[0]}", body, headers)
            refused = installed.push("ada/unknown", "x", body)
            waits = installed.call("GET", f"/repositories/{known[0]}/secrets")
        finally:
            installed.ingest.port = installed_port
        assert (accepted[0], refused[0], waits[0]) == (202, 401, 503)
        assert waits[1]["headers"]["retry-after"] == "5"
        assert alone.readiness()["vault"] == "away"
    finally:
        assert alone.stop() == 0
