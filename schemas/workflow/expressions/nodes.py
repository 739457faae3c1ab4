"""The parsed form of an expression; every node computes itself from a scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Protocol

from schemas.late import dataclass
from schemas.workflow.expressions.values import (
    FilteredArray,
    Value,
    equal,
    greater,
    has_property,
    property_of,
    to_number,
    to_string,
    truthy,
)


class StatusScope(Protocol):
    """What `success()` and its relatives mean where an expression is evaluated."""

    def success(self, names: tuple[str, ...] = ()) -> bool:
        """Whether everything before has succeeded; of jobs, optionally only those named."""

    def failure(self, names: tuple[str, ...] = ()) -> bool:
        """Whether something before has failed; of jobs, optionally only those named."""

    def cancelled(self) -> bool:
        """Whether the run (for jobs) or the job (for steps) was cancelled."""


@dataclass(slots=True)
class Scope:
    """Everything an evaluation may read."""

    contexts: Mapping[str, Value]
    status: StatusScope | None = None
    hash_files: Callable[[list[str]], str] | None = None


class Node(Protocol):
    """A part of an expression."""

    def evaluate(self, scope: Scope) -> Value:
        """The value of this part in the given scope."""


@dataclass(slots=True)
class Literal:
    """A constant."""

    value: Value

    def evaluate(self, scope: Scope) -> Value:  # noqa: ARG002
        return self.value


@dataclass(slots=True)
class Name:
    """A context; its name is in lower case."""

    name: str

    def evaluate(self, scope: Scope) -> Value:
        contexts = scope.contexts
        if self.name in contexts:
            return contexts[self.name]
        return next((contexts[key] for key in contexts if key.lower() == self.name), None)


@dataclass(slots=True)
class Index:
    """`target[index]` and `target.name`, the latter with a literal index."""

    target: Node
    index: Node

    def evaluate(self, scope: Scope) -> Value:
        index = self.index.evaluate(scope)
        target = self.target.evaluate(scope)
        if isinstance(target, dict):
            return (
                None if isinstance(index, (list, dict)) else property_of(target, to_string(index))
            )
        if isinstance(target, FilteredArray):
            return _index_each(target, index)
        if isinstance(target, list):
            position = _position(index)
            return target[position] if position is not None and position < len(target) else None
        return None


@dataclass(slots=True)
class Star:
    """`target.*`: all elements or property values."""

    target: Node

    def evaluate(self, scope: Scope) -> Value:
        target = self.target.evaluate(scope)
        if isinstance(target, dict):
            return FilteredArray(target.values())
        if isinstance(target, FilteredArray):
            result = FilteredArray()
            for item in target:
                if isinstance(item, dict):
                    result.extend(item.values())
                elif isinstance(item, list):
                    result.extend(item)
            return result
        return FilteredArray(target) if isinstance(target, list) else FilteredArray()


@dataclass(slots=True)
class Not:
    """`!operand`."""

    operand: Node

    def evaluate(self, scope: Scope) -> Value:
        return not truthy(self.operand.evaluate(scope))


@dataclass(slots=True)
class Comparisons:
    """Operators of one precedence from left to right; a list, so that long chains stay flat."""

    first: Node
    rest: list[tuple[str, Node]]

    def evaluate(self, scope: Scope) -> Value:
        left = self.first.evaluate(scope)
        for operator, operand in self.rest:
            left = _COMPARE[operator](left, operand.evaluate(scope))
        return left


@dataclass(slots=True)
class All:
    """`a && b && …`: the first false operand, else the last."""

    operands: list[Node]

    def evaluate(self, scope: Scope) -> Value:
        value: Value = None
        for operand in self.operands:
            value = operand.evaluate(scope)
            if not truthy(value):
                break
        return value


@dataclass(slots=True)
class Any:
    """`a || b || …`: the first true operand, else the last."""

    operands: list[Node]

    def evaluate(self, scope: Scope) -> Value:
        value: Value = None
        for operand in self.operands:
            value = operand.evaluate(scope)
            if truthy(value):
                break
        return value


@dataclass(slots=True)
class Call:
    """A function with its operands; the implementation decides which of them it evaluates."""

    name: str
    function: Callable[[Scope, list[Node]], Value]
    operands: list[Node]

    def evaluate(self, scope: Scope) -> Value:
        return self.function(scope, self.operands)


_COMPARE: dict[str, Callable[[Value, Value], bool]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    ">": greater,
    ">=": lambda left, right: greater(left, right) or equal(left, right),
    "<": lambda left, right: greater(right, left),
    "<=": lambda left, right: greater(right, left) or equal(left, right),
}


def _position(index: Value) -> int | None:
    number = to_number(index)
    return int(number) if isfinite(number) and number >= 0 else None


def _index_each(target: FilteredArray, index: Value) -> FilteredArray:
    result = FilteredArray()
    name = None if isinstance(index, (list, dict)) else to_string(index)
    position = _position(index)
    for item in target:
        if isinstance(item, dict):
            if name is not None and has_property(item, name):
                result.append(property_of(item, name))
        elif isinstance(item, list) and position is not None and position < len(item):
            result.append(item[position])
    return result
