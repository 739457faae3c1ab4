"""`tailrace config`: every setting, its value, where that came from, what it means."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict

import click

from infra.settings import FILE_NAME, Settings, SettingsError, describe

_COLUMNS = 96


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def config(*, as_json: bool) -> None:
    """List every setting, its value and its meaning. Passwords are shown as ***."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    listed = describe(settings)
    if as_json:
        click.echo(json.dumps([asdict(setting) for setting in listed], indent=2))
        return
    click.echo(
        f"Set a variable, or write `name = value` into {settings.home / FILE_NAME}.\n"
        f"A value comes from the first of: variable, file, the running system, default.\n"
    )
    for setting in listed:
        click.echo(f"{setting.name} = {setting.value or '(empty)'}")
        about = f"{setting.doc} [{setting.variable}; now from: {setting.source}]"
        click.echo(textwrap.indent(textwrap.fill(about, _COLUMNS), "    "))
