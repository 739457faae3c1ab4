"""The JSON Schema of the language: complete, and of one mind with the compiler."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.workflow import json_schema as module
from schemas.workflow.compile import compile_workflow
from schemas.workflow.compiler import job_section, step_section
from schemas.workflow.events import EVENTS
from schemas.workflow.json_schema import json_schema
from schemas.workflow.reader import plain, read_document

_STEPS = "steps: [{run: make}]"
_JOB = f"runs-on: linux, {_STEPS}"


def _workflow(jobs: str, on: str = "push") -> str:
    return f"on: {on}\njobs: {jobs}\n"


def _job(more: str) -> str:
    return _workflow(f"{{a: {{{_JOB}, {more}}}}}")


def _step(step: str) -> str:
    return _workflow(f"{{a: {{runs-on: linux, steps: [{step}]}}}}")


ACCEPTED = (
    _workflow(f"{{a: {{{_JOB}}}}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "[push, pull_request]"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{push: , schedule: [{cron: '0 0 * * *'}]}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{push: {branches: main}, release: {types: published}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{repository_dispatch: {types: [anything]}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{workflow_dispatch: {inputs: {a: }}}"),
    _workflow(
        f"{{a: {{{_JOB}}}}}", "{workflow_call: {secrets: {a: }, inputs: {b: {type: number}}}}"
    ),
    _workflow("{a: {uses: ./x.yml, secrets: inherit, with: {a: 1}}}"),
    _workflow("{a: {uses: 'o/r/x.yml@v1', needs: b}, b: {" + _JOB + "}}"),
    _job("timeout-minutes: '${{ 1 }}'"),
    _job("retry: {max: 2, backoff: 5m, on: timed_out}"),
    _job("retry: 1, priority: -5, pool: big, queue-timeout-minutes: 0.5"),
    _job("env: '${{ fromJSON(vars.X) }}'"),
    _job("container: {image: a, ports: [80]}, services: {db: pg}"),
    _job("strategy: {matrix: {a: [1], include: [{a: 2}]}, max-parallel: 1}"),
    _job("strategy: '${{ fromJSON(needs.x.outputs.y) }}', concurrency: a"),
    _job("concurrency: {group: a, queue: max}, environment: {name: a, url: b}"),
    _step("{uses: actions/checkout@v4, with: {a: 1}}"),
    _step("{uses: ./here}"),
    _step("{uses: 'docker://alpine'}"),
    _step("{run: '', id: a, shell: 'perl {0}', if: false}"),
)
REFUSED = (
    _workflow("{}"),
    "on: push\n",
    _workflow(f"{{a: {{{_JOB}}}}}", "pusch"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{push: {branch: main}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{push: {branches: a, branches-ignore: b}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{release: {types: [publish]}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{fork: {types: [a]}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{schedule: [{crown: a}]}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{workflow_dispatch: {inputs: {a: {type: choice}}}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{workflow_dispatch: {inputs: {a: {options: [b]}}}}"),
    _workflow(f"{{a: {{{_JOB}}}}}", "{workflow_call: {inputs: {b: {}}}}"),
    _workflow(f"{{'1a': {{{_JOB}}}}}"),
    _workflow("{a: {" + _STEPS + "}}"),
    _workflow("{a: {uses: x.yml}}"),
    _workflow("{a: {uses: ./x.yml, " + _STEPS + "}}"),
    _workflow("{a: {with: {b: 1}}}"),
    _job("time-out: 1"),
    _job("retry: 11"),
    _job("retry: {max: 1, on: always}"),
    _job("priority: 1.5"),
    _job("continue-on-error: maybe"),
    _job("permissions: {contents: admin}"),
    _job("container: {options: a}"),
    _job("strategy: {matrix: {a: b}}"),
    _job("strategy: {matrix: {a: []}}"),
    _job("concurrency: {group: a, queue: max, cancel-in-progress: true}"),
    _job("defaults: {run: {shel: bash}}"),
    _step("{name: a}"),
    _step("{run: a, uses: b/c@d}"),
    _step("{uses: checkout}"),
    _step("{run: a, id: __a}"),
    _step("{run: a, with: {b: c}}"),
)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Return a validator of the schema, which is one itself."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_compiler_accepts_the_schema_accepts(
    text: str, validator: Draft202012Validator
) -> None:
    """Every form of every section."""
    assert compile_workflow("a.yml", text).problems == ()
    assert list(validator.iter_errors(plain(read_document(text, "a.yml")))) == []


@pytest.mark.parametrize("text", REFUSED)
def test_what_can_be_seen_in_a_section_alone_is_refused_by_both(
    text: str, validator: Draft202012Validator
) -> None:
    """Misspelt keys, wrong values, missing and contradictory ones."""
    assert compile_workflow("a.yml", text).problems != ()
    assert not validator.is_valid(plain(read_document(text, "a.yml")))


def test_every_key_of_the_compilers_tables_is_there_with_words() -> None:
    """Also what an event, a job of either kind and a step of either kind may have."""
    found = json_schema()
    events = found["properties"]["on"]["anyOf"][2]["properties"]
    job, calling, step = (found["$defs"][name] for name in ("job", "calling-job", "step"))
    assert set(events) == set(EVENTS)
    assert set(job["properties"]) == job_section.JOB_KEYS
    assert set(calling["properties"]) == job_section.CALL_KEYS
    assert set(step["then"]["properties"]) == step_section.USES_KEYS
    assert set(step["else"]["properties"]) == step_section.RUN_KEYS
    for section in (job, calling, step["then"], step["else"]):
        assert all(key["description"] for key in section["properties"].values())


def test_a_key_that_the_schema_does_not_know_cannot_be_added_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new key in a table of the compiler fails here until the schema says what it takes."""
    monkeypatch.setattr(step_section, "RUN_KEYS", step_section.RUN_KEYS | {"new"})
    with pytest.raises(KeyError, match=r"keys of step .*'new'"):
        json_schema()


def test_every_call_gives_a_schema_of_its_own() -> None:
    """Who changes one changes no other."""
    first: dict[str, Any] = json_schema()
    first["properties"].clear()
    assert json_schema()["properties"]
    assert json_schema()["$id"] == module.SCHEMA_ID
