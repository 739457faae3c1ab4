"""`tailrace completion` and `tailrace version`."""

from __future__ import annotations

import platform
import sys

import click
from click.shell_completion import get_completion_class

from infra import VERSION
from infra.cli import options
from infra.cli.output import print_json

_HOW = {
    "bash": 'eval "$(tailrace completion bash)"    in ~/.bashrc',
    "zsh": 'eval "$(tailrace completion zsh)"    in ~/.zshrc, after compinit',
    "fish": "tailrace completion fish | source    in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HOW.values()))
@click.argument("shell", type=click.Choice(tuple(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL; runs and repositories are completed too."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    root = ctx.find_root()
    # the script only; looking for the shell's version is the shell's own affair
    script = kind(root.command, {}, "tailrace", "_TAILRACE_COMPLETE")
    click.echo(script.source_template % script.source_vars())


@click.command()
@options.as_json
def version(*, as_json: bool) -> None:
    """Print the versions of Tailrace, Python and the system."""
    found = {
        "tailrace": VERSION,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
    }
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(f"{name:<9} {text}" for name, text in found.items()))
