"""What to do about the usual mistakes: one line of advice below a message."""

from __future__ import annotations

import re
from collections.abc import Collection

from schemas.workflow.contexts import KNOWN_CONTEXTS, Availability
from schemas.workflow.errors import ExpressionError

_WORD = re.compile(r"[A-Za-z]+")
_OPERATORS = {"and": "&&", "or": "||", "not": "!", "eq": "==", "ne": "!="}
_SIGNS = {
    '"': "a text stands in single quotes: 'main'",
    "`": "a text stands in single quotes: 'main'",
    "=": "compare with ==",
    "&": "both conditions: &&",
    "|": "one of the conditions: ||",
    "+": "there is no arithmetic; format('{0}{1}', a, b) puts texts together",
    "-": "there is no arithmetic, and names with other signs are read by index: steps['a b']",
    "/": "there is no arithmetic",
    "$": "inside an expression there is no further ${{ }}",
    "{": "an object is made by fromJSON('{…}')",
}
_EARLY = frozenset({"env", "secrets", "steps", "job", "runner"})


def expression_hint(text: str, error: ExpressionError) -> str | None:
    """Advice about an expression that cannot be read; `text` is what `error.offset` counts in."""
    at = text[error.offset :]
    if "is not closed" in error.message:
        if at.count("'") % 2:
            return "a single quote inside a text is doubled: 'it''s'"
        return "an expression ends with }}"
    if "Unexpected" not in error.message or not at:
        return None
    word = _WORD.match(at)
    if word is None:
        return _SIGNS.get(at[0])
    operator = _OPERATORS.get(word.group().lower())
    return f"'{word.group()}' is written {operator}" if operator else None


def context_hint(name: str, row: Availability) -> str:
    """Advice about a context that does not exist in the key of a row."""
    available = f"available here: {', '.join(sorted(row.contexts))}"
    if name == "secrets" and row.key.endswith(".if"):
        return "put the secret into `env` of the job or the step, and ask for env.NAME here"
    if name == "env" and row.key == "jobs.<job_id>.if":
        return f"a job's `if` is decided before there is any env; {available}"
    if name in _EARLY and name not in row.contexts and not row.key.startswith("inputs"):
        return f"'{name}' does not exist yet where this is decided; {available}"
    near = near_word(name, row.contexts & set(KNOWN_CONTEXTS))
    return f"did you mean '{near}'? {available}" if near else available


def near_word(name: str, words: Collection[str]) -> str | None:
    """The word that was probably meant: one that the name begins, or that begins the name."""
    fits = [word for word in sorted(words) if word.startswith(name) or name.startswith(word)]
    return fits[0] if name and fits else None
