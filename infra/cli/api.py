"""How a command gets its client: late, so that `--help` does not wait for the HTTP modules."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import click

if TYPE_CHECKING:
    from infra.cli.client import Client

__all__ = ["connect", "part"]


def connect(*, timeout_s: float = 30.0) -> Client:
    """Return a client of the installation that the settings name; closed with the command."""
    from infra.cli.client import Client

    client = Client.load(timeout_s=timeout_s)
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(client.close)
    return client


def part(text: str) -> str:
    """Return a text as a part of a path: the slashes of a repository stay."""
    return quote(text, safe="/")
