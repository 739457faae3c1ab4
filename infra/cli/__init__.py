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
    "restart": ("infra.cli.up:restart", "End one process and start it again: `restart api`."),
    "demo": ("infra.cli.demo:demo", "Push to a sample repository and show its run live."),
    "status": ("infra.cli.up:status", "Show every process, its health, its lag, its log."),
    "repo": ("infra.cli.repo:repo", "Register repositories; list and remove them."),
    "secret": ("infra.cli.values:secret", "Set, list and remove secrets of workflows."),
    "var": ("infra.cli.values:var", "Set, list and remove variables (`vars`) of workflows."),
    "runs": ("infra.cli.runs:runs", "List the latest runs, the newest first."),
    "run": ("infra.cli.runs:run", "Look at one run: `run show RUN`."),
    "logs": ("infra.cli.logs:logs", "Print the log of a run, whole or live (-f)."),
    "events": ("infra.cli.runs:events", "Print the audit trail of a run."),
    "artifacts": ("infra.cli.artifacts:artifacts", "List and download what a run's jobs left."),
    "trigger": ("infra.cli.commands:trigger", "Start a workflow by hand."),
    "cancel": ("infra.cli.commands:cancel", "Ask that a run end."),
    "approve": ("infra.cli.commands:approve", "Let a run start that waits for approval."),
    "lint": ("infra.cli.lint:lint", "Check workflow files; needs nothing that runs."),
    "run-local": (
        "infra.cli.local.command:run_local",
        "Run workflows of a working tree here, without services.",
    ),
    "eval": ("infra.cli.evaluate:evaluate", "Evaluate an expression in given contexts."),
    "config": ("infra.cli.config:config", "List every setting, its value and its meaning."),
    "completion": ("infra.cli.completion:completion", "Print a shell's completion script."),
    "version": ("infra.cli.completion:version", "Print the versions of everything."),
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


_EXIT_CODES = """\b
Exit codes:
  0  done                     3  not running, or it does not answer
  1  a run that did not       4  there is no such thing
     succeed, a refusal       5  the token is not accepted
  2  wrong use                6  the run was cancelled
"""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.version_option(VERSION, message="%(version)s")
def main() -> None:
    """Tailrace: CI/CD whose only source of truth is a Kafka log."""
