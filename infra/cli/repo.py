"""`tailrace repo`: repositories and their webhooks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import click

from infra.cli import options
from infra.cli.api import connect, part
from infra.cli.errors import CliError, Exit
from infra.cli.output import Column, clean, print_json, print_table, style

PROVIDERS = ("github", "gitea", "gogs", "gitlab", "git")
_FORGES = {"github.com": "github", "gitlab.com": "gitlab", "codeberg.org": "gitea",
           "gitea.com": "gitea"}  # fmt: skip


@click.group()
def repo() -> None:
    """Register repositories; list and remove them."""


@repo.command("add")
@click.argument("name")
@click.option(
    "--clone-url",
    required=True,
    metavar="URL",
    help="Where the planner and runners clone from: a URL, or a folder of this machine.",
)
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    help="The forge. Default: by the URL's host; `git` for a folder.",
)
@click.option(
    "--token-file",
    type=click.File("r"),
    metavar="F",
    help="File with a token of the forge (- is standard input).",
)
@click.option("--default-branch", metavar="BRANCH", help="Default: what the repository says.")
@click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="POOL",
    help="Pools that its jobs look at, in this order; may be repeated.",
)
@click.option(
    "--fork-pull-requests",
    type=click.Choice(("approve", "never", "always")),
    help="What becomes of pull requests from forks. Default: approve.",
)
@click.option(
    "--fork-secrets",
    type=click.Choice(("never", "base")),
    help="Whether workflows of the base branch that a fork's pull request starts "
    "(pull_request_target, workflow_run) get secrets. Default: never.",
)
@options.as_json  # fmt: skip
def add(
    *,
    name: str,
    clone_url: str,
    provider: str | None,
    token_file: IO[str] | None,
    default_branch: str | None,
    pools: tuple[str, ...],
    fork_pull_requests: str | None,
    fork_secrets: str | None,
    as_json: bool,
) -> None:
    """Register the repository NAME (`owner/name`) and print its webhook's URL and secret.

    For a repository on this machine (--provider git) a post-receive hook is installed, so that
    `git push` is all that it takes.
    """
    clone_url = _absolute(clone_url)
    body = {
        "name": name,
        "clone_url": clone_url,
        "provider": provider or _provider_of(clone_url),
        "token": token_file.read().strip() if token_file else None,
        "default_branch": default_branch,
        "pools": list(pools) or None,
        "fork_pull_requests": fork_pull_requests,
        "fork_secrets": fork_secrets,
    }
    sent = {key: value for key, value in body.items() if value is not None}
    answer = connect().post("/repositories", sent)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{style(name, bold=True)} is registered.")
    if answer.get("hook_installed"):
        click.echo("A post-receive hook was installed: `git push` to it starts its workflows.")
        return
    _show_webhook(answer)
    click.echo(f"\n{_HOW[str(body['provider'])]}")


_EVENTS = "choose push and pull request events (or all)"
_HOW = {
    "github": f"GitHub: Settings > Webhooks > Add; content type application/json; {_EVENTS}.",
    "gitea": f"Gitea: Settings > Webhooks > Add > Gitea; {_EVENTS}.",
    "gogs": f"Gogs: Settings > Webhooks > Add > Gogs; {_EVENTS}.",
    "gitlab": "GitLab: Settings > Webhooks; put the secret into `Secret token`; choose push, tag "
    "push and merge request events.",
    "git": "Send it from a post-receive hook of the repository (README, `Plain git`).",
}


@repo.command("list")
@options.as_json
def list_repositories(*, as_json: bool) -> None:
    """List the registered repositories."""
    found = list(connect().pages("/repositories", {}, items_max=10_000))
    if as_json:
        print_json(found)
        return
    columns = (Column("NAME"), Column("PROVIDER"), Column("BRANCH"), Column("CLONE URL"))
    rows = [
        (r["name"], r["provider"], clean(r["default_branch"]), clean(r["clone_url"])) for r in found
    ]
    print_table(columns, rows, empty="No repository yet: `tailrace repo add --help`.")


@repo.command("rm")
@options.repository
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@options.as_json
def remove(*, repository: str, yes: bool, as_json: bool) -> None:
    """Stop to serve REPO. Its runs and its history stay."""
    _confirm(f"Remove {repository}? Its webhook will be refused.", yes=yes)
    answer = connect().delete(f"/repositories/{part(repository)}")
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{repository} is removed; its history stays.")


@repo.command("rotate-secret")
@options.repository
@options.as_json
def rotate_secret(*, repository: str, as_json: bool) -> None:
    """Make a new webhook secret for REPO; the old one is refused from now on."""
    answer = connect().post(f"/repositories/{part(repository)}/rotate-secret")
    if as_json:
        print_json(answer)
    else:
        _show_webhook(answer)


def _show_webhook(answer: dict[str, Any]) -> None:
    click.echo(f"  webhook URL  {answer['webhook_url']}")
    click.echo(f"  secret       {answer['secret']}")


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError("nobody is there to be asked: say --yes", Exit.USAGE)
    click.confirm(question, abort=True)


def _absolute(clone_url: str) -> str:
    """Return a folder's absolute path; anything else (URL, host:path) as it is."""
    if "://" in clone_url:
        return clone_url
    path = Path(clone_url).expanduser()
    return str(path.absolute()) if path.exists() else clone_url


def _provider_of(clone_url: str) -> str:
    url = urlsplit(clone_url)
    if url.scheme == "file" or clone_url.startswith("/"):
        return "git"
    host = url.hostname or clone_url.rpartition("@")[2].partition(":")[0]
    known = _FORGES.get(host.lower())
    if known is None:
        raise CliError(
            f"which forge is {host or clone_url!r}? Say --provider {'|'.join(PROVIDERS)}",
            Exit.USAGE,
        )
    return known
