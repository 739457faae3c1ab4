"""Values of the `vars` context: what their events change."""

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
    row = at.find(Variable, *key_of(event))
    if row is not None:
        row.value, row.removed = "", True
        row.actor, row.set_at = event.actor, event.occurred_at
        at.put(row)


def configured(at: At, event: e.RepositoryConfigured) -> None:
    """Take what a repository was registered with."""
    for name, value in event.variables.items():
        _set(at, (event.repository, "", name.upper()), value, event)


def _set(at: At, key: Key, value: str, event: e.VariableSet | e.RepositoryConfigured) -> None:
    row = at.find(Variable, *key)
    if row is None:
        repository, environment, name = key
        row = Variable(repository=repository, environment=environment, name=name)
    row.value, row.removed = value, False
    row.actor, row.set_at = event.actor, event.occurred_at
    at.put(row)
