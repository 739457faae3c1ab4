"""`infra/install.py` as `make up` runs it: on a small checkout, with one package, offline."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from infra import install
from tests.support.eventually import eventually


class Checkout:
    """A checkout with the installer, locks that name one package, and that package's wheel."""

    def __init__(self, root: Path) -> None:
        """Write it all below `root`."""
        self.root = root / "checkout"
        self.wheels = root / "wheels"
        self.wheels.mkdir(parents=True)
        (self.root / "infra" / "cli").mkdir(parents=True)
        for package in ("infra", "infra/cli"):
            (self.root / package / "__init__.py").touch()
        (self.root / "infra/cli/__init__.py").write_text("def main():\n    print('hello')\n")
        source = Path(install.__file__).read_text(encoding="utf-8")
        (self.root / "infra/install.py").write_text(source, encoding="utf-8")
        (self.root / "pyproject.toml").write_text('version = "4.5.6"\n', encoding="utf-8")
        self.lock(self.add_wheel("1.0"))

    def add_wheel(self, version: str) -> str:
        """Make a wheel of the package `tiny`; return its line in a lock."""
        path = self.wheels / f"tiny-{version}-py3-none-any.whl"
        info = f"tiny-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("tiny.py", f"VERSION = '{version}'\n")
            wheel.writestr(f"{info}/METADATA", f"Name: tiny\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return f"tiny=={version} --hash=sha256:{digest}\n"

    def lock(self, line: str) -> None:
        """Let the lock say this."""
        for name in ("requirements.lock", "requirements-dev.lock"):
            (self.root / name).write_text(line, encoding="ascii")
        (self.root / "requirements-jre.lock").write_text("", encoding="ascii")

    def command(self) -> list[str]:
        """Return the command that `make` runs."""
        return [sys.executable, "-I", str(self.root / "infra/install.py")]

    def environment(self) -> dict[str, str]:
        """Return an environment in which pip knows no index but the folder of wheels."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def install(self) -> subprocess.CompletedProcess[str]:
        """Run the installer to its end."""
        return subprocess.run(
            self.command(), env=self.environment(), capture_output=True, text=True, check=False
        )

    def run(self, *argv: str) -> str:
        """Run something of the environment and return what it prints."""
        program = self.root / ".venv" / "bin" / argv[0]
        return subprocess.run(
            [program, *argv[1:]], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a checkout in which nothing is installed."""
    return Checkout(tmp_path)


def test_an_install_is_complete_quick_to_repeat_and_follows_the_lock(checkout: Checkout) -> None:
    """First the environment and the command; then nothing to do; then only what changed."""
    first = checkout.install()
    assert first.returncode == 0, first.stderr
    assert checkout.run("tailrace") == "hello"
    assert checkout.run("python", "-c", "import tiny; print(tiny.VERSION)") == "1.0"

    asked = "from importlib.metadata import version; print(version('tailrace'))"
    assert checkout.run("python", "-c", asked) == "4.5.6"

    began = time.monotonic()
    assert checkout.install().stdout == ""
    assert time.monotonic() - began < 1.0

    checkout.lock(checkout.add_wheel("2.0"))
    assert checkout.install().returncode == 0
    assert checkout.run("python", "-c", "import tiny; print(tiny.VERSION)") == "2.0"


def test_an_install_that_was_killed_is_done_anew(checkout: Checkout) -> None:
    """Kill -9 in the middle: the next run starts from nothing instead of trusting half of it."""
    child = subprocess.Popen(
        checkout.command(),
        env=checkout.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    unfinished = checkout.root / ".venv" / install.UNFINISHED.name
    eventually(unfinished.exists, what="the install has begun")
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    half = checkout.root / ".venv" / "half"
    half.touch()

    again = checkout.install()

    assert again.returncode == 0, again.stderr
    assert not half.exists()
    assert not unfinished.exists()
    assert checkout.run("tailrace") == "hello"


def test_a_package_with_another_hash_is_not_installed(checkout: Checkout) -> None:
    """The message says that the file is not the locked one, and nothing is marked as installed."""
    checkout.lock("tiny==1.0 --hash=sha256:" + "0" * 64 + "\n")

    failed = checkout.install()

    assert failed.returncode == 1
    assert "is not the file that requirements.lock names" in failed.stderr
    assert not (checkout.root / ".venv" / install.MARKER.name).exists()
