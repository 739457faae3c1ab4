"""What the language says when a text is wrong: positions, words and the two exception types."""

from __future__ import annotations

from typing import Literal

from schemas.late import dataclass

Severity = Literal["error", "warning"]
Stage = Literal["lexing", "parsing", "evaluation"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a workflow file; line and column count from 1, column in characters."""

    path: str
    line: int
    column: int
    message: str
    severity: Severity = "error"
    hint: str | None = None
    rule: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"


class LanguageError(Exception):
    """Base of everything this package raises for a text that is not the language."""


class WorkflowError(LanguageError):
    """A document cannot be used; fix every problem listed and push again."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ExpressionError(LanguageError):
    """An expression cannot be read or computed; `offset` counts characters from 0."""

    def __init__(
        self, stage: Stage, message: str, *, offset: int = 0, expression: str | None = None
    ) -> None:
        super().__init__(message)
        self.stage: Stage = stage
        self.message = message
        self.offset = offset
        self.expression = expression

    def moved(self, by: int) -> ExpressionError:
        """The same error seen from a text in which the expression starts `by` characters later."""
        return ExpressionError(
            self.stage, self.message, offset=self.offset + by, expression=self.expression
        )


def located(message: str, offset: int, text: str) -> str:
    """A message with its place, in the form that workflow authors know from GitHub."""
    return f"{message}. Located at position {offset + 1} within expression: {text}"
