"""Values of the `vars` context: what their events change.

Those of the whole installation are in every cell, and cells are read each at its own pace: of these
the time in the event decides. In one cell it is the order of the log.
"""

from __future__ import annotations

from projector.rows.working import At
from projector.tables import Key, Variable
from schemas import events as e
from schemas.variables import environment_name


def key_of(event: e.VariableSet | e.VariableRemoved) -> Key:
    """Return the key of an event's row."""
    return event.repository, environment_name(event.environment), event.name.upper()


def variable_set(at: At, event: e.VariableSet) -> None:
    _set(at, key_of(event), event.value, event)


def variable_removed(at: At, event: e.VariableRemoved) -> None:
    key = key_of(event)
    row = at.find(Variable, *key)
    if row is None and not event.repository:
        row = _new(key)
    if row is not None and not _is_late(row, event):
        row.value, row.removed = "", True
        row.actor, row.set_at = event.actor, event.occurred_at
        at.put(row)


def configured(at: At, event: e.RepositoryConfigured) -> None:
    """Take what a repository was registered with."""
    for name, value in event.variables.items():
        _set(at, (event.repository, "", name.upper()), value, event)


def _set(at: At, key: Key, value: str, event: e.VariableSet | e.RepositoryConfigured) -> None:
    row = at.find(Variable, *key) or _new(key)
    if _is_late(row, event):
        return
    row.value, row.removed = value, False
    row.actor, row.set_at = event.actor, event.occurred_at
    at.put(row)


def _new(key: Key) -> Variable:
    repository, environment, name = key
    return Variable(repository=repository, environment=environment, name=name)


def _is_late(row: Variable, event: e.Event) -> bool:
    """Tell whether a later event of the whole installation was seen already, in another cell."""
    return not row.repository and event.occurred_at < row.set_at
