"""Looking after one process: start, watch, start again with growing pauses, end."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from infra.embedded import probes, processes
from infra.embedded.errors import EmbeddedError
from infra.embedded.launchers import Launcher
from infra.embedded.probes import SILENT, Health
from infra.embedded.processes import ProcessName

State = Literal["waiting", "starting", "up", "degraded", "crashed", "failed", "stopped"]

PROBE_PAUSE_S = 2.0
PROBE_PAUSE_STARTING_S = 0.15
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 30.0
STABLE_S = 30.0
STUCK_S = 60.0
PORT_LET_GO_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One line of `tailrace status`; `crashes` counts those in a row."""

    name: str
    state: State
    pid: int | None
    port: int
    detail: str
    lag: int | None
    uptime_s: float | None
    restarts: int
    crashes: int
    memory_mb: float
    log: str
    last_lines: str

    def as_json(self) -> dict[str, object]:
        """Return it as the control socket sends it."""
        return asdict(self)


def backoff_s(crashes: int) -> float:
    """Return the pause before the start after so many crashes in a row (1 is the first)."""
    return float(min(BACKOFF_FIRST_S * 2 ** (max(crashes, 1) - 1), BACKOFF_MAX_S))


class Child:
    """One process and the thread that looks after it.

    The thread alone starts and ends the process; others read `report()` and make wishes.
    """

    def __init__(
        self,
        name: str,
        launcher: Launcher,
        *,
        restart: bool = True,
        make_room: Callable[[float], None] | None = None,
    ) -> None:
        """Name it; nothing is started before `begin`.

        `make_room` is called before each start to see to it that its port is free, with the
        seconds that the process before it has to let go of it.
        """
        self.name = name
        self._launcher = launcher
        self._restart = restart
        self._make_room = make_room or (lambda _patience_s: None)
        self._process: ProcessName | None = None
        self._state: State = "waiting"
        self._health: Health = SILENT
        self._detail = ""
        self._crashes = 0
        self._restarts = 0
        self._started_at = 0.0
        self._answered_at = 0.0
        self._had_port = False
        self._wish: Literal["", "restart", "stop"] = ""
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._look_after, name=name, daemon=True)

    def begin(self) -> None:
        """Start looking after it; a process of an earlier supervisor is taken over."""
        self._thread.start()

    def stop(self) -> None:
        """Wish that it ends; `join` waits for it."""
        self._wish_for("stop")

    def restart(self) -> None:
        """Wish that it ends in order and is started again."""
        self._wish_for("restart")

    def look(self) -> None:
        """Have its thread look at it now and not at the end of its pause."""
        os.write(self._wake_writer, b"!")

    def kill(self, signal_number: int = signal.SIGKILL) -> bool:
        """Signal it as a crash would; False if it does not run."""
        return self._process is not None and processes.send(self._process, signal_number)

    def join(self, timeout_s: float) -> None:
        """Wait until it ended."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_up(self) -> bool:
        """Tell whether it runs and says that it is ready."""
        return self._state == "up"

    @property
    def has_failed(self) -> bool:
        """Tell whether it will not be started again without being asked."""
        return self._state == "failed"

    def report(self, *, with_memory: bool) -> Report:
        """Return how it is; the last lines of its log if it is not well.

        The kernel walks all pages to add up the memory: not for whoever asks ten times a second.
        """
        process, state = self._process, self._state
        return Report(
            name=self.name,
            state=state,
            pid=process.pid if process else None,
            port=self._launcher.port,
            detail="" if state == "up" else self._detail or self._health.detail,
            lag=self._health.lag,
            uptime_s=round(processes.age_s(process), 1) if process else None,
            restarts=self._restarts,
            crashes=self._crashes,
            memory_mb=self._memory_mb(process) if with_memory else 0,
            log=str(self._launcher.log_path),
            last_lines=""
            if state in ("up", "waiting", "stopped")
            else processes.tail(self._launcher.log_path),
        )

    def _memory_mb(self, process: ProcessName | None) -> float:
        return round(self._launcher.memory_bytes(process.pid) / 2**20, 1) if process else 0

    def _look_after(self) -> None:
        self._take_over()
        while self._wish != "stop":
            if self._process is None:
                self._start()
            if self._process is not None:
                self._watch(self._process)
        if self._process is not None:
            self._launcher.end(self._process)
        self._process, self._state, self._detail = None, "stopped", ""

    def _take_over(self) -> None:
        found = self._launcher.running()
        if found is not None:
            self._process = found
            self._has_started()

    def _start(self) -> None:
        self._state, self._health = "starting", SILENT
        try:
            self._make_room(PORT_LET_GO_S if self._had_port else 0.0)
            self._had_port = False
            self._process = self._launcher.launch()
        except (EmbeddedError, OSError) as error:
            self._ended(f"could not be started: {error}")
            return
        self._detail = ""
        self._has_started()

    def _has_started(self) -> None:
        self._state = "starting"
        self._started_at = self._answered_at = time.monotonic()

    def _watch(self, process: ProcessName) -> None:
        """Ask the process how it is until it ends or someone wishes something."""
        while not self._wish:
            if not processes.is_alive(process):
                code = processes.exit_code(process)
                self._process = None
                self._ended("ended" if code is None else f"ended with {exit_text(code)}")
                return
            if not self._launcher.is_current():
                self.restart()
                break
            self._probe(process)
            pause_s = PROBE_PAUSE_S if self._state == "up" else PROBE_PAUSE_STARTING_S
            self._wait(pause_s, process)
        if self._wish == "restart":
            self._wish = ""
            self._launcher.end(process)
            processes.forget(process)
            self._process = None
            self._restarts += 1

    def _probe(self, process: ProcessName) -> None:
        health = self._launcher.health()
        now = time.monotonic()
        if health.reachable and not self._had_port:
            # A stranger who took the port before us answers, too.
            self._had_port = probes.listens(process.pid, self._launcher.port)
            health = health if self._had_port else SILENT
        self._health = health
        if health.reachable:
            self._answered_at = now
        if health.ready:
            self._state = "up"
            if now - self._started_at > STABLE_S:
                self._crashes = 0
        elif self._state == "up":
            self._state = "degraded"
        if self._restart and now - self._answered_at > STUCK_S:
            self._detail = f"did not answer for {STUCK_S:.0f} s and was killed"
            self.kill()

    def _ended(self, how: str) -> None:
        """Note a crash, and wait before the next start; longer with every crash in a row."""
        was_up = self._state in ("up", "degraded")
        self._health = SILENT
        self._crashes += 1
        pause_s = backoff_s(self._crashes)
        if not self._restart:
            self._state, self._detail = "failed", f"{how}; restarting is switched off"
            self._wait(None)
            return
        again = f"again in {pause_s:.0f} s" if pause_s >= 1 else "starting again"
        self._state = "crashed" if self._crashes > 1 or not was_up else "starting"
        self._detail = f"{how}; {again}" + (
            f" (crashed {self._crashes} times in a row)" if self._crashes > 1 else ""
        )
        self._wait(pause_s)
        if self._wish != "stop":
            self._restarts += 1

    def _wait(self, pause_s: float | None, process: ProcessName | None = None) -> None:
        """Wait until the pause is over, a wish is made, or the process ended."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        watched = -1
        if process is not None:
            try:
                watched = os.pidfd_open(process.pid)
                poll.register(watched, select.POLLIN)
            except OSError:  # it ended just now, or an old kernel: the pause is short
                pause_s = min(pause_s or PROBE_PAUSE_STARTING_S, PROBE_PAUSE_STARTING_S)
        try:
            ready = poll.poll(None if pause_s is None else pause_s * 1000)
        finally:
            if watched >= 0:
                os.close(watched)
        if any(descriptor == self._wake_reader for descriptor, _event in ready):
            os.read(self._wake_reader, 64)
            if self._wish == "restart" and self._process is None:
                self._wish, self._crashes = "", 0

    def _wish_for(self, wish: Literal["restart", "stop"]) -> None:
        if self._wish != "stop":
            self._wish = wish
        os.write(self._wake_writer, b"!")


def exit_text(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
