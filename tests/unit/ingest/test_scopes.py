"""What may be set as a secret or a variable, and where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.commands import NewRepository, check_repository
from ingest.problems import Problem
from ingest.scopes import ScopeName, check_name, check_secret, check_variable
from schemas.variables import TOGETHER_BYTES_MAX, VALUE_BYTES_MAX, merged, size_of


@pytest.mark.parametrize("name", ["A", "a_1", "_X", "MY_GITHUB_TOKEN", "A" * 255])
def test_names_are_githubs(name: str) -> None:
    """Letters, digits and underscores."""
    check_name("secret", name)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "GITHUB_X", "github_x", "Ä", "A" * 256])
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    """Also those that a run is given by itself."""
    with pytest.raises(Problem, match=r"GITHUB_|letters, digits"):
        check_name("secret", name)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "must be a text"),
        (7, "must be a text"),
        ("", "not empty"),
        ("12345", "can't be masked"),
        ("  1234   \n", "can't be masked"),
        ("x" * (VALUE_BYTES_MAX + 1), "are allowed"),
        ("é" * (VALUE_BYTES_MAX // 2 + 1), "are allowed"),
        ("half \ud800 a character", "half a character"),
        ("with a \0 in it", "NUL"),
    ],
)
def test_a_secret_that_can_not_be_one_is_refused_without_being_shown(
    value: object, says: str
) -> None:
    """The reason is said; the value is not."""
    with pytest.raises(Problem, match=says) as caught:
        check_secret(value)
    assert not value or str(value).strip() not in str(caught.value)


def test_secrets_and_variables_reach_up_to_the_limit() -> None:
    """48 KiB; an empty variable is a value."""
    assert check_secret("x" * VALUE_BYTES_MAX)
    assert check_secret("secret")
    assert check_variable("") == ""
    with pytest.raises(Problem, match="are allowed"):
        check_variable("x" * (VALUE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("repository", "environment", "shown"),
    [
        ("", "", "the installation"),
        ("a/b", "", "a/b"),
        ("a/b", " Prod ", "the environment prod of a/b"),
    ],
)
def test_a_scope_says_what_it_is(repository: str, environment: str, shown: str) -> None:
    """Case and blanks of an environment do not count."""
    assert str(ScopeName.of(repository, environment)) == shown


@pytest.mark.parametrize(("repository", "environment"), [("", "prod"), ("a/b", "x" * 256)])
def test_a_scope_that_can_not_be_is_refused(repository: str, environment: str) -> None:
    """Environments are a repository's."""
    with pytest.raises(Problem, match="environment"):
        ScopeName.of(repository, environment)


VALUES = st.dictionaries(st.sampled_from("ABCDEFGH"), st.text(max_size=5))
LARGE = st.dictionaries(
    st.sampled_from("ABCDEFGHIJ"), st.integers(0, VALUE_BYTES_MAX).map(lambda n: "x" * n)
)


@given(VALUES, VALUES, VALUES)
def test_the_nearest_scope_wins_for_each_name(
    everywhere: dict[str, str], repository: dict[str, str], environment: dict[str, str]
) -> None:
    """Small values are all there."""
    assert merged(everywhere, repository, environment) == {
        **everywhere, **repository, **environment,
    }  # fmt: skip


@given(LARGE, LARGE)
def test_beyond_256_kib_the_repositorys_first_names_stay(
    everywhere: dict[str, str], repository: dict[str, str]
) -> None:
    """What is left out comes after what is kept; the installation's give way first."""
    found = merged(everywhere, repository, {})

    assert size_of(found) <= TOGETHER_BYTES_MAX
    kept = [name for name in sorted(repository) if name in found]
    assert kept == sorted(repository)[: len(kept)]
    if set(found) - set(repository):
        assert set(repository) <= set(found)


def test_a_repository_is_refused_with_more_variables_than_it_may_have() -> None:
    """What does not fit would be left out by the scheduler, without a word."""
    full = {f"N{number}": "x" * VALUE_BYTES_MAX for number in range(5)}
    room = TOGETHER_BYTES_MAX - size_of(full) - len("L")
    new = NewRepository(name="o/r", provider="git", clone_url="/srv/a.git")
    check_repository(replace(new, variables={**full, "L": "x" * room}))

    with pytest.raises(Problem) as caught:
        check_repository(replace(new, variables={**full, "L": "x" * (room - 1) + "é"}))
    assert caught.value.status == 422
    assert f"{TOGETHER_BYTES_MAX + 1} bytes" in caught.value.detail
    assert caught.value.detail.endswith(f"may have {TOGETHER_BYTES_MAX}")
