"""`python -m tests.bench [PART ...]`: measure, print beside the goals, write JSON."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.bench import folding, idle, language, latency, local, logs, throughput
from tests.bench.figures import Report
from tests.support.stack import running

PARTS = ("language", "local", "latency", "throughput", "logs", "folding", "idle")
ALONE = {"language", "local", "folding"}
RESULT = Path("bench-results") / "latest.json"


def main() -> None:
    """Run the parts that are asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--pushes", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--wide-runs", type=int, default=20)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    parts = options.parts or PARTS
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if "language" in parts:
            language.measure(report)
        if "local" in parts:
            local.measure(report, folder / "local")
        if set(parts) - ALONE:
            _with_stack(report, folder, parts, options)
        if "folding" in parts:
            folding.scheduler_loop(report, folder / "fold", runs=5_000)
    report.write(options.out)
    print(f"written to {options.out}")


def _with_stack(
    report: Report, folder: Path, parts: tuple[str, ...], options: argparse.Namespace
) -> None:
    with running(folder / "home", runner_slots="8") as stack:
        if "idle" in parts:
            idle.measure(stack, report, seconds=options.idle_seconds)
        if "latency" in parts:
            latency.measure(stack, report, folder, pushes=options.pushes, remote=False)
            latency.measure(stack, report, folder, pushes=options.pushes // 4, remote=True)
        if "logs" in parts:
            logs.measure(stack, report, folder)
        if "throughput" in parts:
            throughput.measure(
                stack, report, folder, runs=options.runs, wide_runs=options.wide_runs
            )
            folding.rebuild(stack, report)


if __name__ == "__main__":
    main()
