"""`tailrace lint`: what is wrong with workflow files, where, and what was probably meant.

Needs no service and no settings: the compiler reads the files of the working tree.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli.errors import CliError, Exit, NotFoundError
from infra.cli.frames import code_frame, split_lines
from infra.cli.output import clean, print_json, style

if TYPE_CHECKING:
    from schemas.workflow.errors import Problem

FOLDERS = (".github/workflows", ".tailrace/workflows")
_SUFFIXES = frozenset({".yml", ".yaml"})
_STDIN = "-"
_BYTES_READ_MAX = (1 << 20) + 1  # one more than a workflow may have: the compiler says so


@dataclass(frozen=True, slots=True)
class Source:
    """One file to check: `name` is its path in the tree `root`, `shown` the path people know."""

    name: str
    shown: str
    root: Path
    text: bytes


@dataclass(slots=True)
class Findings:
    """All problems of all files, each once, and the lines of the files they are in."""

    files: int = 0
    problems: dict[Problem, None] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def of(self, severity: str) -> list[Problem]:
        """Return the problems of one severity, in the order of the files."""
        return [problem for problem in self.problems if problem.severity == severity]


@click.command(epilog="Exit codes: 0 no errors, 1 errors, 2 wrong use, 4 there is no such file.")
@click.argument("files", nargs=-1, metavar="[FILES]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--stdin-name",
    default="<stdin>",
    metavar="PATH",
    help="What to call standard input (-), and where its ./ calls start.",
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of workflow files and end.")
def lint(files: tuple[str, ...], *, as_json: bool, stdin_name: str, schema: bool) -> None:
    """Check workflow FILES; by default all of the working tree.

    A FILE may be a folder, whose workflows are checked, or - for standard input. Reusable
    workflows with ./ paths are read from the tree; those of other repositories are not looked at.
    Warnings are shown and do not fail.
    """
    if schema:
        from schemas.workflow.json_schema import json_schema

        print_json(json_schema())
        return
    found = check(_sources(files, stdin_name))
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found)
    sys.exit(Exit.NEGATIVE if found.of("error") else Exit.OK)


def check(sources: Iterable[Source]) -> Findings:
    """Compile the sources and collect what is found in them and in what they call."""
    from schemas.workflow.compile import compile_workflow

    found = Findings()
    for source in sources:
        found.files += 1
        tree = _Tree(source.root)
        compiled = compile_workflow(source.name, source.text, read_file=tree.read)
        for problem in (*compiled.problems, *compiled.warnings):
            main = problem.path == source.name
            shown = source.shown if main else _shown(source.root / problem.path)
            text = source.text if main else tree.texts.get(problem.path, b"")
            found.problems[replace(problem, path=shown)] = None
            if shown not in found.lines:
                found.lines[shown] = split_lines(text)
    return found


# --------------------------------------------------------------------------- files


class _Tree:
    """A working tree as the compiler reads it: nothing outside of it, links included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.texts: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """Return a file by its path in the tree; None when there is none."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            return None
        try:
            self.texts[name] = _read(path)
        except OSError:
            return None
        return self.texts[name]


def _sources(files: tuple[str, ...], stdin_name: str) -> Iterator[Source]:
    if not files:
        root = _root_of(Path.cwd() / "-")
        paths = _workflows(root)
        if not paths:
            raise NotFoundError(f"there are no workflow files in {' or '.join(FOLDERS)} of {root}")
        yield from map(_source, paths)
    for name in files:
        path = Path(name)
        if name == _STDIN:
            yield _standard_input(stdin_name)
        elif path.is_dir():
            inside = _workflows(path.resolve())
            if not inside:
                raise NotFoundError(f"there are no workflow files in {name}")
            yield from map(_source, inside)
        elif path.is_file():
            yield _source(path)
        else:
            raise NotFoundError(f"there is no file {name}")


def _workflows(folder: Path) -> list[Path]:
    """Return the workflow files of a tree, or of a folder that is one of its two."""
    if folder.as_posix().endswith(FOLDERS):
        folders = [folder]
    else:
        folders = [folder / name for name in FOLDERS]
    return [
        path
        for each in folders
        if each.is_dir()
        for path in sorted(each.iterdir())
        if path.suffix in _SUFFIXES and path.is_file()
    ]


def _source(path: Path) -> Source:
    try:
        text = _read(path)
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}", Exit.NOT_FOUND) from None
    return _named(path, text, _shown(path))


def _standard_input(name: str) -> Source:
    text = sys.stdin.buffer.read(_BYTES_READ_MAX)
    return _named(Path(name), text, name)


def _named(path: Path, text: bytes, shown: str) -> Source:
    absolute = Path.cwd() / path
    absolute = absolute.parent.resolve() / absolute.name
    root = _root_of(absolute)
    return Source(absolute.relative_to(root).as_posix(), shown, root, text)


def _root_of(path: Path) -> Path:
    """Return the tree that a file is in: its repository, else what holds the workflow folder."""
    for folder in path.parents:
        if (folder / ".git").exists():
            return folder
    parent = path.parent
    return parent.parents[1] if parent.as_posix().endswith(FOLDERS) else parent


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BYTES_READ_MAX)


def _shown(path: Path) -> str:
    """Return a path as it is typed from here."""
    absolute, here = Path.cwd() / path, Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


# --------------------------------------------------------------------------- output


def _as_json(found: Findings) -> dict[str, Any]:
    return {
        "files": found.files,
        "errors": [asdict(problem) for problem in found.of("error")],
        "warnings": [asdict(problem) for problem in found.of("warning")],
    }


def _print(found: Findings) -> None:
    errors, warnings = found.of("error"), found.of("warning")
    for problem in (*errors, *warnings):
        click.echo(_as_text(problem, found.lines[problem.path]) + "\n")
    total = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    clear = "no problems" if not errors and not warnings else total
    click.echo(f"{_count(range(found.files), 'file')}: {clear}")


def _as_text(problem: Problem, lines: list[str]) -> str:
    colour = "red" if problem.severity == "error" else "yellow"
    place = style(f"{clean(problem.path)}:{problem.line}:{problem.column}", bold=True)
    rule = style(f" [{problem.rule}]", dim=True) if problem.rule else ""
    text = f"{place}: {style(problem.severity, fg=colour)}: {clean(problem.message)}{rule}"
    frame = code_frame(lines, problem.line, problem.column)
    if frame is not None:
        code, mark = frame
        text += f"\n{code}\n{style(mark, fg=colour)}"
    return text + (f"\n  hint: {clean(problem.hint)}" if problem.hint else "")


def _count(items: list[Problem] | range, word: str) -> str:
    return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"
