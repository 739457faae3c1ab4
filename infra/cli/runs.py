"""`tailrace runs`, `run show`, `events`: what happened, read from the API."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from infra.cli import options
from infra.cli.api import connect, part
from infra.cli.lookup import RUN_HELP, complete_repository, find_run
from infra.cli.output import (
    Column,
    between,
    clean,
    clock,
    first_line,
    instant,
    print_json,
    print_table,
    span,
    state,
    state_of,
    style,
)
from infra.clock import SystemClock

_EVENTS_MAX = 100_000
_TITLE_WIDTH = 48
_SUMMARY_WIDTH = 100


@click.command()
@click.option(
    "--repo",
    "repository",
    metavar="REPO",
    shell_complete=complete_repository,
    help="Only of this repository.",
)
@click.option("--branch", metavar="BRANCH", help="Only of this branch.")
@click.option("--workflow", metavar="FILE", help="Only of this workflow file.")
@click.option("--event", metavar="NAME", help="Only of this event (push, pull_request, ...).")
@click.option("--status", type=click.Choice(("waiting", "queued", "running", "completed")))
@click.option("--conclusion", metavar="WORD", help="success, failure, cancelled, ...")
@click.option("--limit", "-n", type=click.IntRange(1, 10_000), default=20, show_default=True)
@options.as_json  # fmt: skip
def runs(*, limit: int, as_json: bool, **filters: str | None) -> None:
    """List the latest runs, the newest first."""
    found = list(connect().pages("/runs", filters, items_max=limit))
    if as_json:
        print_json(found)
        return
    now_ms = SystemClock().now_ms()
    columns = (
        Column("RUN"), Column("STATE"), Column("REPOSITORY"), Column("WORKFLOW"),
        Column("#", right=True), Column("EVENT"), Column("BRANCH"),
        Column("AGE", right=True), Column("TOOK", right=True), Column("TITLE"),
    )  # fmt: skip
    print_table(columns, [_row(run, now_ms) for run in found], empty="No runs.")


def _row(run: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    return (
        run["run_id"],
        state_of(run),
        run["repository"],
        clean(run["workflow_name"] or run["workflow"]),
        str(run["run_number"]),
        run["event"],
        short_ref(run["ref"]),
        span(now_ms - run["created_at"]),
        between(run["started_at"], run["finished_at"], now_ms),
        first_line(run.get("run_name") or run.get("message") or "", _TITLE_WIDTH),
    )


def short_ref(ref: str) -> str:
    """Return a ref as people say it: main, v1.0, #12."""
    if ref.startswith("refs/pull/"):
        return "#" + ref.split("/")[2]
    return clean(ref.removeprefix("refs/heads/").removeprefix("refs/tags/"))


@click.group()
def run() -> None:
    """Look at one run."""


@run.command("show", epilog=RUN_HELP)
@options.run
@options.as_json
def show(*, run_text: str, as_json: bool) -> None:
    """Show a run: its jobs, their attempts, why something waits, what failed."""
    found = find_run(connect(), run_text)
    if as_json:
        print_json(found)
        return
    now_ms = SystemClock().now_ms()
    _show_head(found, now_ms)
    if found["jobs"]:
        click.echo()
        columns = (Column("JOB"), Column("STATE"), Column("TRY", right=True),
                   Column("QUEUED", right=True), Column("TOOK", right=True),
                   Column("RUNNER"), Column("WHY"))  # fmt: skip
        rows = [_job_row(job, now_ms) for job in found["jobs"]]
        print_table(columns, rows, empty="")
    _show_failed_steps(found)


def _show_head(found: dict[str, Any], now_ms: int) -> None:
    title = clean(found["workflow_name"] or found["workflow"])
    click.echo(
        f"{style(found['repository'], bold=True)}  {title} #{found['run_number']}"
        f"  {state_of(found)}{_because(found)}"
    )
    lines = {
        "run": found["run_id"],
        "title": first_line(found.get("run_name") or found.get("message") or "", _SUMMARY_WIDTH),
        "for": f"{found['event']} on {short_ref(found['ref'])} at {str(found['sha'])[:12]}"
        + (f" by {clean(found['actor'])}" if found.get("actor") else ""),
        "file": clean(found["workflow"]),
        "created": instant(found["created_at"]),
        "took": between(found["started_at"], found["finished_at"], now_ms),
        "page": found.get("url") or "",
    }
    for name, text in lines.items():
        if text:
            click.echo(f"  {name:<8} {text}")
    for problem in found.get("problems") or ():
        place = f"{problem['path']}:{problem['line']}:{problem['column']}"
        click.echo(f"  {style(place, fg='red')}: {clean(problem['message'])}")


def _because(item: dict[str, Any]) -> str:
    return f" ({clean(item['reason'])})" if item.get("reason") else ""


def _job_row(job: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    attempts = job["attempts"]
    last = attempts[-1] if attempts else {}
    blocked = job.get("blocked")
    why = job.get("reason") or ""
    if blocked and job["status"] != "completed":
        why = f"{blocked['reason']}: {blocked['detail']}".rstrip(": ")
    return (
        clean(job["name"] or job["key"]),
        state_of(job),
        str(last["attempt"]) if last else "-",
        between(last.get("queued_at"), last.get("started_at"), now_ms),
        between(last.get("started_at"), last.get("finished_at"), now_ms),
        clean(last.get("runner_id") or "-"),
        clean(why),
    )


def _show_failed_steps(found: dict[str, Any]) -> None:
    for job in found["jobs"]:
        failed = [s for s in job.get("steps") or () if s.get("conclusion") == "failure"]
        for step in failed:
            code = step.get("exit_code")
            click.echo(
                f"\n{state('failure')}: {clean(job['name'])}, step {step['number']} "
                f"`{clean(step['name'])}`" + (f" ended with {code}" if code is not None else "")
            )
        if not failed and job.get("conclusion") == "failure" and job.get("message"):
            click.echo(f"\n{state('failure')}: {clean(job['name'])}: {clean(job['message'])}")
        if failed:
            name = job["job_id"].removeprefix(f"{found['run_id']}.")
            click.echo(f"  tailrace logs {found['run_id']} {name}")


# --------------------------------------------------------------------------- audit trail


@click.command(epilog=RUN_HELP)
@options.run
@click.option("--job", metavar="JOB", help="Only of jobs whose id ends like this.")
@options.as_json
def events(*, run_text: str, job: str | None, as_json: bool) -> None:
    """Print the audit trail of a run: one line an event, in the order of the log.

    The columns: place in the log, time, event and the first letters of its id, the id of its
    cause, the job, what it says. --json prints everything.
    """
    client = connect()
    run_id = find_run(client, run_text)["run_id"]
    trail = client.pages(f"/runs/{part(run_id)}/events", {}, items_max=_EVENTS_MAX)
    found = [item for item in trail if job is None or (item["job_id"] or "").endswith(job)]
    if as_json:
        print_json(found)
        return
    columns = (Column("OFFSET", right=True), Column("TIME"), Column("EVENT"), Column("ID"),
               Column("CAUSE"), Column("JOB"), Column("SAYS"))  # fmt: skip
    print_table(columns, [_event_row(item, run_id) for item in found], empty="No events.")


def _event_row(item: dict[str, Any], run_id: str) -> tuple[str, ...]:
    job = (item["job_id"] or "").removeprefix(f"{run_id}.")
    if item.get("attempt"):
        job += f"@{item['attempt']}"
    return (
        str(item["offset"]),
        clock(item["occurred_at"]),
        item["kind"],
        item["event_id"][:8],
        (item["caused_by"] or "-")[:8],
        clean(job or "-"),
        first_line(_summary(item.get("data") or {}), _SUMMARY_WIDTH),
    )


#: Fields that tell most come first, in this order; then the others in the event's own.
_FIRST = ("conclusion", "reason", "detail", "message", "number", "name", "pool", "labels", "lane",
          "event", "ref", "sha", "run_number")  # fmt: skip
_HEX = re.compile(r"[0-9a-f]{40,}")
_SHORT_HEX = 12


def _summary(data: dict[str, Any]) -> str:
    """Return the fields that say something, as `name=value`; long lists by their length."""
    said = []
    for name in (*_FIRST, *(name for name in data if name not in _FIRST)):
        value = data.get(name)
        if value in (None, "", [], {}, 0, False) or name.endswith(("_at", "_json")):
            continue
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            text = str(len(value))
        elif isinstance(value, list):
            text = ",".join(map(str, value))
        elif isinstance(value, dict):
            text = json.dumps(value, ensure_ascii=False)
        else:
            text = str(value)
        said.append(f"{name}={_HEX.sub(lambda found: found[0][:_SHORT_HEX], text)}")
    return " ".join(said)
