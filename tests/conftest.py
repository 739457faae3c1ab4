"""Fixtures that several suites share: a real Kafka and a real PostgreSQL for the whole run.

Set TAILRACE_TEST_KAFKA_BOOTSTRAP or TAILRACE_TEST_POSTGRES_URL to use a running one instead, for
instance while you write a test. Either may hold what other tests left: use names of your own.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from infra.embedded.kafka import Broker
from infra.embedded.postgres import Postgres
from tests.support.shared import cache_dir, shared

pytest_plugins = ["tests.support.budget"]

# a busy machine is no failure; a failure prints how to have it again
settings.register_profile("tailrace", deadline=None, print_blob=True)
settings.load_profile("tailrace")

_numbers = itertools.count(1)


_ROOT = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary folder of its own, that other users may enter.

    Pytest's usual one is shared by all runs of a user, and each start closes it to other users:
    servers and jobs that run as such would lose their files in the middle of a test.
    """
    if _ROOT not in os.environ:
        folder = tempfile.mkdtemp(prefix="tailrace-tests-")
        Path(folder).chmod(0o755)
        os.environ[_ROOT] = folder
        config.add_cleanup(lambda: _forget(folder))


#: Whose modules start real processes that all of their tests share.
_SHARING = frozenset({"integration", "browser", "chaos"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of such a module to one worker: each would start its processes otherwise."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in _SHARING and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _forget(folder: str) -> None:
    del os.environ[_ROOT]
    if "TAILRACE_KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def run_dir() -> Path:
    """Return the folder that all workers of this test run share, and no other run."""
    folder = Path(os.environ[_ROOT]) / "shared"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def open_folder(run_dir: Path) -> Iterator[Path]:
    """Yield a folder that every user may enter and write: jobs run as users of their own."""
    folder = Path(tempfile.mkdtemp(prefix="open-", dir=run_dir))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(run_dir: Path) -> Iterator[str]:
    """Yield the bootstrap address of a real broker; topics are yours to create and to name."""
    running = os.environ.get("TAILRACE_TEST_KAFKA_BOOTSTRAP")
    if running:
        yield running
        return
    folder = run_dir / "shared-kafka"
    folder.mkdir(exist_ok=True)
    broker = Broker(folder / "home", cache=cache_dir(), log_path=folder / "kafka.log")
    with shared(broker, folder) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def postgres_url(run_dir: Path) -> Iterator[str]:
    """Yield the URL of a real PostgreSQL's common database, as a role that may make others."""
    running = os.environ.get("TAILRACE_TEST_POSTGRES_URL")
    if running:
        yield running
        return
    folder = run_dir / "shared-postgres"
    folder.mkdir(exist_ok=True)
    server = Postgres(
        folder / "home", secrets_dir=folder / "secrets", log_path=folder / "postgres.log"
    )
    with shared(server, folder) as url:
        yield url


@pytest.fixture
def make_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Yield a function that makes an empty database and returns its URL; dropped after the test."""
    import psycopg

    made: list[str] = []

    def make() -> str:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            # f-string: a name of our own; CREATE DATABASE takes no parameters.
            connection.execute(f"CREATE DATABASE {name}".encode())
        made.append(name)
        return postgres_url.rpartition("/")[0] + f"/{name}"

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


@pytest.fixture
def database_url(make_database: Callable[[], str]) -> str:
    """Return the URL of an empty database of this test's own."""
    return make_database()
