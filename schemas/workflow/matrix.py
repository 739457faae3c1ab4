"""A matrix to its legs, by GitHub's rules for include and exclude, and the legs' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice, product
from math import prod
from typing import TypeAlias

from schemas.workflow.errors import LanguageError
from schemas.workflow.expressions.values import Value, equal, fold_case, to_string

LEGS_MAX = 256
# Combinations before `exclude`: enough for every sensible matrix, and a bound on the work.
COMBINATIONS_MAX = 16_384
COMPARISONS_MAX = 1_000_000
NAME_CHARACTERS_MAX = 100

Leg: TypeAlias = dict[str, Value]


class MatrixError(LanguageError):
    """The evaluated matrix is no matrix, has no legs or too many."""


def expand_matrix(matrix: Value) -> tuple[Leg, ...]:
    """The legs of an evaluated matrix, in order: combinations first, then what include adds."""
    if not isinstance(matrix, dict):
        raise MatrixError("the matrix must be an object of lists")
    vectors = {
        name: _vector(name, values)
        for name, values in matrix.items()
        if name not in ("include", "exclude")
    }
    include = _spelt(_objects(matrix.get("include"), "include"), vectors)
    exclude = _spelt(_objects(matrix.get("exclude"), "exclude"), vectors)
    combinations = prod(len(values) for values in vectors.values())
    if combinations > COMBINATIONS_MAX:
        raise MatrixError(f"the matrix has more than {COMBINATIONS_MAX} combinations")
    if combinations * (len(include) + len(exclude)) > COMPARISONS_MAX:
        raise MatrixError(
            f"the matrix has {combinations} combinations with {len(include)} include and "
            f"{len(exclude)} exclude entries, more than can be compared"
        )
    legs = [leg for leg in _combinations(vectors) if not _excluded(leg, exclude)]
    legs = _included(legs, include, vectors)
    if not legs:
        raise MatrixError("the matrix has no legs: every combination is excluded, or it is empty")
    if len(legs) > LEGS_MAX:
        raise MatrixError(f"the matrix has {len(legs)} legs, more than the {LEGS_MAX} allowed")
    return tuple(legs)


def _objects(value: Value, name: str) -> list[dict[str, Value]]:
    if value is None:
        return []
    if isinstance(value, list):
        objects = [item for item in value if isinstance(item, dict)]
        if len(objects) == len(value):
            return objects
    raise MatrixError(f"'{name}' of the matrix must be a list of objects")


def _spelt(
    items: list[dict[str, Value]], vectors: Mapping[str, list[Value]]
) -> list[dict[str, Value]]:
    """The entries with their names as the vectors have them: names ignore case."""
    names = {fold_case(name): name for name in vectors}
    return [
        {names.get(fold_case(name), name): value for name, value in item.items()} for item in items
    ]


def _vector(name: str, values: Value) -> list[Value]:
    if not isinstance(values, list):
        raise MatrixError(f"the values of '{name}' in the matrix must be a list")
    if not values:
        raise MatrixError(f"Matrix vector '{name}' does not contain any values")
    return values


def _combinations(vectors: Mapping[str, list[Value]]) -> Iterator[Leg]:
    if not vectors:
        return
    for values in product(*vectors.values()):
        yield dict(zip(vectors, values, strict=True))


def _same(left: Value, right: Value) -> bool:
    """Equal with all that is inside; an object fits when it has at least the wanted entries."""
    if isinstance(left, dict) and isinstance(right, dict):
        return all(name in left and _same(left[name], item) for name, item in right.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, (list, dict)) or isinstance(right, (list, dict)):
        return False
    return equal(left, right)


def _excluded(leg: Leg, exclude: list[dict[str, Value]]) -> bool:
    return any(
        all(name in leg and _same(leg[name], value) for name, value in item.items())
        for item in exclude
    )


def _included(
    legs: list[Leg], include: list[dict[str, Value]], vectors: Mapping[str, list[Value]]
) -> list[Leg]:
    """Adds each include entry to every combination whose own values it does not change."""
    originals = [dict(leg) for leg in legs]
    added: list[Leg] = []
    for item in include:
        fits = [
            position
            for position, original in enumerate(originals)
            if all(
                _same(original[name], value) and _same(value, original[name])
                for name, value in item.items()
                if name in original
            )
        ]
        if fits:
            for position in fits:
                legs[position].update(
                    (name, value) for name, value in item.items() if name not in vectors
                )
        else:
            added.append(dict(item))
    return legs + added


def _name_parts(value: Value) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _name_parts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _name_parts(item)
    else:
        yield to_string(value)


def leg_name(job_name: str, leg: Mapping[str, Value] | None) -> str:
    """The name that GitHub shows for a leg: "test (3.11, linux)"; values inside in order."""
    if not leg:
        return job_name
    parts = [part for value in leg.values() for part in islice(_name_parts(value), 64) if part]
    name = f"{job_name} ({', '.join(parts)})" if parts else job_name
    return name if len(name) <= NAME_CHARACTERS_MAX else name[: NAME_CHARACTERS_MAX - 3] + "..."
