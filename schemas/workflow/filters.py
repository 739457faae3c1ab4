"""Patterns of `branches`, `tags` and `paths`: what they mean, and which are malformed.

The syntax is that of GitHub's "Filter pattern cheat sheet": `*` stays within a path segment, `**`
does not, `?` and `+` repeat the character before, `[]` is one of some characters, a leading `!`
takes away again, a backslash makes the next character ordinary. Matching is linear in the name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from functools import lru_cache

from schemas.late import dataclass
from schemas.workflow.errors import Severity

_ESCAPABLE = frozenset("[?+*\\!")
_NOT_IN_REFS = frozenset(" \t~^:")
_CACHED_PATTERNS = 4096


@dataclass(frozen=True, slots=True)
class _Class:
    """The characters that one place of a pattern accepts; `negated` inverts the set."""

    characters: frozenset[str]
    ranges: tuple[tuple[str, str], ...] = ()
    negated: bool = False

    def accepts(self, character: str) -> bool:
        found = character in self.characters or any(
            low <= character <= high for low, high in self.ranges
        )
        return found != self.negated


_ANY = _Class(frozenset(), negated=True)
_NOT_SLASH = _Class(frozenset("/"), negated=True)
_NOTHING = _Class(frozenset())
_SLASH = _Class(frozenset("/"))
# `**/` is: enter (nothing, or go on to the two places after it), any text, then a slash.
_FOLDERS = 3


@dataclass(slots=True, eq=False)
class Pattern:
    """A compiled pattern: one bit a place, all places of a name tried at once."""

    negative: bool
    literal: str | None
    negates: bool = False
    places: list[_Class] = field(default_factory=list)
    loops: int = 0
    skips: int = 0
    skips_folders: int = 0
    accepted: dict[str, int] = field(default_factory=dict)

    def matches(self, name: str) -> bool:
        """Whether the whole name fits, the leading `!` left aside."""
        if self.literal is not None:
            return name == self.literal
        states = self._rest(1)
        for character in name:
            mask = self.accepted.get(character)
            if mask is None:
                mask = self._accepting(character)
            states &= mask
            states = self._rest((states << 1) | (states & self.loops))
            if not states:
                return False
        return bool(states >> len(self.places) & 1)

    def _accepting(self, character: str) -> int:
        mask = 0
        for position, place in enumerate(self.places):
            if place.accepts(character):
                mask |= 1 << position
        self.accepted[character] = mask
        return mask

    def _rest(self, states: int) -> int:
        """The places reachable without a further character."""
        states |= (states & self.skips_folders) << _FOLDERS
        reached = states
        while reached:
            reached = ((reached & self.skips) << 1 | (reached & self.skips_folders) << _FOLDERS) & (
                ~states
            )
            states |= reached
        return states


@lru_cache(maxsize=_CACHED_PATTERNS)
def compile_pattern(text: str, *, negates: bool = False) -> Pattern:
    """A pattern ready to match; a malformed one matches as far as it makes sense.

    With `negates`, `[!ab]` and `[^ab]` are the other characters of a segment: so it is in the
    patterns of hashFiles, and not in filters.
    """
    negative = text.startswith("!")
    body = text[1:] if negative else text
    if not any(character in body for character in "*?+[\\"):
        return Pattern(negative, body)
    pattern = Pattern(negative, None, negates)
    position = 0
    while position < len(body):
        position = _add_place(pattern, body, position)
    return pattern


def _add_place(pattern: Pattern, body: str, position: int) -> int:
    """Adds what stands at `position`; returns where the next place starts."""
    character, places = body[position], pattern.places
    here = 1 << len(places)
    if character == "*":
        if not body.startswith("**", position):
            pattern.loops, pattern.skips = pattern.loops | here, pattern.skips | here
            places.append(_NOT_SLASH)
            return position + 1
        if body.startswith("**/", position) and (position == 0 or body[position - 1] == "/"):
            pattern.skips |= here | here << 1
            pattern.skips_folders |= here
            pattern.loops |= here << 1
            places.extend((_NOTHING, _ANY, _SLASH))
            return position + _FOLDERS
        pattern.loops, pattern.skips = pattern.loops | here, pattern.skips | here
        places.append(_ANY)
        return position + 2
    if character in "?+" and places:
        if character == "?":
            pattern.skips |= here >> 1
        else:
            pattern.loops |= here >> 1
        return position + 1
    if character == "[":
        end = body.find("]", position + 1)
        if end > position + 1:
            places.append(_class_of(body[position + 1 : end], pattern.negates))
            return end + 1
    if character == "\\" and position + 1 < len(body):
        position += 1
        character = body[position]
    places.append(_Class(frozenset(character)))
    return position + 1


def _class_of(inside: str, negates: bool) -> _Class:  # noqa: FBT001 -- of one call each
    negated = negates and len(inside) > 1 and inside[0] in "!^"
    characters: set[str] = {"/"} if negated else set()
    inside = inside[1:] if negated else inside
    ranges: list[tuple[str, str]] = []
    position = 0
    while position < len(inside):
        if inside[position + 1 : position + 2] == "-" and position + 2 < len(inside):
            ranges.append((inside[position], inside[position + 2]))
            position += 3
        else:
            characters.add(inside[position])
            position += 1
    return _Class(frozenset(characters), tuple(ranges), negated=negated)


def selects(patterns: Iterable[str], name: str) -> bool:
    """Whether a list of patterns selects a name: the last pattern that matches decides."""
    selected = False
    for text in patterns:
        pattern = compile_pattern(text)
        if pattern.negative == selected and pattern.matches(name):
            selected = not pattern.negative
    return selected


def matches_refs(patterns: Iterable[str], name: str) -> bool:
    """Whether `branches:` or `tags:` lets a short ref name through; no patterns filter nothing."""
    known = tuple(patterns)
    return not known or selects(known, name)


def ignores_ref(patterns: Iterable[str], name: str) -> bool:
    """Whether `branches-ignore:` or `tags-ignore:` keeps a short ref name out."""
    return selects(patterns, name)


def matches_paths(patterns: Iterable[str], changed_paths: Iterable[str]) -> bool:
    """Whether `paths:` lets a change through: one selected path is enough."""
    known = tuple(patterns)
    return not known or any(selects(known, path) for path in changed_paths)


def ignores_paths(patterns: Iterable[str], changed_paths: Iterable[str]) -> bool:
    """Whether `paths-ignore:` keeps a change out: every path is selected, and there is one."""
    known, paths = tuple(patterns), tuple(changed_paths)
    return bool(paths) and all(selects(known, path) for path in paths)


@dataclass(frozen=True, slots=True)
class PatternProblem:
    """Something wrong with a pattern, `offset` characters into it.

    A warning is about a pattern that works but cannot do what it seems to.
    """

    message: str
    offset: int
    severity: Severity = "error"


def validate_pattern(text: str, *, is_ref: bool) -> tuple[PatternProblem, ...]:
    """What is wrong with a ref pattern (`branches`, `tags`) or a path pattern."""
    if not text:
        return (PatternProblem("a pattern cannot be empty", 0),)
    check = _Validator(text, is_ref=is_ref)
    check.run()
    return tuple(check.problems)


@dataclass(slots=True)
class _Validator:
    text: str
    is_ref: bool
    problems: list[PatternProblem] = field(default_factory=list)
    repeatable: bool = False

    def _add(self, message: str, offset: int, severity: Severity = "error") -> None:
        self.problems.append(PatternProblem(message, offset, severity))

    def run(self) -> None:
        text = self.text
        position = 0
        if text[0] == "!":
            position = 1
            if len(text) == 1:
                self._add("a pattern is expected after '!'", 0)
                return
        elif text[0] == "/" and self.is_ref:
            self._add("no ref name starts with '/'", 0, "warning")
        while position < len(text):
            position = self._place(position)
        if self.is_ref:
            if text[-1] in "/." and not text.endswith("\\."):
                self._add(f"no ref name ends with '{text[-1]}'", len(text) - 1, "warning")
        else:
            self._path_name()

    def _place(self, position: int) -> int:
        character = self.text[position]
        if character == "\\":
            return self._escape(position)
        if character == "[":
            return self._characters(position)
        if character in "?+" and not self.repeatable:
            self._add(
                f"'{character}' repeats the character before it, and there is none to repeat",
                position,
            )
        elif character in "\r\n":
            self._add("a pattern cannot contain a line break", position)
        elif character in _NOT_IN_REFS and self.is_ref:
            self._add(f"no ref name contains {character!r}", position, "warning")
        self.repeatable = character not in "?+*"
        return position + 1

    def _escape(self, position: int) -> int:
        self.repeatable = True
        escaped = self.text[position + 1 : position + 2]
        if escaped and escaped in _ESCAPABLE:
            if self.is_ref and escaped in "[?*":
                self._add(f"no ref name contains '{escaped}'", position + 1, "warning")
            return position + 2
        if self.is_ref:
            self._add(
                "no ref name contains a backslash; it only escapes [ ? + * \\ and !",
                position,
                "warning",
            )
            return position + 2
        return position + 1

    def _characters(self, position: int) -> int:
        """Checks `[…]`; its end is the first `]`."""
        self.repeatable = True
        end = self.text.find("]", position + 1)
        if end < 0:
            self._add("']' is missing after '['", position)
            return len(self.text)
        inside = self.text[position + 1 : end]
        if not inside:
            self._add("'[]' has no character in it", position)
        elif len(inside) == 1:
            self._add(f"'[{inside}]' is the same as '{inside}'", position, "warning")
        offset = 0
        while offset < len(inside):
            if inside[offset + 1 : offset + 2] != "-":
                offset += 1
                continue
            if offset + 2 >= len(inside):
                self._add("the end of a range is missing before ']'", position + offset + 1)
            elif inside[offset] > inside[offset + 2]:
                self._add(
                    f"the range '{inside[offset : offset + 3]}' runs backwards",
                    position + 1 + offset,
                )
            offset += 3
        return end + 1

    def _path_name(self) -> None:
        if self.text != self.text.strip(" "):
            self._add("a path pattern cannot start or end with a space", 0)
        path = self.text.strip().removeprefix("!")
        if path in (".", "..") or path.startswith(("./", "../")):
            self._add(
                "paths are counted from the repository's root, without './' or '../'", 0, "warning"
            )
