"""Waiting for a gateway that is away: how long, how loudly, and when not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from infra.clock import ManualClock
from runner.depot import Depot, DepotAwayError
from runner.gateway_client import GatewayAwayError, GatewayClient, GatewayError
from runner.identity import Identity
from runner.patience import PATIENCE_MS, Patience
from schemas.lanes import Assignment


@dataclass
class World:
    """A clock that pauses move, what was said, and how often was asked."""

    clock: ManualClock = field(default_factory=ManualClock)
    said: list[str] = field(default_factory=list)
    asked: int = 0
    ends_after: int = 1_000_000

    def ask(self, answer: Callable[[int], str]) -> str:
        """Ask for `answer`, which is told how many milliseconds have passed."""
        began_ms = self.clock.steady_ms()

        def question() -> str:
            self.asked += 1
            return answer(self.clock.steady_ms() - began_ms)

        return self.patience().ask(question)

    def patience(self) -> Patience:
        """Return the patience of an attempt of this world."""
        return Patience(
            clock=self.clock,
            say=self.said.append,
            given_up=lambda: self.asked >= self.ends_after,
            pause=lambda seconds: self.clock.advance(round(seconds * 1000)),
        )


def away_until(end_ms: int) -> Callable[[int], str]:
    """Return a gateway that does not answer before `end_ms`."""

    def answer(at_ms: int) -> str:
        if at_ms < end_ms:
            raise GatewayAwayError("the gateway does not answer: refused")
        return "answer"

    return answer


def test_who_answers_at_once_is_asked_once_and_not_spoken_of() -> None:
    """The usual case costs nothing and leaves nothing in the log."""
    world = World()
    assert world.ask(away_until(0)) == "answer"
    assert (world.asked, world.said) == (1, [])


def test_an_outage_is_waited_for_and_said() -> None:
    """Once when it begins and once when it is over."""
    world = World()
    assert world.ask(away_until(20_000)) == "answer"
    assert world.said == [
        "##[warning]the gateway does not answer: refused; asked again for up to 60 s",
        "The gateway answers again, after 20.6 s",
    ]
    assert world.asked < 40


def test_a_short_outage_costs_little_more_than_itself() -> None:
    """A restart takes a second; the first pauses are short."""
    world = World()
    began_ms = world.clock.steady_ms()
    world.ask(away_until(200))
    assert world.clock.steady_ms() - began_ms < 400


def test_after_its_time_it_fails_and_says_for_how_long() -> None:
    """As a failure of the infrastructure, which the scheduler retries."""
    world = World()
    began_ms = world.clock.steady_ms()
    with pytest.raises(GatewayAwayError, match="refused, for 60 s"):
        world.ask(away_until(10 * PATIENCE_MS))
    assert world.clock.steady_ms() - began_ms == PATIENCE_MS


def test_a_refusal_is_an_answer() -> None:
    """Asking again would not change it."""
    world = World()

    def refuse(_: int) -> str:
        raise GatewayError("the gateway refused: not the live attempt")

    with pytest.raises(GatewayError, match="not the live attempt"):
        world.ask(refuse)
    assert (world.asked, world.said) == (1, [])


def test_a_job_that_is_being_ended_waits_no_longer() -> None:
    """A cancelled job must not hang on an outage."""
    world = World(ends_after=3)
    with pytest.raises(GatewayAwayError):
        world.ask(away_until(10 * PATIENCE_MS))
    assert world.asked == 3


class Unsteady(GatewayClient):
    """A gateway that gives one answer after the other; None is none."""

    def __init__(self, *answers: bytes | None) -> None:
        """Give `answers`."""
        identity = Identity(runner_id="r", boot_id="b")
        super().__init__("http://127.0.0.1:9", lambda: "token", identity, ManualClock())
        self.answers = list(answers)
        self.asked: list[str] = []

    def ask(
        self,
        assignment: Assignment,  # noqa: ARG002
        method: str,  # noqa: ARG002
        path: str,
        body: object = None,  # noqa: ARG002
        *,
        timeout_s: float = 0,  # noqa: ARG002
    ) -> bytes:
        """Return the next answer."""
        self.asked.append(path)
        answer = self.answers.pop(0)
        if answer is None:
            raise GatewayAwayError("the gateway does not answer: refused")
        return answer


ASSIGNMENT = Assignment(
    order_id="o", job_id="r.j", attempt=1, runner_id="r", boot_id="b",
    repository="demo/hello", run_id="r", delivery_id=None, name="j", job_json="{}",
    contexts_json="{}",
)  # fmt: skip
QUESTIONS: dict[str, tuple[Callable[[Depot], object], bytes]] = {
    "find_piece": (lambda depot: depot.find_piece("0"), b"{}"),
    "get_piece": (lambda depot: depot.get_piece("0"), b"{}"),
    "artifacts": (lambda depot: depot.artifacts(), b"{}"),
    "find_cache": (lambda depot: depot.find_cache(["k"], version="v", scopes=["s"]), b"{}"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_to_the_depot_waits_for_a_gateway_that_is_away(question: str) -> None:
    """Looking for what is there as well as sending it."""
    world = World()
    ask, answer = QUESTIONS[question]
    gateway = Unsteady(None, None, answer)

    ask(gateway.depot(ASSIGNMENT, world.patience()))

    assert gateway.answers == []
    assert len(world.said) == 2


def test_a_piece_is_looked_for_before_it_is_sent_again() -> None:
    """The answer may have been lost, not the piece; one that did not come is sent."""
    world = World()
    there = Unsteady(None, None, b'{"piece": "1-aa"}')
    absent = Unsteady(None, b'{"piece": null}', b'{"piece": "2-aa"}')

    assert there.depot(ASSIGNMENT, world.patience()).put_piece(b"bytes") == "1-aa"
    assert absent.depot(ASSIGNMENT, world.patience()).put_piece(b"bytes") == "2-aa"
    assert there.asked == ["/v1/pieces", "/v1/pieces/find", "/v1/pieces/find"]
    assert absent.asked == ["/v1/pieces", "/v1/pieces/find", "/v1/pieces"]


def test_a_depot_that_stays_away_is_told_from_one_that_refuses() -> None:
    """After its time, and at once when the step is over: `given_up` may raise."""
    world = World()
    with pytest.raises(DepotAwayError, match="for 60 s"):
        Unsteady(*[None] * 200).depot(ASSIGNMENT, world.patience()).artifacts()

    def over() -> bool:
        raise InterruptedError

    gateway = Unsteady(None, b"{}")
    with pytest.raises(InterruptedError):
        gateway.depot(ASSIGNMENT, replace(world.patience(), given_up=over)).artifacts()
    assert gateway.answers == [b"{}"]
