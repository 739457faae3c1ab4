"""`dataclass` whose methods are written when they are first used: the same class, made at once.

The standard decorator compiles up to six methods a class while its module is imported; with the
hundred classes of this package that was a fifth of the time in which a command starts, for classes
of which most commands use a few. Here the fields are the standard library's (so `fields`,
`replace`, `asdict`, `match` and type checkers see a dataclass like any other), and `__init__`,
`__repr__`, `__eq__` and `__hash__` compile themselves on their first call and are ordinary methods
from then on. `order`, `InitVar` and `weakref_slot` are not offered. To type checkers it is the
standard one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["dataclass"]

_Method = Callable[..., Any]


def _dataclass(
    *, frozen: bool = False, slots: bool = False, kw_only: bool = False, eq: bool = True
) -> Callable[[type], Any]:
    """Make a dataclass, as `dataclasses.dataclass` of the same arguments does."""

    def decorated(cls: type) -> Any:
        own = {name for name, value in vars(cls).items() if name != "__hash__" or value is not None}
        made: Any = dataclasses.dataclass(
            init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
        )(cls)
        methods: dict[str, Any] = {"__init__": _init, "__repr__": _repr}
        if eq:
            methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
        for name, write in methods.items():
            if name not in own:
                late = _Late(made, name, write, frozen=frozen) if write is not None else None
                setattr(made, name, late)
        if frozen:
            _freeze(made, slots=slots)
        return made

    return decorated


if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    dataclass = _dataclass


class _Late:
    """Stands for a method of `owner` until somebody looks at it."""

    def __init__(
        self, owner: type, name: str, write: Callable[[type, bool], _Method], *, frozen: bool
    ) -> None:
        self._owner = owner
        self._name = name
        self._write = write
        self._frozen = frozen

    def __get__(self, instance: object, _: type | None = None) -> Any:
        method = self._write(self._owner, self._frozen)
        method.__qualname__ = f"{self._owner.__qualname__}.{self._name}"
        # two threads may both come here: they write the same
        setattr(self._owner, self._name, method)
        return method if instance is None else method.__get__(instance)


# --------------------------------------------------------------------------- writing methods


def _init(cls: type, frozen: bool) -> _Method:  # noqa: FBT001 - one shape for all writers
    fields = [each for each in dataclasses.fields(cls) if each.init]
    plain = [each for each in fields if not each.kw_only]
    named = [each for each in fields if each.kw_only]
    names: dict[str, Any] = {"_set": object.__setattr__, "_none": MISSING}
    parameters = ["self", *(_parameter(each, names) for each in plain)]
    if named:
        parameters += ["*", *(_parameter(each, names) for each in named)]
    body = []
    for each in dataclasses.fields(cls):
        value = _value(each, names)
        if value is not None:
            body.append(
                f"_set(self, {each.name!r}, {value})" if frozen else f"self.{each.name} = {value}"
            )
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    method = _compiled(cls, "__init__", parameters, body or ["pass"], names)
    method.__annotations__ = {**{each.name: each.type for each in fields}, "return": None}
    return method


def _parameter(each: Field[Any], names: dict[str, Any]) -> str:
    if each.default is not MISSING:
        names[f"_default_{each.name}"] = each.default
        return f"{each.name}=_default_{each.name}"
    return f"{each.name}=_none" if each.default_factory is not MISSING else each.name


def _value(each: Field[Any], names: dict[str, Any]) -> str | None:
    """Return what a field is set to; None for one that only `__post_init__` sets."""
    if each.default_factory is not MISSING:
        names[f"_make_{each.name}"] = each.default_factory
        made = f"_make_{each.name}()"
        return f"{made} if {each.name} is _none else {each.name}" if each.init else made
    if each.init:
        return each.name
    if each.default is MISSING:
        return None
    names[f"_default_{each.name}"] = each.default
    return f"_default_{each.name}"


def _repr(cls: type, _: bool) -> _Method:  # noqa: FBT001
    shown = [each.name for each in dataclasses.fields(cls) if each.repr]
    text = ", ".join(f"{name}={{self.{name}!r}}" for name in shown)
    body = [f"return f'{{self.__class__.__qualname__}}({text})'"]
    return _compiled(cls, "__repr__", ["self"], body, {})


def _eq(cls: type, _: bool) -> _Method:  # noqa: FBT001
    ours, theirs = (_tuple(cls, name) for name in ("self", "other"))
    body = [f"return {ours} == {theirs} if other.__class__ is self.__class__ else NotImplemented"]
    return _compiled(cls, "__eq__", ["self", "other"], body, {})


def _hash(cls: type, _: bool) -> _Method:  # noqa: FBT001
    return _compiled(cls, "__hash__", ["self"], [f"return hash({_tuple(cls, 'self')})"], {})


def _tuple(cls: type, owner: str) -> str:
    compared = (each for each in dataclasses.fields(cls) if each.compare)
    return "(" + "".join(f"{owner}.{each.name}, " for each in compared) + ")"


def _compiled(
    cls: type, name: str, parameters: list[str], body: list[str], names: dict[str, Any]
) -> _Method:
    """Return the method; what `names` holds is bound inside, the rest is its module's."""
    lines = "".join(f"  {line}\n" for line in body)
    text = (
        f"def write({', '.join(names)}):\n"
        f" def {name}({', '.join(parameters)}):\n{lines}"
        f" return {name}\n"
    )
    scope: dict[str, Any] = {}
    module = sys.modules.get(cls.__module__)
    exec(text, vars(module) if module else {}, scope)  # noqa: S102 - names of fields alone
    method: _Method = scope["write"](**names)
    method.__module__ = cls.__module__
    return method


# --------------------------------------------------------------------------- frozen classes


def _freeze(cls: Any, *, slots: bool) -> None:
    cls.__setattr__ = _refuse_set
    cls.__delattr__ = _refuse_delete
    if slots:
        # copying and pickling set the slots one by one otherwise, which is refused
        cls.__getstate__ = _state
        cls.__setstate__ = _set_state


def _refuse_set(_self: object, name: str, _value: object) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
