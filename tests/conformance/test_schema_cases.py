"""The JSON Schema against the shared workflows, and against changed ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from schemas.workflow.compile import compile_workflow
from schemas.workflow.json_schema import json_schema
from schemas.workflow.reader import plain, read_with_problems
from tests.conformance.fuzz import changed
from tests.support.shared_data import shared_folder

# The others need the whole file: expressions, needs, called files, ids in another case.
_REFUSED_SHARE_MIN = 0.6


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Return a validator of the schema."""
    return Draft202012Validator(json_schema())


def _accepts(validator: Draft202012Validator, text: bytes) -> bool:
    node, problems = read_with_problems(text, "case.yml")
    return node is not None and not problems and validator.is_valid(plain(node))


def _texts(name: str) -> dict[str, bytes]:
    folder: Path = shared_folder("conformance", name)
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.yml"))}
    assert found
    return found


@pytest.mark.parametrize("name", ["workflows_valid", "workflows_lint"])
def test_no_workflow_that_runs_is_refused(name: str, validator: Draft202012Validator) -> None:
    """Not one of the set."""
    refused = [case for case, text in _texts(name).items() if not _accepts(validator, text)]
    assert refused == []


def test_a_good_part_of_the_invalid_workflows_is_refused(validator: Draft202012Validator) -> None:
    """At least three of five, all that can be seen in a section by itself."""
    texts = _texts("workflows_invalid")
    refused = sum(not _accepts(validator, text) for text in texts.values())
    assert refused >= _REFUSED_SHARE_MIN * len(texts)


def test_changed_workflows_that_compile_are_accepted(validator: Draft202012Validator) -> None:
    """Random changes find no file that the compiler takes and the schema does not."""
    draw = random.Random(20261123)  # noqa: S311 -- repeatable, not secret
    texts = list(_texts("workflows_valid").values())
    compiled = 0
    for _ in range(1500):
        text = changed(draw.choice(texts), draw, texts)
        if compile_workflow("case.yml", text).plan is not None:
            compiled += 1
            assert _accepts(validator, text), text.decode(errors="replace")
    assert compiled > 100
