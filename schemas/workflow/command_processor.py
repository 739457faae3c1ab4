"""What workflow commands do, line by line: a small state machine without side effects.

The runner feeds it the lines of a step and carries out what comes back: it masks, sets variables
for later steps, records annotations. Nothing here touches the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from schemas.late import dataclass
from schemas.workflow.command_files import BLOCKED_VARIABLES, prepended
from schemas.workflow.commands import KNOWN_COMMANDS, Command, parse_command

UNSECURE_COMMANDS = "ACTIONS_ALLOW_UNSECURE_COMMANDS"
UNSECURE_TOKENS = "ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS"
_ANNOTATION_LEVELS = frozenset({"error", "warning", "notice"})
_ALWAYS_SHOWN = frozenset({"group", "endgroup", "debug", "stop-commands"})
# Only these end a line of output; a separator of Unicode's belongs to the secret.
_LINE_ENDS = re.compile(r"[\r\n]+")
_NOT_TOKENS = frozenset({"pause-logging"})
_DIGITS_MAX = 9
# A shorter stop token would mask half of the log.
_TOKEN_CHARACTERS_UNMASKED = 6

Level = Literal["error", "warning", "notice"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """A message about the code; `properties` holds file, line, col, endLine, endColumn, title."""

    level: Level
    message: str
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one line was.

    `processed` says that it was a command; `error` that the step fails because of it. `output`
    is the text to show instead of the line, None when the line itself is to be shown.
    """

    processed: bool = False
    command: Command | None = None
    error: str | None = None
    annotation: Annotation | None = None
    output: str | None = None


@dataclass(slots=True)
class CommandProcessor:
    """The state of one step's commands; `env` is what the step sees, for the opt-in switches.

    `issues` are refusals that are shown as errors but do not fail the step.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    echo: bool = False
    stop_token: str | None = None
    masks: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    issues: list[str] = field(default_factory=list)

    def process(self, line: str) -> Outcome:
        """Takes one line of output."""
        if self.stop_token is not None:
            return self._stopped(line)
        command = parse_command(line)
        if command is None:
            return Outcome()
        name = command.name
        if name in _ANNOTATION_LEVELS:
            return Outcome(processed=True, command=command, annotation=_annotation(command))
        error = self._carry_out(command)
        output = None if self.echo or name in _ALWAYS_SHOWN else ""
        if self.echo and name == "add-mask":
            output = "::add-mask::***"
        return Outcome(processed=True, command=command, error=error, output=output)

    def _stopped(self, line: str) -> Outcome:
        token = self.stop_token or ""
        command = parse_command(line, (token.lower(),))
        if command is None:
            return Outcome()
        self.stop_token = None
        return Outcome(processed=True, command=command)

    def _carry_out(self, command: Command) -> str | None:
        """Changes the state; returns why the step fails, if it does."""
        match command.name:
            case "stop-commands":
                return self._stop(command.data)
            case "echo":
                return self._set_echo(command.data)
            case "add-mask":
                self._add_mask(command.data)
            case "set-env" | "add-path":
                return self._unsecure(command)
            case "set-output":
                return _store(self.outputs, command)
            case "save-state":
                return _store(self.state, command)
            case _:
                pass
        return None

    def _stop(self, token: str) -> str | None:
        allowed = _on(self.env.get(UNSECURE_TOKENS))
        if not allowed and (
            not token.strip() or token.lower() in KNOWN_COMMANDS or token.lower() in _NOT_TOKENS
        ):
            return (
                f"'{token}' is no valid token for ::stop-commands::, which needs one that nobody "
                "can guess"
            )
        self.stop_token = token
        if len(token) > _TOKEN_CHARACTERS_UNMASKED:
            self._add_mask(token)
        return None

    def _set_echo(self, data: str) -> str | None:
        word = data.strip().lower()
        if word not in ("on", "off"):
            return f"Invalid echo command value '{data}'. Possible values are: 'on', 'off'"
        self.echo = word == "on"
        return None

    def _add_mask(self, data: str) -> None:
        """Masks the whole text and each of its lines: output comes line by line."""
        for text in (data, *_LINE_ENDS.split(data)):
            if text.strip() and text not in self.masks:
                self.masks.append(text)

    def _unsecure(self, command: Command) -> str | None:
        if not _on(self.env.get(UNSECURE_COMMANDS)):
            file = "GITHUB_ENV" if command.name == "set-env" else "GITHUB_PATH"
            return (
                f"The `{command.name}` command is disabled. Write to ${file} instead, or set "
                f"{UNSECURE_COMMANDS} to true where all output is trusted."
            )
        if command.name == "add-path":
            if not command.data:
                return "::add-path:: needs a folder"
            self.path = prepended(self.path, (command.data,))
            return None
        name = command.properties.get("name", "")
        if name.upper() in BLOCKED_VARIABLES:
            self.issues.append(
                f"Can't update {name} environment variable using ::set-env:: command."
            )
            return None
        return _store(self.variables, command)


def _store(values: dict[str, str], command: Command) -> str | None:
    name = command.properties.get("name", "")
    if not name:
        return f"Required field 'name' is missing in ##[{command.name}] command."
    values[name] = command.data
    return None


def _on(value: str | None) -> bool:
    return (value or "").strip().lower() == "true"


def _annotation(command: Command) -> Annotation:
    level: Level = (
        "error" if command.name == "error" else "warning" if command.name == "warning" else "notice"
    )
    return Annotation(level, command.data, annotation_properties(command.properties))


_NAMES = {
    "file": "file",
    "title": "title",
    "line": "line",
    "endline": "endLine",
    "col": "col",
    "endcolumn": "endColumn",
    "code": "code",
}


def annotation_properties(given: Mapping[str, str]) -> dict[str, str]:
    """The properties that make sense together: an end has a start before it, columns one line."""
    result = {_NAMES[name]: value for name, value in given.items() if name in _NAMES and value}
    numbers = {name: _integer(result.get(name)) for name in ("line", "endLine", "col", "endColumn")}
    for start, end in (("line", "endLine"), ("col", "endColumn")):
        if numbers[end] is not None and numbers[start] is None:
            numbers[start] = numbers[end]
            result[start] = result[end]
    line, end_line = numbers["line"], numbers["endLine"]
    column, end_column = numbers["col"], numbers["endColumn"]
    several_lines = line is None or (end_line is not None and end_line != line)
    if several_lines or _runs_backwards(column, end_column):
        _drop(result, "col", "endColumn")
    if _runs_backwards(line, end_line):
        _drop(result, "line", "endLine")
    return result


def _runs_backwards(start: int | None, end: int | None) -> bool:
    return start is not None and end is not None and end < start


def _drop(values: dict[str, str], *names: str) -> None:
    for name in names:
        values.pop(name, None)


def _integer(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None
