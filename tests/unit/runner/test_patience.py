"""Waiting for a gateway that is away: how long, how loudly, and when not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from infra.clock import ManualClock
from runner.gateway_client import GatewayAwayError, GatewayError
from runner.patience import PATIENCE_MS, Patience


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

        patience = Patience(
            clock=self.clock,
            say=self.said.append,
            given_up=lambda: self.asked >= self.ends_after,
            pause=lambda seconds: self.clock.advance(round(seconds * 1000)),
        )
        return patience.ask(question)


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
