"""Which secrets a job can read, and what callers of reusable workflows make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

from schemas.workflow.errors import ExpressionError
from schemas.workflow.expressions.parser import Expression
from schemas.workflow.expressions.template import (
    OPEN,
    condition_expressions,
    evaluate_value,
    parse_template,
)
from schemas.workflow.expressions.values import Value, to_string
from schemas.workflow.plan import JobPlan, WorkflowPlan

ALL_SECRETS = "*"
# The job's token: made for each job, whether or not it is mentioned.
TOKEN_SECRET = "GITHUB_TOKEN"  # noqa: S105 -- the name of a secret, not one


def secret_names(job: JobPlan, plan: WorkflowPlan | None = None) -> tuple[str, ...]:
    """The upper-case names of the secrets that a job's templates mention, sorted.

    `*` stands for all: `toJSON(secrets)`, a computed name, or handing them on with `inherit`.
    With the plan, the workflow's `env` counts as well; in a called workflow the names are its own.
    """
    names: set[str] = {ALL_SECRETS} if job.secrets == "inherit" else set()
    sources: list[object] = [job]
    if plan is not None:
        sources.append(plan.workflow_env(job))
    for source in sources:
        names.update(_mentioned(source))
    return tuple(sorted(names))


def repository_secret_names(plan: WorkflowPlan, job: JobPlan) -> tuple[str, ...]:
    """The repository's secrets that a job needs: through callers, under the names they have there.

    `*` stands for all. A called workflow sees only what its caller hands on, so a name that is
    not handed on needs nothing; the token of the job is always there.
    """
    names = set(secret_names(job, plan))
    parent = job.parent
    while parent is not None:
        caller = plan.job(parent)
        names = _handed_on(caller, names)
        parent = caller.parent
    return tuple(sorted(names))


def mentioned_contexts(value: Value) -> frozenset[str]:
    """The names of the contexts that the templates in a value read."""
    return frozenset(name for expression in _expressions(value) for name in expression.contexts)


def secrets_inside(
    released: Mapping[str, str], maps: Sequence[Value], github: Value
) -> dict[str, str]:
    """The `secrets` of a job of a called workflow, from the repository's.

    `maps` says how its callers hand them on, the nearest first: "inherit", or `{values, contexts}`
    with templates and what they read beside `secrets` and `github`. The token of the job is always
    there, and an empty value is no secret. Raises ExpressionError.
    """
    found = dict(released)
    for given in reversed(maps):
        if not isinstance(given, dict):
            continue  # inherit
        own = given.get("contexts")
        secrets: Value = {**found}
        contexts = {**(own if isinstance(own, dict) else {}), "github": github, "secrets": secrets}
        values = evaluate_value(given.get("values") or {}, contexts)
        inside = values if isinstance(values, dict) else {}
        token = {TOKEN_SECRET: found[TOKEN_SECRET]} if TOKEN_SECRET in found else {}
        texts = {name.upper(): to_string(value) for name, value in inside.items()}
        found = {**token, **{name: text for name, text in texts.items() if text}}
    return found


def reads_token(*values: object) -> bool:
    """Say whether templates in plans or values read `github.token`, or `github` as a whole."""
    return any((name or "token").lower() == "token" for name in _read_of("github", values))


def _handed_on(caller: JobPlan, names: set[str]) -> set[str]:
    """Names inside a called workflow as names of its caller's side."""
    if caller.secrets == "inherit":
        return names
    found = names & {TOKEN_SECRET}
    for name, value in (caller.secrets or {}).items():
        if ALL_SECRETS in names or name.upper() in names or OPEN in name:
            found.update(_mentioned(value))
    return found


def _mentioned(value: object) -> Iterator[str]:
    for name in _read_of("secrets", value):
        yield name.upper() if name else ALL_SECRETS


def _read_of(context: str, value: object) -> Iterator[str | None]:
    """The properties of a context that templates read; None for the context as a whole."""
    for expression in _expressions(value):
        for reference in expression.references:
            if reference.context == context:
                yield reference.property


def _expressions(value: object) -> Iterator[Expression]:
    """Every expression in a plan or in a part of one; a malformed one has no secrets to give."""
    if isinstance(value, str):
        yield from _of_text(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _expressions(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _expressions(key)
            yield from _expressions(item)
    elif is_dataclass(value):
        for item in fields(value):
            find = _condition if item.name == "condition" else _expressions
            yield from find(getattr(value, item.name))


def _of_text(text: str) -> Iterator[Expression]:
    if OPEN not in text:
        return
    try:
        template = parse_template(text)
    except ExpressionError:
        return
    yield from (part.expression for part in template.expressions)


def _condition(text: str | None) -> Iterator[Expression]:
    try:
        template = condition_expressions(text)
    except ExpressionError:
        return
    yield from (part.expression for part in template.expressions)
