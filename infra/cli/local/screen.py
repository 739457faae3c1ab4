"""What a person sees of a local run: lines as they come, why nothing moves, a table at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from infra.cli.local.fold import JobView, Outcome, RunView
from infra.cli.logs import Log, Shape
from infra.cli.output import Column, clean, print_table, span, state, style

_WIDTH_MAX = 28


class Screen:
    """Prints to standard output; with `quiet` nothing until the end."""

    def __init__(self, *, quiet: bool) -> None:
        """Print nothing yet."""
        self._quiet = quiet
        self._width = 0
        self._numbers: dict[str, int] = {}
        self._said: set[str] = set()

    def lines(self, job: JobView, lines: Iterable[dict[str, Any]]) -> None:
        """Print lines of a job's log, each behind the job's name."""
        if self._quiet:
            return
        name = clean(job.name or job.key)
        self._width = max(self._width, min(len(name), _WIDTH_MAX))
        number = self._numbers.setdefault(job.job_id, len(self._numbers))
        shape = Shape(as_json=False, timestamps=False, width=self._width)
        log = Log(job.job_id, name, job.attempt, number)
        click.echo("\n".join(shape.line(log, line) for line in lines))

    def waiting(self, outcome: Outcome) -> None:
        """Tell on standard error why jobs wait for something other than their needs."""
        for job_id, why in outcome.waiting.items():
            job = outcome.job(job_id)
            text = f"{clean(job.name or job.key) if job else job_id} waits: {clean(why)}"
            if text not in self._said:
                self._said.add(text)
                self.say(text)

    def say(self, text: str) -> None:
        """Print words of our own on standard error."""
        if not self._quiet:
            click.echo(text, err=True)

    def table(self, outcome: Outcome) -> None:
        """Print every run's jobs, and what they came to."""
        for run in outcome.runs.values():
            title = clean(run.name or run.workflow)
            click.echo(f"\n{style(title, bold=True)}: {state(run.conclusion)}")
            for problem in run.problems:
                place = f"{problem['path']}:{problem['line']}:{problem['column']}"
                click.echo(f"  {clean(place)}: {clean(problem['message'])}")
            if run.jobs:
                _print_jobs(run)
        for reason in outcome.ignored:
            click.echo(clean(reason), err=True)


def _print_jobs(run: RunView) -> None:
    columns = (Column("JOB"), Column("CONCLUSION"), Column("TIME", right=True), Column("REASON"))
    rows = []
    for job in run.working():
        began, ended = job.started_at, job.finished_at
        time = span(ended - began) if began and ended else "-"
        why = clean(job.message or job.reason)
        rows.append((clean(job.name or job.key), state(run.conclusion_of(job)), time, why))
    print_table(columns, rows, empty="no job")
