"""Tokens to a tree, by recursive descent with a depth limit."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache

from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError, located
from schemas.workflow.expressions.functions import FUNCTIONS, STATUS_FUNCTIONS
from schemas.workflow.expressions.lexer import KEYWORDS, Token, tokenize
from schemas.workflow.expressions.nodes import (
    All,
    Any,
    Call,
    Comparisons,
    Index,
    Literal,
    Name,
    Node,
    Not,
    Star,
)

DEPTH_MAX = 50
_CACHED_EXPRESSIONS = 8192
_PATH = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?:\.[A-Za-z_][A-Za-z0-9_-]*)*\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A context that an expression reads, and the property of it where that is written out."""

    context: str
    property: str | None
    offset: int


@dataclass(frozen=True, slots=True)
class Use:
    """A function that an expression calls; the name is in lower case."""

    function: str
    offset: int
    operands: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A parsed expression with all it refers to; evaluate it with `evaluate`."""

    text: str
    root: Node
    references: tuple[Reference, ...]
    uses: tuple[Use, ...]
    contexts: frozenset[str]
    functions: frozenset[str]

    @property
    def has_status_function(self) -> bool:
        """Whether the expression itself decides about failures before it."""
        return not STATUS_FUNCTIONS.isdisjoint(self.functions)


@lru_cache(maxsize=_CACHED_EXPRESSIONS)
def parse_expression(text: str) -> Expression:
    """Parses a bare expression (no `${{ }}`); a blank text is null. Raises ExpressionError."""
    path = _PATH.match(text)
    if path is not None and path[1] not in KEYWORDS and text.count(".") < DEPTH_MAX:
        return _path_expression(text)
    parser = _Parser(text)
    root = parser.parse()
    return Expression(
        text=text,
        root=root,
        references=tuple(parser.references),
        uses=tuple(parser.uses),
        contexts=frozenset(reference.context for reference in parser.references),
        functions=frozenset(use.function for use in parser.uses),
    )


def _path_expression(text: str) -> Expression:
    """`context.name.name` without going through the grammar: most expressions are that."""
    first, *names = text.split(".")
    context = first.lower()
    root: Node = Name(context)
    for name in names:
        root = Index(root, Literal(name))
    reference = Reference(context, names[0] if names else None, 0)
    return Expression(text, root, (reference,), (), frozenset((context,)), frozenset())


class _Parser:
    """One pass over the tokens; `depth` counts what is open, as GitHub's parser does."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.position = 0
        self.depth = 0
        self.references: list[Reference] = []
        self.uses: list[Use] = []

    def parse(self) -> Node:
        if self.tokens[0].kind == "end":
            return Literal(None)
        root = self._expression()
        if self._peek().kind != "end":
            raise self._unexpected(self._peek())
        return root

    def _peek(self) -> Token:
        return self.tokens[self.position]

    def _accept(self, *operators: str) -> str | None:
        token = self.tokens[self.position]
        if token.kind == "op" and token.text in operators:
            self.position += 1
            return token.text
        return None

    def _expect(self, operator: str) -> None:
        if self._accept(operator) is None:
            raise self._unexpected(self._peek())

    def _enter(self) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self._error(f"Exceeded max expression depth {DEPTH_MAX}", self._peek())

    def _expression(self) -> Node:
        self._enter()
        node = self._any()
        self.depth -= 1
        return node

    def _any(self) -> Node:
        first = self._all()
        token = self.tokens[self.position]
        if token.text != "||" or token.kind != "op":
            return first
        self._enter()
        operands = [first]
        while self._accept("||"):
            operands.append(self._all())
        self.depth -= 1
        return Any(operands)

    def _all(self) -> Node:
        first = self._equality()
        token = self.tokens[self.position]
        if token.text != "&&" or token.kind != "op":
            return first
        self._enter()
        operands = [first]
        while self._accept("&&"):
            operands.append(self._equality())
        self.depth -= 1
        return All(operands)

    def _equality(self) -> Node:
        first = self._order()
        if self.tokens[self.position].text not in ("==", "!="):
            return first
        rest: list[tuple[str, Node]] = []
        while operator := self._accept("==", "!="):
            rest.append((operator, self._order()))
        return Comparisons(first, rest) if rest else first

    def _order(self) -> Node:
        first = self._unary()
        if self.tokens[self.position].text not in ("<", "<=", ">", ">="):
            return first
        rest: list[tuple[str, Node]] = []
        while operator := self._accept("<", "<=", ">", ">="):
            rest.append((operator, self._unary()))
        return Comparisons(first, rest) if rest else first

    def _unary(self) -> Node:
        if self._accept("!"):
            self._enter()
            node = Not(self._unary())
            self.depth -= 1
            return node
        return self._postfix()

    def _postfix(self) -> Node:
        token = self._peek()
        node = self._primary()
        if not (token.kind == "name" or (token.kind == "op" and token.text == "(")):
            return node
        # In parentheses the name has been noted where it stands.
        named = token.kind == "name" and isinstance(node, Name)
        depth = self.depth
        while operator := self._accept(".", "["):
            index = self._dereference(operator)
            self._enter()
            if named:
                self._refer(token, index)
                named = False
            node = Star(node) if index is None else Index(node, index)
        if named:
            self._refer(token, None)
        self.depth = depth
        return node

    def _dereference(self, operator: str) -> Node | None:
        """The index after `.` or `[`; None stands for the star."""
        if operator == ".":
            token = self._peek()
            if token.kind == "name":
                self.position += 1
                return Literal(token.text)
            if self._accept("*"):
                return None
            raise self._unexpected(token)
        index = None if self._accept("*") else self._expression()
        self._expect("]")
        return index

    def _refer(self, token: Token, index: Node | None) -> None:
        written = index.value if isinstance(index, Literal) else None
        self.references.append(
            Reference(
                token.text.lower(), written if isinstance(written, str) else None, token.offset
            )
        )

    def _primary(self) -> Node:
        token = self._peek()
        if token.kind == "name":
            self.position += 1
            return self._call(token) if self._accept("(") else Name(token.text.lower())
        if token.kind in ("number", "string", "literal"):
            self.position += 1
            return Literal(token.value)
        if token.kind == "op" and token.text == "(":
            self.position += 1
            node = self._expression()
            self._expect(")")
            return node
        raise self._unexpected(token)

    def _call(self, token: Token) -> Node:
        operands: list[Node] = []
        if not self._accept(")"):
            operands.append(self._expression())
            while self._accept(","):
                operands.append(self._expression())
            self._expect(")")
        name = token.text.lower()
        function = FUNCTIONS.get(name)
        if function is None:
            raise self._error(f"Unrecognized function: '{token.text}'", token, guess=True)
        if len(operands) < function.operands_min:
            raise self._error(f"Too few parameters supplied: '{token.text}'", token)
        if len(operands) > function.operands_max:
            raise self._error(f"Too many parameters supplied: '{token.text}'", token)
        if name == "case" and len(operands) % 2 == 0:
            raise self._error(
                "Even number of parameters supplied, requires an odd number of parameters: "
                f"'{token.text}'",
                token,
            )
        self.uses.append(Use(name, token.offset, len(operands)))
        return Call(name, function.run, operands)

    def _unexpected(self, token: Token) -> ExpressionError:
        if token.kind == "end" and self.position > 0:
            last = self.tokens[self.position - 1]
            return self._error(f"Unexpected end of expression: '{last.text}'", last)
        return self._error(f"Unexpected symbol: '{token.text}'", token)

    def _error(self, message: str, token: Token, *, guess: bool = False) -> ExpressionError:
        text = located(message, token.offset, self.text)
        if guess:
            near = get_close_matches(token.text.lower(), FUNCTIONS, n=1)
            text += f" (did you mean {FUNCTIONS[near[0]].name}?)" if near else ""
        return ExpressionError("parsing", text, offset=token.offset, expression=self.text)
