"""The vault on a real PostgreSQL: sealed at rest, bound to its row, readable while away."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.auth import TokenFile
from infra.embedded.ports import free_port
from infra.sealing import Sealer, SealError
from infra.vault import AlreadyThereError, Registration, Vault, VaultAwayError, VaultError

SECRET = b"webhook-secret-of-demo"
DEMO = Registration(
    repository="ada/demo", provider="git", clone_url="/srv/demo.git", default_branch="main",
    webhook_secret=SECRET,
)  # fmt: skip


@pytest.fixture
def vault(database_url: str, tmp_path: Path) -> Iterator[Vault]:
    """Yield an empty vault."""
    made = Vault(database_url, tmp_path / "secrets")
    made.migrate()
    yield made
    made.close()


def test_what_was_put_in_comes_out(vault: Vault) -> None:
    """Registrations, tokens and secrets; names of secrets ignore case."""
    vault.register(DEMO, token="forge-token")
    assert vault.set_secret("ada/demo", "Key", "one") is True
    assert vault.set_secret("ada/demo", "KEY", "two") is False

    assert vault.registration("ada/demo") == DEMO
    assert vault.forge_token("ada/demo") == "forge-token"
    assert vault.secrets("ada/demo", ["key", "other"]) == {"KEY": "two"}
    assert [info.name for info in vault.secret_infos("ada/demo")] == ["KEY"]
    assert vault.registration("ada/none") is None
    assert vault.forge_token("ada/none") == ""


def test_the_nearest_scope_with_the_name_wins(vault: Vault) -> None:
    """Environment, repository, installation; other repositories and environments count nothing."""
    vault.set_secret("", "A", "global-a")
    vault.set_secret("", "B", "global-b")
    vault.set_secret("", "C", "global-c")
    vault.set_secret("ada/demo", "A", "repo-a")
    vault.set_secret("ada/demo", "B", "repo-b")
    vault.set_secret("ada/demo", "A", "prod-a", environment="Prod")
    vault.set_secret("ada/demo", "D", "test-d", environment="test")
    vault.set_secret("ada/other", "D", "other-d")
    names = ["a", "b", "c", "d"]

    assert vault.secrets("ada/demo", names, "prod") == {
        "A": "prod-a", "B": "repo-b", "C": "global-c",
    }  # fmt: skip
    assert vault.secrets("ada/demo", names) == {"A": "repo-a", "B": "repo-b", "C": "global-c"}
    assert vault.secrets("ada/else", names, "PROD") == {
        "A": "global-a", "B": "global-b", "C": "global-c",
    }  # fmt: skip
    assert vault.secret_names("ada/demo", "test") == ["A", "B", "C", "D"]
    assert [info.name for info in vault.secret_infos("ada/demo", environment="PROD")] == ["A"]
    assert vault.delete_secret("ada/demo", "A", environment="prod") is True
    assert vault.delete_secret("ada/demo", "A", environment="prod") is False
    assert vault.secrets("ada/demo", ["A"], "prod") == {"A": "repo-a"}


def test_a_secret_that_was_moved_to_another_scope_does_not_open(
    vault: Vault, database_url: str
) -> None:
    """Whoever writes to the database can't give a repository what was set for an environment."""
    vault.set_secret("ada/demo", "A", "prod-a", environment="prod")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vault.secrets SET environment = ''")

    with pytest.raises(SealError, match="secret:ada/demo:A"):
        vault.secrets("ada/demo", ["A"])


def test_secrets_of_an_older_schema_stay_readable(vault: Vault, database_url: str) -> None:
    """The schema is brought up to date in place, as often as it is asked for."""
    vault.set_secret("ada/demo", "KEY", "one")
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP INDEX vault.secrets_by_scope")
        connection.execute("ALTER TABLE vault.secrets DROP COLUMN environment")
        connection.execute("ALTER TABLE vault.secrets ADD PRIMARY KEY (repository, name)")

    vault.migrate()
    vault.migrate()

    assert vault.secrets("ada/demo", ["KEY"], "prod") == {"KEY": "one"}
    assert vault.set_secret("ada/demo", "KEY", "two", environment="prod") is True


def test_a_name_is_registered_once(vault: Vault) -> None:
    """The second is told apart from other failures."""
    vault.register(DEMO)

    with pytest.raises(AlreadyThereError, match="ada/demo"):
        vault.register(DEMO)


def test_removing_a_repository_forgets_its_secrets(vault: Vault) -> None:
    """A repository added later under its name gets none of them."""
    vault.register(DEMO, token="forge-token")
    vault.set_secret("ada/demo", "KEY", "one")
    assert vault.remove("ada/demo") is True
    assert vault.remove("ada/demo") is False
    vault.register(DEMO)

    assert vault.secrets("ada/demo", ["KEY"]) == {}
    assert vault.forge_token("ada/demo") == ""


def test_the_database_holds_nothing_in_clear(
    vault: Vault, database_url: str, tmp_path: Path
) -> None:
    """Neither do the files beside the key; all of them are their owner's alone."""
    vault.register(DEMO, token="forge-token")
    vault.set_secret("ada/demo", "KEY", "a-very-secret-value")
    vault.webhook_keys()
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT * FROM vault.repositories").fetchall()
        rows += connection.execute("SELECT * FROM vault.secrets").fetchall()
    text = repr(rows).encode() + b"".join(f.read_bytes() for f in (tmp_path / "secrets").iterdir())

    for value in (SECRET, b"forge-token", b"a-very-secret-value"):
        assert value not in text
    for file in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_sealed_value_opens_in_its_own_row_only(vault: Vault, database_url: str) -> None:
    """Someone with the database alone can't give one repository another's secret."""
    vault.set_secret("ada/demo", "KEY", "mine")
    vault.set_secret("eve/demo", "KEY", "hers")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE vault.secrets SET value ="
            " (SELECT value FROM vault.secrets WHERE repository = 'ada/demo')"
            " WHERE repository = 'eve/demo'"
        )

    with pytest.raises(SealError, match="eve/demo"):
        vault.secrets("eve/demo", ["KEY"])


def test_webhook_secrets_are_readable_while_postgresql_is_away(
    vault: Vault, tmp_path: Path
) -> None:
    """From the sealed copy that the last look at the vault left."""
    vault.register(DEMO)
    version = vault.version()
    keys = vault.webhook_keys()
    away = Vault(f"postgresql://x@127.0.0.1:{free_port()}/x", tmp_path / "secrets")

    assert away.copied_webhook_keys() == keys
    assert keys["ada/demo"].secret == SECRET
    with pytest.raises(VaultAwayError, match="does not answer"):
        away.version()
    away.close()
    vault.rotate_webhook_secret("ada/demo", b"other")
    assert vault.version() != version


def test_the_copy_opens_with_its_own_key_only(vault: Vault, tmp_path: Path) -> None:
    """A replaced key is said, not guessed."""
    vault.register(DEMO)
    vault.webhook_keys()
    (tmp_path / "secrets" / "vault.key").write_bytes(b"k" * 32)
    other = Vault("postgresql://x@127.0.0.1:1/x", tmp_path / "secrets")

    with pytest.raises(SealError, match=r"vault\.key"):
        other.copied_webhook_keys()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message says what to do."""
    key = tmp_path / "vault.key"
    Sealer.of_file(key)
    key.chmod(0o644)

    with pytest.raises(SealError, match="chmod 600"):
        Sealer.of_file(key)


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    """The first one's counts."""
    path = tmp_path / "secrets" / "vault.key"
    sealed: list[bytes] = []

    def seal() -> None:
        sealed.append(Sealer.of_file(path).seal(b"x", "p"))

    threads = [threading.Thread(target=seal) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [Sealer.of_file(path).open(value, "p") for value in sealed] == [b"x"] * 8


def test_migrating_side_by_side_is_harmless(vault: Vault) -> None:
    """Two installations' steps may meet."""
    threads = [threading.Thread(target=vault.migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    vault.register(DEMO)

    assert vault.registration("ada/demo") == DEMO


def test_a_vault_without_its_schema_says_what_to_run(database_url: str, tmp_path: Path) -> None:
    """Not just that a table is missing."""
    vault = Vault(database_url, tmp_path / "secrets")

    with pytest.raises(VaultError, match=r"python -m infra\.vault"):
        vault.registrations()
    vault.close()


def test_a_token_file_accepts_its_token_alone(tmp_path: Path) -> None:
    """Made once, 0600, read again when it changes."""
    file = TokenFile(tmp_path / "token")
    assert file.accepts("Bearer ") is False
    token = file.ensure()

    assert (file.ensure(), stat.S_IMODE((tmp_path / "token").stat().st_mode)) == (token, 0o600)
    assert file.accepts(f"Bearer {token}") is True
    assert file.accepts(f"bearer {token}") is True
    for wrong in (None, "", token, f"Basic {token}", f"Bearer {token}x", "Bearer é"):
        assert file.accepts(wrong) is False
    (tmp_path / "token").unlink()
    assert file.accepts(f"Bearer {token}") is False
