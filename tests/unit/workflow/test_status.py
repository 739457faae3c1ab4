"""Status functions and step conclusions."""

from __future__ import annotations

import pytest

from schemas.workflow.expressions import evaluate
from schemas.workflow.status import (
    CompositeScope,
    JobScope,
    JobStatus,
    StepResult,
    StepScope,
    conclude_step,
    status_after,
)


@pytest.mark.parametrize(
    ("scope", "success", "failure", "cancelled"),
    [
        (JobScope({}), True, False, False),
        (JobScope({"a": "success", "b": "success"}), True, False, False),
        (JobScope({"a": "skipped", "b": "success"}), False, False, False),
        (JobScope({"a": "failure", "b": "success"}), False, True, False),
        (JobScope({"a": "cancelled"}), False, False, False),
        (JobScope({"a": "success"}, cancelled_run=True), False, False, True),
        (StepScope("failure"), False, True, False),
        (StepScope("cancelled"), False, False, True),
        (CompositeScope("failure", "success"), True, False, False),
        (CompositeScope("success", "failure"), False, True, False),
        (CompositeScope("cancelled", "success"), False, False, True),
    ],
)
def test_a_scope_says_what_happened_before(
    scope: JobScope | StepScope | CompositeScope, *, success: bool, failure: bool, cancelled: bool
) -> None:
    """Skipped ancestors hold a job back; a composite looks at its own steps."""
    assert (scope.success(), scope.failure(), scope.cancelled()) == (success, failure, cancelled)


def test_success_and_failure_can_name_jobs() -> None:
    """Only the named jobs count then, in any case."""
    scope = JobScope({"Build": "success", "lint": "failure"})

    assert evaluate("success('build') && failure('LINT')", {}, status=scope) is True
    assert evaluate("failure('build')", {}, status=scope) is False


@pytest.mark.parametrize(
    ("outcome", "continues", "conclusion"),
    [
        ("failure", True, "success"),
        ("failure", False, "failure"),
        ("cancelled", True, "cancelled"),
        ("skipped", True, "skipped"),
    ],
)
def test_continue_on_error_forgives_failures_only(
    outcome: StepResult, *, continues: bool, conclusion: StepResult
) -> None:
    """The outcome stays what it was."""
    assert conclude_step(outcome, continue_on_error=continues) == conclusion


@pytest.mark.parametrize(
    ("before", "conclusion", "after"),
    [
        (None, "skipped", "success"),
        ("failure", "success", "failure"),
        ("failure", "cancelled", "cancelled"),
        ("cancelled", "failure", "cancelled"),
        ("success", "failure", "failure"),
    ],
)
def test_the_status_only_gets_worse(
    before: JobStatus | None, conclusion: StepResult, after: JobStatus
) -> None:
    """Cancelled stays, failed does not recover."""
    assert status_after(before, conclusion) == after
