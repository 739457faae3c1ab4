"""The set `runs`: whole workflows, executed by `tailrace run-local` in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.cases import Case, Outcome, checked, comparable

TIMEOUT_S = 120
_AT_ONCE = 2
_FROM_PROCESS = frozenset({"out", "err"})


@dataclass(frozen=True, slots=True)
class Ran:
    """A case with the run that it became, as `run-local --json` shows one; or why there is none."""

    case: Case
    run: dict[str, Any] | None
    detail: str | None = None

    def outcome(self) -> Outcome:
        """Return what differs from the case's expectation."""
        run = self.run
        if self.detail is not None or run is None:
            return Outcome(self.case["id"], self.detail or "no run")
        return checked(self.case["id"], lambda: "; ".join(differences(self.case, run)) or None)


def run_local(root: Path) -> Iterator[Outcome]:
    """Every case, some side by side, in the order of their names."""
    for ran in local_runs(root):
        yield ran.outcome()


def local_runs(root: Path) -> Iterator[Ran]:
    """Run every case; the exit code of the command counts too."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(_ran, case_folders(root))


def case_folders(root: Path) -> list[Path]:
    """Return the folders of the cases by name."""
    return sorted(path.parent for path in (root / "runs").glob("*/expect.json"))


def _ran(folder: Path) -> Ran:
    case = json.loads((folder / "expect.json").read_text(encoding="utf-8"))
    try:
        with tempfile.TemporaryDirectory(prefix="tailrace-case-") as name:
            tree = Path(name) / folder.name
            shutil.copytree(folder / "repo", tree, symlinks=True)
            run, exit_code = _run(case, tree)
    except Exception as error:  # noqa: BLE001 -- one broken case must not hide the others
        return Ran(case, None, f"{type(error).__name__}: {error}")
    expected_code = 0 if case["pass"] else 1
    wrong = f"exit code {exit_code}" if exit_code != expected_code or run is None else None
    return Ran(case, run, wrong)


def _run(case: Case, tree: Path) -> tuple[dict[str, Any] | None, int]:
    payload = merged_payload(case)
    argv = [sys.executable, "-c", "from infra.cli import main; main()", "run-local", str(tree),
            "-W", case["workflow"], "-e", case["event"], "-p", "-", "--json"]  # fmt: skip
    for secret in case.get("secrets") or {}:
        argv += ["--secret", secret]
    done = subprocess.run(
        argv,
        input=json.dumps(payload).encode(),
        env={**os.environ, **(case.get("secrets") or {})},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    try:
        runs = json.loads(done.stdout)["runs"]
    except ValueError:
        raise RuntimeError(done.stderr.decode("utf-8", "replace").strip()) from None
    return (runs[0] if runs else None), done.returncode


def merged_payload(case: Case) -> dict[str, Any]:
    """Return the case's payload with the repository and ref of its context."""
    context = case["context"]
    payload: dict[str, Any] = {**(case.get("event_payload") or {})}
    payload.setdefault("repository", {"full_name": context["repository"]})
    if "ref" in context and not case["event"].startswith("pull_request"):
        payload.setdefault("ref", context["ref"])
    return payload


def differences(case: Case, run: dict[str, Any]) -> Iterator[str]:
    """Yield what a run, as `run-local --json` shows it, has otherwise than the case expects."""
    if (run["conclusion"] == "success") != case["pass"]:
        yield f"the run is {run['conclusion']}"
    if run["job_conclusions"] != case["job_conclusions"]:
        yield f"jobs: expected {case['job_conclusions']}, got {run['job_conclusions']}"
    if "matrix_legs" in case and _sorted(case["matrix_legs"]) != _sorted(run["matrix_legs"]):
        yield f"legs: expected {case['matrix_legs']}, got {run['matrix_legs']}"
    called = case.get("called_workflow_jobs")
    if called is not None and called != run["called_workflow_jobs"]:
        yield f"called jobs: expected {called}, got {run['called_workflow_jobs']}"
    yield from _text_differences(case, run)
    yield from _context_differences(case.get("steps_context") or {}, run["steps_context"])


def _text_differences(case: Case, run: dict[str, Any]) -> Iterator[str]:
    lines = [
        line["text"] for job in run["jobs"] for line in job["log"] if line["s"] in _FROM_PROCESS
    ]
    # of the runner's own words only remarks count, not the scripts that it shows
    words = [
        line["text"]
        for job in run["jobs"]
        for line in job["log"]
        if line["text"].startswith(("##[error]", "##[warning]"))
    ]
    output = "\n".join(lines + words)
    for text in case.get("must_contain_in_logs") or ():
        if text not in output:
            yield f"the log lacks {text!r}"
    for text in case.get("must_not_contain") or ():
        if text in output:
            yield f"the log has {text!r}"
    for text in case.get("must_not_contain_lines") or ():
        if text in lines:
            yield f"the log has the line {text!r}"
    summaries = "\n".join(job["summary"] for job in run["jobs"])
    for text in case.get("step_summary_contains") or ():
        if text not in summaries:
            yield f"the summaries lack {text!r}"


def _context_differences(expected: dict[str, Any], actual: dict[str, Any]) -> Iterator[str]:
    """Compare steps contexts by job, or of the only job when the case names steps alone."""
    by_job = expected if set(expected) <= set(actual) else dict.fromkeys(actual, expected)
    for job, steps in by_job.items():
        for step, fields in steps.items():
            found = actual.get(job, {}).get(step) or {}
            for field, value in fields.items():
                if comparable(found.get(field)) != comparable(value):
                    yield f"steps.{step}.{field} of {job} is {found.get(field)!r}, not {value!r}"


def observed(run: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same however a case was run: all but places, times, ids and logs."""
    jobs = {
        f"{job['job']} {json.dumps(job['matrix'], sort_keys=True)}": {
            "conclusion": job["conclusion"],
            "reason": job["reason"],
            "outputs": job["outputs"],
            "summary": job["summary"].strip(),
            "annotations": [
                [remark[key] for key in ("level", "title", "message", "path", "line", "step")]
                for remark in job["annotations"]
            ],
            "steps": [
                [step[key] or None for key in ("number", "name", *_STEP_ENDS)]
                for step in job["steps"]
            ],
        }
        for job in run["jobs"]
    }
    words = ("name", "workflow", "event", "conclusion", "job_conclusions", "called_workflow_jobs")
    legs = _sorted(run["matrix_legs"])
    return {**{word: run[word] for word in words}, "matrix_legs": legs, "jobs": jobs}


_STEP_ENDS = ("outcome", "conclusion", "exit_code", "reason")


def _sorted(legs: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(leg, sort_keys=True) for leg in legs)
