"""Creates every topic of the installation: `python -m infra.topics`; idempotent.

The broker never creates one by itself: the number of partitions of `events` is the number of
cells and is fixed when the topic is made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from infra.kafka_admin import Admin
from infra.log import LogError
from schemas.topics import TopicSpec, topic_specs

BROKER_TIMEOUT_MS = 60_000


def ensure(
    bootstrap: str,
    specs: Sequence[TopicSpec],
    *,
    replication: int = 1,
    timeout_ms: int = BROKER_TIMEOUT_MS,
) -> list[str]:
    """Wait until Kafka answers, create what is missing and return the names of it.

    LogError says that no broker answered in time, or which topic has another shape than asked.
    """
    admin = Admin(bootstrap)
    admin.await_broker(timeout_ms=timeout_ms)
    return admin.ensure_topics(specs, replication=replication)


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the topics that the settings ask for; print one line for each."""
    from infra.settings import Settings

    parser = argparse.ArgumentParser(prog="python -m infra.topics", description=__doc__)
    parser.add_argument("--timeout", type=int, default=BROKER_TIMEOUT_MS // 1000, metavar="S",
                        help="seconds to wait for Kafka (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    settings = Settings.load()
    replication = settings.kafka_replication
    specs = topic_specs(cells=settings.cells, pools=settings.pools, replication=replication)
    try:
        made = ensure(
            settings.kafka_bootstrap,
            specs,
            replication=replication,
            timeout_ms=options.timeout * 1000,
        )
    except LogError as error:
        sys.stderr.write(f"topics: {error}\n")
        return 1
    for spec in specs:
        state = "created" if spec.name in made else "there"
        sys.stdout.write(f"{state:8}{spec.name} ({spec.partitions} partitions)\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
