"""The `vars` context and names of secrets: what may be set, and which scope wins.

Three scopes, as on GitHub: an environment's value goes before the repository's, that before the
installation's (which stands where GitHub has the organization). Names ignore case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Limits of GitHub: a value; what a run gets of repository and installation together, which is also
#: what one scope may hold; how many there may be in a scope.
VALUE_BYTES_MAX = 48 * 1024
TOGETHER_BYTES_MAX = 256 * 1024
GLOBAL_MAX = 1_000
REPOSITORY_MAX = 500
ENVIRONMENT_MAX = 100
ENVIRONMENT_CHARACTERS_MAX = 255

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def name_problem(name: str) -> str:
    """Return what is wrong with a name of a variable or a secret, "" for nothing."""
    if _NAME.fullmatch(name) is None:
        return "use letters, digits and '_' (255 at most), not beginning with a digit"
    if name.upper().startswith("GITHUB_"):
        return "names beginning with GITHUB_ are kept for what a run is given by itself"
    return ""


def environment_name(name: str) -> str:
    """Return an environment's name as scopes are compared: case does not count, nor blanks."""
    return name.strip().lower()


def names_max(repository: str, environment: str) -> int:
    """Return how many variables, or secrets, a scope may have."""
    if environment:
        return ENVIRONMENT_MAX
    return REPOSITORY_MAX if repository else GLOBAL_MAX


def merged(
    everywhere: Mapping[str, str], repository: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the `vars` of a job.

    Beyond 256 KiB values are left out by GitHub's rule: the repository's first, sorted by name,
    as far as they fit, then the installation's. An environment's have a limit of their own.
    """
    found = _fitting(repository, TOGETHER_BYTES_MAX)
    others = {name: value for name, value in everywhere.items() if name not in repository}
    found = {**_fitting(others, TOGETHER_BYTES_MAX - size_of(found)), **found}
    return {**found, **_fitting(environment, TOGETHER_BYTES_MAX)}


def _fitting(values: Mapping[str, str], bytes_max: int) -> dict[str, str]:
    """Return the first values by name that fit; the rest begins with the one that does not."""
    if size_of(values) <= bytes_max:
        return dict(values)
    found: dict[str, str] = {}
    size = 0
    for name in sorted(values):
        size += len(name) + len(values[name].encode())
        if size > bytes_max:
            break
        found[name] = values[name]
    return found


def size_of(values: Mapping[str, str]) -> int:
    """Return the bytes that names and values take."""
    return sum(len(name) + len(value.encode()) for name, value in values.items())
