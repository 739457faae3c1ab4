"""Problem matchers of a job: `::add-matcher::file`, and annotations out of what tools print.

The file is GitHub's: `{"problemMatcher": [{"owner", "severity", "pattern": [{"regexp", …}]}]}`.
Expressions are tried in a process of their own (`matcher.py`); when it takes too long the
matchers are off for the rest of the job, and the log goes on without them.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

from runner import matcher as worker
from runner.masking import Masker
from schemas.workflow.command_processor import Annotation, Level

MATCHERS_MAX = 100
PATTERNS_MAX = 10
_ANSWER_S_MAX = worker.BATCH_S_MAX + 1.0
_LEVELS = frozenset({"error", "warning", "notice"})
_GROUPS = ("file", "fromPath", "line", "column", "severity", "code", "message")


class MatcherError(Exception):
    """The matcher file can't be used; the message says what is wrong with it."""


class JobMatchers:
    """The matchers that a job has switched on; they hold for the steps that follow, too."""

    def __init__(self, masker: Masker, *, workspace: str, say: Callable[[str], None]) -> None:
        """Match nothing yet; `say` takes a warning."""
        self._masker = masker
        self._workspace = workspace
        self._say = say
        self._matchers: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._off = False

    @property
    def active(self) -> bool:
        """Whether lines are to be matched."""
        return bool(self._matchers)

    def add(self, data: bytes) -> None:
        """Switch the matchers of a file on, in place of those with the same owner."""
        fresh = read_matchers(data)
        if self._off:
            return
        owners = {item["owner"] for item in fresh}
        kept = [item for item in self._matchers if item["owner"] not in owners]
        self._set([*fresh, *kept][:MATCHERS_MAX])

    def remove(self, owner: str) -> None:
        """Switch an owner's matchers off."""
        self._set([item for item in self._matchers if item["owner"] != owner])

    def find(self, lines: list[bytes]) -> dict[int, Annotation]:
        """Return the problems that the lines tell of, by the line's number."""
        texts = [self._masker.mask(line).decode("utf-8", "replace") for line in lines]
        answer = self._ask(["lines", texts])
        found = ((number, self._annotation(problem)) for number, problem in answer or ())
        return {number: item for number, item in found if item is not None}

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _set(self, matchers: list[dict[str, Any]]) -> None:
        if matchers == self._matchers:
            return
        self._matchers = matchers
        if matchers and self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", worker.__file__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                cwd="/", env={}, bufsize=0, start_new_session=True,
            )  # fmt: skip
        if self._process is not None:
            self._send(["set", matchers])

    def _ask(self, message: list[Any]) -> list[tuple[int, dict[str, str]]] | None:
        if not self._send(message):
            return None
        size = self._receive(worker.LENGTH_BYTES)
        body = self._receive(int.from_bytes(size, "little")) if size else b""
        if not body:
            self._give_up()
            return None
        return cast("list[tuple[int, dict[str, str]]]", json.loads(body))

    def _send(self, message: list[Any]) -> bool:
        if self._process is None or self._process.stdin is None:
            return False
        data = json.dumps(message).encode()
        data = len(data).to_bytes(worker.LENGTH_BYTES, "little") + data
        try:
            while data:
                data = data[self._process.stdin.write(data) :]
        except OSError:
            self._give_up()
            return False
        return True

    def _receive(self, size: int) -> bytes:
        """Return so many bytes; b"" when they do not come in time."""
        stream = self._process.stdout if self._process is not None else None
        found = b""
        while stream is not None and len(found) < size:
            ready, _, _ = select.select([stream], [], [], _ANSWER_S_MAX)
            part = stream.read(size - len(found)) if ready else b""
            if not part:
                return b""
            found += part
        return found

    def _give_up(self) -> None:
        owners = ", ".join(sorted({item["owner"] for item in self._matchers}))
        self.close()
        self._off, self._matchers = True, []
        self._say(
            f"##[warning]The problem matchers ({owners}) took too long for a few lines and are "
            "off for the rest of the job: simplify their expressions"
        )

    def _annotation(self, found: dict[str, str]) -> Annotation | None:
        level, message = found["severity"].lower(), found.get("message", "").strip()
        if level not in _LEVELS or not message:
            return None
        properties = {"file": self._path(found)}
        for name, key in (("line", "line"), ("column", "col"), ("code", "code")):
            if name in found:
                properties[key] = found[name]
        return Annotation(cast("Level", level), message, properties)

    def _path(self, found: dict[str, str]) -> str:
        """Return the file's path in the workspace, or as it was printed."""
        path, base = found.get("file", ""), found.get("fromPath", "")
        if base and path and not path.startswith("/"):
            path = posixpath.join(posixpath.dirname(base), path)
        prefix = f"{self._workspace.rstrip('/')}/"
        return posixpath.normpath(path).removeprefix(prefix) if path else ""


def read_matchers(data: bytes) -> list[dict[str, Any]]:
    """Return the matchers of a file. Raises MatcherError."""
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MatcherError(f"it is no JSON: {error}") from error
    items = found.get("problemMatcher") if isinstance(found, dict) else None
    if not isinstance(items, list) or not items or len(items) > MATCHERS_MAX:
        raise MatcherError(f"expected a list `problemMatcher` of 1 to {MATCHERS_MAX} matchers")
    return [_matcher(item) for item in items]


def _matcher(item: object) -> dict[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("owner"), str) or not item["owner"]:
        raise MatcherError("a matcher needs an `owner`, a text")
    owner, severity = item["owner"], item.get("severity") or "error"
    patterns = item.get("pattern")
    if not isinstance(patterns, list) or not 1 <= len(patterns) <= PATTERNS_MAX:
        raise MatcherError(f"matcher {owner!r} needs a list `pattern` of 1 to {PATTERNS_MAX}")
    if not isinstance(severity, str):
        raise MatcherError(f"matcher {owner!r}: `severity` must be a text")
    read = [_pattern(owner, pattern) for pattern in patterns]
    if any(pattern["loop"] for pattern in read[:-1]):
        raise MatcherError(f"matcher {owner!r}: only the last pattern may `loop`")
    if not any("message" in pattern for pattern in read):
        raise MatcherError(f"matcher {owner!r}: no pattern says which group is the `message`")
    return {"owner": owner, "severity": severity, "pattern": read}


def _pattern(owner: str, given: object) -> dict[str, Any]:
    text = given.get("regexp") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(text, str) or not text:
        raise MatcherError(f"matcher {owner!r}: a pattern needs a `regexp`, a text")
    try:
        groups = worker.compiled(text).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise MatcherError(
            f"matcher {owner!r}: the regexp {text!r} can't be read: {error}"
        ) from error
    read: dict[str, Any] = {"regexp": text, "loop": given.get("loop") is True}
    for name in _GROUPS:
        group = given.get(name)
        if group is None:
            continue
        if not isinstance(group, int) or isinstance(group, bool) or not 0 <= group <= groups:
            raise MatcherError(
                f"matcher {owner!r}: `{name}` is {group!r}; {text!r} has the groups 0 to {groups}"
            )
        read[name] = group
    return read
