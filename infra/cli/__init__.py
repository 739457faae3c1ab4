"""The command line. A command's module is imported only when that command is used.

`tailrace --help` answers at once because it reads the table below and nothing else.
"""

from __future__ import annotations

import importlib

import click

from infra import VERSION

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("infra.cli.up:up", "Start the whole system; wait until everything answers."),
    "down": ("infra.cli.up:down", "End everything that `up` started, and nothing else."),
    "status": ("infra.cli.up:status", "Show every process, its health, its lag, its log."),
    "config": ("infra.cli.config:config", "List every setting, its value and its meaning."),
}
"""By name: where the command is (`module:attribute`), and its line in the list of commands."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_where, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(version)s")
def main() -> None:
    """Tailrace: CI/CD whose only source of truth is a Kafka log."""
