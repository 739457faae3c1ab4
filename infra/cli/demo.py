"""`tailrace demo`: a sample repository is made and pushed to, and its run is shown live."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli.api import connect
from infra.cli.errors import CliError, Exit
from infra.cli.output import program

if TYPE_CHECKING:
    from infra.cli.client import Client

NAME = "demo/hello"
_BRANCH = "main"
_APPEARS_WITHIN_S = 30
_POLL_S = 0.1

WORKFLOW = """\
name: Hello
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      greeting: ${{ steps.greet.outputs.text }}
    steps:
      - uses: actions/checkout@v4
      - id: greet
        run: |
          echo "building ${GITHUB_SHA:0:8} of $GITHUB_REPOSITORY"
          echo "text=hello from $(cat WHO)" >> "$GITHUB_OUTPUT"
  test:
    needs: build
    runs-on: ubuntu-latest
    strategy:
      matrix:
        part: [one, two]
    steps:
      - name: Check part ${{ matrix.part }}
        run: |
          for i in 1 2 3; do
            echo "part ${{ matrix.part }}: check $i of 3"
            sleep 0.3
          done
  report:
    needs: [build, test]
    runs-on: ubuntu-latest
    steps:
      - run: echo "${{ needs.build.outputs.greeting }}, tests ${{ needs.test.result }}"
"""


@click.command()
def demo() -> None:
    """Make a sample repository, push a commit to it, and show the run's log as it comes."""
    from infra.cli.logs import Follower, Shape
    from infra.settings import Settings

    client = connect()
    folder = Settings.load().home / "demo"
    bare, work = folder / "hello.git", folder / "hello"
    _make_repository(bare, work)
    _register(client, bare)
    sha = _commit_and_push(work)
    click.echo(f"Pushed commit {sha[:12]} to the sample repository {bare}")
    run = _run_of(client, sha)
    click.echo(f"Its run, live ({client.base_url}/runs/{run['run_id']}):")
    detail: dict[str, Any] = client.get(f"/runs/{run['run_id']}")
    shape = Shape(as_json=False, timestamps=False, width=10, folded=True)
    try:
        code = Follower(client, detail, None, None, shape).run()
    except KeyboardInterrupt:
        rest = f"`{program()} logs -f {run['run_id']}`"
        click.echo(f"\nInterrupted. The run goes on; {rest} shows the rest.", err=True)
        raise SystemExit(Exit.INTERRUPTED) from None
    raise SystemExit(code)


def _git(*arguments: str, folder: Path) -> str:
    command = [
        "git", "-C", str(folder), "-c", "user.name=Tailrace demo", "-c",
        "user.email=demo@localhost", "-c", "commit.gpgsign=false", "-c", "safe.directory=*",
        *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CliError(f"git {arguments[0]} in {folder} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _make_repository(bare: Path, work: Path) -> None:
    """Make the bare repository and a clone with the workflow, unless they are there whole."""
    if not (bare / "HEAD").exists():
        bare.mkdir(parents=True, exist_ok=True)
        _git("init", "--quiet", "--bare", f"--initial-branch={_BRANCH}", folder=bare)
    if not (work / ".git" / "HEAD").exists():
        work.mkdir(parents=True, exist_ok=True)
        _git("init", "--quiet", f"--initial-branch={_BRANCH}", folder=work)
    workflow = work / ".github" / "workflows" / "hello.yml"
    workflow.parent.mkdir(parents=True, exist_ok=True)
    workflow.write_text(WORKFLOW, encoding="utf-8")


def _register(client: Client, bare: Path) -> None:
    known = {r["name"] for r in client.pages("/repositories", {}, items_max=10_000)}
    if NAME not in known:
        client.post(
            "/repositories",
            {"name": NAME, "provider": "git", "clone_url": str(bare), "default_branch": _BRANCH},
        )


def _commit_and_push(work: Path) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    (work / "WHO").write_text(f"the demo of {at}\n", encoding="utf-8")
    _git("add", "--all", folder=work)
    _git("commit", "--quiet", "--allow-empty", "-m", f"Say hello at {at}", folder=work)
    # by path: an interrupted first run may have left no remote
    _git("push", "--quiet", str(work.parent / "hello.git"), f"HEAD:{_BRANCH}", folder=work)
    return _git("rev-parse", "HEAD", folder=work)


def _run_of(client: Client, sha: str) -> dict[str, Any]:
    """Return the run of a commit once it is there."""
    deadline = time.monotonic() + _APPEARS_WITHIN_S
    while time.monotonic() < deadline:
        for run in client.pages("/runs", {"repository": NAME}, items_max=20):
            if run["sha"] == sha:
                return run
        time.sleep(_POLL_S)
    raise CliError(
        f"no run of {sha[:12]} after {_APPEARS_WITHIN_S} s: `tailrace status` shows whether "
        "ingest, planner and scheduler are well"
    )
