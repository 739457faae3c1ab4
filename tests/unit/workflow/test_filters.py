"""Filter patterns, by the table of GitHub's cheat sheet."""

from __future__ import annotations

import pytest

from schemas.workflow.filters import (
    ignores_paths,
    ignores_ref,
    matches_paths,
    matches_refs,
    validate_pattern,
)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("feature/*", ["feature/a"], ["feature/a/b", "feature", "xfeature/a"]),
        ("feature/**", ["feature/a", "feature/a/b"], ["feature"]),
        ("v2*", ["v2", "v2.0"], ["v2/0", "xv2"]),
        ("v[12].[0-9]+.[0-9]+", ["v1.10.1", "v2.0.0"], ["v3.0.0", "v1.x.1", "v1..1"]),
        ("*.jsx?", ["page.js", "page.jsx"], ["page.jsxx", "a/page.js"]),
        ("**/README.md", ["README.md", "js/README.md"], ["xREADME.md", "README.mdx"]),
        ("docs/**/*.md", ["docs/a.md", "docs/x/y/a.md"], ["docs.md", "docs/a.txt"]),
        ("**/docs/**", ["docs/a", "x/docs/a/b"], ["docs", "xdocs/a"]),
        ("a+", ["a", "aaa"], ["", "b", "ab"]),
        ("a**b", ["ab", "a/x/b"], ["a/x/c"]),
        (r"\*\+\?\[x", ["*+?[x"], ["a+?[x"]),
        ("[CB]at", ["Cat", "Bat"], ["cat", "at"]),
        ("[a-zA-Z]?1", ["1", "x1", "Y1"], ["xy1"]),
        ("main", ["main"], ["Main", "mainx"]),
        ("ä*ö", ["äxö", "äö"], ["äxo"]),
    ],
)
def test_a_pattern_fits_these_names(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    """Each special character does what the documentation says."""
    assert [name for name in fits if not matches_refs([pattern], name)] == []
    assert [name for name in fits_not if matches_refs([pattern], name)] == []


def test_no_patterns_filter_nothing() -> None:
    """An empty list is like no list."""
    assert matches_refs([], "main")
    assert matches_paths([], [])


def test_the_last_pattern_that_matches_decides() -> None:
    """A bang takes away, a later pattern gives back; only bangs match nothing."""
    patterns = ["releases/**", "!releases/**-alpha", "releases/x-alpha"]

    assert matches_refs(patterns, "releases/10")
    assert not matches_refs(patterns, "releases/10-alpha")
    assert matches_refs(patterns, "releases/x-alpha")
    assert not matches_refs(["!main"], "dev")
    assert ignores_ref(["dev/**"], "dev/a")


def test_paths_need_one_match_and_ignored_paths_need_all() -> None:
    """A change of nothing is not ignored, and matches nothing."""
    assert matches_paths(["src/**"], ["docs/a", "src/b"])
    assert not matches_paths(["src/**", "!src/b"], ["src/b"])
    assert ignores_paths(["docs/**"], ["docs/a"])
    assert not ignores_paths(["docs/**"], ["docs/a", "src/b"])
    assert not ignores_paths(["docs/**"], [])
    assert not matches_paths(["**"], [])


@pytest.mark.parametrize(
    ("pattern", "is_ref", "severities"),
    [
        ("", True, ["error"]),
        ("!", True, ["error"]),
        ("a**", True, []),
        ("?a", True, ["error"]),
        ("a++", False, ["error"]),
        ("**+", False, ["error"]),
        ("[]", False, ["error"]),
        ("[a-]", False, ["error"]),
        ("[z-a]", False, ["error"]),
        ("a\nb", False, ["error"]),
        ("[x]", False, ["warning"]),
        ("a b", True, ["warning"]),
        ("a b", False, []),
        ("/a", True, ["warning"]),
        ("/a", False, []),
        ("a/", True, ["warning"]),
        (r"a\d", True, ["warning"]),
        (r"a\d", False, []),
        ("./a", False, ["warning"]),
        (" a", False, ["error"]),
        (r"\+\!", True, []),
        (r"\?\*\[", True, ["warning"] * 3),
        (r"\?\*\[", False, []),
    ],
)
def test_a_pattern_is_judged(pattern: str, *, is_ref: bool, severities: list[str]) -> None:
    """Malformed is an error, pointless is a warning."""
    found = validate_pattern(pattern, is_ref=is_ref)

    assert [problem.severity for problem in found] == severities
    assert all(0 <= problem.offset <= len(pattern) for problem in found)
