"""`tailrace lint`: what it says about files, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from infra.cli import main
from infra.cli.frames import code_frame, split_lines

GOOD = "on: push\njobs:\n  a:\n    runs-on: linux\n    steps:\n      - run: make\n"
BAD = GOOD.replace("steps", "step")
CALLED = "on: workflow_call\njobs:\n  b:\n    runs-on: linux\n    steps:\n      - run: make\n"
CALLER = "on: push\njobs:\n  a:\n    uses: ./.github/workflows/called.yml\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of workflows of an otherwise empty repository, and be in that."""
    (tmp_path / ".git").mkdir()
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return folder


def lint(*arguments: str, text: str | None = None) -> Result:
    """Run `tailrace lint`."""
    return CliRunner().invoke(main, ["lint", *arguments], input=text, catch_exceptions=False)


def test_all_workflows_of_the_tree_are_checked_by_default(tree: Path) -> None:
    """Both folders count, other files do not, and a sub-folder of the tree is as good a place."""
    own = tree.parents[1] / ".tailrace" / "workflows"
    own.mkdir(parents=True)
    (tree / "a.yml").write_text(GOOD)
    (tree / "notes.txt").write_text("no workflow")
    (own / "b.yaml").write_text(GOOD)
    assert lint().output == "2 files: no problems\n"
    os.chdir(own)
    assert lint().output == "2 files: no problems\n"


def test_an_error_shows_its_place_and_what_was_meant(tree: Path) -> None:
    """File, line and column, the line with a mark, and the nearest key."""
    (tree / "a.yml").write_text(BAD)
    result = lint()
    assert result.exit_code == 1
    assert ".github/workflows/a.yml:5:5: error: 'step' is not a key of the job 'a'" in result.output
    assert "    5 |     step:\n      |     ^~~~\n" in result.output
    assert "hint: did you mean 'steps'?" in result.output
    assert result.output.endswith("1 file: 1 error, 1 warning\n")


def test_warnings_do_not_fail(tree: Path) -> None:
    """A workflow that runs, though hardly as meant, ends with 0."""
    (tree / "a.yml").write_text(GOOD.replace("make", "${{ inputs.nope }}"))
    result = lint()
    assert result.exit_code == 0
    assert "warning: inputs.nope is always empty" in result.output
    assert result.output.endswith("1 file: 0 errors, 1 warning\n")


def test_json_has_errors_and_warnings_apart(tree: Path) -> None:
    """Each with path, line, column, message, hint and rule."""
    (tree / "a.yml").write_text(BAD)
    result = lint("--json", ".github/workflows/a.yml")
    found = json.loads(result.output)
    assert result.exit_code == 1
    assert found["files"] == 1
    assert [(e["path"], e["line"], e["column"], e["rule"]) for e in found["errors"]] == [
        (".github/workflows/a.yml", 5, 5, "unknown-key")
    ]
    assert [w["rule"] for w in found["warnings"]] == ["jobs"]


def test_local_calls_are_resolved_from_the_tree(tree: Path) -> None:
    """A missing file is an error at the call; a mistake in a called file is shown once."""
    (tree / "a.yml").write_text(CALLER)
    assert "Unable to find reusable workflow" in lint().output
    (tree / "called.yml").write_text(CALLED)
    assert lint().output == "2 files: no problems\n"
    (tree / "called.yml").write_text(CALLED.replace("runs-on", "run-on"))
    assert lint().output.count("called.yml:4:5: error: 'run-on'") == 1
    assert lint("-", text=CALLER).exit_code == 1


def test_calls_do_not_leave_the_tree(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither by dots nor by a link is a file outside read."""
    outside = tmp_path_factory.mktemp("outside") / "called.yml"
    outside.write_text(CALLED)
    (tree / "called.yml").symlink_to(outside)
    (tree / "a.yml").write_text(CALLER)
    assert "Unable to find reusable workflow" in lint(".github/workflows/a.yml").output
    climbing = CALLER.replace(".github/workflows", f"../{outside.parent.name}")
    assert "Unable to find reusable workflow" in lint("-", text=climbing).output


@pytest.mark.usefixtures("tree")
def test_standard_input_has_a_name() -> None:
    """An editor passes the text, and says whose it is."""
    result = lint("-", "--stdin-name", ".github/workflows/new.yml", text=BAD)
    assert ".github/workflows/new.yml:5:5: error" in result.output
    assert "<stdin>:5:5: error" in lint("-", text=BAD).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there are no workflow files in .github/workflows or .tailrace/workflows"),
        (("nope.yml",), "there is no file nope.yml"),
        ((".",), "there are no workflow files in ."),
    ],
)
@pytest.mark.usefixtures("tree")
def test_what_is_not_there_is_an_error_of_its_own(arguments: tuple[str, ...], message: str) -> None:
    """Nothing to check is never a success."""
    result = lint(*arguments)
    assert result.exit_code == 4
    assert message in result.output


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"a: [", b"\x00", b"on: push\r\njobs:\r\n  a:\tb", b"x" * (1 << 21)]
)
def test_any_bytes_get_an_answer(tree: Path, text: bytes) -> None:
    """Files that are no workflow at all are reported, not crashed on."""
    (tree / "a.yml").write_bytes(text)
    result = lint()
    assert result.exit_code == 1
    assert ".github/workflows/a.yml:" in result.output


def test_the_schema_is_printed() -> None:
    """`--schema` gives one JSON object of the 2020-12 dialect."""
    found = json.loads(lint("--schema").output)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("line", "column", "mark"),
    [
        ("a: b", 4, "    1 | a: b\n      |    ^"),
        ("\ta: b", 2, "    1 |     a: b\n      |     ^"),
        ("日本: b", 5, "    1 | 日本: b\n      |       ^"),
        ("a: \x1b[31mred", 4, "    1 | a: \\x1b[31mred\n      |    ^"),
        ("a:", 3, "    1 | a:\n      |   ^"),
    ],
)
def test_the_mark_stands_under_its_place(line: str, column: int, mark: str) -> None:
    """Tabs, wide characters and control codes included."""
    assert "\n".join(code_frame([line], 1, column) or ()) == mark


def test_of_a_long_line_the_part_around_the_place_is_shown() -> None:
    """The mark is still under its word."""
    frame = code_frame(["x" * 500 + " word " + "y" * 500], 1, 502)
    assert frame is not None
    code, mark = frame
    assert len(code) < 120
    assert code[mark.index("^") :].startswith("word")


def test_there_is_no_frame_where_there_is_no_line() -> None:
    """A problem of a file that could not be read has none."""
    assert code_frame([], 1, 1) is None
    assert split_lines(b"\xef\xbb\xbfa\r\nb\rc\n") == ["a", "b", "c", ""]


def test_other_repositories_can_use_it_before_a_commit() -> None:
    """The hook's entry is a command that exists, and it runs for workflow files."""
    path = Path(__file__).parents[3] / ".pre-commit-hooks.yaml"
    hooks = yaml.safe_load(path.read_text())
    assert {hook["entry"] for hook in hooks} == {"tailrace lint"}
    assert not any(hook["pass_filenames"] for hook in hooks)


def test_it_needs_no_service_and_no_home(tree: Path) -> None:
    """A process with an empty environment, in a folder that cannot be written to, answers."""
    (tree / "a.yml").write_text(GOOD)
    tree.parents[1].chmod(0o555)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tailrace")), "lint"],
        capture_output=True, text=True, check=False, env={"HOME": "/nonexistent"},
    )  # fmt: skip
    tree.parents[1].chmod(0o755)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 file: no problems\n", "")
