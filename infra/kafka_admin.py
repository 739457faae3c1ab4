"""Topics of a Kafka: made, waited for, and looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from infra.kafka import client_settings
from infra.log import LogError
from schemas.topics import TopicSpec

_TOPICS_TIMEOUT_S = 30
_NOT_YET = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE})


class Admin:
    """Creates topics and looks at them; the client lives as long as this object."""

    def __init__(self, bootstrap: str) -> None:
        """Connect lazily."""
        self._bootstrap = bootstrap
        self._client = AdminClient(client_settings(bootstrap, "tailrace-admin"))

    def await_broker(self, *, timeout_ms: int) -> None:
        """Return once a broker answers; LogError when none does in time."""
        try:
            self._client.list_topics(timeout=timeout_ms / 1000)
        except KafkaException as error:
            raise LogError(
                f"Kafka at {self._bootstrap} does not answer within {timeout_ms} ms: "
                "start it (`tailrace up`) or correct TAILRACE_KAFKA_BOOTSTRAP"
            ) from error

    def ensure_topics(self, specs: Sequence[TopicSpec], *, replication: int = 1) -> list[str]:
        """Create what is missing and return its names; idempotent, also side by side.

        The topics are known to the broker and led when this returns: the controller's answer comes
        a moment before the brokers' own metadata has them. LogError when a topic exists with
        another number of partitions, since keys and cells would then go elsewhere.
        """
        known = self._client.list_topics(timeout=15).topics
        for spec in specs:
            there = known.get(spec.name)
            if there is not None and len(there.partitions) != spec.partitions:
                raise LogError(
                    f"topic {spec.name} has {len(there.partitions)} partitions, the settings ask "
                    f"for {spec.partitions}: the number is fixed when a topic is made "
                    "(infra/README.md, 'Cells')"
                )
        missing = [spec for spec in specs if spec.name not in known]
        made = self._client.create_topics(
            [
                NewTopic(
                    spec.name,
                    num_partitions=spec.partitions,
                    replication_factor=replication,
                    config=spec.settings,
                )
                for spec in missing
            ],
            operation_timeout=20,
        ) if missing else {}  # fmt: skip
        for name, future in made.items():
            try:
                future.result(30)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise LogError(f"topic {name} could not be made: {error}") from error
        if made:
            self._await_topics(list(made))
        return list(made)

    def _await_topics(self, names: Sequence[str]) -> None:
        """Return once each topic is described with a leader for every partition, or LogError."""
        deadline = time.monotonic() + _TOPICS_TIMEOUT_S
        while absent := self._absent(names):
            if time.monotonic() > deadline:
                raise LogError(
                    f"topics {', '.join(absent)} were made but have no leader after "
                    f"{_TOPICS_TIMEOUT_S} s: look at the brokers' logs and run this again"
                )
            time.sleep(0.02)

    def _absent(self, names: Sequence[str]) -> list[str]:
        """Return which topics a broker does not know yet, or knows without a leader."""
        absent = []
        for name, future in self._client.describe_topics(TopicCollection(list(names))).items():
            try:
                partitions = future.result(15).partitions
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET:
                    raise LogError(f"topic {name} can't be described: {error}") from error
                absent.append(name)
            else:
                if any(partition.leader is None for partition in partitions):
                    absent.append(name)
        return absent

    def cluster_id(self) -> str:
        """Return the id that a cluster was formatted with: another one is another log."""
        return str(self._client.list_topics(timeout=15).cluster_id)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; LogError when it does not exist."""
        found = self._client.list_topics(topic, timeout=15).topics.get(topic)
        if found is None or not found.partitions:
            raise LogError(f"topic {topic} does not exist: run `tailrace up` (it makes the topics)")
        return len(found.partitions)

    def topic_id(self, topic: str) -> str:
        """Return the broker's id of a topic: another one once the topic was made anew."""
        [future] = self._client.describe_topics(TopicCollection([topic])).values()
        try:
            return str(future.result(15).topic_id)
        except KafkaException as error:
            raise LogError(f"topic {topic} can't be described: {error}") from error

    def settings(self, topic: str) -> dict[str, str]:
        """Return a topic's settings as the broker has them."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        [future] = self._client.describe_configs([resource]).values()
        return {name: entry.value for name, entry in future.result(15).items()}
