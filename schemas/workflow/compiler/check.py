"""Reading nodes against expectations: every mismatch becomes a problem with its place.

A reader returns a usable value in any case, so that one pass over a file finds everything.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import field
from difflib import get_close_matches
from typing import Literal

from schemas.late import dataclass
from schemas.workflow.compiler.hints import context_hint, expression_hint
from schemas.workflow.contexts import AVAILABILITY, RESTRICTED_FUNCTIONS, Availability
from schemas.workflow.errors import ExpressionError, Problem, located
from schemas.workflow.expressions.functions import FUNCTIONS, STATUS_FUNCTIONS
from schemas.workflow.expressions.nodes import Literal as LiteralNode
from schemas.workflow.expressions.parser import Expression
from schemas.workflow.expressions.template import (
    OPEN,
    Part,
    Template,
    condition_expressions,
    parse_template,
)
from schemas.workflow.expressions.values import Value, to_string
from schemas.workflow.reader import (
    MappingNode,
    Node,
    ScalarNode,
    SequenceNode,
    key_text,
    plain,
    resolve,
)

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
IDENTIFIER_CHARACTERS_MAX = 100
_KEY_HINTS: dict[str | tuple[str, str], str] = {
    "<<": "there are no merge keys; an alias may stand for a whole value: env: *name",
    **{
        ("a workflow", name): f"it belongs to a job: jobs.<id>.{name}"
        for name in ("steps", "runs-on", "needs", "strategy", "if", "container", "services")
    },
}
INSERT_KEY = "${{ insert }}"
GUESSED_AMONG_MAX = 500
GUESSES_MAX = 50
# More are never listed, and to find the place of each takes a search.
PROBLEMS_SOUGHT_MAX = 1000

Field = tuple[ScalarNode, Node]


@dataclass(slots=True, eq=False)
class Reading:
    """An expression in the file; in a step, the number of steps before it, else None."""

    node: ScalarNode
    text: str
    part: Part
    step: int | None


@dataclass(slots=True, eq=False)
class Check:
    """The findings about one file, with the means to say where they are."""

    path: str
    text: str
    problems: list[Problem] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    step: int | None = None
    #: Before the key of a step's field in `AVAILABILITY`: a job's steps, or a composite action's.
    steps_row: str = "jobs.<job_id>.steps."
    _line_starts: list[int] = field(default_factory=list)

    def report(
        self,
        place: Node | tuple[int, int],
        message: str,
        *,
        hint: str | None = None,
        rule: str = "syntax",
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Adds a problem at a node or at a (line, column)."""
        line, column = place if isinstance(place, tuple) else (place.line, place.column)
        self.problems.append(Problem(self.path, line, column, message, severity, hint, rule))

    def warn(self, place: Node | tuple[int, int], message: str, **more: str) -> None:
        """Adds a warning: something that runs, but hardly as meant."""
        hint = more.get("hint") or None
        self.report(place, message, severity="warning", hint=hint, rule=more["rule"])

    # Mappings

    def pairs(
        self, node: Node, what: str, *, key: str | None = None
    ) -> Iterator[tuple[str, ScalarNode, Node]]:
        """The entries of a mapping with free names; names that differ only in case are refused.

        `key` names the availability row when expressions may stand in the names.
        """
        if not isinstance(node, MappingNode):
            self.report(node, f"{what} must be a mapping, not {shape(node)}")
            return
        seen: dict[str, int] = {}
        for name_node, value in node.entries:
            name = key_text(name_node)
            if OPEN in name:
                name = self.text_of(name_node, f"a name in {what}", key=key, directive=True)
            if not name:
                self.report(name_node, f"a name in {what} must not be empty")
                continue
            upper = name.upper()
            if upper in seen:
                self.report(
                    name_node,
                    f"'{name}' is already defined on line {seen[upper]}; names ignore case",
                )
                continue
            seen[upper] = name_node.line
            yield name, name_node, value

    def fields(self, node: Node, what: str, allowed: Collection[str]) -> dict[str, Field]:
        """The entries of a mapping whose keys are known; others are reported with a guess."""
        found: dict[str, Field] = {}
        if isinstance(node, MappingNode):
            for entry in node.entries:
                if (name := entry[0].text) not in allowed:
                    found.clear()
                    break
                found[name] = entry
            else:
                return found
        for name, name_node, value in self.pairs(node, what):
            if name in allowed:
                found[name] = (name_node, value)
            else:
                self.unknown_key(name_node, name, what, allowed)
        return found

    def unknown_key(self, node: ScalarNode, name: str, what: str, allowed: Collection[str]) -> None:
        """Reports a key that does not exist here."""
        self.report(
            node,
            f"'{name}' is not a key of {what}; expected one of: {', '.join(sorted(allowed))}",
            hint=_KEY_HINTS.get((what, name)) or _KEY_HINTS.get(name) or self.guess(name, allowed),
            rule="unknown-key",
        )

    def guess(self, name: str, allowed: Collection[str]) -> str | None:
        """A suggestion, as long as few problems are known: the later ones are not read anyway."""
        return guess(name, allowed) if len(self.problems) < GUESSES_MAX else None

    # Scalars

    def scalar(self, node: Node, what: str) -> ScalarNode | None:
        """The node if it is a scalar."""
        if isinstance(node, ScalarNode):
            return node
        self.report(node, f"{what} must be a single value, not {shape(node)}")
        return None

    def text_of(
        self,
        node: Node,
        what: str,
        *,
        key: str | None = None,
        empty: bool = True,
        directive: bool = False,
    ) -> str:
        """A text; numbers and booleans are taken as printed. `key` is its availability row."""
        scalar = node if type(node) is ScalarNode else self.scalar(node, what)
        if scalar is None:
            return ""
        value = scalar.value
        text = value if type(value) is str else to_string(value)
        if OPEN in text:
            return self.template(scalar, text, what, key, directive=directive)
        if not text and not empty:
            self.report(scalar, f"{what} must not be empty")
        return text

    def boolean(self, node: Node, what: str, *, key: str | None = None) -> bool | str:
        """True or false, or one expression."""
        scalar = self.scalar(node, what)
        if scalar is None:
            return False
        if isinstance(scalar.value, bool):
            return scalar.value
        whole = self._whole(scalar, what, key)
        if whole is None:
            self.report(
                scalar,
                f"{what} must be true or false, not '{scalar.text}'",
                hint=_unquoted(scalar, scalar.text in ("true", "false")),
            )
        return whole or False

    def number(self, node: Node, what: str, *, key: str | None = None) -> float | int | str | None:
        """A number, or one expression."""
        scalar = self.scalar(node, what)
        if scalar is None:
            return None
        if isinstance(scalar.value, (int, float)) and not isinstance(scalar.value, bool):
            return scalar.value
        whole = self._whole(scalar, what, key)
        if whole is None:
            self.report(
                scalar,
                f"{what} must be a number, not '{scalar.text}'",
                hint=_unquoted(scalar, isinstance(resolve(scalar.text), (int, float))),
            )
        return whole

    def _whole(self, node: ScalarNode, what: str, key: str | None) -> str | None:
        """The text when it is one `${{ }}` and nothing else."""
        if not isinstance(node.value, str) or OPEN not in node.value:
            return None
        template = self.parsed(node, node.value, what, key)
        return node.value if template is None or template.single is not None else None

    def whole(self, node: Node, what: str, key: str) -> str | None:
        """The text of a node that is one `${{ }}` in place of a list or a mapping."""
        return self._whole(node, what, key) if isinstance(node, ScalarNode) else None

    def strings(
        self, node: Node, what: str, *, key: str | None = None, empty: bool = False
    ) -> tuple[str, ...]:
        """One text or a list of texts."""
        if isinstance(node, SequenceNode):
            return tuple(
                self.text_of(item, f"an entry of {what}", key=key, empty=empty)
                for item in node.items
            )
        if isinstance(node, MappingNode):
            self.report(node, f"{what} must be a text or a list, not a mapping")
            return ()
        return (self.text_of(node, what, key=key, empty=empty),)

    def identifier(
        self,
        node: Node,
        name: str,
        what: str,
        *,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Reports a name that cannot be an id."""
        if not IDENTIFIER.match(name) or len(name) >= IDENTIFIER_CHARACTERS_MAX:
            message = (
                f"the {what} '{name}' is invalid: use letters, digits, '-' and '_', start with a "
                f"letter or '_', and stay below {IDENTIFIER_CHARACTERS_MAX} characters"
            )
        elif name.startswith("__"):
            message = f"the {what} '{name}' is invalid: '__' is reserved"
        else:
            return
        self.report(node, message, rule="id", severity=severity)

    def mapping_of_texts(
        self, node: Node, what: str, *, key: str, whole: bool = True
    ) -> dict[str, Value]:
        """Names with texts (`env`, `with`); one expression for all of it is kept as an insert."""
        if isinstance(node, ScalarNode) and whole:
            text = self._whole(node, what, key)
            if text is not None:
                return {INSERT_KEY: text}
        texts: dict[str, Value] = {}
        for name, _, value in self.pairs(node, what, key=key):
            text = self.text_of(value, f"'{name}' of {what}", key=key)
            if name == INSERT_KEY and isinstance(value, ScalarNode) and OPEN not in text:
                self.report(value, "the value of ${{ insert }} must be an expression")
            texts[name] = text
        return texts

    def anything(self, node: Node, what: str, *, key: str) -> Value:
        """Any value with templates inside it, all of them checked."""
        if isinstance(node, ScalarNode):
            if isinstance(node.value, str) and OPEN in node.value:
                return self.template(node, node.value, what, key)
            return node.value
        if isinstance(node, SequenceNode):
            return [self.anything(item, what, key=key) for item in node.items]
        return {
            name: self.anything(value, what, key=key)
            for name, _, value in self.pairs(node, what, key=key)
        }

    # Templates

    def template(
        self,
        node: ScalarNode,
        text: str,
        what: str,
        key: str | None,
        *,
        directive: bool = False,
    ) -> str:
        """A text with `${{ }}`; where none may stand, a constant one is still its text."""
        template = self.parsed(node, text, what, key, directive=directive)
        if template is None or template.single is None or key is not None:
            return text
        root = template.single.root
        return root.value if isinstance(root, LiteralNode) and isinstance(root.value, str) else text

    def parsed(
        self,
        node: ScalarNode,
        text: str,
        what: str,
        key: str | None,
        *,
        directive: bool = False,
    ) -> Template | None:
        """Parses a template and checks what it uses; None when it is malformed."""
        try:
            template = parse_template(text)
        except ExpressionError as error:
            self.report(
                self.place(node, text, error.offset),
                error.message,
                hint=expression_hint(text, error),
                rule="expression",
            )
            return None
        if template.directive and not directive:
            self.report(node, "${{ insert }} may only stand as a name", rule="expression")
            return None
        if key is None:
            root = template.single.root if template.single else None
            if not (isinstance(root, LiteralNode) and isinstance(root.value, str)):
                self.report(
                    self.place(node, text, text.find(OPEN)),
                    f"A template expression is not allowed in this context ({what})",
                    rule="expression",
                )
            return template
        self.available(node, text, template.expressions, AVAILABILITY[key])
        return template

    def condition(self, node: Node, what: str, *, key: str) -> str | None:
        """An `if:`, with or without `${{ }}`; None when it is empty."""
        scalar = self.scalar(node, what)
        if scalar is None:
            return None
        value = scalar.value
        text = value if isinstance(value, str) else to_string(value)
        try:
            template = condition_expressions(text)
        except ExpressionError as error:
            offset = error.offset + (0 if OPEN in text else len(text) - len(text.lstrip()))
            hint = expression_hint(text if OPEN in text else text.strip(), error)
            place = self.place(scalar, text, offset)
            self.report(place, error.message, hint=hint, rule="expression")
            return None
        if template.directive:
            self.report(node, "${{ insert }} may only stand as a name", rule="expression")
        self.available(scalar, text, template.expressions, AVAILABILITY[key])
        if OPEN in text and template.single is None and template.parts:
            self.warn(
                scalar,
                f"{what} is always true: there is text around ${{{{ }}}}, which makes it a text",
                hint="put the whole condition inside one ${{ }}, or leave ${{ }} out",
                rule="constant-condition",
            )
        return (text if OPEN in text else text.strip()) or None

    def available(
        self, node: ScalarNode, text: str, parts: tuple[Part, ...], row: Availability
    ) -> None:
        """Reports contexts and functions that do not exist where the template stands."""
        if len(self.problems) > PROBLEMS_SOUGHT_MAX:
            return
        for part in parts:
            expression = part.expression
            if expression.references:
                self.readings.append(Reading(node, text, part, self.step))
            if not expression.contexts <= row.contexts:
                self._contexts(node, text, part, row)
            if not (expression.functions & RESTRICTED_FUNCTIONS) <= row.functions:
                self._functions(node, text, part, row)
            if expression.has_status_function and row.key != "jobs.<job_id>.if":
                self._operands(node, text, part, row)

    def _contexts(self, node: ScalarNode, text: str, part: Part, row: Availability) -> None:
        for reference in part.expression.references:
            if reference.context in row.contexts:
                continue
            name = _spelt(part.expression, reference.offset, len(reference.context))
            self.report(
                self.place(node, text, part.offset + reference.offset),
                located(
                    f"Unrecognized named-value: '{name}'", reference.offset, part.expression.text
                ),
                hint=context_hint(reference.context, row),
                rule="context",
            )

    def _operands(self, node: ScalarNode, text: str, part: Part, row: Availability) -> None:
        """Only a job's status functions take names; a step's look at all steps before it."""
        for use in part.expression.uses:
            if use.operands and use.function in STATUS_FUNCTIONS and use.function in row.functions:
                name = _spelt(part.expression, use.offset, len(use.function))
                self.report(
                    self.place(node, text, part.offset + use.offset),
                    located(
                        f"Too many parameters supplied: '{name}'", use.offset, part.expression.text
                    ),
                    hint=f"of one step: steps.<id>.outcome == '{use.function}'"
                    if use.function in ("success", "failure")
                    else None,
                    rule="expression",
                )

    def _functions(self, node: ScalarNode, text: str, part: Part, row: Availability) -> None:
        for use in part.expression.uses:
            if use.function not in RESTRICTED_FUNCTIONS - row.functions:
                continue
            self.report(
                self.place(node, text, part.offset + use.offset),
                located(
                    "Unrecognized function: "
                    f"'{_spelt(part.expression, use.offset, len(use.function))}'",
                    use.offset,
                    part.expression.text,
                ),
                hint=f"{FUNCTIONS[use.function].name}() is not available in {row.key}",
                rule="context",
            )

    # Places

    def place(self, node: ScalarNode, text: str, offset: int) -> tuple[int, int]:
        """Where a character of a scalar's value stands in the file, as exactly as can be said."""
        if not self._line_starts:
            self._line_starts = [0, *(m.end() for m in re.finditer("\n", self.text))]
        start = self._line_starts[min(node.line, len(self._line_starts)) - 1] + node.column - 1
        opening = text.rfind(OPEN, 0, offset + len(OPEN))
        if opening < 0:
            within = offset + (1 if node.style in ("'", '"') else 0)
            return (node.line, node.column + (within if node.style not in ("|", ">") else 0))
        found = start - 1
        for _ in range(text.count(OPEN, 0, opening) + 1):
            found = self.text.find(OPEN, found + 1)
            if found < 0:
                return (node.line, node.column)
        found += offset - opening if "\n" not in text[opening:offset] else 0
        line = bisect_right(self._line_starts, found)
        return (line, found - self._line_starts[line - 1] + 1)


def _unquoted(node: ScalarNode, fits: bool) -> str | None:  # noqa: FBT001 -- of one call each
    return f"without quotes: {node.text}" if node.style in ("'", '"') and fits else None


def _spelt(expression: Expression, offset: int, length: int) -> str:
    return expression.text[offset : offset + length]


def shape(node: Node) -> str:
    """What a node is, in words for a message."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    return "nothing" if node.value is None else f"'{node.text}'"


def guess(name: str, allowed: Collection[str]) -> str | None:
    """A suggestion for a misspelt word; none among very many, where the search is slow."""
    if len(allowed) > GUESSED_AMONG_MAX or len(name) > IDENTIFIER_CHARACTERS_MAX:
        return None
    near = get_close_matches(name, allowed, n=1) or get_close_matches(name.lower(), allowed, n=1)
    return f"did you mean '{near[0]}'?" if near else None


__all__ = ["INSERT_KEY", "Check", "Field", "guess", "plain", "shape"]
