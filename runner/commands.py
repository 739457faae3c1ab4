"""Carries out what a step says by commands in its output and in its command files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import field

from runner.folders import CommandFileReadError, JobFolders
from runner.masking import Masker
from runner.matchers import JobMatchers, MatcherError, read_matchers
from schemas.events import Annotation
from schemas.late import dataclass
from schemas.workflow import command_processor as processor
from schemas.workflow.command_files import (
    FILE_BYTES_MAX,
    SUMMARY_BYTES_MAX,
    CommandFileError,
    Entries,
    parse_entries,
    parse_environment,
    parse_paths,
    prepended,
)
from schemas.workflow.commands import Command

ANNOTATIONS_MAX = 50
#: Of one level and one step, as on GitHub: what warns a lot leaves room for others' errors.
ANNOTATIONS_OF_LEVEL_MAX = 10
ANNOTATION_CHARACTERS_MAX = 4096
#: Annotations as a whole stay a small part of the largest record.
_PATH_CHARACTERS_MAX = 1024
_COLORS = re.compile(rb"\x1b\[[0-9;]*m")
_DEPRECATED = {"set-output": "GITHUB_OUTPUT", "save-state": "GITHUB_STATE"}


@dataclass(slots=True)
class Effects:
    """What a step's commands and files come to."""

    outputs: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    state: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    warnings: list[str] = field(default_factory=list)
    #: Shown as errors; the step does not fail by them.
    issues: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class StepCommands:
    """The commands of one step; `on_command` is what its streams are split with."""

    def __init__(
        self,
        masker: Masker,
        annotations: list[Annotation],
        *,
        step: int,
        env: Mapping[str, str],
        debug: bool = False,
        matchers: JobMatchers | None = None,
        read_matcher: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        """Add masks to `masker` and remarks to `annotations`; `debug` shows debug lines.

        `read_matcher` returns the content of a file that a job may name for a problem matcher.
        """
        self._matchers = matchers
        self._read_matcher = read_matcher
        self._masker = masker
        self._annotations = annotations
        self._step = step
        self._debug = debug
        self._levels: Counter[str] = Counter()
        self._deprecated: list[str] = []
        self._processor = processor.CommandProcessor(env=env)
        self._errors: list[str] = []
        self._masks = 0

    def on_command(self, line: bytes) -> bytes | None:
        """Take a line that may be a command; returns what the log shows for it."""
        text = line.decode("utf-8", "replace")
        outcome = self._processor.process(text)
        if not outcome.processed:
            return line
        self._add_masks()
        if outcome.error is not None:
            self._errors.append(outcome.error)
            return f"##[error]{outcome.error}".encode()
        if outcome.annotation is not None:
            return self._annotate(outcome.annotation)
        command = outcome.command
        if command is None:
            return None if outcome.output == "" else line
        if command.name in _DEPRECATED and command.name not in self._deprecated:
            self._deprecated.append(command.name)
        if command.name in ("add-matcher", "remove-matcher"):
            error = self._match(command)
            if error:
                self._errors.append(error)
                return f"##[error]{error}".encode()
        if command.name == "debug" and not self._debug:
            return None
        if command.name in ("group", "endgroup", "debug"):
            return f"##[{command.name}]{_one_line(command.data)}".encode()
        return None if outcome.output == "" else line

    def _add_masks(self) -> None:
        fresh = self._processor.masks[self._masks :]
        self._masks += len(fresh)
        for mask in fresh:
            self._masker.add(mask)

    def _match(self, command: Command) -> str:
        """Switch problem matchers on or off; returns why that can't be done."""
        if self._matchers is None:
            return ""
        owner, path = command.properties.get("owner", ""), command.data.strip()
        if command.name == "remove-matcher" and owner:
            self._matchers.remove(owner)
            return ""
        data = self._read_matcher(path) if path else None
        if data is None:
            return f"::{command.name}:: names {path or 'no file'!r}, and the job has no such file"
        try:
            if command.name == "add-matcher":
                self._matchers.add(data)
            else:
                for item in read_matchers(data):
                    self._matchers.remove(item["owner"])
        except MatcherError as error:
            return f"the problem matcher {path} can't be used: {error}"
        return ""

    def on_lines(self, whole: bytes) -> bytes:
        """Look for problems in whole lines of output; those that tell of one are marked."""
        if self._matchers is None or not self._matchers.active:
            return whole
        lines = whole.split(b"\n")
        for number, found in self._matchers.find(lines[:-1]).items():
            self._annotate(found)
            lines[number] = f"##[{found.level}]".encode() + _COLORS.sub(b"", lines[number])
        return b"\n".join(lines)

    def _annotate(self, found: processor.Annotation) -> bytes:
        self._levels[found.level] += 1
        is_many = self._levels[found.level] > ANNOTATIONS_OF_LEVEL_MAX
        if not is_many and len(self._annotations) < ANNOTATIONS_MAX:
            self._annotations.append(annotation(found, self._masker, step=self._step))
        return f"##[{found.level}]{_one_line(found.message)}".encode()

    def effects(self, folders: JobFolders, files: Mapping[str, str]) -> Effects:
        """Read the command files of the step that ended; its output's commands come first."""
        effects = Effects(
            outputs=dict(self._processor.outputs),
            env=dict(self._processor.variables),
            paths=self._processor.path,
            state=dict(self._processor.state),
            errors=self._errors,
            warnings=[
                f"The `{name}` command is deprecated: write to ${_DEPRECATED[name]} instead."
                for name in self._deprecated
            ],
            issues=list(self._processor.issues),
        )
        effects.outputs |= self._entries(effects, folders, files["OUTPUT"]).values
        environment = self._entries(effects, folders, files["ENV"], is_environment=True)
        effects.env |= environment.values
        effects.issues += environment.issues
        effects.state |= self._entries(effects, folders, files["STATE"]).values
        added = parse_paths(self._read(effects, folders, files["PATH"], FILE_BYTES_MAX))
        effects.paths = prepended(effects.paths, added)
        effects.summary = self._summary(effects, folders, files["STEP_SUMMARY"])
        return effects

    def _entries(
        self, effects: Effects, folders: JobFolders, path: str, *, is_environment: bool = False
    ) -> Entries:
        parse = parse_environment if is_environment else parse_entries
        try:
            return parse(self._read(effects, folders, path, FILE_BYTES_MAX))
        except CommandFileError as error:
            effects.errors.append(str(error))
            return Entries()

    def _read(self, effects: Effects, folders: JobFolders, path: str, bytes_max: int) -> bytes:
        try:
            return folders.read_command_file(path, bytes_max)
        except CommandFileReadError as error:
            effects.errors.append(str(error))
            return b""

    def _summary(self, effects: Effects, folders: JobFolders, path: str) -> str:
        data = self._read(effects, folders, path, SUMMARY_BYTES_MAX)
        if len(data) > SUMMARY_BYTES_MAX:
            effects.warnings.append(
                f"The step's summary is over {SUMMARY_BYTES_MAX} bytes and is left out."
            )
            return ""
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def annotation(found: processor.Annotation, masker: Masker, *, step: int) -> Annotation:
    """Return a remark as an event carries it: masked and cut to size."""
    given = found.properties
    return Annotation(
        level=found.level,
        message=masker.mask_text(found.message)[:ANNOTATION_CHARACTERS_MAX],
        path=masker.mask_text(given.get("file", ""))[:_PATH_CHARACTERS_MAX],
        line=_number(given.get("line")),
        end_line=_number(given.get("endLine")),
        column=_number(given.get("col")),
        end_column=_number(given.get("endColumn")),
        title=masker.mask_text(given.get("title", ""))[:_PATH_CHARACTERS_MAX],
        step=step,
    )


def _number(text: str | None) -> int:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004


def _one_line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "%0A")
