"""The process that tries the regular expressions of problem matchers on lines of output.

    python -I -S matcher.py

A job writes the expressions, and one of them may need longer than the machine will stand. So they
are tried here and not in the runner: a batch that takes more than `BATCH_S_MAX` ends this process.

Messages are a 4-byte length and JSON: ["set", [matcher, …]] changes the matchers, ["lines",
[text, …]] is answered by [[index, found], …], where `found` holds what a matcher made of the line.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
from typing import Any

BATCH_S_MAX = 2
LENGTH_BYTES = 4
MEMORY_BYTES_MAX = 512 << 20
#: A longer line is no compiler's message.
LINE_CHARACTERS_MAX = 4096
_FIELDS = ("file", "fromPath", "line", "column", "severity", "code", "message")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_NAMED = re.compile(r"\(\?<(?=[A-Za-z_])")


def compiled(text: str) -> re.Pattern[str]:
    """Return an expression as JavaScript means it. Raises re.error."""
    return re.compile(_NAMED.sub("(?P<", text), re.ASCII)


class Pattern:
    """One expression, and which of its groups says what."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Take an entry of `pattern`."""
        self.expression = compiled(given["regexp"])
        self.groups = {name: given[name] for name in _FIELDS if name in given}
        self.loop = bool(given.get("loop"))

    def match(self, line: str, before: dict[str, str]) -> dict[str, str] | None:
        """Return what is known after this line; None when it does not match."""
        found = self.expression.search(line)
        if found is None:
            return None
        own = {name: found[group] for name, group in self.groups.items()}
        return {**before, **{name: text for name, text in own.items() if text}}


class Matcher:
    """The patterns of one owner: one line, or several that follow each other."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Take an entry of `problemMatcher`."""
        self._patterns = [Pattern(pattern) for pattern in given["pattern"]]
        self._severity = given.get("severity") or "error"
        self._running: list[dict[str, str] | None] = []
        self.reset()

    def reset(self) -> None:
        """Forget the lines before."""
        self._running = [{}, *([None] * (len(self._patterns) - 1))]

    def match(self, line: str) -> dict[str, str] | None:
        """Return a problem that ends with this line."""
        last = len(self._patterns) - 1
        for number in range(last, -1, -1):
            before = self._running[number]
            if before is None:
                continue
            pattern = self._patterns[number]
            found = pattern.match(line, before)
            if number < last:
                self._running[number + 1] = found
            elif found is not None:
                self.reset()
                if pattern.loop and last:
                    self._running[last] = before
                return {"severity": self._severity, **found}
            elif last:
                self._running[last] = None
        return None


def problems(matchers: list[Matcher], lines: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Return what the first matcher that matches makes of each line, by the line's number."""
    found: list[tuple[int, dict[str, str]]] = []
    for number, line in enumerate(lines):
        if len(line) > LINE_CHARACTERS_MAX:
            continue
        plain = _COLORS.sub("", line) if "\x1b" in line else line
        for matcher in matchers:
            problem = matcher.match(plain)
            if problem is not None:
                for other in matchers:
                    if other is not matcher:
                        other.reset()
                found.append((number, problem))
                break
    return found


def serve() -> None:
    """Answer until the runner is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    matchers: list[Matcher] = []
    while head := sys.stdin.buffer.read(LENGTH_BYTES):
        kind, content = json.loads(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        if kind == "set":
            matchers = [Matcher(given) for given in content]
            continue
        signal.alarm(BATCH_S_MAX)  # its default action needs no turn of the interpreter's
        answer = json.dumps(problems(matchers, content)).encode()
        signal.alarm(0)
        sys.stdout.buffer.write(len(answer).to_bytes(LENGTH_BYTES, "little") + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
