"""`tailrace cancel`, `approve`, `trigger`: what asks the system to do something."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from infra.cli import options
from infra.cli.api import connect, part
from infra.cli.errors import CliError, Exit, exit_of
from infra.cli.lookup import RUN_HELP, find_run
from infra.cli.output import clean, print_json, state_of

if TYPE_CHECKING:
    from infra.cli.client import Client

_POLL_S = 0.25
APPEARS_WITHIN_S = 90


@click.command(epilog=RUN_HELP)
@options.run
@click.option("--reason", metavar="TEXT", help="Is kept with the request.")
@click.option("--wait", is_flag=True, help="End when the run has ended.")
@options.as_json
def cancel(*, run_text: str, reason: str | None, wait: bool, as_json: bool) -> None:
    """Ask that a run end. Running steps are interrupted, then killed after their grace.

    A run that has ended already stays as it is: exit code 1.
    """
    client = connect()
    run = find_run(client, run_text)
    if run["status"] == "completed":
        raise CliError(f"run {run['run_id']} has ended already: {run['conclusion']}")
    answer = _command(client, run, "cancel", {"reason": reason} if reason else {})
    if wait:
        run = wait_for_end(client, run["run_id"])
        answer = {**answer, "status": run["status"], "conclusion": run["conclusion"]}
    if as_json:
        print_json(answer)
    elif wait:
        click.echo(f"{run['run_id']} ended: {state_of(run)}")
    else:
        click.echo(f"{run['run_id']} is asked to end; `tailrace run show` tells when it has.")


@click.command(epilog=RUN_HELP)
@options.run
@options.as_json
def approve(*, run_text: str, as_json: bool) -> None:
    """Let a run start that waits for approval (a pull request from a fork)."""
    client = connect()
    run = find_run(client, run_text)
    if run["status"] == "completed":
        raise CliError(f"run {run['run_id']} has ended already: {run['conclusion']}")
    answer = _command(client, run, "approve", {})
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{run['run_id']} is approved.")


def _command(client: Client, run: dict[str, Any], name: str, body: object) -> dict[str, Any]:
    path = f"/runs/{part(run['run_id'])}/{name}"
    answer: dict[str, Any] = client.post(path, body, {"repository": run["repository"]})
    return answer


@click.command()
@options.repository
@click.argument("workflow")
@click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    metavar="K=V",
    help="A value for one of the workflow's inputs; may be repeated.",
)
@click.option("--ref", metavar="REF", help="Branch or tag. Default: the default branch.")
@click.option("--wait", is_flag=True, help="End when the run has ended, with its exit code.")
@options.as_json  # fmt: skip
def trigger(
    *,
    repository: str,
    workflow: str,
    inputs: tuple[str, ...],
    ref: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Start WORKFLOW (a file, or its name) of REPO by hand: its workflow_dispatch.

    Without --wait, exit code 0 says that the request was taken; with it, that the run succeeded
    (1: it did not, 6: it was cancelled).
    """
    client = connect()
    body: dict[str, Any] = {"workflow": workflow, "inputs": _inputs(inputs)}
    if ref:
        body["ref"] = ref
    answer: dict[str, Any] = client.post(f"/repositories/{part(repository)}/dispatches", body)
    if not wait:
        if as_json:
            print_json(answer)
        else:
            click.echo(f"{workflow} of {repository} is asked for: {answer['delivery_id']}")
        return
    run = wait_for_end(client, wait_for_run(client, answer["delivery_id"]))
    if as_json:
        print_json(run)
    else:
        click.echo(f"{run['run_id']} #{run['run_number']}: {state_of(run)}")
    raise SystemExit(exit_of(run["conclusion"]))


def _inputs(texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CliError(f"--input {text!r}: write it as NAME=VALUE", Exit.USAGE)
        found[name] = value
    return found


def wait_for_run(client: Client, delivery_id: str) -> str:
    """Return the id of the run that a delivery started; CliError says why there is none."""
    deadline = time.monotonic() + APPEARS_WITHIN_S
    while time.monotonic() < deadline:
        delivery = _delivery(client, delivery_id)
        runs = delivery.get("run_ids") or []
        if runs:
            return str(runs[0])
        if delivery.get("status") in ("ignored", "failed"):
            reason = clean(delivery.get("detail") or delivery.get("reason") or "no reason given")
            raise CliError(f"the request started nothing: {reason}")
        time.sleep(_POLL_S)
    raise CliError(
        f"no run of {delivery_id} after {APPEARS_WITHIN_S} s: `tailrace status` shows whether "
        "planner and scheduler are well"
    )


def _delivery(client: Client, delivery_id: str) -> dict[str, Any]:
    from infra.cli.errors import NotFoundError

    try:
        found: dict[str, Any] = client.get(f"/deliveries/{part(delivery_id)}")
    except NotFoundError:
        return {}  # not projected yet
    return found


def wait_for_end(client: Client, run_id: str) -> dict[str, Any]:
    """Return a run once it is completed."""
    while True:
        run: dict[str, Any] = client.get(f"/runs/{part(run_id)}")
        if run["status"] == "completed":
            return run
        time.sleep(_POLL_S)
