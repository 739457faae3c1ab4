"""Settings: where values come from, which one wins, and what is said about wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import RECORD, Settings, SettingsError, describe, record_text


def _load(home: Path, **environ: str) -> Settings:
    return Settings.load({"TAILRACE_HOME": str(home)} | environ)


def _write(home: Path, toml: str) -> Path:
    path = home / "tailrace.toml"
    path.write_text(toml, encoding="utf-8")
    return path


def _record(home: Path, **values: object) -> None:
    (home / RECORD).parent.mkdir()
    (home / RECORD).write_text(record_text(values), encoding="utf-8")


def test_defaults_follow_from_the_home(tmp_path: Path) -> None:
    """Nothing set: everything lies under the home and listens on loopback."""
    settings = _load(tmp_path)

    assert settings.cache == tmp_path / "cache"
    assert settings.object_store == f"file://{tmp_path}/objects"
    assert settings.public_url == "http://127.0.0.1:8810"
    assert settings.kafka_bootstrap == "127.0.0.1:8892"
    assert set(settings.sources.values()) == {"default", "TAILRACE_HOME"}


def test_a_derived_default_follows_the_value_it_depends_on(tmp_path: Path) -> None:
    """A port that is set changes the URLs that are not."""
    settings = _load(tmp_path, TAILRACE_PUBLIC_PORT="9000", TAILRACE_INGEST_PORT="9001")

    assert settings.public_url == "http://127.0.0.1:9000"
    assert settings.ingest_url == "http://127.0.0.1:9001"


def test_environment_beats_file_beats_running_system_beats_default(tmp_path: Path) -> None:
    """The nearest source wins, and is named."""
    file = _write(tmp_path, "public_port = 2\ningest_port = 2\n")
    _record(tmp_path, public_port=3, ingest_port=3, gateway_port=3)

    settings = _load(tmp_path, TAILRACE_PUBLIC_PORT="1")

    ports = (settings.public_port, settings.ingest_port, settings.gateway_port)
    assert ports == (1, 2, 3)
    assert settings.sources["public_port"] == "TAILRACE_PUBLIC_PORT"
    assert settings.sources["ingest_port"] == str(file)
    assert settings.sources["gateway_port"] == "running"
    assert settings.sources["fleet_port"] == "default"


def test_only_what_the_user_set_is_fixed(tmp_path: Path) -> None:
    """A recorded address may be replaced at the next start, a configured one may not."""
    _record(tmp_path, kafka_bootstrap="127.0.0.1:1", database_url="postgresql://x:y@127.0.0.1/z")

    settings = _load(tmp_path, TAILRACE_DATABASE_URL="postgresql://a:b@db/c")

    assert settings.kafka_bootstrap == "127.0.0.1:1"
    assert not settings.is_fixed("kafka_bootstrap")
    assert settings.is_fixed("database_url")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TAILRACE_PUBLIC_PORT", "http", "a whole number of at least 0"),
        ("TAILRACE_CELLS", "0", "a whole number of at least 1"),
        ("TAILRACE_LOG_LEVEL", "loud", "one of: debug, info, warning, error"),
        ("TAILRACE_RESTART", "maybe", "on or off"),
    ],
)
def test_an_unusable_variable_is_named_with_what_is_expected(
    tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    """The message holds the variable, its value, and what would do."""
    with pytest.raises(SettingsError) as error:
        _load(tmp_path, **{variable: value})

    assert variable in str(error.value)
    assert repr(value) in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("runner_slot = 8", "unknown setting `runner_slot`. Did you mean `runner_slots`?"),
        ("runner_slots = 'many'", "`runner_slots` is 'many'; expected a whole number"),
        ("runner_slots = 1.5", "`runner_slots` is a float; expected"),
        ("runner_slots = ", "is not valid TOML"),
        ("home = '/elsewhere'", "unknown setting `home`"),
    ],
)
def test_an_unusable_file_is_named_with_key_and_expectation(
    tmp_path: Path, toml: str, expected: str
) -> None:
    """The message holds the file, the key, and what would do."""
    path = _write(tmp_path, toml)

    with pytest.raises(SettingsError) as error:
        _load(tmp_path)

    assert str(path) in str(error.value)
    assert expected in str(error.value)


def test_the_file_takes_toml_types_and_lists(tmp_path: Path) -> None:
    """Numbers, booleans and lists are written as TOML has them."""
    _write(tmp_path, 'runner_slots = 8\nrestart = false\nrunner_labels = ["gpu", "linux"]\n')

    settings = _load(tmp_path)

    assert (settings.runner_slots, settings.restart) == (8, False)
    assert settings.runner_labels == ("gpu", "linux")


def test_a_broken_record_of_a_running_system_is_ignored(tmp_path: Path) -> None:
    """A record cut off by a crash is as good as none."""
    (tmp_path / RECORD).parent.mkdir()
    (tmp_path / RECORD).write_text('{"public_port": 1', encoding="utf-8")

    assert _load(tmp_path).public_port == 8810


def test_descriptions_never_show_a_password(tmp_path: Path) -> None:
    """The listing has every setting, its meaning and origin, and *** for a password."""
    settings = _load(tmp_path, TAILRACE_DATABASE_URL="postgresql://me:s3cr3t@db:5432/ci")

    listed = {described.name: described for described in describe(settings)}

    assert listed["database_url"].value == "postgresql://me:***@db:5432/ci"
    assert listed["database_url"].source == "TAILRACE_DATABASE_URL"
    assert all(described.doc.endswith(".") for described in listed.values())
    assert "s3cr3t" not in json.dumps([str(described) for described in listed.values()])


def test_importing_the_settings_is_cheap() -> None:
    """The command line imports them always: nothing heavy may come along."""
    code = "import sys, infra.settings; print(' '.join(sys.modules))"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    heavy = {"asyncio", "click", "confluent_kafka", "fastapi", "psycopg", "tomllib"}
    assert heavy.isdisjoint(loaded)
