"""From what a person types to one run or job: the only place that guesses ids.

A RUN is a full run id, a unique beginning of one (with or without the day), `REPO#NUMBER`, or
`latest`. A JOB is a job's key, its name, or its job id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from infra.cli.api import connect, part
from infra.cli.errors import CliError, Exit, NotFoundError

if TYPE_CHECKING:
    from infra.cli.client import Client

RUN_HELP = "RUN is a run id, a unique beginning of one, REPO#NUMBER, or `latest`."
SEARCHED_MAX = 1_000
_RUN_ID = re.compile(r"\d{8}-[0-9a-f]{12}")
_NUMBERED = re.compile(r"(?P<repository>[^#\s]+)#(?P<number>\d+)")
_SHOWN_MAX = 5
_COMPLETED_MAX = 30


def find_run(client: Client, text: str) -> dict[str, Any]:
    """Return the run with its jobs. NotFoundError; a usage error when several are meant."""
    run_id = text if _RUN_ID.fullmatch(text) else _search(client, text)["run_id"]
    run: dict[str, Any] = client.get(f"/runs/{part(run_id)}")
    return run


def _search(client: Client, text: str) -> dict[str, Any]:
    if text == "latest":
        found = list(client.pages("/runs", {}, items_max=1))
        if not found:
            raise NotFoundError("there is no run yet: push to a repository, or `tailrace trigger`")
        return found[0]
    numbered = _NUMBERED.fullmatch(text)
    if numbered:
        number = int(numbered["number"])
        runs = client.pages("/runs", {"repository": numbered["repository"]}, items_max=SEARCHED_MAX)
        return _only([run for run in runs if run["run_number"] == number], text)
    runs = client.pages("/runs", {}, items_max=SEARCHED_MAX)
    return _only([run for run in runs if _begins(run["run_id"], text)], text)


def _begins(run_id: str, text: str) -> bool:
    return run_id.startswith(text) or run_id.partition("-")[2].startswith(text)


def _only(runs: list[dict[str, Any]], text: str) -> dict[str, Any]:
    if not runs:
        raise NotFoundError(
            f"no run {text!r} among the latest {SEARCHED_MAX}: `tailrace runs` lists them; a full "
            "run id finds older ones"
        )
    if len(runs) > 1:
        names = "\n".join(
            f"  {run['run_id']}  {run['repository']} {run['workflow_name']} #{run['run_number']}"
            for run in runs[:_SHOWN_MAX]
        )
        raise CliError(f"{text!r} means {len(runs)} runs, for instance\n{names}", Exit.USAGE)
    return runs[0]


def find_jobs(run: dict[str, Any], text: str | None) -> list[dict[str, Any]]:
    """Return the jobs of a run that a person means; all of them when nothing was said.

    A matrix job's key stands for all of its legs.
    """
    jobs: list[dict[str, Any]] = run["jobs"]
    if text is None:
        return jobs
    for name in ("job_id", "name", "key"):
        found = [job for job in jobs if job[name] == text]
        if found:
            return found
    found = [job for job in jobs if job["job_id"] == f"{run['run_id']}.{text}"]
    if found:
        return found
    known = ", ".join(dict.fromkeys(job["key"] for job in jobs)) or "none"
    raise NotFoundError(f"run {run['run_id']} has no job {text!r}; its jobs: {known}")


# --------------------------------------------------------------------------- shell completion


def complete_run(ctx: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the latest runs; nothing when the API does not answer at once."""
    return [
        CompletionItem(run["run_id"], help=f"{run['repository']} {run['workflow_name']}")
        for run in _offered(ctx, "/runs")
        if run["run_id"].startswith(typed)
    ]


def complete_repository(ctx: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the registered repositories."""
    return [
        CompletionItem(repository["name"])
        for repository in _offered(ctx, "/repositories")
        if repository["name"].startswith(typed)
    ]


def _offered(_: click.Context, path: str) -> list[dict[str, Any]]:
    try:
        return list(connect(timeout_s=1).pages(path, {}, items_max=_COMPLETED_MAX))
    except CliError:
        return []
