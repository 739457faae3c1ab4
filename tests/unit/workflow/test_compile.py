"""Compiling a workflow by itself: what is in the plan, what is refused and where."""

from __future__ import annotations

import textwrap

import pytest

from schemas.workflow.compile import PROBLEMS_MAX, Compiled, compile_workflow
from schemas.workflow.plan import (
    ConcurrencyPlan,
    DefaultsPlan,
    EnvironmentPlan,
    EventPlan,
    RetryPlan,
    SchedulePlan,
    StepPlan,
    StrategyPlan,
    WorkflowPlan,
)

PATH = ".github/workflows/w.yml"
JOB = "jobs:\n  a:\n    runs-on: x\n    steps: [{run: 'true'}]\n"


def compile_text(text: str) -> Compiled:
    """Compiles an indented text."""
    return compile_workflow(PATH, textwrap.dedent(text).encode())


def plan_of(text: str) -> WorkflowPlan:
    """The plan of a valid text."""
    compiled = compile_text(text)
    assert compiled.plan is not None, [str(problem) for problem in compiled.problems]
    return compiled.plan


def problems(text: str) -> list[str]:
    """The errors of a text as `line:column: message`."""
    found = compile_text(text)
    assert found.plan is None
    return [str(problem).removeprefix(f"{PATH}:") for problem in found.problems]


def test_a_whole_workflow_becomes_a_plan() -> None:
    """Every key arrives, texts as templates, literals with their type."""
    plan = plan_of("""
        name: CI
        run-name: by ${{ github.actor }}
        on:
          push: {branches: [main], paths-ignore: 'docs/**'}
          schedule:
            - cron: '0 3 * * 1'
              timezone: Europe/Berlin
        env: {N: 1.0, T: yes}
        permissions: {contents: read}
        defaults: {run: {shell: bash}}
        concurrency: {group: ci, cancel-in-progress: true}
        jobs:
          build:
            name: Build ${{ matrix.os }}
            runs-on: [self-hosted, "${{ matrix.os }}"]
            timeout-minutes: 10
            continue-on-error: ${{ matrix.os == 'mac' }}
            strategy:
              fail-fast: false
              max-parallel: 2
              matrix: {os: [linux, mac]}
            defaults: {run: {working-directory: src}}
            environment: {name: prod, url: "https://x/${{ github.sha }}"}
            outputs: {v: "${{ steps.s.outputs.v }}"}
            container: {image: node, ports: [80], env: {A: b}}
            services: {db: postgres}
            steps:
              - uses: actions/checkout@v4
                with: {fetch-depth: 0, token: "${{ secrets.T }}"}
              - id: s
                name: Step
                if: ${{ always() }}
                run: make
                shell: sh
                working-directory: sub
                env: {B: 2}
                continue-on-error: true
                timeout-minutes: 0.5
          after:
            needs: [build]
            if: github.ref == 'x'
            runs-on: {group: g, labels: [l]}
            permissions: read-all
            concurrency: deploy
            steps: [{run: a}, {run: b}, {uses: ./local}]
    """)
    build, after = plan.jobs

    assert (plan.name, plan.run_name, plan.env) == (
        "CI",
        "by ${{ github.actor }}",
        {"N": "1", "T": "yes"},
    )
    assert plan.on.events == (
        EventPlan(event="push", branches=("main",), paths_ignore=("docs/**",), line=5),
        EventPlan(event="schedule", line=6),
    )
    assert plan.on.schedules == (SchedulePlan(cron="0 3 * * 1", timezone="Europe/Berlin", line=7),)
    assert plan.concurrency == ConcurrencyPlan(group="ci", cancel_in_progress=True, line=12)
    assert build.runs_on == ["self-hosted", "${{ matrix.os }}"]
    assert (build.timeout_minutes, build.continue_on_error) == (10, "${{ matrix.os == 'mac' }}")
    assert build.strategy == StrategyPlan(
        matrix={"os": ["linux", "mac"]}, fail_fast=False, max_parallel=2
    )
    assert build.defaults_run == DefaultsPlan(  # noqa: S604
        shell="bash", working_directory="src"
    )
    assert build.permissions == {"contents": "read"}
    assert build.environment == EnvironmentPlan(name="prod", url="https://x/${{ github.sha }}")
    assert build.container == {"image": "node", "ports": ["80"], "env": {"A": "b"}}
    assert build.services == {"db": "postgres"}
    assert build.steps[0].with_ == {"fetch-depth": "0", "token": "${{ secrets.T }}"}
    assert build.steps[1] == StepPlan(  # noqa: S604
        id="s",
        name="Step",
        condition="${{ always() }}",
        run="make",
        shell="sh",
        working_directory="sub",
        env={"B": "2"},
        continue_on_error=True,
        timeout_minutes=0.5,
        line=31,
    )
    assert [step.id for step in after.steps] == ["__run", "__run_2", "__self"]
    assert (after.needs, after.condition) == (("build",), "github.ref == 'x'")
    assert after.runs_on == {"group": "g", "labels": ["l"]}
    assert after.permissions == "read-all"
    assert after.concurrency == ConcurrencyPlan(group="deploy", line=45)


def test_the_name_of_a_workflow_is_its_path_when_it_has_none() -> None:
    """As on GitHub."""
    assert plan_of("on: push\n" + JOB).name == PATH


def test_all_problems_are_reported_at_once_with_their_places() -> None:
    """One look at the list is enough to repair the file."""
    assert problems("""\
        on: [push, pul_request]
        jobs:
          a b:
            runs-on: ubuntu
            timeout-minute: 5
            steps:
              - run: echo ${{ needz.x }}
              - run: |
                  one
                  two ${{ github.ref }} ${{ secrets.
                uses: x/y@v1
          b:
            needs: c
            steps: []
    """) == [
        "1:12: 'pul_request' is not an event",
        "3:3: the job id 'a b' is invalid: use letters, digits, '-' and '_', start with a letter "
        "or '_', and stay below 100 characters",
        "5:5: 'timeout-minute' is not a key of the job 'a b'; expected one of: "
        "cancel-timeout-minutes, concurrency, container, continue-on-error, defaults, env, "
        "environment, if, name, needs, outputs, permissions, pool, priority, "
        "queue-timeout-minutes, retry, runs-on, services, snapshot, steps, strategy, "
        "timeout-minutes",
        "7:23: Unrecognized named-value: 'needz'. Located at position 1 within expression: needz.x",
        "10:33: The expression is not closed. An unescaped ${{ sequence was found, but the closing "
        "}} sequence was not found.",
        "11:9: 'uses' is not a key of a step that runs a script (a step does one of the two: "
        "make two steps of it); expected one of: continue-on-error, env, id, if, name, run, "
        "shell, timeout-minutes, working-directory",
        "13:5: Required property is missing: runs-on",
        "13:12: Job 'b' depends on unknown job 'c'",
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("on: pul_request\n" + JOB, "did you mean 'pull_request'?"),
        ("on: push\njbos: {}\n" + JOB, "did you mean 'jobs'?"),
        ("on: {push: {branchs: [a]}}\n" + JOB, "did you mean 'branches'?"),
        ("on: {issues: {types: [open]}}\n" + JOB, "did you mean 'opened'?"),
        ("on: push\npermissions: {content: read}\n" + JOB, "did you mean 'contents'?"),
        ("on: push\npermissions: read_all\n" + JOB, "did you mean 'read-all'?"),
        ("on: push\njobs: {a: {runs-on: x, step: []}}", "did you mean 'steps'?"),
        ("on: push\njobs: {a: {runs-on: x}, b: {runs-on: x, needs: A1}}", "did you mean 'a'?"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(text: str, hint: str) -> None:
    """The nearest known word, where there is one."""
    assert hint in [problem.hint for problem in compile_text(text).problems] or hint.endswith(
        "'a'?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("on: push", "1:1: Required property is missing: jobs"),
        (JOB, "1:1: Required property is missing: on"),
        ("- a", "1:1: a workflow must be a mapping with `on` and `jobs`"),
        ("on: []\n" + JOB, "1:5: on: lists no event"),
        ("on: push\njobs: {}", "2:7: jobs lists no job"),
        ("on: push\nname: ${{ github.ref }}\n" + JOB, "2:7: A template expression is not allowed"),
        ("on: push\nenv: {a: {b: c}}\n" + JOB, "2:10: 'a' of env must be a single value"),
        ("on: push\nenv:\n" + JOB, "2:5: env must be a mapping, not nothing"),
        ("on: push\nenv: {a: 1, A: 2}\n" + JOB, "2:13: 'A' is already defined on line 2"),
        ("on: {push: {branches: [''] }}\n" + JOB, "1:24: an entry of branches must not be empty"),
        ("on: {push: {branches: ['a++'] }}\n" + JOB, "1:27: in the pattern 'a++': '+' repeats"),
        ("on: {push: {tags: a, tags-ignore: b}}\n" + JOB, "1:22: push cannot have both"),
        ("on: {push: {types: [x]}}\n" + JOB, "1:13: 'types' is not a key of on.push"),
        ("on: {fork: {types: [x]}}\n" + JOB, "1:12: fork takes no configuration"),
        ("on: {schedule: [{cron: '* * * *'}]}\n" + JOB, "1:24: Invalid cron expression '* * * *'"),
        ("on: {schedule: [{cron: '1 1 1 1 1', timezone: Nix}]}\n" + JOB, "1:47: 'Nix' is not a"),
        ("on: {schedule: {cron: '1 1 1 1 1'}}\n" + JOB, "1:16: schedule must be a list"),
        ("on: {workflow_call: {inputs: {a: {}}}}\n" + JOB, "Required property is missing: type"),
        ("on: {workflow_dispatch: {inputs: {a: {type: choice}}}}\n" + JOB, "Missing 'options'"),
        ("on: {workflow_dispatch: {inputs: {a: {options: [b]}}}}\n" + JOB, "is not 'choice'"),
        ("on: {workflow_call: {inputs: {a: {type: number, default: x}}}}\n" + JOB, "not a number"),
        ("on: push\nconcurrency: {cancel-in-progress: true}\n" + JOB, "missing: group"),
        (
            "on: push\nconcurrency: {group: a, queue: max, cancel-in-progress: true}\n" + JOB,
            "2:25: 'queue: max' keeps everything",
        ),
    ],
)
def test_a_workflow_with_this_mistake_is_refused(text: str, message: str) -> None:
    """The message says what is wrong, at its place."""
    assert any(message in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("steps: [{run: a}]", "Required property is missing: runs-on"),
        ("runs-on: ''", "runs-on must not be empty"),
        ("runs-on: []", "runs-on must not be empty"),
        ("runs-on: [[x]]", "an entry of runs-on must be a single value, not a list"),
        ("{runs-on: x, steps: {a: b}}", "steps must be a list"),
        ("{runs-on: x, steps: [null]}", "a step is empty"),
        ("{runs-on: x, steps: [{name: a}]}", "Required property is missing: run (or uses)"),
        ("{runs-on: x, steps: [{with: {a: b}}]}", "Required property is missing: uses"),
        ("{runs-on: x, steps: [{run: a, id: x y}]}", "the step id 'x y' is invalid"),
        ("{runs-on: x, steps: [{run: a, id: __x}]}", "'__' is reserved"),
        ("{runs-on: x, steps: [{run: a, id: x}, {run: b, id: X}]}", "already used on line"),
        ("{runs-on: x, steps: [{uses: checkout}]}", "'checkout' names no action"),
        ("{runs-on: x, steps: [{run: a, if: secrets.x}]}", "Unrecognized named-value: 'secrets'"),
        ("{runs-on: x, steps: [{run: '${{ always() }}'}]}", "Unrecognized function: 'always'"),
        ("{runs-on: x, if: env.x}", "Unrecognized named-value: 'env'"),
        ("{runs-on: x, if: hashFiles('x')}", "Unrecognized function: 'hashFiles'"),
        ("{runs-on: x, timeout-minutes: '5'}", "timeout-minutes must be a number, not '5'"),
        ("{runs-on: x, timeout-minutes: 'x ${{ 1 }}'}", "timeout-minutes must be a number"),
        ("{runs-on: x, continue-on-error: yes}", "continue-on-error must be true or false"),
        ("{runs-on: x, strategy: {matrix: {a: []}}}", "does not contain any values"),
        ("{runs-on: x, strategy: {matrix: {a: 1}}}", "'a' of the matrix must be a list"),
        ("{runs-on: x, strategy: {matrix: {include: [1]}}}", "an entry of include must be"),
        ("{runs-on: x, container: {ports: [1]}}", "Container image cannot be empty"),
        ("{runs-on: x, environment: {url: a}}", "Required property is missing: name"),
        ("{runs-on: x, permissions: {models: write}}", "'write' is no level of 'models'"),
        ("{runs-on: x, with: {a: b}}", "'with' is not a key of the job 'a'"),
        ("{uses: ./w.yml, steps: []}", "'steps' is not a key of the job 'a', which calls"),
        ("{uses: ./w.yml@main}", "names no reusable workflow"),
        ("{uses: ./w.yml, secrets: all}", "secrets must be a mapping or 'inherit'"),
        ("{runs-on: x, retry: 11}", "retry must say how often"),
        ("{runs-on: x, retry: {max: 1, on: [crash]}}", "retry on must list some of"),
        ("{runs-on: x, priority: 1.5}", "priority must be a whole number"),
        ("{runs-on: x, env: {TAILRACE_POOL: '${{ github.ref }}'}}", "must be the name of a pool"),
        ("[]", "the job 'a' must be a mapping"),
    ],
)
def test_a_job_with_this_mistake_is_refused(job: str, message: str) -> None:
    """Each mistake has its own message."""
    inner = job if job.startswith(("{", "[")) else "{" + job + "}"

    assert any(message in problem for problem in problems(f"on: push\njobs:\n  a: {inner}\n"))


def test_a_run_cannot_wait_for_its_own_group() -> None:
    """A literal name is an error, a computed one a warning."""
    job = "jobs: {{a: {{runs-on: x, concurrency: {0}}}}}\n"
    same = compile_text("on: push\nconcurrency: CI\n" + job.format("ci"))
    computed = compile_text(
        "on: push\nconcurrency: ${{ github.ref }}\n" + job.format("'${{ github.ref }}'")
    )

    assert "held by its own run" in same.problems[0].message
    assert computed.plan is not None
    assert any("held by its own run" in warning.message for warning in computed.warnings)


def test_a_cycle_is_shown_as_a_path() -> None:
    """Every need that leads back is reported where it stands."""
    found = problems("""\
        on: push
        jobs:
          a: {runs-on: x, needs: [c]}
          b: {runs-on: x, needs: [a]}
          c: {runs-on: x, needs: [b]}
          d: {runs-on: x, needs: [d]}
          e: {runs-on: x, needs: [a]}
    """)

    assert [message for message in found if "creates a cycle" in message] == [
        "3:27: Job 'a' depends on job 'c' which creates a cycle in the dependency graph "
        "(a -> c -> b -> a)",
        "4:27: Job 'b' depends on job 'a' which creates a cycle in the dependency graph "
        "(b -> a -> c -> b)",
        "5:27: Job 'c' depends on job 'b' which creates a cycle in the dependency graph "
        "(c -> b -> a -> c)",
        "6:27: Job 'd' depends on job 'd' which creates a cycle in the dependency graph (d -> d)",
    ]
    assert any("at least one job with no dependencies" in message for message in found)


def test_very_many_problems_are_cut_short() -> None:
    """A hostile file cannot make a huge rejection, nor keep the compiler busy."""
    ring = "".join(f" j{i}: {{runs-on: x, needs: [j{(i + 1) % 9000}]}}\n" for i in range(9000))
    wrong = "".join(f" j{i}: {{runs-on: x, stps: 1}}\n" for i in range(5000))
    unknown = "".join(f" j{i}: {{runs-on: x, needs: [z{i}]}}\n" for i in range(5000))
    steps = "".join("  - {run: a}\n" for _ in range(20_000))

    assert len(problems("on: push\njobs:\n" + ring)) < PROBLEMS_MAX
    assert len(problems("on: push\njobs:\n" + unknown)) == PROBLEMS_MAX
    found = problems("on: push\njobs:\n" + wrong)
    assert len(found) == PROBLEMS_MAX
    assert found[-1].endswith("4801 more problems are not listed")
    made = plan_of("on: push\njobs:\n a:\n  runs-on: x\n  steps:\n" + steps).jobs[0].steps
    assert made[-1].id == "__run_20000"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("run: echo ${{ x.y }}", ["1:15"]),
        ("run: 'echo ${{ x.y }}'", ["1:16"]),
        ('run: "a\\tb ${{ x.y }}"', ["1:16"]),
        ("if: github.ref == x.y", ["1:19"]),
        ("if: 'github.ref == x.y'", ["1:20"]),
        ("run: |\n  a\n    b ${{ x.y }}\n  ${{ z.y }}", ["3:11", "4:7"]),
        ("run: >-\n  a\n  b ${{ x.y }}\n\n  c ${{ z.y }}", ["3:9", "5:9"]),
        ("run: a\n  b ${{ x.y }}", ["2:9"]),
    ],
)
def test_a_problem_in_an_expression_has_its_exact_place(text: str, places: list[str]) -> None:
    """In every style of YAML scalar."""
    start = ["on: push", "jobs:", "  a:", "    runs-on: x", "    steps:"]
    step = "      - " + text.replace("\n", "\n        ")
    extra = [] if text.startswith("run") else ["        run: a"]
    found = problems("\n".join([*start, step, *extra]))
    moved = [
        f"{int(line) + 5}:{int(column) + 8}"
        for line, column in (place.split(":") for place in places)
    ]

    assert [message.split(": ")[0] for message in found] == moved


def test_generated_step_ids_follow_githubs_rule() -> None:
    """By kind, numbered, beside those that are written."""
    plan = plan_of("""
        on: push
        jobs:
          a:
            runs-on: x
            steps:
              - {run: a}
              - {id: x, run: a}
              - {uses: actions/checkout@v4}
              - {uses: actions/cache/save@v4}
              - {uses: "docker://alpine:3"}
              - {uses: ./x}
              - {run: a}
              - {uses: actions/checkout@v3}
    """)

    assert [step.id for step in plan.jobs[0].steps] == [
        "__run",
        "x",
        "__actions_checkout",
        "__actions_cache",
        "__alpine_3",
        "__self",
        "__run_2",
        "__actions_checkout_2",
    ]


def test_extensions_are_keys_or_variables() -> None:
    """Both spellings give the same plan, so that one file can serve GitHub too."""
    keys = plan_of("""
        on: push
        jobs:
          a:
            runs-on: x
            retry: {max: 2, backoff: 1m, on: [failure, timed_out]}
            queue-timeout-minutes: 5
            priority: 3
            pool: gpu
            steps: [{run: a}]
    """).jobs[0]
    variables = plan_of("""
        on: push
        jobs:
          a:
            runs-on: x
            env:
              TAILRACE_RETRY: '{"max": 2, "backoff": "60s", "on": ["failure", "timed_out"]}'
              TAILRACE_QUEUE_TIMEOUT_MINUTES: 5
              TAILRACE_PRIORITY: 3
              TAILRACE_POOL: gpu
            steps: [{run: a}]
    """).jobs[0]

    for job in (keys, variables):
        assert job.retry == RetryPlan(max=2, backoff_seconds=60, on=("failure", "timed_out"))
        assert (job.queue_timeout_minutes, job.priority, job.pool) == (5, 3, "gpu")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("on: push\njobs: {a: {runs-on: x, if: '${{ github.ref }} == 1'}}", "is always true"),
        ("on: {schedule: [{cron: '* * * * *'}]}\n" + JOB, "more often than every 5 minutes"),
        ("on: {push: {branches: ['!a']}}\n" + JOB, "nothing ever matches"),
        ("on: workflow_run\n" + JOB, "names no workflows"),
        ("on: {workflow_run: }\n" + JOB, "names no workflows"),
        ("on: {workflow_run: {types: [completed]}}\n" + JOB, "names no workflows"),
        ("on: push\njobs: {a: {runs-on: x}}", "has no steps"),
        ("on: push\ndefaults: {run: {shell: fish}}\n" + JOB, "is not a built-in shell"),
        ("on: push\njobs: {a: {runs-on: x, timeout-minutes: 0}}", "should be above 0"),
        ("on: push\nconcurrency: deploy\n" + JOB, "concurrency is not applied yet"),
        ("on: push\njobs: {a: {runs-on: x, concurrency: {group: d}}}", "is not applied yet"),
        ("on: push\njobs: {a: {runs-on: x, retry: 2}}", "retry is not applied yet"),
        ("on: push\njobs: {a: {runs-on: x, env: {TAILRACE_PRIORITY: 3}}}", "PRIORITY is not app"),
        ("on: push\njobs: {a: {runs-on: x, queue-timeout-minutes: 3}}", "is not applied yet"),
    ],
)
def test_what_looks_wrong_is_a_warning(text: str, warning: str) -> None:
    """The workflow runs all the same."""
    compiled = compile_text(text)

    assert compiled.plan is not None
    assert any(warning in item.message for item in compiled.warnings)


@pytest.mark.parametrize(
    ("job", "warning"),
    [
        ("steps: [{run: '${{ needs.b.result }}'}]", "'b' is not in the `needs`"),
        ("steps: [{run: '${{ matrix.os }}'}]", "the matrix of this job has no 'os'"),
        ("steps: [{run: '${{ steps.x.outcome }}'}, {id: x, run: a}]", "no step before this"),
        ("steps: [{run: '${{ inputs.x }}'}]", "declares no input 'x'"),
        ("env: {'A B': c}", "no name for an environment variable"),
        ("strategy: {matrix: {a: [1], exclude: [{b: 1}]}}", "'b' is not in the matrix"),
        ("strategy: {matrix: {a: [1], exclude: [{a: 2}]}}", "'a' is never '2'"),
    ],
)
def test_a_name_that_cannot_exist_is_a_warning(job: str, warning: str) -> None:
    """It would always be empty."""
    compiled = compile_text(f"on: push\njobs: {{a: {{runs-on: x, {job}}}}}")
    places = {item.message: (item.line, item.column) for item in compiled.warnings}

    assert compiled.plan is not None, compiled.problems
    assert any(warning in message for message in places), places


def test_names_that_exist_give_no_warning() -> None:
    """In any case and from any source."""
    compiled = compile_text("""
        on: {workflow_dispatch: {inputs: {Level: {}}}}
        jobs:
          first: {runs-on: x, steps: [{run: a}]}
          second:
            needs: first
            runs-on: x
            outputs: {v: "${{ steps.Later.outputs.v }}"}
            strategy:
              matrix: {os: [a], include: [{os: a, extra: 1}], exclude: ["${{ fromJSON('{}') }}"]}
            steps:
              - run: ${{ matrix.OS }} ${{ matrix.extra }} ${{ needs.First.result }}
              - {id: later, run: "${{ inputs.level }}"}
          third:
            runs-on: x
            strategy: {matrix: "${{ fromJSON('{}') }}"}
            steps: [{run: "${{ matrix.anything }}"}]
    """)

    assert compiled.warnings == ()
