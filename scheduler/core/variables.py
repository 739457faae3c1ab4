"""The variables of every scope, and what a job's `vars` context is made of.

Those of the whole installation are told to every cell. A record may reach one of them late, after
a newer one of the same name: of these the time in the event decides, so that all cells agree. What
is of a repository is in its cell alone, where the order of the log decides.
"""

from __future__ import annotations

from scheduler.core.state import State, Variables
from schemas import events as e
from schemas.variables import (
    TOGETHER_BYTES_MAX,
    environment_name,
    merged,
    names_max,
    size_of,
)

#: How long a late record may come after a newer one; the broker's client gives up long before.
LATE_MS = 3_600_000


def scope_of(repository: str, environment: str = "") -> str:
    """Return a scope's key; no repository is called "" and no name has a `#`."""
    return f"{repository}#{environment_name(environment)}"


def was_set(state: State, event: e.VariableSet) -> None:
    """Take a value; one beyond what a scope may have, in number or in bytes, is left out.

    The API refuses it before: what is here keeps two who set values at the same time in bounds,
    for a scope is one record of the changelog.
    """
    if _is_late(state, event):
        return
    _put(state, event.repository, event.environment, {event.name: event.value})


def was_removed(state: State, event: e.VariableRemoved) -> None:
    """Forget a value."""
    if _is_late(state, event):
        return
    scope = scope_of(event.repository, event.environment)
    row = state.variables.get(scope)
    if row is None or row.values.pop(event.name.upper(), None) is None:
        return
    if row.values or row.changed:
        state.variables.put(scope, row)
    else:
        state.variables.drop(scope)


def were_configured(state: State, event: e.RepositoryConfigured) -> None:
    """Take what a repository was registered with."""
    if event.variables:
        _put(state, event.repository, "", event.variables)


def of_job(state: State, repository: str, environment: str = "") -> dict[str, str]:
    """Return the `vars` of a job of a repository, in an environment or in none."""
    scopes = [scope_of(""), scope_of(repository)]
    if environment:
        scopes.append(scope_of(repository, environment))
    rows = [state.variables.get(scope) for scope in scopes]
    values = [row.values if row is not None else {} for row in rows]
    if not any(values):
        return {}
    return merged(values[0], values[1], values[2] if environment else {})


def _is_late(state: State, event: e.VariableSet | e.VariableRemoved) -> bool:
    """Tell whether the installation's variable was changed after an event; if not, note its time.

    A change that lies long back is forgotten: nothing that old can come any more.
    """
    if event.repository:
        return False
    scope, name, at = scope_of("", event.environment), event.name.upper(), event.occurred_at
    row = state.variables.get(scope) or Variables()
    if at < row.changed.get(name, 0):
        return True
    row.changed = {other: time for other, time in row.changed.items() if time > at - LATE_MS} | {
        name: at
    }
    state.variables.put(scope, row)
    return False


def _put(state: State, repository: str, environment: str, values: dict[str, str]) -> None:
    scope = scope_of(repository, environment)
    row = state.variables.get(scope) or Variables()
    for name, value in values.items():
        after = {**row.values, name.upper(): value}
        fits = len(after) <= names_max(repository, environment)
        if fits and size_of(after) <= TOGETHER_BYTES_MAX:
            row.values = after
    state.variables.put(scope, row)
