"""YAML text to nodes with positions: the YAML 1.2 core schema on libyaml's event stream.

Everything is limited before it is built, and all that is wrong is reported at once. There are no
merge keys: `<<` is a key like any other, as on GitHub.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import field
from typing import Any, NoReturn, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from schemas.late import dataclass
from schemas.workflow.errors import Problem, WorkflowError
from schemas.workflow.expressions.values import Value, to_string

BYTES_MAX = 1 << 20
DEPTH_MAX = 50
NODES_MAX = 100_000

try:
    from yaml._yaml import CParser as _Parser
except ImportError:  # a PyYAML built without libyaml; slower, and it refuses some valid texts
    from yaml import Loader as _Parser  # type: ignore[assignment]

_WORDS: dict[str, bool | None] = {
    "": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)\Z")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)\Z")
_MAYBE_TYPED = frozenset("0123456789-+.~nNtTfF") | {""}
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset({"str", "int", "float", "bool", "null"})
_INT_DIGITS_MAX = 300


@dataclass(slots=True, eq=False)
class ScalarNode:
    """A scalar: its value by the core schema, and its text as written (without quotes).

    `style` is the YAML style character: None for plain, `'`, `"`, `|` or `>`.
    """

    value: bool | int | float | str | None
    text: str
    line: int
    column: int
    style: str | None = None


@dataclass(slots=True, eq=False)
class SequenceNode:
    """A list of nodes."""

    items: list[Node]
    line: int
    column: int


@dataclass(slots=True, eq=False)
class MappingNode:
    """Keys with values, in order; keys are scalars whose `text` is the name."""

    entries: list[tuple[ScalarNode, Node]]
    line: int
    column: int

    def get(self, name: str) -> Node | None:
        """The value of a key, or None."""
        return next((value for key, value in self.entries if key.text == name), None)


Node: TypeAlias = ScalarNode | SequenceNode | MappingNode
# PyYAML's events have no common typed shape.
_AnyEvent: TypeAlias = Any
_NextEvent: TypeAlias = Callable[[], _AnyEvent]


def plain(node: Node) -> Value:
    """The node as a plain value; keys become strings."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return {key_text(key): plain(value) for key, value in node.entries}


def key_text(key: ScalarNode) -> str:
    """A key as a name: `1.0:` is "1", as numbers are printed everywhere."""
    return key.value if isinstance(key.value, str) else to_string(key.value)


def read_document(text: bytes | str, path: str) -> Node:
    """The single document of a YAML text; raises WorkflowError with all problems."""
    node, problems = read_with_problems(text, path)
    if problems or node is None:
        raise WorkflowError(problems)
    return node


def read_with_problems(text: bytes | str, path: str) -> tuple[Node | None, tuple[Problem, ...]]:
    """The document with the problems found; it is None when nothing after them makes sense."""
    reader = _Reader(path)
    try:
        node = reader.read(text)
    except WorkflowError as error:
        return None, error.problems
    return (None if reader.broken else node), tuple(reader.problems)


@dataclass(slots=True)
class _Anchor:
    """A named node; `node` is None while it is still being read."""

    line: int
    column: int
    node: Node | None = None
    size: int = 0


@dataclass(slots=True)
class _Reader:
    """One pass over the events. The loops are written for speed: most nodes are plain scalars."""

    path: str
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, _Anchor] = field(default_factory=dict)
    count: int = 0
    broken: bool = False

    def read(self, text: bytes | str) -> Node | None:
        parser = _Parser(self._decode(text))
        try:
            return self._document(parser.get_event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = error.problem or error.context or "not YAML"
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self._problem(line, column, f"this is not valid YAML: {what}", _yaml_hint(what))
        except yaml.YAMLError as error:
            self._problem(1, 1, f"this is not valid YAML: {error}")
        finally:
            parser.dispose()
        return None

    def _decode(self, text: bytes | str) -> str:
        size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "replace"))
        if size > BYTES_MAX:
            self._fail(1, 1, f"the file has {size} bytes, more than the {BYTES_MAX} allowed")
        if isinstance(text, str):
            return text.removeprefix("\ufeff")
        try:
            return text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            self._fail(line, 1, "the file is not UTF-8 text", "save it with UTF-8 encoding")

    def _problem(self, line: int, column: int, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self.path, line, column, message, hint=hint, rule="yaml"))

    def _fail(self, line: int, column: int, message: str, hint: str | None = None) -> NoReturn:
        self._problem(line, column, message, hint)
        raise WorkflowError(tuple(self.problems))

    def _document(self, next_event: _NextEvent) -> Node | None:
        root: Node | None = None
        while (event := next_event()) is not None:
            if type(event) is not DocumentStartEvent:
                continue
            if root is not None:
                mark = event.start_mark
                assert mark is not None  # noqa: S101 -- events from a parser have marks
                self._problem(mark.line + 1, mark.column + 1, "only one document is allowed")
                return root
            root = self._node(next_event(), next_event, 1)
        if root is None:
            self._problem(1, 1, "the file is empty", "a workflow needs at least `on` and `jobs`")
        return root

    def _node(self, event: _AnyEvent, next_event: _NextEvent, depth: int) -> Node:
        """The node that starts with an event; reads on to its end."""
        self.count = count = self.count + 1
        kind = type(event)
        if (
            kind is ScalarEvent
            and event.tag is None
            and event.anchor is None
            and count <= NODES_MAX
        ):
            return _untagged(event)
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if count > NODES_MAX:
            self._fail(line, column, f"more than {NODES_MAX} values, aliases counted in full")
        if kind is AliasEvent:
            return self._alias(event.anchor, line, column)
        if depth > DEPTH_MAX:
            self._fail(line, column, f"nested deeper than {DEPTH_MAX} levels")
        before = count - 1
        name = event.anchor
        if name is not None:
            self.anchors[name] = _Anchor(line, column)
        if kind is ScalarEvent:
            node: Node = self._scalar(event, line, column)
        elif kind is SequenceStartEvent:
            self._check_collection_tag(event.tag, "seq", line, column)
            items: list[Node] = []
            while type(event := next_event()) is not SequenceEndEvent:
                items.append(self._node(event, next_event, depth + 1))
            node = SequenceNode(items, line, column)
        else:
            self._check_collection_tag(event.tag, "map", line, column)
            node = MappingNode(self._entries(next_event, depth), line, column)
        if name is not None:
            anchor = self.anchors[name]
            anchor.node, anchor.size = node, self.count - before
        return node

    def _alias(self, name: str, line: int, column: int) -> Node:
        anchor = self.anchors.get(name)
        if anchor is None:
            self._problem(line, column, f"the alias '*{name}' has no anchor '&{name}' before it")
        elif anchor.node is None:
            self._problem(
                line,
                column,
                f"the alias '*{name}' stands inside its own anchor of line {anchor.line}",
            )
        else:
            self.count += anchor.size - 1
            return anchor.node
        self.broken = True
        return ScalarNode(None, "", line, column)

    def _entries(self, next_event: _NextEvent, depth: int) -> list[tuple[ScalarNode, Node]]:
        entries: list[tuple[ScalarNode, Node]] = []
        seen: dict[str, int] = {}
        node, depth = self._node, depth + 1
        while type(event := next_event()) is not MappingEndEvent:
            # Nearly every key, and most values, are scalars without tag and anchor: no call then.
            if (
                type(event) is ScalarEvent
                and event.tag is None
                and event.anchor is None
                and self.count < NODES_MAX
            ):
                self.count += 1
                key: Node = _untagged(event)
            else:
                key = node(event, next_event, depth)
            event = next_event()
            if (
                type(event) is ScalarEvent
                and event.tag is None
                and event.anchor is None
                and self.count < NODES_MAX
            ):
                self.count += 1
                value: Node = _untagged(event)
            else:
                value = node(event, next_event, depth)
            if type(key) is not ScalarNode:
                self._problem(key.line, key.column, "a key must be a plain text")
                continue
            name = key.value if type(key.value) is str else key_text(key)
            if name in seen:
                self._problem(
                    key.line,
                    key.column,
                    f"the key '{name}' is already defined on line {seen[name]}",
                )
                continue
            seen[name] = key.line
            entries.append((key, value))
        return entries

    def _check_collection_tag(self, tag: str | None, name: str, line: int, column: int) -> None:
        if tag is not None and tag not in ("!", _TAG + name):
            self._problem(line, column, f"the tag '{_shown(tag)}' is not supported")

    def _scalar(self, event: _AnyEvent, line: int, column: int) -> ScalarNode:
        """A scalar with a tag or an anchor."""
        tag = event.tag
        text: str = event.value
        style = event.style or None
        value: bool | int | float | str | None = text
        if tag is None:
            value = resolve(text) if style is None else text
        elif tag.startswith(_TAG) and tag[len(_TAG) :] in _SCALAR_TAGS:
            value = self._tagged(tag[len(_TAG) :], text, style, line, column)
        elif tag != "!":
            hint = None
            if tag.startswith("!") and not tag.startswith("!!"):
                whole = f"{tag} {text}".strip()
                hint = f'`!` starts a YAML tag; put the value in quotes: "{whole}"'
            self._problem(line, column, f"the tag '{_shown(tag)}' is not supported", hint)
        return ScalarNode(value, text, line, column, style)

    def _tagged(
        self, tag: str, text: str, style: str | None, line: int, column: int
    ) -> bool | int | float | str | None:
        if tag == "str":
            return text
        if style is not None:
            self._problem(line, column, f"a quoted or block text cannot have the tag '!!{tag}'")
            return text
        value = resolve(text)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if tag == "float" and number:
            return value
        fits = {
            "int": number and not isinstance(value, float),
            "bool": isinstance(value, bool),
            "null": value is None,
            "float": False,
        }[tag]
        if not fits:
            self._problem(line, column, f"'{text}' is not of the type '!!{tag}'")
        return value


def _untagged(event: _AnyEvent) -> ScalarNode:
    """A scalar without tag and anchor, as nearly all nodes of a file are."""
    text: str = event.value
    style = event.style or None
    mark = event.start_mark
    return ScalarNode(
        resolve(text) if style is None and text[:1] in _MAYBE_TYPED else text,
        text,
        mark.line + 1,
        mark.column + 1,
        style,
    )


def resolve(text: str) -> bool | int | float | str | None:
    """A plain scalar by the YAML 1.2 core schema: `yes`, dates and `1_000` are strings."""
    if text[:1].isalpha() or not text:
        return _WORDS.get(text, text)
    if text == "~":
        return None
    if _INT.match(text):
        return int(text) if len(text) <= _INT_DIGITS_MAX else float(text)
    if _FLOAT.match(text):
        return float(text)
    if _OCTAL.match(text):
        return int(text[2:], 8) if len(text) <= _INT_DIGITS_MAX else text
    if _HEX.match(text):
        return int(text[2:], 16) if len(text) <= _INT_DIGITS_MAX else text
    infinite = _INFINITE.match(text)
    if infinite:
        return -math.inf if infinite.group(1) == "-" else math.inf
    return math.nan if _NAN.match(text) else text


def _shown(tag: str) -> str:
    return "!!" + tag[len(_TAG) :] if tag.startswith(_TAG) else tag


def _yaml_hint(problem: str) -> str | None:
    if "mapping values are not allowed" in problem:
        return "a text with ': ' in it must be quoted"
    if "did not find expected key" in problem or "block end" in problem:
        return "keys of one mapping start in the same column, and so do items of one list"
    if "unexpected end of stream" in problem or "quoted scalar" in problem:
        return "a quote is not closed"
    if "cannot start any token" in problem:
        return "tabs cannot indent, and @, ` and % must be quoted at the start of a text"
    return None
