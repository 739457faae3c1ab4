"""The installer's messages: each says what is missing and what to do."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from infra import VERSION, install
from infra.install import InstallError, Meter, explain

ROOT = Path(__file__).parents[2]


def test_an_old_python_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No newer one on the PATH: the version that is there, the one needed, the package."""
    monkeypatch.setattr(install, "PYTHON_MIN", (3, 99))

    with pytest.raises(InstallError, match=r"is too old; Tailrace needs 3\.11[\s\S]*apt install"):
        install._use_new_python()  # noqa: SLF001


def test_a_python_without_venv_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian ships Python without ensurepip: python3-venv has it."""
    monkeypatch.setitem(sys.modules, "ensurepip", None)

    with pytest.raises(InstallError, match=r"`apt install python3-venv`"):
        install._need_venv()  # noqa: SLF001


def test_a_full_disk_is_told_before_installing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The free and the needed space."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 7 << 20}))

    with pytest.raises(InstallError, match="has 7 MiB free; installing needs 1000 MiB"):
        install._need_space()  # noqa: SLF001


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("WARNING: Retrying (Retry(total=1)) NewConnectionError", "index can't be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "is not the file that x.lock names"),
        ("OSError: [Errno 28] No space left on device", "is full. Free some space"),
        ("ERROR: No matching distribution found for y", "no build for this machine"),
        ("something else", "pip could not install x.lock"),
    ],
)
def test_what_pip_says_is_explained(output: str, expected: str) -> None:
    """The cause first, then the end of pip's own words, then what to do."""
    text = explain([output + "\n"], Path("x.lock"))

    assert expected in text
    assert output in text
    assert text.endswith("run `make up` again.")


def test_the_meter_adds_up_what_pip_tells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Packages and sizes; a line only for what takes a while."""
    meter = Meter(2, tmp_path)

    for line in (
        "  Downloading a-1-py3-none-any.whl (2.5 MB)",
        "  Using cached b_c-1-py3-none-any.whl (500 kB)",
        "Installing collected packages: a, b_c",
    ):
        meter.read(line)

    assert meter.summary() == "Installed 2 packages, 3 MB"
    assert capsys.readouterr().out == "    1 of 2    2.5 MB  a 2.5 MB\n  Unpacking ...\n"


def test_version_is_the_same_everywhere() -> None:
    """The package says what pyproject.toml says."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)

    assert found is not None
    assert found.group(1) == VERSION


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-jre.lock"]
)
def test_locks_pin_and_hash_everything_and_name_no_host(name: str) -> None:
    """A lock is reproducible, and where packages come from is the user's own setting."""
    text = (ROOT / name).read_text(encoding="utf-8")

    entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert entries
    assert all("==" in entry for entry in entries)
    assert text.count("--hash=sha256:") >= len(entries)
    assert "://" not in text


def test_the_lock_has_every_dependency_that_the_project_names() -> None:
    """A dependency added without `make lock` would be missing on every fresh machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        "requirements.lock": project["dependencies"],
        "requirements-dev.lock": project["dependencies"] + project["optional-dependencies"]["dev"],
    }

    for lock, dependencies in wanted.items():
        text = (ROOT / lock).read_text(encoding="utf-8")
        pinned = {_normal(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
        names = {_normal(re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0]) for line in dependencies}
        assert names <= pinned, f"{lock} lacks {names - pinned}: run `make lock`"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
