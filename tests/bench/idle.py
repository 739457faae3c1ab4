"""Memory and CPU of every process while nothing happens."""

from __future__ import annotations

import threading

from tests.bench.figures import Report, Row
from tests.bench.load import cpu_seconds, pss_mb
from tests.support.stack import Stack


def measure(stack: Stack, report: Report, *, seconds: float) -> None:
    """Wait, then look."""
    before = cpu_seconds(stack)
    threading.Event().wait(seconds)
    after = cpu_seconds(stack)
    status = stack.status()
    total = python = 0.0
    for process in status["processes"]:
        if not process.get("pid"):
            continue
        name = process["name"]
        memory = pss_mb(int(process["pid"]))
        total += memory
        if name not in ("kafka", "postgres"):
            python += memory
        share = (after.get(name, 0.0) - before.get(name, 0.0)) / seconds * 100
        report.add(Row(f"  idle {name}: memory (PSS)", memory, "MB"))
        report.add(Row(f"  idle {name}: CPU", share, "%"))
    supervisor = pss_mb(int(status["supervisor_pid"])) if status.get("supervisor_pid") else 0.0
    report.details["supervisor_with_children_mb"] = supervisor
    report.add(Row("memory of all Python processes (PSS)", python, "MB", "<= 600"))
    report.add(Row("memory of everything (PSS)", total, "MB", "<= 2,000"))
