"""The pure half of `hashFiles`: which paths its patterns select, and how digests are combined.

The runner walks the workspace, asks `HashPatterns`, hashes each file with SHA-256 and gives the
digests, in the order of the walk, to `combined_digest`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from schemas.late import dataclass
from schemas.workflow.errors import ExpressionError
from schemas.workflow.filters import Pattern, compile_pattern


@dataclass(frozen=True, slots=True)
class _Rule:
    negative: bool
    patterns: tuple[Pattern, ...]

    def matches(self, path: str) -> bool:
        return any(pattern.matches(path) for pattern in self.patterns)


class HashPatterns:
    """The patterns of one call; of the rules that match a path the last one decides.

    `*` and `?` stay within a segment, `**` as a whole segment spans several. A pattern that
    matches a folder selects everything below it. Paths are relative to the workspace, with `/`.
    """

    def __init__(self, patterns: Iterable[str], *, workspace: str = "") -> None:
        rules: list[_Rule] = []
        for text in patterns:
            for line in text.split("\n"):
                rule = _rule(line.strip(), workspace)
                if rule is not None:
                    rules.append(rule)
        self._rules = tuple(rules)

    def matches(self, path: str) -> bool:
        """Whether the file belongs to the hash."""
        selected = False
        for rule in self._rules:
            if rule.negative == selected and rule.matches(path):
                selected = not rule.negative
        return selected


def check_patterns(patterns: Iterable[str]) -> None:
    """Raises ExpressionError for a pattern that leads elsewhere, as GitHub's globs refuse it."""
    for line in (line.strip() for text in patterns for line in text.split("\n")):
        segments = [segment for segment in line.lstrip("! ").split("/") if segment]
        if not line.startswith("#") and (".." in segments or "." in segments[1:]):
            raise ExpressionError(
                "evaluation",
                f"hashFiles: '.' and '..' are not allowed in the pattern '{line}'; "
                "it is counted from the workspace",
            )


def _rule(text: str, workspace: str) -> _Rule | None:
    negative = False
    while text.startswith("!"):
        negative = not negative
        text = text[1:].strip()
    if not text or text.startswith("#"):
        return None
    if workspace and text.startswith(workspace.rstrip("/") + "/"):
        text = text[len(workspace.rstrip("/")) + 1 :]
    segments = [segment for segment in text.split("/") if segment not in ("", ".")]
    if not segments:
        return _Rule(negative, (compile_pattern("**"),))
    translated = "/".join(map(_segment, segments))
    below = translated if translated.endswith("**") else translated + "/**"
    return _Rule(
        negative,
        (compile_pattern(translated, negates=True), compile_pattern(below, negates=True)),
    )


def _segment(segment: str) -> str:
    """A segment in the filter syntax, in which `?` and `+` mean something else."""
    if segment == "**":
        return segment
    parts: list[str] = []
    position = 0
    while position < len(segment):
        character = segment[position]
        if character == "*":
            if not parts or parts[-1] != "*":
                parts.append("*")
        elif character == "?":
            parts.append(_ANY_IN_SEGMENT)
        elif character == "[" and (end := segment.find("]", position + 2)) > 0:
            parts.append(segment[position : end + 1])
            position = end
        elif character == "\\" and position + 1 < len(segment):
            position += 1
            parts.append("\\" + segment[position])
        elif character in "+!":
            parts.append("\\" + character)
        else:
            parts.append(character)
        position += 1
    return "".join(parts)


# One character that is no slash: two ranges around it.
_ANY_IN_SEGMENT = "[\x01-.0-\U0010ffff]"


def combined_digest(digests: Iterable[bytes]) -> str:
    """The result of `hashFiles` for the SHA-256 digests of the files; empty for no files."""
    whole = hashlib.sha256()
    found = False
    for digest in digests:
        found = True
        whole.update(digest)
    return whole.hexdigest() if found else ""
