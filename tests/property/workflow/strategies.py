"""Generators of values, expressions, patterns and workflow files."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas.workflow.expressions import Value

Draw = Any

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: not name.startswith("__")
)
TEXTS = st.text(max_size=12)
NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(), st.sampled_from([0, 1, -1, 0.5, 1e300])
)
SCALARS: st.SearchStrategy[Value] = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES: st.SearchStrategy[Value] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

_LITERALS = st.one_of(
    st.sampled_from(["true", "false", "null", "NaN", "Infinity", "0x1f", "-1.5e3", "''"]),
    st.integers(-9999, 9999).map(str),
    st.text(max_size=6).map(lambda text: "'" + text.replace("'", "''") + "'"),
)
_PATHS = st.sampled_from(
    ["a", "b.c", "a['x']", "b.*", "b.*.y", "a[0]", "b.c[a]", "a.*.*", "B['C'][1]"]
)


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["&&", "||", "==", "!=", "<", "<=", ">", ">="])
    unary = st.sampled_from(["contains", "startsWith", "endsWith"])
    return st.one_of(
        st.builds("{} {} {}".format, inner, operators, inner),
        inner.map("!{}".format),
        inner.map("({})".format),
        st.builds("{}({}, {})".format, unary, inner, inner),
        st.builds("join({}, {})".format, inner, inner),
        inner.map("toJSON({})".format),
        inner.map("fromJSON(toJSON({}))".format),
        st.builds("format('{{0}}-{{1}}', {}, {})".format, inner, inner),
        st.builds("case({} == 1, {}, {})".format, inner, inner, inner),
    )


EXPRESSIONS = st.recursive(st.one_of(_LITERALS, _PATHS), _combined, max_leaves=8)

# Characters of the language, so that random text is often nearly right.
NEAR_EXPRESSIONS = st.text(
    alphabet=st.sampled_from("abc'.()[],*!<>=&|0123456789-+ex \n{}$Ñ😀_"), max_size=40
)
NEAR_YAML = st.text(alphabet=st.sampled_from("ab:- \n{}[],&*!|>'\"#?%@`~0.1\t\u2028ñ"), max_size=60)
PATTERNS = st.text(alphabet=st.sampled_from("ab/*?+[]!\\-."), min_size=1, max_size=8)
PATH_NAMES = st.text(alphabet=st.sampled_from("ab/.-!*"), max_size=8)


@st.composite
def workflows(draw: Draw) -> dict[str, Value]:
    """A valid workflow as data: JSON is YAML."""
    ids: list[str] = draw(
        st.lists(NAMES, min_size=1, max_size=5, unique_by=lambda name: name.lower())
    )
    jobs: dict[str, Value] = {}
    for position, job_id in enumerate(ids):
        needs = draw(st.lists(st.sampled_from(ids[:position]), unique=True)) if position else []
        jobs[job_id] = draw(_job(needs))
    document: dict[str, Value] = {"on": draw(st.sampled_from(_TRIGGERS)), "jobs": jobs}
    if draw(st.booleans()):
        document["env"] = draw(_environment())
    if draw(st.booleans()):
        document["concurrency"] = {"group": draw(_texts_with_templates("github.ref")) or "g"}
    return document


def _texts_with_templates(expression: str) -> st.SearchStrategy[str]:
    plain = st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$\ufeff"), max_size=8
    )
    return st.builds(lambda a, b: f"{a}${{{{ {expression} }}}}{b}", plain, plain) | plain


def _environment() -> st.SearchStrategy[dict[str, Value]]:
    return st.dictionaries(
        st.sampled_from(["A", "B", "C"]), _texts_with_templates("github.sha"), max_size=3
    ).map(dict)


_TRIGGERS: list[Value] = [
    "push",
    ["push", "pull_request"],
    {"push": {"branches": ["main", "!x"], "paths": "a/**"}},
    {"schedule": [{"cron": "1 2 * * *", "timezone": "Europe/Berlin"}]},
    {"workflow_dispatch": {"inputs": {"a": {"type": "number", "default": 1.5}}}},
]


@st.composite
def _job(draw: Draw, needs: list[str]) -> dict[str, Value]:
    job: dict[str, Value] = {"runs-on": draw(st.sampled_from(["x", ["x", "y"], {"group": "g"}]))}
    if needs:
        job["needs"] = list(needs)
    if draw(st.booleans()):
        job["if"] = draw(st.sampled_from(["always()", "${{ github.ref == 'x' }}", True]))
    if draw(st.booleans()):
        vector = st.lists(SCALARS.filter(_writable), min_size=1, max_size=3)
        job["strategy"] = {"matrix": {"v": draw(vector)}, "fail-fast": draw(st.booleans())}
    if draw(st.booleans()):
        job["env"] = draw(_environment())
    steps: list[Value] = []
    for _ in range(draw(st.integers(1, 3))):
        step: dict[str, Value] = {"run": draw(_texts_with_templates("env.A"))}
        if draw(st.booleans()):
            step["timeout-minutes"] = draw(st.integers(1, 99))
        steps.append(step)
    steps.append({"uses": "o/r@v1", "with": draw(_environment())})
    job["steps"] = steps
    return job


def _writable(value: Value) -> bool:
    """What JSON can say and the reader takes as it is."""
    if isinstance(value, str):
        return "${{" not in value and value.isprintable()
    return not isinstance(value, float) or abs(value) < float("inf")
