"""`tailrace run-local`: its options, and the order in which a local run happens."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli.errors import CliError, Exit, NotFoundError, exit_of
from infra.cli.output import print_json
from schemas.late import dataclass

if TYPE_CHECKING:
    from infra.cli.local.delivery import Payload
    from infra.cli.local.fold import Outcome
    from infra.cli.local.screen import Screen
    from infra.cli.local.system import LocalSystem
    from infra.cli.local.tree import Snapshot
    from schemas.events import DeliveryPlanned, DeliveryReceived
    from schemas.workflow.plan import Triggers

_READ_MS = 250
_RECORDS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was typed, read."""

    folder: Path
    workflow: str
    event: str
    payload: Payload
    job: str
    secrets: dict[str, str]
    variables: dict[str, str]
    inputs: dict[str, str]


@click.command(
    "run-local",
    epilog="Exit codes: 0 every run succeeded, 1 one did not or nothing runs, 2 wrong use, "
    "6 cancelled.",
)
@click.argument(
    "folder",
    metavar="[DIR]",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--workflow", "-W", default="", metavar="FILE", help="Run only this workflow file.")
@click.option(
    "--event",
    "-e",
    default="",
    metavar="EVENT",
    help="The event's name. Default: push, or what the one workflow lists.",
)
@click.option(
    "--payload",
    "-p",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="JSON over the event's payload (github.event); - is standard input.",
)
@click.option("--job", "-j", default="", metavar="JOB", help="Run this job and what it needs.")
@click.option(
    "--secret",
    "-s",
    "secrets",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A secret; without a value it is read from the environment. May be repeated.",
)
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A value of `vars`.")
@click.option(
    "--input", "-i", "inputs", multiple=True, metavar="K=V", help="An input of workflow_dispatch."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def run_local(
    folder: Path,
    *,
    workflow: str,
    event: str,
    payload: Any,
    job: str,
    secrets: tuple[str, ...],
    variables: tuple[str, ...],
    inputs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the workflows of the working tree DIR on this machine, without any service.

    The tree is taken as it is, uncommitted files included, as a commit that nobody made: jobs
    begin in an empty workspace, and actions/checkout brings that commit. They run as you, on this
    machine, whatever runs-on says; your files are not changed, except by what a job does to them
    by their full path.
    """
    # what is imported now stays to the end: looking for garbage in it is a tenth of the start
    gc.disable()
    from infra.cli.local.delivery import read_payload

    request = Request(
        folder=folder,
        workflow=workflow,
        event=event,
        payload=read_payload(payload.read(), payload.name) if payload is not None else {},
        job=job,
        secrets=dict(_secret(text) for text in secrets),
        variables={name.upper(): value for name, value in _pairs("--var", variables).items()},
        inputs=_pairs("--input", inputs),
    )
    outcome = run(request, quiet=as_json)
    if as_json:
        from infra.cli.local.fold import outcome_json

        print_json(outcome_json(outcome))
    sys.stdout.flush()
    conclusion = outcome.conclusion()
    sys.exit(exit_of(conclusion) if conclusion else Exit.NEGATIVE)


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CliError(f"{option} {text!r}: write it as NAME=VALUE", Exit.USAGE)
        found[name] = value
    return found


def _secret(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise CliError(f"--secret {text!r}: write it as NAME or NAME=VALUE", Exit.USAGE)
    if not equals:
        if name not in os.environ:
            raise CliError(f"--secret {name}: the environment has no variable {name}", Exit.USAGE)
        value = os.environ[name]
    return name.upper(), value


# --------------------------------------------------------------------------- the run


def run(request: Request, *, quiet: bool) -> Outcome:
    """Run to the end and clean up; prints unless `quiet`."""
    from infra.cli.local.screen import Screen
    from runner.folders import remove

    # asked to end by whatever means, cancel as at the keyboard, and leave nothing behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="tailrace-local-"))
    try:
        return _run(request, home, Screen(quiet=quiet), quiet=quiet)
    finally:
        remove(home)


def _run(request: Request, home: Path, screen: Screen, *, quiet: bool) -> Outcome:
    from infra.cli.local import tree
    from infra.cli.local.fold import Outcome
    from infra.cli.local.system import LocalSystem, Vault

    outcome = Outcome()
    contexts: dict[str, dict[str, Any]] = {}
    vault = Vault(values=request.secrets)
    containers = tree.mentions_containers(tree.root_of(request.folder))
    with LocalSystem(home, vault, on_steps=contexts.__setitem__, containers=containers) as system:
        delivery, planned = _planned(request, home, system)
        gc.freeze()
        gc.enable()
        system.configure(delivery, request.variables)
        system.append(delivery)
        system.append(planned)
        Watch(system, outcome, screen, delivery.repository).until_over()
        for job_id, context in contexts.items():
            job = outcome.job(job_id)
            if job is not None:
                job.steps_context = context
        if not quiet:
            screen.table(outcome)
    return outcome


def _planned(
    request: Request, home: Path, system: LocalSystem
) -> tuple[DeliveryReceived, DeliveryPlanned]:
    from infra.cli.local import tree
    from infra.cli.local.delivery import Wanted, delivery_of
    from infra.cli.local.system import NoSuchJobError, for_here
    from infra.git import GitError
    from ingest.mirrors import UnreachableError

    root = tree.root_of(request.folder)
    if not any(path.is_file() for folder in tree.FOLDERS for path in root.glob(f"{folder}/*.y*ml")):
        raise NotFoundError(
            f"{root} has no workflow: they are read from {' and '.join(tree.FOLDERS)}"
        )
    workflow = _workflow(request, root)
    snapshot = tree.take(root, home / "tree.git", now_ms=system.clock.now_ms())
    wanted = Wanted(
        event=request.event, payload=request.payload, workflow=workflow, inputs=request.inputs
    )
    triggers = _triggers(root, workflow)
    delivery = delivery_of(wanted, snapshot, triggers, now_ms=system.clock.now_ms())
    _point(snapshot, delivery)
    try:
        planned = system.plan(delivery, str(snapshot.folder))
        planned = for_here(planned, workflow, request.job)
    except (GitError, UnreachableError) as error:
        raise CliError(f"{root} can't be planned: {error}") from None
    except NoSuchJobError as error:
        raise NotFoundError(str(error)) from None
    return delivery, planned


def _point(snapshot: Snapshot, delivery: DeliveryReceived) -> None:
    from infra.cli.local.tree import point

    if delivery.event not in ("delete",):
        point(snapshot, delivery.ref)


def _workflow(request: Request, root: Path) -> str:
    """Return the wanted workflow's path in the tree, "" for all."""
    from infra.cli.local.tree import FOLDERS

    if not request.workflow:
        return ""
    typed = Path(request.workflow)
    candidates = [root / typed, request.folder / typed, Path.cwd() / typed,
                  *(root / folder / typed for folder in FOLDERS)]  # fmt: skip
    for path in candidates:
        found = path.resolve()
        if found.is_file() and found.is_relative_to(root):
            name = found.relative_to(root).as_posix()
            if not name.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
                raise CliError(f"{name} is in none of {' and '.join(FOLDERS)}", Exit.USAGE)
            return name
    raise NotFoundError(f"there is no workflow file {request.workflow} in {root}")


def _triggers(root: Path, workflow: str) -> Triggers | None:
    """Return when the wanted workflow runs, as far as the file alone says."""
    if not workflow:
        return None
    from schemas.workflow.compiler.unit import compile_unit

    plan = compile_unit(workflow, (root / workflow).read_bytes()).plan
    return plan.on if plan is not None else None


class Watch:
    """Follows the log of a local system until every run has ended."""

    def __init__(
        self, system: LocalSystem, outcome: Outcome, screen: Screen, repository: str
    ) -> None:
        """Fold what comes into `outcome`, and print it."""
        from schemas import topics

        self._system = system
        self._outcome = outcome
        self._screen = screen
        self._repository = repository
        self._logs, self._events = topics.LOGS, topics.EVENTS
        self._reader = system.log.reader()
        logs = {(topics.LOGS, number): 0 for number in range(topics.LOG_PARTITIONS)}
        self._reader.assign({**logs, (topics.EVENTS, 0): 0})
        self._early: dict[str, list[list[dict[str, Any]]]] = {}
        self._interrupts = 0

    def until_over(self) -> None:
        """Return once nothing more comes. CliError when a part of the system failed."""
        while not self._outcome.over():
            try:
                self._read(_READ_MS)
                if self._system.failed is not None:
                    raise CliError(f"the local run broke off: {self._system.failed}")
                self._screen.waiting(self._outcome)
            except KeyboardInterrupt:
                self._interrupts += 1
                if self._interrupts > 1:
                    raise
                self._cancel()
        self._read(0)

    def _cancel(self) -> None:
        self._screen.say(
            "cancelling: a step gets 10 s to end, cleanup 5 minutes; press Ctrl-C again to kill all"
        )
        for run in self._outcome.runs.values():
            if not run.conclusion:
                self._system.cancel(self._repository, run.run_id)

    def _read(self, timeout_ms: int) -> None:
        from schemas.codec import EVENTS, LOGS

        for record in self._reader.read(timeout_ms=timeout_ms, records_max=_RECORDS_MAX):
            if record.value is None:
                continue
            if record.topic == self._events:
                self._outcome.evolve(EVENTS.decode(record.value))
            else:
                batch: Any = LOGS.decode(record.value)
                self._lines(batch.job_id, _lines_of(batch))
        for job_id in list(self._early):
            if self._outcome.job(job_id) is not None:
                for lines in self._early.pop(job_id):
                    self._lines(job_id, lines)

    def _lines(self, job_id: str, lines: list[dict[str, Any]]) -> None:
        job = self._outcome.job(job_id)
        if job is None:
            # topics are read one after the other: the job's own event may be behind its log
            self._early.setdefault(job_id, []).append(lines)
        elif lines:
            job.log += lines
            self._screen.lines(job, lines)


def _lines_of(batch: Any) -> list[dict[str, Any]]:
    import zstandard

    from schemas.loglines import STREAM_NAMES, lines

    block = zstandard.ZstdDecompressor().decompress(batch.block)
    return [
        {"n": line.number, "t": line.t_ms, "s": STREAM_NAMES[line.stream], "step": line.step,
         "text": line.text}
        for line in lines(block, batch.first_line)
    ]  # fmt: skip
