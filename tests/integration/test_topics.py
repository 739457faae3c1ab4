"""Creating topics on a real broker: once, with the shape that the settings ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra import topics as command
from infra.embedded.ports import free_port
from infra.kafka_admin import Admin
from infra.log import LogError
from infra.topics import ensure
from schemas.topics import HEARTBEATS, RECORD_BYTES_MAX, TopicSpec, lane_topic, topic_specs


def spec(name: str, partitions: int = 2) -> TopicSpec:
    """Return a topic of this test's own."""
    settings = {"retention.ms": "-1", "max.message.bytes": str(RECORD_BYTES_MAX)}
    return TopicSpec(name=f"topics-{os.getpid()}-{name}", partitions=partitions, settings=settings)


def test_topics_are_made_once_as_they_were_asked_for(kafka: str) -> None:
    """The second time nothing is made; partitions and settings are the broker's."""
    one, other = spec("one"), spec("other", 3)
    assert ensure(kafka, [one]) == [one.name]
    assert ensure(kafka, [one, other]) == [other.name]
    assert ensure(kafka, [one, other]) == []
    admin = Admin(kafka)
    assert (admin.partitions(one.name), admin.partitions(other.name)) == (2, 3)
    found = admin.settings(one.name)
    assert {name: found[name] for name in one.settings} == one.settings


def test_a_topic_is_known_as_soon_as_it_was_made(kafka: str) -> None:
    """The controller's answer comes before the broker's own metadata has the topic: 1 in 100."""
    admin = Admin(kafka)
    for number in range(100):
        made = spec(f"soon-{number}", 4)
        admin.ensure_topics([made])
        assert admin.topic_id(made.name)


def test_another_number_of_partitions_is_refused(kafka: str) -> None:
    """Keys and cells would go elsewhere: the message says so, and nothing is changed."""
    ensure(kafka, [spec("fixed", 2)])
    with pytest.raises(LogError, match="has 2 partitions, the settings ask for 5"):
        ensure(kafka, [spec("fixed", 5)])
    assert Admin(kafka).partitions(spec("fixed").name) == 2


def test_a_broker_that_is_away_is_named() -> None:
    """The address, the time waited, and what to do."""
    bootstrap = f"127.0.0.1:{free_port()}"
    with pytest.raises(LogError, match=rf"{bootstrap} does not answer within 300 ms.*BOOTSTRAP"):
        ensure(bootstrap, [], timeout_ms=300)


def test_the_command_may_be_repeated(
    kafka: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It prints a line a topic, and the second time that each is there."""
    monkeypatch.setenv("TAILRACE_HOME", str(tmp_path))
    monkeypatch.setenv("TAILRACE_KAFKA_BOOTSTRAP", kafka)
    assert command.main([]) == 0
    capsys.readouterr()
    assert command.main(["--timeout", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [spec.name for spec in topic_specs(cells=1, pools=("default",))]
    assert [line.split()[:2] for line in lines] == [["there", name] for name in names]


def test_what_must_not_be_lost_has_no_time_limit() -> None:
    """Events and logs are kept for ever, state and heartbeats by key."""
    found = {s.name: s.settings for s in topic_specs(cells=1, pools=("default", "gpu"))}
    assert found["events"]["retention.ms"] == "-1"
    assert found["logs"]["retention.ms"] == "-1"
    assert found["scheduler-state"]["cleanup.policy"] == "compact"
    assert found[HEARTBEATS]["cleanup.policy"] == "compact"
    assert {lane_topic("default"), lane_topic("gpu")} <= found.keys()
