"""Where a secret or a variable belongs, and what one may be; pure."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.problems import Problem
from schemas.variables import (
    ENVIRONMENT_CHARACTERS_MAX,
    VALUE_BYTES_MAX,
    environment_name,
    name_problem,
)

#: Shorter ones can't be masked: their few bytes stand in a log by chance.
SECRET_BYTES_MIN = 6


@dataclass(frozen=True, slots=True)
class ScopeName:
    """An environment of a repository, a repository (`environment` ""), or all ("" and "")."""

    repository: str
    environment: str = ""

    @classmethod
    def of(cls, repository: str, environment: str) -> ScopeName:
        """Return a scope as it is compared; Problem for an environment that can't be."""
        name = environment_name(environment)
        if len(name) > ENVIRONMENT_CHARACTERS_MAX or not (name.isprintable() or not name):
            raise Problem(
                422,
                f"`environment` must be of at most {ENVIRONMENT_CHARACTERS_MAX} printable "
                "characters",
            )
        if name and not repository:
            raise Problem(422, "`environment`: environments belong to a repository; name it")
        return cls(repository, name)

    @property
    def parts(self) -> tuple[str, str]:
        """What tells scopes apart."""
        return self.repository, self.environment

    def __str__(self) -> str:
        """What people call it."""
        if self.environment:
            return f"the environment {self.environment} of {self.repository}"
        return self.repository or "the installation"


def check_name(what: str, name: str) -> None:
    """Raise Problem for a name that no secret or variable (`what`) may have."""
    problem = name_problem(name)
    if problem:
        raise Problem(422, f"{what} name {name[:80]!r}: {problem}")


def check_secret(value: object) -> str:
    """Return a secret's value; Problem, which never shows it, when it can't be one."""
    if not isinstance(value, str) or not value:
        raise Problem(422, "`value` must be a text that is not empty")
    _check_size("secret", value)
    if len(value.strip().encode()) < SECRET_BYTES_MIN:
        raise Problem(
            422,
            f"the secret has less than {SECRET_BYTES_MIN} bytes beside blanks: one that short "
            "can't be masked in logs; use a longer one, or a variable if it is no secret",
        )
    return value


def check_variable(value: object) -> str:
    """Return a variable's value; Problem when it can't be one."""
    if not isinstance(value, str):
        raise Problem(422, "`value` must be a text")
    _check_size("variable", value)
    return value


def _check_size(what: str, value: str) -> None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise Problem(422, "`value` has half a character (a lone surrogate) in it") from error
    if "\0" in value:
        raise Problem(422, "`value` has a NUL in it, which no environment variable can hold")
    if size > VALUE_BYTES_MAX:
        raise Problem(422, f"the {what} has {size} bytes; {VALUE_BYTES_MAX} are allowed")
