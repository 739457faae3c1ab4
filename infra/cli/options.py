"""Arguments and options that several commands share, so that they read alike everywhere."""

from __future__ import annotations

import click

from infra.cli.lookup import complete_repository, complete_run

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
run = click.argument("run_text", metavar="RUN", shell_complete=complete_run)
repository = click.argument("repository", metavar="REPO", shell_complete=complete_repository)
