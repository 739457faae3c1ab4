"""From `git push` to a plan, and what becomes of it when parts fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from infra.embedded.kafka import Broker
from infra.embedded.ports import free_port
from ingest.signatures import sign
from schemas.events import (
    DeliveryPlanned,
    DeliveryReceived,
    RepositoryConfigured,
    WorkflowsIndexed,
)
from tests.integration.ingest_fixtures import broker, installed, module_database, repo
from tests.support.eventually import eventually
from tests.support.gitrepo import GitRepo, workflow
from tests.support.ingesting import Installation

__all__ = ["broker", "installed", "module_database", "repo"]

CI = ".github/workflows/ci.yml"
NULL = "0" * 40


def push_payload(name: str, before: str, after: str) -> dict[str, object]:
    """Return what the hook would send."""
    return {
        "ref": "refs/heads/main", "before": before, "after": after,
        "repository": {"full_name": name, "default_branch": "main"},
        "sender": {"login": "ada"}, "head_commit": {"id": after, "message": "m"},
    }  # fmt: skip


def test_a_push_becomes_a_plan(installed: Installation, repo: GitRepo) -> None:
    """The hook's webhook, the plan and the index, each caused by the one before."""
    answer = installed.add("ada/pushed", str(repo.bare))
    assert answer["hook_installed"] is True
    sha = repo.commit({CI: workflow()}, "first")
    [planned] = installed.wait_for(DeliveryPlanned, "ada/pushed")
    [received] = installed.of(DeliveryReceived, "ada/pushed")
    [index] = installed.wait_for(WorkflowsIndexed, "ada/pushed")

    assert (received.event, received.sha, received.message) == ("push", sha, "first")
    assert (planned.caused_by, planned.delivery_id) == (received.event_id, received.delivery_id)
    assert [(w.path, w.outcome) for w in planned.workflows] == [(CI, "planned")]
    assert (index.sha, index.caused_by) == (sha, received.event_id)
    assert json.loads(planned.github_json)["repository"] == "ada/pushed"


def test_a_repository_with_commits_is_indexed_when_it_is_added(
    installed: Installation, repo: GitRepo
) -> None:
    """Dispatch forms and cron work before the first push."""
    sha = repo.commit({CI: workflow()})
    installed.add("ada/indexed", str(repo.bare))
    [index] = installed.wait_for(WorkflowsIndexed, "ada/indexed")
    [configured] = installed.of(RepositoryConfigured, "ada/indexed")

    assert (index.sha, index.caused_by) == (sha, configured.event_id)


def test_a_webhook_sent_twice_is_one_fact(installed: Installation, repo: GitRepo) -> None:
    """Both records have one id, and so have the answers."""
    sha = repo.commit({CI: workflow()})
    secret = installed.add("ada/twice", str(repo.bare))["secret"]
    payload = push_payload("ada/twice", NULL, sha)
    answers = [installed.push("ada/twice", secret, payload, "d-1") for _ in range(2)]

    assert [status for status, _ in answers] == [202, 202]
    assert len({answer["event_id"] for _, answer in answers}) == 1
    received = installed.of(DeliveryReceived, "ada/twice")
    assert [event.delivery_id for event in received] == ["git:ada/twice:d-1"] * 2
    planned = installed.wait_for(DeliveryPlanned, "ada/twice")
    assert len({event.event_id for event in planned}) == 1


def deliveries(base: str, head: str) -> list[tuple[str, dict[str, object]]]:
    """Return GitHub's bodies of several kinds, each with an answer of its own."""
    about = {"repository": {"default_branch": "main"}, "sender": {"login": "ada"}}
    side = {"repo": {"full_name": "ada/killed"}}
    pull = {
        "number": 7, "title": "t", "head": {"ref": "topic", "sha": head, **side},
        "base": {"ref": "main", "sha": base, **side},
    }  # fmt: skip
    bodies: list[tuple[str, dict[str, object]]] = [
        ("push", {"ref": "refs/heads/main", "before": NULL, "after": base}),
        ("pull_request", {"action": "opened", "number": 7, "pull_request": pull}),
        ("release", {"action": "published", "release": {"tag_name": "v1"}}),
        ("delete", {"ref": "gone", "ref_type": "branch"}),
        ("issues", {"action": "opened", "issue": {"number": 3}}),
        ("merge_group", {
            "action": "checks_requested",
            "merge_group": {"head_ref": "refs/heads/q", "head_sha": head,
                            "base_ref": "refs/heads/main"}}),
        ("star", {"action": "created"}),
        ("push", {"ref": "no ref"}),
    ]  # fmt: skip
    return [(event, {**about, **body}) for event, body in bodies]


def test_killing_the_planner_loses_no_delivery(installed: Installation, repo: GitRepo) -> None:
    """kill -9 in the middle of 120 deliveries of all kinds, thrice: each answered, in order."""
    name = "ada/killed"
    on = "[push, pull_request, pull_request_target, release, delete, issues, merge_group]"
    base = repo.commit({CI: workflow(on)})
    repo.tag("v1")
    head = repo.commit({"topic": "1"}, branch="topic", since=base)
    secret = installed.add(name, str(repo.bare), "github")["secret"].encode()
    kinds = deliveries(base, head)
    sent = []
    for number in range(120):
        event, body = kinds[number % len(kinds)]
        raw = json.dumps({**body, "number_sent": number}).encode()
        headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": f"k-{number}",
                   "X-Hub-Signature-256": sign(raw, secret)}  # fmt: skip
        status, answer = installed.request("POST", f"/webhooks/github/{name}", raw, headers)
        assert status == (400 if body.get("ref") == "no ref" else 202), answer
        sent.append(answer["delivery_id"])
        if number in (30, 60, 90):
            installed.planner.kill()
            installed.planner.start()
    planned = installed.wait_for(
        DeliveryPlanned,
        name,
        lambda event: event.delivery_id in sent,
        count=120,
        timeout_ms=30_000,
    )

    first = list(dict.fromkeys(event.delivery_id for event in planned))
    assert first == sent
    assert not [event for event in planned if event.error]
    by_id = {event.event_id: event.workflows for event in planned}
    assert all(by_id[event.event_id] == event.workflows for event in planned)
    runs = [[w.event for w in by_id[event_id] if w.outcome == "planned"] for event_id in
            [event_id_of(planned, delivery) for delivery in sent[: len(kinds)]]]  # fmt: skip
    assert runs == [
        ["push"], ["pull_request", "pull_request_target"], ["release"], ["delete"], ["issues"],
        ["merge_group"], [], [],
    ]  # fmt: skip


def event_id_of(planned: list[DeliveryPlanned], delivery_id: str) -> str:
    """Return the id of a delivery's answer."""
    return next(event.event_id for event in planned if event.delivery_id == delivery_id)


def test_a_planner_without_its_checkpoint_comes_to_the_same_state(
    installed: Installation, repo: GitRepo
) -> None:
    """It folds the log from the beginning and answers nothing again."""
    name = "ada/folded"
    installed.add(name, str(repo.bare))
    repo.commit({CI: workflow()})
    installed.wait_for(WorkflowsIndexed, name)
    assert installed.planner.stop() == 0
    before = len(installed.of(DeliveryPlanned, name))
    (installed.home / "state" / "planner.json").unlink()
    installed.planner.start()
    repo.commit({"a": "2"})
    installed.wait_for(DeliveryPlanned, name, count=before + 1)

    assert len(installed.of(DeliveryPlanned, name)) == before + 1


@pytest.fixture
def tar_pit() -> Iterator[str]:
    """Yield the URL of a git server that accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"git://127.0.0.1:{server.getsockname()[1]}/x.git"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in taken:
            connection.close()


def test_a_server_that_hangs_delays_no_other_repository(
    installed: Installation, repo: GitRepo, tar_pit: str
) -> None:
    """Forty deliveries wait for a silent server; a push elsewhere is planned meanwhile."""
    for number in range(20):
        name = f"ada/silent-{number}"
        secret = installed.add(name, tar_pit, default_branch="main")["secret"]
        for delivery in range(2):
            payload = push_payload(name, NULL, "a" * 40)
            assert installed.push(name, secret, payload, f"s-{number}-{delivery}")[0] == 202
    installed.add("ada/quick", str(repo.bare))
    repo.commit({CI: workflow()})

    [planned] = installed.wait_for(DeliveryPlanned, "ada/quick", timeout_ms=8_000)
    assert planned.workflows[0].outcome == "planned"
    assert not installed.of(DeliveryPlanned, "ada/silent-0")
    # whoever waits for the silent server is still waiting: the planner ends all the same
    assert installed.planner.stop() == 0
    installed.planner.start()


def test_an_unreachable_repository_is_answered_with_gits_reason(installed: Installation) -> None:
    """The delivery does not wait for ever; the error has a code."""
    url = f"http://127.0.0.1:{free_port()}/none.git"
    secret = installed.add("ada/away", url, default_branch="main")["secret"]
    payload = push_payload("ada/away", NULL, "a" * 40)
    assert installed.push("ada/away", secret, payload)[0] == 202
    [planned] = installed.wait_for(DeliveryPlanned, "ada/away", timeout_ms=40_000)

    assert planned.error.startswith("infra.git_unreachable: ")
    assert planned.workflows == ()


def test_webhooks_get_503_while_the_broker_is_stopped_and_202_after(
    installed: Installation, broker: Broker, repo: GitRepo
) -> None:
    """Retry-After within about five seconds; nothing that got 202 is lost."""
    sha = repo.commit({CI: workflow()})
    secret = installed.add("ada/paused", str(repo.bare))["secret"]
    payload = push_payload("ada/paused", NULL, sha)
    running = broker.process
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    try:
        status, answer = installed.push("ada/paused", secret, payload, "p-1")
    finally:
        os.kill(running.pid, signal.SIGCONT)

    assert status == 503
    assert answer["headers"]["retry-after"] == "5"
    eventually(
        lambda: installed.push("ada/paused", secret, payload, "p-1")[0] == 202,
        what="a webhook accepted again",
    )
    received = installed.wait_for(
        DeliveryReceived, "ada/paused", lambda event: event.delivery_id == "git:ada/paused:p-1"
    )
    assert len({event.event_id for event in received}) == 1
