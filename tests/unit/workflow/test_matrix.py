"""Matrices and strategies."""

from __future__ import annotations

import pytest

from schemas.workflow.expressions import Value
from schemas.workflow.matrix import LEGS_MAX, Leg, MatrixError, expand_matrix, leg_name
from schemas.workflow.plan import StrategyPlan
from schemas.workflow.strategy import Strategy, resolve_strategy


@pytest.mark.parametrize(
    ("matrix", "legs"),
    [
        ({"a": [1, 2], "b": ["x"]}, [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]),
        (
            {
                "fruit": ["apple", "pear"],
                "animal": ["cat", "dog"],
                "include": [
                    {"color": "green"},
                    {"color": "pink", "animal": "cat"},
                    {"fruit": "apple", "shape": "circle"},
                    {"fruit": "banana"},
                    {"fruit": "banana", "animal": "cat"},
                ],
            },
            [
                {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
                {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
                {"fruit": "pear", "animal": "cat", "color": "pink"},
                {"fruit": "pear", "animal": "dog", "color": "green"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
        ),
        ({"include": [{"a": 1}, {"a": 2}]}, [{"a": 1}, {"a": 2}]),
        ({"a": [1, 2], "exclude": [{"a": 1}]}, [{"a": 2}]),
        ({"a": [1], "exclude": [{"a": 1, "b": 2}]}, [{"a": 1}]),
        (
            {"a": [{"x": 1, "y": 2}, {"x": 2}], "exclude": [{"a": {"x": 1}}]},
            [{"a": {"x": 2}}],
        ),
        ({"a": [1], "exclude": [{"a": 1}], "include": [{"a": 3}]}, [{"a": 3}]),
        ({"a": ["1"], "include": [{"a": 1, "b": 2}]}, [{"a": "1", "b": 2}]),
    ],
)
def test_a_matrix_has_these_legs(matrix: Value, legs: list[Leg]) -> None:
    """Include and exclude work as in GitHub's documentation, in order."""
    assert list(expand_matrix(matrix)) == legs


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("x", "must be an object"),
        ({"a": "x"}, "'a' in the matrix must be a list"),
        ({"a": []}, "Matrix vector 'a' does not contain any values"),
        ({}, "no legs"),
        ({"a": [1], "exclude": [{"a": 1}]}, "no legs"),
        ({"a": [1], "include": [1]}, "'include' of the matrix must be a list of objects"),
        ({"a": list(range(LEGS_MAX + 1))}, "257 legs"),
        ({name: list(range(100)) for name in "abcdefgh"}, "combinations"),
        (
            {"a": list(range(120)), "b": list(range(120)), "exclude": [{"a": 1}] * 100},
            "more than can be compared",
        ),
    ],
)
def test_a_bad_matrix_says_why(matrix: Value, message: str) -> None:
    """A matrix without legs is an error as well as one with too many."""
    with pytest.raises(MatrixError, match=message):
        expand_matrix(matrix)


def test_names_in_include_and_exclude_ignore_case() -> None:
    """An entry for `os` is about the vector `OS`, whose spelling the legs have."""
    legs = expand_matrix(
        {
            "OS": ["linux", "mac"],
            "exclude": [{"os": "mac"}],
            "include": [{"Os": "linux", "fast": True}, {"oS": "bsd"}],
        }
    )

    assert legs == ({"OS": "linux", "fast": True}, {"OS": "bsd"})


@pytest.mark.parametrize(
    ("leg", "name"),
    [
        ({"python": 3.11, "os": "linux"}, "test (3.11, linux)"),
        ({"on": True, "none": None}, "test (true)"),
        ({"a": {"x": 1, "y": [2, 3]}}, "test (1, 2, 3)"),
        ({}, "test"),
        (None, "test"),
        ({"a": "x" * 200}, "test (" + "x" * 91 + "..."),
    ],
)
def test_a_leg_has_the_name_that_github_shows(leg: Leg | None, name: str) -> None:
    """Values in order, numbers as printed, empty ones left out."""
    assert leg_name("test", leg) == name


def test_a_strategy_is_evaluated_with_its_contexts() -> None:
    """Matrix, fail-fast and max-parallel may all come from an earlier job."""
    contexts: dict[str, Value] = {"needs": {"plan": {"outputs": {"m": '{"a": [1, 2]}'}}}}
    plan = StrategyPlan(
        matrix="${{ fromJSON(needs.plan.outputs.m) }}",
        fail_fast="${{ 1 == 2 }}",
        max_parallel="${{ fromJSON('2') }}",
    )

    assert resolve_strategy(plan, contexts) == Strategy(
        legs=({"a": 1}, {"a": 2}), fail_fast=False, max_parallel=2
    )
    assert resolve_strategy(None, contexts) == Strategy()
    assert resolve_strategy(
        StrategyPlan(whole='${{ fromJSON(\'{"matrix": {"a": [1]}, "max-parallel": 3}\') }}'), {}
    ) == Strategy(legs=({"a": 1},), max_parallel=3)


@pytest.mark.parametrize(
    "plan",
    [
        StrategyPlan(whole="${{ 1 }}"),
        StrategyPlan(matrix="${{ 'x' }}"),
        StrategyPlan(fail_fast="${{ 'x' }}"),
        StrategyPlan(max_parallel="${{ 0 }}"),
    ],
)
def test_a_strategy_of_the_wrong_type_is_refused(plan: StrategyPlan) -> None:
    """What comes out must be of the right kind."""
    with pytest.raises(MatrixError):
        resolve_strategy(plan, {})
