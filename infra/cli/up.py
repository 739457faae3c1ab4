"""`tailrace up`, `down`, `restart`, `status`: what `infra.embedded.operator` does, for a person."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from infra.cli.errors import CliError, NotFoundError, UnreachableError
from infra.cli.output import program
from infra.embedded import operator
from infra.embedded.control import NotRunning
from infra.embedded.errors import EmbeddedError
from infra.embedded.operator import Listener, Status
from infra.embedded.processes import ProcessName
from infra.settings import Settings, SettingsError

EXIT_DEGRADED = 1
EXIT_NOT_RUNNING = 3
EXIT_INTERRUPTED = 130
_BAR_CELLS = 30
_STEP_PERCENT = 10
_FRAME_S = 0.1
_WAIT_LINE_S = 3.0
_SAME_LINE_S = 10.0


def _complete_process(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    with suppress(SettingsError):
        found = operator.status_of(Settings.load())
        names = [line["name"] for line in found["processes"]] if found else []
        return [name for name in names if name.startswith(incomplete)]
    return []


@click.command()
@click.option("--quiet", "-q", is_flag=True, help="Say nothing unless something fails.")
def up(*, quiet: bool) -> None:
    """Start the whole system, and end when everything answers.

    Run again, it starts what does not run. Interrupted by Ctrl-C, what was started goes on in
    the background; `tailrace down` ends it.
    """
    screen = Screen(quiet=quiet)
    began = time.monotonic()
    try:
        status = operator.bring_up(Settings.load(), screen.listener())
    except (EmbeddedError, SettingsError, OSError) as error:
        screen.clear()
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        screen.clear()
        click.echo(_interrupted(), err=True)
        sys.exit(EXIT_INTERRUPTED)
    screen.clear()
    took = f"answers after {time.monotonic() - began:.1f} s" if screen.has_waited else "runs"
    screen.say(f"Tailrace {took}: {status['public_url']}")
    screen.say(f"  sign in   {sign_in_url(status)}")
    screen.say(f"  data      {status['home']}")
    screen.say(f"  commands  {program()} status, down, repo add, runs, logs, ... (--help)")


def _interrupted() -> str:
    if ProcessName.from_file(Settings.load().run_dir / "supervisor.pid") is None:
        return "Interrupted before anything was started. What is downloaded is kept."
    return (
        f"Interrupted. What was started goes on starting in the background: `{program()} up` "
        f"waits for it again, `{program()} status` shows it, `{program()} down` ends it."
    )


def sign_in_url(status: Status) -> str:
    """Return the link that signs a browser of this machine's user in."""
    token = (Path(status["home"]) / "secrets" / "token").read_text(encoding="ascii").strip()
    return f"{status['public_url']}/login?token={token}"


@click.command()
@click.argument("name", metavar="SERVICE", shell_complete=_complete_process)
def restart(*, name: str) -> None:
    """End a process in order and start it again; end when it is ready.

    SERVICE is a name of `tailrace status`: api, runner-1, kafka, and so on. Exit code 1: it is
    not ready within the time-out; 3: nothing runs; 4: there is no such process.
    """
    try:
        operator.restart(Settings.load(), name)
    except operator.NoSuchProcessError as error:
        raise NotFoundError(str(error)) from error
    except NotRunning as error:
        raise UnreachableError("Tailrace does not run: `tailrace up` starts it") from error
    except (EmbeddedError, SettingsError, OSError) as error:
        raise CliError(str(error)) from error
    click.echo(f"{name} was started again and is ready.")


@click.command()
def down() -> None:
    """End everything that `up` started, in reverse order, and nothing else."""
    try:
        ended = operator.take_down(Settings.load())
    except (EmbeddedError, SettingsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Ended: {', '.join(ended)}" if ended else "Nothing was running.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def status(*, as_json: bool) -> None:
    """Show every process, its health, its lag, and where its log is.

    Exit code 0: everything is ready; 1: something is not; 3: nothing runs.
    """
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    found = operator.status_of(settings, with_memory=True)
    if found is None:
        _show_nothing(settings, as_json=as_json)
        sys.exit(EXIT_NOT_RUNNING)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(as_table(found, settings))
    sys.exit(0 if found["ready"] else EXIT_DEGRADED)


def as_table(found: Status, settings: Settings) -> str:
    """Return the status as a person reads it: a line a process, then what is not well."""
    head = ("PROCESS", "PID", "STATE", "UPTIME", "RESTARTS", "MEMORY", "LAG", "LOG")
    rows = [head, *(_row(line, settings) for line in found["processes"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.append(
        f"{found['public_url']}    {found['phase']}    home {found['home']}    "
        f"supervisor pid {found['pid']}"
    )
    lines += found["notices"]
    for step in found["steps"]:
        if step["state"] == "failed":
            lines.append(f"\n{step['name']} failed; log {step['log']}\n{step['last_lines']}")
    lines += [
        f"\n{line['name']} {line['state']}: {line['detail']}\n{line['last_lines']}"
        for line in found["processes"]
        if line["state"] not in ("up", "waiting", "stopped")
    ]
    return "\n".join(lines)


def _row(line: dict[str, Any], settings: Settings) -> tuple[str, ...]:
    return (
        line["name"],
        str(line["pid"] or "-"),
        line["state"],
        _span(line["uptime_s"]),
        str(line["restarts"]),
        f"{line['memory_mb']:.0f} MB" if line["pid"] else "-",
        "-" if line["lag"] is None else str(line["lag"]),
        operator.home_of_log(line["log"], settings.home),
    )


def _show_nothing(settings: Settings, *, as_json: bool) -> None:
    left = [name for name, _process in operator.leftovers(settings)]
    if as_json:
        click.echo(json.dumps({"ready": False, "phase": "down", "leftovers": left}, indent=2))
        return
    click.echo(f"Tailrace does not run in {settings.home}. `tailrace up` starts it.")
    if left:
        click.echo(
            f"Its supervisor is gone, but these still run: {', '.join(left)}. `tailrace up` takes "
            f"them over, `tailrace down` ends them."
        )


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def waits_for(found: Status) -> str:
    """Return in words what a start is at; empty if everything is ready."""
    steps = [step["name"] for step in found["steps"] if step["state"] != "done"]
    # Those that have not begun yet are waited for, too, but they are not what it waits for now.
    late = [
        line["name"] + (f" ({line['state']})" if line["state"] == "crashed" else "")
        for line in found["processes"]
        if line["state"] not in ("up", "waiting")
    ]
    if late:
        return f"Waiting for {', '.join(late)}"
    if steps:
        return f"Preparing topics, tables and keys ({', '.join(steps)})"
    return "" if found["ready"] else "Starting the services"


class Screen:
    """Progress for a person: one line that changes on a terminal, few lines in a file."""

    def __init__(self, *, quiet: bool) -> None:
        """Write to standard error, so that output can be used by scripts."""
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._said: set[str] = set()
        self._percent = 0
        self._drawn_at = 0.0
        self._waited_at = 0.0
        self._waited_for = ""
        self.has_waited = False

    def listener(self) -> Listener:
        """Return the three functions that `operator.bring_up` calls."""
        return Listener(say=self.say, downloaded=self.downloaded, waiting=self.waiting)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        if not self._quiet:
            click.echo(text)

    def downloaded(self, name: str, done: int, total: int) -> None:
        """Show how far the download is, in MB."""
        percent = 100 * done // max(total, 1)
        if self._live and done < total and time.monotonic() - self._drawn_at < _FRAME_S:
            return
        self._drawn_at = time.monotonic()
        sizes = f"{done / 1e6:5.1f} of {total / 1e6:.1f} MB"
        if self._live:
            filled = _BAR_CELLS * done // max(total, 1)
            bar = "#" * filled + "." * (_BAR_CELLS - filled)
            self._draw(f"  [{bar}] {percent:3}%  {sizes}  {name[:30]}")
        elif not self._quiet and percent // _STEP_PERCENT > self._percent // _STEP_PERCENT:
            self._percent = percent
            click.echo(f"  {percent:3}%  {sizes}")

    def waiting(self, found: Status) -> None:
        """Show for what it waits; outside of a terminal a line when that changes, not each time."""
        for notice in found["notices"]:
            if notice not in self._said:
                self._said.add(notice)
                self.say(notice)
        text = waits_for(found)
        self.has_waited = self.has_waited or bool(text)
        if self._live:
            self._draw(f"  {text}")
            return
        pause_s = _SAME_LINE_S if text == self._waited_for else _WAIT_LINE_S
        if text and not self._quiet and time.monotonic() - self._waited_at > pause_s:
            self._waited_at, self._waited_for = time.monotonic(), text
            click.echo(text)

    def clear(self) -> None:
        """Take the changing line away."""
        if self._live:
            self._draw("")

    def _draw(self, text: str) -> None:
        width = max(20, _terminal_columns() - 1)
        click.echo(f"\r\x1b[2K{text[:width]}", nl=False, err=True)


def _terminal_columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
