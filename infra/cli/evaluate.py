"""`tailrace eval`: an expression or template in given contexts, by the language that jobs use."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import click

from infra.cli.errors import CliError, Exit
from infra.cli.output import clean

if TYPE_CHECKING:
    from schemas.workflow.errors import ExpressionError
    from schemas.workflow.expressions import StatusScope, Value

Contexts: TypeAlias = "dict[str, Value]"
_STATES = ("success", "failure", "cancelled")
_OPEN = "${{"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an expression sees beside its contexts: a status, and files for `hashFiles`."""

    status: str | None
    workspace: Path

    def scope(self) -> StatusScope | None:
        """Return what `success()` and its relatives mean; None when there are none."""
        from schemas.workflow.status import StepScope

        return None if self.status is None else StepScope(self.status)

    def hasher(self) -> Callable[[list[str]], str]:
        """Return the function behind `hashFiles`."""
        from runner.hashing import hash_files

        workspace = self.workspace.resolve()
        return lambda patterns: hash_files(workspace, patterns)


class CaseError(ValueError):
    """A line of a stream is no case; the message says what it lacks."""


@click.command(
    "eval",
    # an expression may start with a minus
    context_settings={"ignore_unknown_options": True},
    epilog="Exit codes: 0 there is a value, 1 the expression is wrong, 2 wrong use. With --jsonl "
    "errors are data: 0, or 2 when a line is no case.",
)
@click.argument("expression", required=False, metavar="EXPR")
@click.option(
    "--context",
    "context_file",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="A JSON object of contexts: github, env, matrix, … (- is standard input).",
)
@click.option("--template", is_flag=True, help="EXPR is a text with ${{ }} parts.")
@click.option("--raw", is_flag=True, help="Print a value as it appears in a text, not as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print {value, kind} or {error}.")
@click.option(
    "--jsonl",
    is_flag=True,
    help="Read cases {expr | template, context} from standard input, a line each; print "
    "{value, kind} or {error} for each.",
)
@click.option(
    "--status",
    type=click.Choice(_STATES),
    help="How what is before ended: makes success(), failure(), cancelled(), always() known.",
)
@click.option(
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    metavar="DIR",
    help="Where hashFiles() looks. Default: here.",
)
def evaluate(
    expression: str | None,
    *,
    context_file: IO[str] | None,
    template: bool,
    raw: bool,
    as_json: bool,
    jsonl: bool,
    status: str | None,
    workspace: Path,
) -> None:
    """Evaluate EXPR, written without ${{ }}, and print its value as JSON.

    NaN and the infinities, which JSON does not have, are printed as texts.
    """
    around = Surroundings(status, workspace)
    contexts = _contexts(context_file)
    if jsonl:
        if expression is not None or template or raw or as_json:
            raise click.UsageError("--jsonl takes its cases from standard input alone")
        sys.exit(_stream(contexts, around))
    if expression is None:
        raise click.UsageError("give an EXPR, or --jsonl")
    outcome = _outcome(expression, contexts, around, template=template)
    if as_json:
        click.echo(_line(outcome))
    elif "error" in outcome:
        raise CliError(_explained(expression, outcome["error"], contexts, template=template))
    else:
        click.echo(_encodable(outcome["text"]) if raw else _json(outcome["value"], indent=2))
    sys.exit(Exit.NEGATIVE if "error" in outcome else Exit.OK)


def _contexts(file: IO[str] | None) -> Contexts:
    if file is None:
        return {}
    try:
        found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"{file.name} must hold a JSON object: contexts by name")
    return found


# --------------------------------------------------------------------------- one case


def _outcome(
    text: str, contexts: Mapping[str, Value], around: Surroundings, *, template: bool
) -> dict[str, Any]:
    """Return {value, kind, text} or {error: {stage, message, offset}}."""
    from schemas.workflow.errors import ExpressionError
    from schemas.workflow.expressions import evaluate as value_of
    from schemas.workflow.expressions import evaluate_template, to_string
    from schemas.workflow.expressions.values import kind

    run = evaluate_template if template else value_of
    try:
        value: Value = run(text, contexts, status=around.scope(), hash_files=around.hasher())
    except ExpressionError as error:
        return {"error": _error(error)}
    return {"value": value, "kind": kind(value), "text": to_string(value)}


def _error(error: ExpressionError) -> dict[str, Any]:
    return {"stage": error.stage, "message": error.message, "offset": error.offset}


def _explained(
    text: str, error: dict[str, Any], contexts: Mapping[str, Value], *, template: bool
) -> str:
    """Return the message with the place in the expression and advice below it."""
    message = f"{error['stage']}: {clean(error['message'])}"
    if "\n" not in text and error["stage"] != "evaluation":
        message += f"\n  {clean(text)}\n  {' ' * len(clean(text[: error['offset']]))}^"
    hint = _hint(text, error, contexts, template=template)
    return f"{message}\n  hint: {hint}" if hint else message


def _hint(
    text: str, error: dict[str, Any], contexts: Mapping[str, Value], *, template: bool
) -> str | None:
    from schemas.workflow.compiler.hints import expression_hint
    from schemas.workflow.errors import ExpressionError

    if not template and text.lstrip().startswith(_OPEN):
        return "leave ${{ }} out, or use --template"
    if "Unrecognized named-value" in error["message"]:
        if contexts:
            return f"the contexts given are: {clean(', '.join(sorted(contexts)))}"
        return "contexts come from a JSON file: --context FILE"
    if "Unrecognized function" in error["message"]:
        return "status functions need --status" if _is_status(text[error["offset"] :]) else None
    return expression_hint(
        text, ExpressionError(error["stage"], error["message"], offset=error["offset"])
    )


def _is_status(text: str) -> bool:
    return text.lower().startswith(("success", "failure", "always", "cancelled"))


# --------------------------------------------------------------------------- a stream


def _stream(contexts: Contexts, around: Surroundings) -> Exit:
    """Answer every line of standard input with a line, as soon as it is there."""
    code = Exit.OK
    for number, line in enumerate(sys.stdin.buffer, start=1):
        if not line.strip():
            continue
        try:
            outcome = _case(line, contexts, around)
        except (ValueError, RecursionError) as error:
            code = Exit.USAGE
            outcome = {"error": {"stage": "input", "message": f"line {number}: {error}"}}
        sys.stdout.write(_line(outcome) + "\n")
        sys.stdout.flush()
    return code


def _case(line: bytes, contexts: Contexts, around: Surroundings) -> dict[str, Any]:
    """Return the outcome of one case; ValueError when it is none.

    `{"expr": …, "mode": "template"}` is another way to write a template.
    """
    case = json.loads(line)
    if not isinstance(case, dict):
        raise CaseError("a case must be a JSON object")
    named = [name for name in ("expr", "template") if isinstance(case.get(name), str)]
    if len(named) != 1:
        raise CaseError("a case needs a text `expr` or a text `template`")
    own = case.get("context", {})
    if not isinstance(own, dict):
        raise CaseError("`context` must be an object: contexts by name")
    status = case.get("status", around.status)
    if status is not None and status not in _STATES:
        raise CaseError(f"`status` must be one of: {', '.join(_STATES)}")
    workspace = case.get("workspace", "")
    if not isinstance(workspace, str):
        raise CaseError("`workspace` must be the path of a folder")
    outcome = _outcome(
        case[named[0]],
        {**contexts, **own},
        Surroundings(status, around.workspace / workspace),
        template="template" in (named[0], case.get("mode")),
    )
    return {"id": case["id"], **outcome} if "id" in case else outcome


# --------------------------------------------------------------------------- JSON


def _line(outcome: dict[str, Any]) -> str:
    return _json({key: value for key, value in outcome.items() if key != "text"})


def _json(value: object, indent: int | None = None) -> str:
    try:
        finite = _finite(value)
        text = json.dumps(finite, ensure_ascii=False, indent=indent)
        return text if _encodable(text) == text else json.dumps(finite, indent=indent)
    except RecursionError:
        raise CliError("the value is nested too deeply to be printed as JSON") from None


def _encodable(text: str) -> str:
    """Return a text that can be written: JSON lets half a surrogate pair in."""
    return text.encode("utf-8", "replace").decode()


def _finite(value: object) -> object:
    """Return a value in JSON's terms: NaN and the infinities as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
