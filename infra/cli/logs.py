"""`tailrace logs`: a run's output, whole or live."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from infra.cli import options
from infra.cli.api import connect, part
from infra.cli.errors import CliError, Exit, NotFoundError, exit_of
from infra.cli.lookup import RUN_HELP, find_jobs, find_run
from infra.cli.output import clean, clock, job_style, state_of, style, use_colours

if TYPE_CHECKING:
    from infra.cli.client import Client

_LOOK_AGAIN_S = 2.0
_IDLE_S = 1.0
_PREFIX_WIDTH_MAX = 28
_GROUP, _END_GROUP = "##[group]", "##[endgroup]"


@dataclass(frozen=True, slots=True)
class Log:
    """One attempt's log, as the command shows it."""

    job_id: str
    name: str
    attempt: int
    number: int

    @property
    def path(self) -> str:
        """Where it is below /api/v1."""
        return f"/jobs/{part(self.job_id)}/attempts/{self.attempt}/log"


@dataclass(frozen=True, slots=True)
class Shape:
    """How lines are printed."""

    as_json: bool
    timestamps: bool
    width: int
    folded: bool = False
    """Whether of a group (a step's script) only the title is shown."""

    def prefix(self, log: Log) -> str:
        """Return what stands before each line when several logs share the screen."""
        if not self.width:
            return ""
        name = log.name if len(log.name) <= self.width else log.name[: self.width - 1] + "…"
        return job_style(name.ljust(self.width), log.number) + style(" | ", dim=True)

    def line(self, log: Log, line: dict[str, Any]) -> str:
        """Return one line of a stream as it is printed."""
        if self.as_json:
            return json.dumps({"job": log.job_id, "attempt": log.attempt, **line},
                              ensure_ascii=False)  # fmt: skip
        text = _shown(line["text"])
        if line.get("s") == "sys":
            text = style(text, dim=True)
        at = style(clock(line["t"]) + "  ", dim=True) if self.timestamps else ""
        return f"{self.prefix(log)}{at}{text}"


class Fold:
    """Leaves out what is inside of the runner's groups, and makes titles of their first lines."""

    def __init__(self) -> None:
        """Begin outside of any group."""
        self._inside = False

    def of(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return of the next lines of a log those that are shown."""
        shown = []
        for line in lines:
            text = line["text"]
            if line.get("s") != "sys":
                shown.append(line)
            elif text.startswith(_GROUP):
                self._inside = True
                shown.append({**line, "text": "> " + text.removeprefix(_GROUP)})
            elif text == _END_GROUP:
                self._inside = False
            elif not self._inside:
                shown.append(line)
        return shown


def _shown(text: str) -> str:
    """Keep the colours of the job's own output on a terminal, and no other control code."""
    if not use_colours():
        return text
    import re

    kept = re.split(r"(\x1b\[[0-9;]*m)", text)
    shown = "".join(piece if n % 2 else clean(piece) for n, piece in enumerate(kept))
    return shown + "\x1b[0m" if len(kept) > 1 else shown


@click.command(epilog=RUN_HELP)
@options.run
@click.argument("job_text", metavar="[JOB]", required=False)
@click.option(
    "--follow",
    "-f",
    is_flag=True,
    help="Show lines as they come until the run has ended; exit code by its conclusion.",
)
@click.option("--attempt", type=click.IntRange(1), help="Default: the latest of each job.")
@click.option("--timestamps", "-t", is_flag=True, help="Put the time before each line.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def logs(
    *,
    run_text: str,
    job_text: str | None,
    follow: bool,
    attempt: int | None,
    timestamps: bool,
    as_json: bool,
) -> None:
    """Print the log of a run, or of one of its jobs (key, name or id).

    With several jobs each line begins with its job. With -f a lost connection is taken up again
    where it broke. Exit codes with -f: 0 success, 1 failure, 6 cancelled.
    """  # fmt: skip
    client = connect()
    run = find_run(client, run_text)
    jobs = find_jobs(run, job_text)
    widths = [len(clean(job["name"] or job["key"])) for job in jobs]
    several = len(jobs) > 1 or (follow and job_text is None)
    width = min(max(widths, default=0), _PREFIX_WIDTH_MAX) if several else 0
    shape = Shape(as_json=as_json, timestamps=timestamps, width=width)
    if follow:
        try:
            raise SystemExit(Follower(client, run, job_text, attempt, shape).run())
        except KeyboardInterrupt:
            raise SystemExit(Exit.INTERRUPTED) from None
    found = [log for log in logs_of(jobs, attempt) if log is not None]
    if not found:
        raise NotFoundError(_no_log(run, jobs, attempt))
    for log in found:
        _print_whole(client, log, shape)


def logs_of(jobs: list[dict[str, Any]], attempt: int | None) -> Iterator[Log | None]:
    """Yield for each job the log of the attempt that is asked for; None when it has none yet."""
    for number, job in enumerate(jobs):
        tries = [a["attempt"] for a in job["attempts"] if a["started_at"]]
        wanted = attempt if attempt is not None else (tries[-1] if tries else None)
        if wanted is None or wanted not in tries:
            yield None
        else:
            yield Log(job["job_id"], clean(job["name"] or job["key"]), wanted, number)


def _no_log(run: dict[str, Any], jobs: list[dict[str, Any]], attempt: int | None) -> str:
    if attempt is not None:
        return f"run {run['run_id']} has no attempt {attempt} with a log there"
    waiting = "; ".join(
        f"{clean(job['name'] or job['key'])}: "
        + (clean(job["blocked"]["detail"]) if job.get("blocked") else str(job["status"]))
        for job in jobs[:5]
    )
    return f"run {run['run_id']} has no log yet ({waiting or run['status']}); -f waits for it"


# --------------------------------------------------------------------------- what is there


def _print_whole(client: Client, log: Log, shape: Shape) -> None:
    if shape.as_json or shape.timestamps or use_colours():
        _print_stream(client, log, shape)
    else:
        prefix = shape.prefix(log).encode()
        _copy(client.text(f"{log.path}/raw"), click.get_binary_stream("stdout"), prefix)


def _copy(chunks: Iterator[bytes], out: BinaryIO, prefix: bytes) -> None:
    """Write chunks of lines, each line after a prefix; bytes are not looked at otherwise."""
    if not prefix:
        for chunk in chunks:
            out.write(chunk)
        out.flush()
        return
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        out.writelines(prefix + line + b"\n" for line in lines)
    if rest:
        out.write(prefix + rest + b"\n")
    out.flush()


def _print_stream(client: Client, log: Log, shape: Shape) -> None:
    """Print what the log has now, line by line; a live one is not waited for."""
    for event in client.follow(f"{log.path}/stream", until_idle_s=_IDLE_S):
        if event.event == "end":
            return
        if event.event == "lines":
            click.echo("\n".join(shape.line(log, line) for line in event.json()["lines"]))


# --------------------------------------------------------------------------- live


@dataclass(slots=True)
class Follower:
    """Shows the logs of a run while they grow: a thread a log, one screen."""

    client: Client
    run_now: dict[str, Any]
    job_text: str | None
    attempt: int | None
    shape: Shape
    changed: threading.Event = field(default_factory=threading.Event)
    screen: threading.Lock = field(default_factory=threading.Lock)
    failed: list[CliError] = field(default_factory=list)
    followed: dict[tuple[str, int], threading.Thread] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def run(self) -> Exit:
        """Return once what is followed has ended and everything is printed."""
        run_id = self.run_now["run_id"]
        self._in_thread(lambda: self._watch(run_id))
        while True:
            self.changed.clear()
            self._follow_new()
            if self.failed:
                raise self.failed[0]
            if self._over():
                break
            self.changed.wait(_LOOK_AGAIN_S)
            self.run_now = self.client.get(f"/runs/{part(run_id)}")
        for thread in self.followed.values():
            thread.join()
        if self.failed:
            raise self.failed[0]
        return self._conclude()

    def _jobs(self) -> list[dict[str, Any]]:
        try:
            return find_jobs(self.run_now, self.job_text)
        except NotFoundError:
            if self.run_now["status"] == "completed":
                raise
            return []  # the legs of a matrix come later

    def _over(self) -> bool:
        if self.run_now["status"] == "completed":
            return True
        jobs = self._jobs()
        return bool(self.job_text and jobs) and all(j["status"] == "completed" for j in jobs)

    def _follow_new(self) -> None:
        jobs = self._jobs()
        for job in jobs:
            self._say_why(job)
        for log in logs_of(jobs, self.attempt):
            if log is not None and (log.job_id, log.attempt) not in self.followed:
                self.followed[(log.job_id, log.attempt)] = self._in_thread(self._printer(log))

    def _say_why(self, job: dict[str, Any]) -> None:
        """Tell on standard error why a job does not run, when that changes."""
        blocked = job.get("blocked")
        if blocked is None or job["status"] == "completed" or self.shape.as_json:
            return
        text = f"{clean(job['name'] or job['key'])} waits: {clean(blocked['detail'])}"
        if text not in self.said and blocked["reason"] != "needs":
            self.said.add(text)
            with self.screen:
                click.echo(text, err=True)

    def _printer(self, log: Log) -> Callable[[], None]:
        def print_lines() -> None:
            fold = Fold() if self.shape.folded else None
            for event in self.client.follow(f"{log.path}/stream"):
                if event.event == "end":
                    return
                if event.event == "lines":
                    found = event.json()["lines"]
                    shown = fold.of(found) if fold else found
                    lines = [self.shape.line(log, line) for line in shown]
                    if lines:
                        with self.screen:
                            click.echo("\n".join(lines))

        return print_lines

    def _watch(self, run_id: str) -> None:
        """Wake the loop whenever the run changed, so that a new log is shown at once."""
        for _ in self.client.follow("/runs/stream", {"run_id": run_id}):
            self.changed.set()

    def _in_thread(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except CliError as error:
                self.failed.append(error)
                self.changed.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _conclude(self) -> Exit:
        whole = self.run_now["status"] == "completed" and self.job_text is None
        jobs = [self.run_now] if whole else self._jobs()
        if not self.shape.as_json:
            for item in jobs:
                name = item["run_id"] if whole else clean(item["name"] or item["key"])
                click.echo(f"{name}: {state_of(item)}", err=True)
        codes = [exit_of(item["conclusion"]) for item in jobs]
        return next((c for c in (Exit.NEGATIVE, Exit.CANCELLED) if c in codes), Exit.OK)
