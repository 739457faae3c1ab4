"""How the command line fails: one exit code a reason, so that scripts can tell them apart."""

from __future__ import annotations

from enum import IntEnum
from typing import IO, Any

import click


class Exit(IntEnum):
    """The exit codes of every command (`tailrace --help` lists them)."""

    OK = 0
    NEGATIVE = 1  # a run that did not succeed, a request that was refused
    USAGE = 2
    UNREACHABLE = 3  # not running, or it does not answer
    NOT_FOUND = 4
    UNAUTHORIZED = 5
    CANCELLED = 6  # the run that was followed was cancelled
    INTERRUPTED = 130


class CliError(click.ClickException):
    """A failure with its exit code; the message says what, where and what to do."""

    def __init__(self, message: str, code: Exit = Exit.NEGATIVE) -> None:
        """Fail with `code`."""
        super().__init__(message)
        self.exit_code = int(code)

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to standard error."""
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {self.message}", file, err=True)


class UnreachableError(CliError):
    """Nobody answers at the API's address."""

    def __init__(self, message: str) -> None:
        """Exit with `Exit.UNREACHABLE`."""
        super().__init__(message, Exit.UNREACHABLE)


class NotFoundError(CliError):
    """The API knows no such thing."""

    def __init__(self, message: str) -> None:
        """Exit with `Exit.NOT_FOUND`."""
        super().__init__(message, Exit.NOT_FOUND)


def exit_of(conclusion: str | None) -> Exit:
    """Return the exit code of a command that followed a run to this conclusion."""
    if conclusion in ("success", "skipped"):
        return Exit.OK
    return Exit.CANCELLED if conclusion == "cancelled" else Exit.NEGATIVE
