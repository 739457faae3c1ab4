"""Which contexts and functions each key may use, and which variables every job is given.

The table is GitHub's "Context availability"; the rows are named by the key's path.
"""

from __future__ import annotations

from schemas.late import dataclass
from schemas.workflow.expressions.functions import STATUS_FUNCTIONS

KNOWN_CONTEXTS = (
    "github",
    "env",
    "vars",
    "job",
    "jobs",
    "steps",
    "runner",
    "secrets",
    "strategy",
    "matrix",
    "needs",
    "inputs",
)


@dataclass(frozen=True, slots=True)
class Availability:
    """What one key may use; `functions` are those beyond the general ones, in lower case."""

    key: str
    contexts: frozenset[str]
    functions: frozenset[str] = frozenset()


_BASE = "github inputs vars"
_NEEDS = f"{_BASE} needs"
_JOB = f"{_NEEDS} strategy matrix"
_STEP = f"{_JOB} secrets steps job runner env"
_ACTION = "github strategy matrix job runner"
_COMPOSITE = f"{_ACTION} inputs steps env"
_HASH = "hashfiles"

_ROWS: tuple[tuple[str, str, str], ...] = (
    ("run-name", _BASE, ""),
    ("concurrency", _BASE, ""),
    ("env", f"{_BASE} secrets", ""),
    ("jobs.<job_id>.concurrency", _JOB, ""),
    ("jobs.<job_id>.container", _JOB, ""),
    ("jobs.<job_id>.container.credentials", f"{_JOB} secrets env", ""),
    ("jobs.<job_id>.container.env.<env_id>", _STEP, ""),
    ("jobs.<job_id>.continue-on-error", _JOB, ""),
    ("jobs.<job_id>.defaults.run", f"{_JOB} env", ""),
    ("jobs.<job_id>.env", f"{_JOB} secrets", ""),
    ("jobs.<job_id>.environment", _JOB, ""),
    ("jobs.<job_id>.environment.url", f"{_JOB} steps job runner env", ""),
    ("jobs.<job_id>.if", _NEEDS, "status"),
    ("jobs.<job_id>.name", _JOB, ""),
    ("jobs.<job_id>.outputs.<output_id>", _STEP, ""),
    ("jobs.<job_id>.runs-on", _JOB, ""),
    ("jobs.<job_id>.secrets.<secrets_id>", f"{_JOB} secrets", ""),
    ("jobs.<job_id>.services", _JOB, ""),
    ("jobs.<job_id>.services.<service_id>.credentials", f"{_JOB} secrets env", ""),
    ("jobs.<job_id>.services.<service_id>.env.<env_id>", _STEP, ""),
    ("jobs.<job_id>.snapshot.if", _JOB, "status"),
    ("jobs.<job_id>.steps.continue-on-error", _STEP, _HASH),
    ("jobs.<job_id>.steps.env", _STEP, _HASH),
    ("jobs.<job_id>.steps.if", _STEP.replace(" secrets", ""), f"status {_HASH}"),
    ("jobs.<job_id>.steps.name", _STEP, _HASH),
    ("jobs.<job_id>.steps.run", _STEP, _HASH),
    ("jobs.<job_id>.steps.timeout-minutes", _STEP, _HASH),
    ("jobs.<job_id>.steps.with", _STEP, _HASH),
    ("jobs.<job_id>.steps.working-directory", _STEP, _HASH),
    ("jobs.<job_id>.strategy", _NEEDS, ""),
    ("jobs.<job_id>.timeout-minutes", _JOB, ""),
    ("jobs.<job_id>.with.<with_id>", _JOB, ""),
    ("on.workflow_call.inputs.<inputs_id>.default", _BASE, ""),
    ("on.workflow_call.outputs.<output_id>.value", f"{_BASE} jobs", ""),
    # in an action's own file
    ("inputs.default", _ACTION, _HASH),
    ("outputs.value", _COMPOSITE, ""),
    ("runs.args", "inputs", ""),
    ("runs.env", "inputs", ""),
    ("runs.if", _COMPOSITE, f"status {_HASH}"),
    ("runs.steps.continue-on-error", _COMPOSITE, _HASH),
    ("runs.steps.env", _COMPOSITE, _HASH),
    ("runs.steps.if", _COMPOSITE, f"status {_HASH}"),
    ("runs.steps.name", _COMPOSITE, _HASH),
    ("runs.steps.run", _COMPOSITE, _HASH),
    ("runs.steps.shell", _COMPOSITE, _HASH),
    ("runs.steps.timeout-minutes", _COMPOSITE, _HASH),
    ("runs.steps.with", _COMPOSITE, _HASH),
    ("runs.steps.working-directory", _COMPOSITE, _HASH),
)


def _functions(words: str) -> frozenset[str]:
    named = set(words.split())
    if "status" in named:
        named = named - {"status"} | STATUS_FUNCTIONS
    return frozenset(named)


AVAILABILITY: dict[str, Availability] = {
    key: Availability(key, frozenset(contexts.split()), _functions(functions))
    for key, contexts, functions in _ROWS
}

RESTRICTED_FUNCTIONS = STATUS_FUNCTIONS | {_HASH}

# Set for every step; a value is the context property it comes from, None what the runner knows.
DEFAULT_ENVIRONMENT: dict[str, str | None] = {
    "CI": None,
    "GITHUB_ACTION": "github.action",
    "GITHUB_ACTION_PATH": "github.action_path",
    "GITHUB_ACTION_REF": "github.action_ref",
    "GITHUB_ACTION_REPOSITORY": "github.action_repository",
    "GITHUB_ACTIONS": None,
    "GITHUB_ACTOR": "github.actor",
    "GITHUB_ACTOR_ID": "github.actor_id",
    "GITHUB_API_URL": "github.api_url",
    "GITHUB_BASE_REF": "github.base_ref",
    "GITHUB_ENV": None,
    "GITHUB_EVENT_NAME": "github.event_name",
    "GITHUB_EVENT_PATH": "github.event_path",
    "GITHUB_GRAPHQL_URL": "github.graphql_url",
    "GITHUB_HEAD_REF": "github.head_ref",
    "GITHUB_JOB": "github.job",
    "GITHUB_OUTPUT": None,
    "GITHUB_PATH": None,
    "GITHUB_REF": "github.ref",
    "GITHUB_REF_NAME": "github.ref_name",
    "GITHUB_REF_PROTECTED": "github.ref_protected",
    "GITHUB_REF_TYPE": "github.ref_type",
    "GITHUB_REPOSITORY": "github.repository",
    "GITHUB_REPOSITORY_ID": "github.repository_id",
    "GITHUB_REPOSITORY_OWNER": "github.repository_owner",
    "GITHUB_REPOSITORY_OWNER_ID": "github.repository_owner_id",
    "GITHUB_RETENTION_DAYS": "github.retention_days",
    "GITHUB_RUN_ATTEMPT": "github.run_attempt",
    "GITHUB_RUN_ID": "github.run_id",
    "GITHUB_RUN_NUMBER": "github.run_number",
    "GITHUB_SERVER_URL": "github.server_url",
    "GITHUB_SHA": "github.sha",
    "GITHUB_STATE": None,
    "GITHUB_STEP_SUMMARY": None,
    "GITHUB_TRIGGERING_ACTOR": "github.triggering_actor",
    "GITHUB_WORKFLOW": "github.workflow",
    "GITHUB_WORKFLOW_REF": "github.workflow_ref",
    "GITHUB_WORKFLOW_SHA": "github.workflow_sha",
    "GITHUB_WORKSPACE": "github.workspace",
    "RUNNER_ARCH": "runner.arch",
    "RUNNER_DEBUG": "runner.debug",
    "RUNNER_ENVIRONMENT": "runner.environment",
    "RUNNER_NAME": "runner.name",
    "RUNNER_OS": "runner.os",
    "RUNNER_TEMP": "runner.temp",
    "RUNNER_TOOL_CACHE": "runner.tool_cache",
}


def ref_name(ref: str) -> str:
    """Return the short name of a ref, as `github.ref_name` has it (`1/merge` of a pull request)."""
    for prefix in ("refs/heads/", "refs/tags/", "refs/pull/"):
        if ref.startswith(prefix):
            return ref.removeprefix(prefix)
    return ref


def ref_type(ref: str) -> str:
    """Return `github.ref_type`: tag or branch (a pull request's is a branch)."""
    return "tag" if ref.startswith("refs/tags/") else "branch"
