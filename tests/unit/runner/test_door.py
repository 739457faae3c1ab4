"""The gateway's door: who is let in, who is not, and what they are told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from infra.auth import TokenFile
from infra.clock import ManualClock
from infra.log import Append, MemoryLog
from infra.metrics import Meters
from infra.objects import FileStore
from runner.gateway.app import Means, make_app
from runner.gateway.door import BODY_BYTES_MAX, WINDOW_MS
from runner.gateway.follower import Follower
from runner.signing import ATTEMPT_HEADER, EPOCH_HEADER, SIGNATURE_HEADER, Asking, BootKey
from schemas import events as e
from schemas import topics
from schemas.codec import EVENTS, event_headers
from tests.support.asgi import ask
from tests.support.eventually import eventually

PATH = "/v1/artifacts"
WHO = {"job_id": "run.j", "attempt": 1, "runner_id": "r", "boot_id": "b1", "position": -1}


@dataclasses.dataclass(slots=True)
class World:
    """A gateway in memory, a boot's key, and what is sent to it."""

    clock: ManualClock
    log: MemoryLog
    means: Means
    app: ASGIApp
    token: str
    key: BootKey
    epoch: str = ""
    #: What the follower asked for when it failed.
    ended: list[str] = dataclasses.field(default_factory=list)

    def append(self, event: e.Event) -> None:
        """Append to `events`, and wait until the gateway has read it."""
        headers = event_headers(event, source="test", occurred_at=1)
        self.log.put(Append(topics.EVENTS, 0, b"k", EVENTS.encode(event), headers))
        end = self.log.reader().bounds(topics.EVENTS, 0)[1]
        follower = self.means.follower
        eventually(lambda: follower.positions().get(0) == end, what="the fold")

    def send(
        self,
        *,
        method: str = "GET",
        path: str = PATH,
        body: bytes = b"",
        who: dict[str, Any] | None = None,
        key: BootKey | None = None,
        by_ms: int = 0,
        nonce: bytes | None = None,
        headers: dict[str, str] | None = None,
        sent: dict[str, Any] | None = None,
    ) -> tuple[int, str, str]:
        """Send a request, `by_ms` off the gateway's time; returns status, title and detail.

        `sent` replaces what was signed: method, url, body.
        """
        asking = Asking(method, path, body, json.dumps({**WHO, **(who or {})}))
        proof = (key or self.key).prove(
            asking,
            epoch=self.epoch,
            time_ms=self.clock.now_ms() + by_ms,
            nonce=nonce or self.clock.steady_ms().to_bytes(8, "big") * 2,
        )
        self.clock.advance(1)
        given = {
            "Authorization": f"Bearer {self.token}",
            ATTEMPT_HEADER: asking.attempt,
            SIGNATURE_HEADER: proof.to_header(),
            **(headers or {}),
        }
        request = {"method": method, "url": path, "body": body, **(sent or {})}
        status, told, content = ask(self.app, headers=given, **request)
        self.epoch = told.get(EPOCH_HEADER.lower(), self.epoch)
        found = json.loads(content)
        return status, found.get("title", ""), found.get("detail", "")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Yield a gateway that knows one live attempt of one boot, and has told its epoch."""
    clock, log, key = ManualClock(), MemoryLog(now_ms=lambda: 1), BootKey()
    token = TokenFile(tmp_path / "token")
    ended: list[str] = []
    means = Means(
        follower=Follower(
            log.reader(), cells=1, clock=clock, on_failed=lambda: ended.append("ended")
        ),
        source=None,  # type: ignore[arg-type]  # no test of the door gets as far
        objects=FileStore(tmp_path / "objects"),
        writer=log.writer(),
        token=token,
        clock=clock,
        meters=Meters(),
        cells=1,
        on_close=lambda: None,
        wait_ms=50,
    )
    means.follower.start()
    found = World(clock, log, means, make_app(means), token.ensure(), key, ended=ended)
    found.append(joined(key))
    found.append(
        e.JobAssigned(
            event_id="a", repository="demo/hello", job_id="run.j", attempt=1, runner_id="r",
            boot_id="b1", pool="p", lane=0,
        )
    )  # fmt: skip
    assert found.send()[:2] == (401, "Another start")
    yield found
    means.follower.close()


def joined(key: BootKey, boot_id: str = "b1") -> e.RunnerJoined:
    """Return the announcement of a boot."""
    return e.RunnerJoined(
        event_id=f"j-{boot_id}", runner_id="r", boot_id=boot_id, pool="p", labels=(), slots=1,
        lane=0, public_key=key.public,
    )  # fmt: skip


def test_a_signed_request_of_a_live_attempt_is_let_in(world: World) -> None:
    """Also one with a query and a body, and from the edge of the time window."""
    assert world.send()[0] == 200
    assert world.send(by_ms=WINDOW_MS - 10)[0] == 200
    assert world.send(by_ms=-WINDOW_MS + 10, path=f"{PATH}?page=1")[0] == 200
    assert world.send(method="PUT", path="/v1/pieces", body=b"bytes")[0] == 201


@pytest.mark.parametrize(
    ("changes", "status", "title"),
    [
        ({"headers": {"Authorization": "Bearer nobody"}}, 401, "Wrong token"),
        ({"headers": {SIGNATURE_HEADER: ""}}, 401, "Not signed"),
        ({"headers": {SIGNATURE_HEADER: "1;e;now;n;s"}}, 401, "Not signed"),
        ({"headers": {ATTEMPT_HEADER: "{}"}}, 400, "Bad request"),
        ({"headers": {ATTEMPT_HEADER: json.dumps({**WHO, "attempt": 2})}}, 401, "Wrong signature"),
        pytest.param({"key": BootKey()}, 401, "Wrong signature", id="another key"),
        ({"sent": {"body": b"other"}}, 401, "Wrong signature"),
        ({"sent": {"url": "/v1/artifacts?other=1"}}, 401, "Wrong signature"),
        ({"by_ms": WINDOW_MS + 1_000}, 401, "Wrong time"),
        ({"by_ms": -WINDOW_MS - 1_000}, 401, "Wrong time"),
        ({"who": {"boot_id": "b0"}}, 401, "Unknown boot"),
        ({"who": {"runner_id": "other"}}, 401, "Unknown boot"),
        ({"who": {"attempt": 2}}, 409, "Not the live attempt"),
        ({"who": {"job_id": "run.other"}}, 409, "Not the live attempt"),
        ({"method": "PUT", "body": b"x" * (BODY_BYTES_MAX + 1)}, 413, "Too large"),
    ],
)
def test_the_door_refuses(world: World, changes: dict[str, Any], status: int, title: str) -> None:
    """Each reason has its own words."""
    path = "/v1/pieces" if changes.get("method") == "PUT" else PATH

    found = world.send(path=path, **changes)

    assert found[:2] == (status, title)


def test_a_gateway_that_still_reads_the_log_does_not_say_no(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not know yet may be asked again; afterwards the same is a refusal."""
    unknown = {"attempt": 2}
    with monkeypatch.context() as patch:
        patch.setattr(type(world.means.follower), "caught_up", property(lambda _: False))
        assert world.send(who=unknown)[:2] == (503, "Starting")
        assert world.send(who={"boot_id": "b0"})[:2] == (503, "Starting")
    assert world.send(who=unknown)[:2] == (409, "Not the live attempt")


def test_a_gateway_that_cannot_follow_the_log_answers_nobody(world: World) -> None:
    """Neither known nor new boots are told no: a job would take that for an answer, and fail."""
    follower = world.means.follower
    record = Append(topics.EVENTS, 0, b"k", b"no event", (("ce_type", b"tailrace.RunnerJoined"),))
    world.log.put(record)
    eventually(lambda: follower.failed is not None, what="the failure")

    for who in ({"boot_id": "b0"}, {"attempt": 2}, {}):
        assert world.send(who=who)[:2] == (503, "Unavailable")
    eventually(lambda: world.ended == ["ended"], what="the end of the process")


def test_a_repeated_request_is_refused(world: World) -> None:
    """Byte for byte the same, or another one with the nonce of the first."""
    assert world.send(nonce=b"n" * 16)[0] == 200

    assert world.send(nonce=b"n" * 16)[:2] == (401, "Repeated")
    assert world.send(nonce=b"m" * 16)[0] == 200


def test_a_failed_signature_uses_up_no_nonce(world: World) -> None:
    """A stranger can't spoil the requests of a boot."""
    world.send(key=BootKey(), nonce=b"n" * 16)

    assert world.send(nonce=b"n" * 16)[0] == 200


def test_a_request_for_an_earlier_start_is_refused_and_told_the_new_name(world: World) -> None:
    """What was recorded before a restart, when nonces are forgotten, is of no use after it."""
    earlier = world.epoch
    assert world.send()[0] == 200

    world.app = make_app(world.means)
    refused = world.send()
    now = world.epoch
    accepted = world.send()

    assert refused[:2] == (401, "Another start")
    assert now != earlier
    assert accepted[0] == 200


def test_the_error_about_time_says_how_far_and_what_to_do(world: World) -> None:
    """Whoever reads it knows which clock is wrong."""
    detail = world.send(by_ms=-95_000)[2]

    assert "95 s behind the gateway's" in detail
    assert "set the clocks" in detail


@pytest.mark.parametrize(
    "end",
    [
        e.RunnerLost(event_id="l", runner_id="r", boot_id="b1", reason="silent"),
        e.RunnerDismissed(event_id="d", runner_id="r", boot_id="b1", reason="silent"),
        joined(BootKey(), "b2"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_boot_that_is_over_is_unknown(world: World, end: e.Event) -> None:
    """Lost, dismissed, or followed by a later one; announcing it again does not help."""
    stranger = BootKey()
    world.append(end)
    world.append(joined(stranger))

    assert world.send()[:2] == (401, "Unknown boot")
    assert world.send(key=stranger)[:2] == (401, "Unknown boot")


def test_the_first_key_of_a_boot_is_its_key(world: World) -> None:
    """A second announcement with another key changes nothing."""
    stranger = BootKey()
    world.append(joined(stranger))

    assert world.send(key=stranger)[:2] == (401, "Wrong signature")
    assert world.send()[0] == 200


def test_no_refusal_repeats_what_was_sent(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Neither answer nor log line holds the token or a body."""
    with caplog.at_level("DEBUG"):
        answers = [
            world.send(headers={"Authorization": "Bearer hunter-two"}),
            world.send(headers={ATTEMPT_HEADER: '{"job_id": "hunter-two"}'}),
            world.send(method="POST", body=b'{"name": ["hunter-two"]}'),
        ]

    assert [status for status, _, _ in answers] == [401, 400, 400]
    assert "hunter-two" not in str(answers) + caplog.text
