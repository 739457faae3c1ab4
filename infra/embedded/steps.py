"""One-time commands between the servers and the services: topics, migrations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from os import environ
from pathlib import Path

from infra.embedded.launchers import REPOSITORY
from infra.embedded.processes import tail
from infra.embedded.services import Step

_END_S = 3.0


class StepRun:
    """One such command, and how it went."""

    def __init__(self, step: Step, log_path: Path, env: Mapping[str, str]) -> None:
        """Say what is run; nothing is started yet."""
        self._step = step
        self._log_path = log_path.with_name(f"{log_path.stem}-{step.name}.log")
        self._env = {**environ, **env, "TAILRACE_INSTANCE": step.name}
        self._child: subprocess.Popen[bytes] | None = None
        self._tries = 0

    def begin(self) -> None:
        """Start it, unless it went well before."""
        if self.went_well:
            return
        self._tries += 1
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *self._step.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=REPOSITORY,
            )

    @property
    def has_ended(self) -> bool:
        """Tell whether the last try is over."""
        return self._child is not None and self._child.poll() is not None

    @property
    def went_well(self) -> bool:
        """Tell whether it ended with 0."""
        return self._child is not None and self._child.poll() == 0

    def end(self) -> None:
        """End it if it still runs; it is idempotent and is run again at the next start."""
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()

    def as_json(self) -> dict[str, object]:
        """Return it as the control socket sends it."""
        failed = self.has_ended and not self.went_well
        state = "done" if self.went_well else "failed" if failed else "running"
        if self._child is None:
            state = "waiting"
        return {
            "name": self._step.name,
            "state": state,
            "tries": self._tries,
            "log": str(self._log_path),
            "last_lines": tail(self._log_path) if failed else "",
        }
