"""A Kafka, a PostgreSQL, an ingest and a planner for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.embedded.kafka import Broker
from infra.topics import ensure
from infra.vault import Vault
from schemas.topics import topic_specs
from tests.support.gitrepo import GitRepo
from tests.support.ingesting import Installation
from tests.support.shared import cache_dir


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Yield a broker of this module's own: the names of topics are fixed."""
    folder = tmp_path_factory.mktemp("broker")
    made = Broker(folder / "kafka", cache=cache_dir(), log_path=folder / "kafka.log")
    try:
        ensure(made.start(), topic_specs(cells=1, pools=("default",)))
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def module_database(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of an empty database."""
    name = f"ingest_{abs(hash(tmp_path_factory.getbasetemp())) % 10**9}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield postgres_url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@pytest.fixture(scope="module")
def installed(
    broker: Broker, module_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Yield an installation whose ingest and planner run."""
    folder = tmp_path_factory.mktemp("installation")
    made = Installation(folder, broker.bootstrap, module_database)
    vault = Vault(module_database, made.home / "secrets")
    vault.migrate()
    vault.close()
    try:
        made.ingest.start()
        made.planner.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """Return a repository without commits."""
    return GitRepo(tmp_path)


__all__ = ["broker", "installed", "module_database", "repo"]
