"""`tailrace secret` and `tailrace var`: what workflows read as `secrets` and `vars`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import click

from infra.cli import options
from infra.cli.api import connect, part
from infra.cli.errors import CliError, Exit
from infra.cli.lookup import complete_repository
from infra.cli.output import Column, clean, print_json, print_table

F = TypeVar("F", bound=Callable[..., Any])

_SCOPES = """\b
Scopes, the first that has the name counts:
  REPO --env NAME   for jobs whose `environment` is NAME
  REPO              for all jobs of the repository
  --global          for all jobs of all repositories
"""


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a value belongs, as the API has it."""

    path: str
    environment: str
    shown: str

    def params(self) -> dict[str, str]:
        return {"environment": self.environment} if self.environment else {}


def _scoped(command: F) -> F:
    """Add the options that choose a scope."""
    environment = click.option(
        "--env", "environment", metavar="NAME", default="", help="Of this environment of REPO."
    )
    everywhere = click.option(
        "--global", "everywhere", is_flag=True, help="Of the installation; without REPO."
    )
    return environment(everywhere(command))


def _words(metavar: str) -> Callable[[F], F]:
    return click.argument("words", nargs=-1, metavar=metavar, shell_complete=complete_repository)


def _scope(
    words: tuple[str, ...], environment: str, *, everywhere: bool, more: tuple[int, int], usage: str
) -> tuple[_Scope, tuple[str, ...]]:
    """Return the scope and the words after it, of which there are `more` (least, most)."""
    least, most = more
    if everywhere and environment:
        raise CliError("--env names an environment of a repository: leave --global", Exit.USAGE)
    rest = words if everywhere else words[1:]
    if (not everywhere and not words) or not least <= len(rest) <= most:
        raise CliError(f"write it as: {usage}", Exit.USAGE)
    if everywhere:
        return _Scope("", "", "the installation"), rest
    shown = f"{words[0]} ({environment})" if environment else words[0]
    return _Scope(f"/repositories/{part(words[0])}", environment, shown), rest


def _value(value_file: IO[str] | None, *, hidden: bool) -> str:
    """Return the value from a file, standard input or a question, without its last newline."""
    if value_file is not None:
        text = value_file.read()
    elif sys.stdin.isatty():
        text = click.prompt("Value", hide_input=hidden, err=True)
    else:
        text = sys.stdin.read()
    return text.removesuffix("\n")


_value_file = click.option(
    "--value-file",
    type=click.File("r"),
    metavar="F",
    help="File with the value. Default: standard input, or a question.",
)


# --------------------------------------------------------------------------- secrets


@click.group(epilog=_SCOPES)
def secret() -> None:
    """Set, list and remove secrets. Values go in and never come out."""


@secret.command("set", epilog=_SCOPES)
@_words("[REPO] NAME")
@_scoped
@_value_file
@options.as_json
def set_secret(
    *,
    words: tuple[str, ...],
    environment: str,
    everywhere: bool,
    value_file: IO[str] | None,
    as_json: bool,
) -> None:
    """Set the secret NAME. The value is never an argument: those are seen by everybody.

    One newline at the end is left out, so that `echo` can be used. It needs 6 bytes at least, or
    it could not be masked in logs, and 48 KiB at most.
    """
    usage = "tailrace secret set REPO NAME, or tailrace secret set --global NAME"
    scope, (name,) = _scope(words, environment, everywhere=everywhere, more=(1, 1), usage=usage)
    value = _value(value_file, hidden=True)
    if not value:
        raise CliError("the value is empty: nothing was set", Exit.USAGE)
    answer = connect().put(f"{scope.path}/secrets/{part(name)}", {"value": value}, scope.params())
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Secret {name} of {scope.shown} is set; jobs that start from now on get it.")


@secret.command("list", epilog=_SCOPES)
@_words("[REPO]")
@_scoped
@options.as_json
def list_secrets(
    *, words: tuple[str, ...], environment: str, everywhere: bool, as_json: bool
) -> None:
    """List the names of a scope's secrets; values are never shown."""
    usage = "tailrace secret list REPO, or tailrace secret list --global"
    scope, _ = _scope(words, environment, everywhere=everywhere, more=(0, 0), usage=usage)
    answer = connect().get(f"{scope.path}/secrets", scope.params())
    found: list[Any] = answer["items"] if isinstance(answer, dict) else answer
    if as_json:
        print_json(found)
        return
    for entry in found:
        click.echo(entry["name"] if isinstance(entry, dict) else entry)
    if not found:
        click.echo(f"{scope.shown} has no secrets: `tailrace secret set --help`.")


@secret.command("rm", epilog=_SCOPES)
@_words("[REPO] NAME")
@_scoped
@options.as_json
def remove_secret(
    *, words: tuple[str, ...], environment: str, everywhere: bool, as_json: bool
) -> None:
    """Remove the secret NAME."""
    usage = "tailrace secret rm REPO NAME, or tailrace secret rm --global NAME"
    scope, (name,) = _scope(words, environment, everywhere=everywhere, more=(1, 1), usage=usage)
    answer = connect().delete(f"{scope.path}/secrets/{part(name)}", scope.params())
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Secret {name} of {scope.shown} is removed.")


# --------------------------------------------------------------------------- variables


@click.group(epilog=_SCOPES)
def var() -> None:
    """Set, list and remove variables. Everybody can read them; the log keeps each change."""


@var.command("set", epilog=_SCOPES)
@_words("[REPO] NAME [VALUE]")
@_scoped
@_value_file
@options.as_json
def set_variable(
    *,
    words: tuple[str, ...],
    environment: str,
    everywhere: bool,
    value_file: IO[str] | None,
    as_json: bool,
) -> None:
    """Set the variable NAME, `vars.NAME` in workflows; 48 KiB at most.

    Without VALUE it is read from a file or standard input, less one newline at its end.
    """
    usage = "tailrace var set REPO NAME [VALUE], or tailrace var set --global NAME [VALUE]"
    scope, rest = _scope(words, environment, everywhere=everywhere, more=(1, 2), usage=usage)
    name = rest[0]
    if len(rest) > 1 and value_file is not None:
        raise CliError("the value is given twice: leave VALUE or --value-file", Exit.USAGE)
    value = rest[1] if len(rest) > 1 else _value(value_file, hidden=False)
    answer = connect().put(f"{scope.path}/variables/{part(name)}", {"value": value}, scope.params())
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Variable {name} of {scope.shown} is set; jobs from now on have it.")


@var.command("list", epilog=_SCOPES)
@_words("[REPO]")
@_scoped
@options.as_json
def list_variables(
    *, words: tuple[str, ...], environment: str, everywhere: bool, as_json: bool
) -> None:
    """List a scope's variables and their values."""
    usage = "tailrace var list REPO, or tailrace var list --global"
    scope, _ = _scope(words, environment, everywhere=everywhere, more=(0, 0), usage=usage)
    found: list[dict[str, Any]] = connect().get(f"{scope.path}/variables", scope.params())["items"]
    if as_json:
        print_json(found)
        return
    rows = [(entry["name"], clean(entry["value"])) for entry in found]
    columns = (Column("NAME"), Column("VALUE"))
    print_table(columns, rows, empty=f"{scope.shown} has no variables: `tailrace var set --help`.")


@var.command("rm", epilog=_SCOPES)
@_words("[REPO] NAME")
@_scoped
@options.as_json
def remove_variable(
    *, words: tuple[str, ...], environment: str, everywhere: bool, as_json: bool
) -> None:
    """Remove the variable NAME."""
    usage = "tailrace var rm REPO NAME, or tailrace var rm --global NAME"
    scope, (name,) = _scope(words, environment, everywhere=everywhere, more=(1, 1), usage=usage)
    answer = connect().delete(f"{scope.path}/variables/{part(name)}", scope.params())
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Variable {name} of {scope.shown} is removed.")
