"""What `success()`, `failure()` and `cancelled()` mean for jobs, steps and composite steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from schemas.late import dataclass
from schemas.workflow.expressions.nodes import StatusScope

StepResult = Literal["success", "failure", "cancelled", "skipped"]
JobStatus = Literal["success", "failure", "cancelled"]

__all__ = [
    "CompositeScope",
    "JobScope",
    "JobStatus",
    "StatusScope",
    "StepResult",
    "StepScope",
    "conclude_step",
    "status_after",
]


@dataclass(frozen=True, slots=True)
class JobScope:
    """Status functions of a job's `if`.

    `needs_results` holds the result of every ancestor, not only of the direct `needs`: as on
    GitHub a failed or skipped job holds back the whole chain behind it, also behind a job that
    ran because of `always()`.
    """

    needs_results: Mapping[str, str] = field(default_factory=dict)
    cancelled_run: bool = False

    def _results(self, names: tuple[str, ...]) -> list[str]:
        if not names:
            return list(self.needs_results.values())
        wanted = {name.lower() for name in names}
        return [result for job, result in self.needs_results.items() if job.lower() in wanted]

    def success(self, names: tuple[str, ...] = ()) -> bool:
        """True when the run goes on and every ancestor (or every named one) succeeded."""
        return not self.cancelled_run and all(
            result == "success" for result in self._results(names)
        )

    def failure(self, names: tuple[str, ...] = ()) -> bool:
        """True when an ancestor (or a named one) failed."""
        return any(result == "failure" for result in self._results(names))

    def cancelled(self) -> bool:
        """True when the run was cancelled."""
        return self.cancelled_run


@dataclass(frozen=True, slots=True)
class StepScope:
    """Status functions of a step's `if`; None means that nothing has happened yet."""

    job_status: str | None = None

    def success(self, names: tuple[str, ...] = ()) -> bool:  # noqa: ARG002
        """True while no step before failed and the job is not cancelled."""
        return self.job_status in (None, "success")

    def failure(self, names: tuple[str, ...] = ()) -> bool:  # noqa: ARG002
        """True when a step before failed."""
        return self.job_status == "failure"

    def cancelled(self) -> bool:
        """True when the job is being cancelled."""
        return self.job_status == "cancelled"


@dataclass(frozen=True, slots=True)
class CompositeScope:
    """Status functions inside a composite action: its own steps decide, the job's cancel counts."""

    job_status: str | None = None
    action_status: str | None = None

    def success(self, names: tuple[str, ...] = ()) -> bool:  # noqa: ARG002
        """True while no step of this action failed."""
        return self.action_status in (None, "success") and self.job_status != "cancelled"

    def failure(self, names: tuple[str, ...] = ()) -> bool:  # noqa: ARG002
        """True when a step of this action failed."""
        return self.action_status == "failure"

    def cancelled(self) -> bool:
        """True when the job is being cancelled."""
        return self.job_status == "cancelled"


def conclude_step(outcome: StepResult, *, continue_on_error: bool) -> StepResult:
    """A step's conclusion: `continue-on-error` turns a failure, and nothing else, to success."""
    return "success" if outcome == "failure" and continue_on_error else outcome


def status_after(status: JobStatus | None, conclusion: StepResult) -> JobStatus:
    """The job's (or composite action's) status after one more step.

    Skipped steps change nothing, a failure does not fall back to success, and a cancelled job
    stays cancelled.
    """
    if conclusion == "skipped" or status == "cancelled":
        return status or "success"
    if conclusion == "success":
        return status or "success"
    return conclusion
