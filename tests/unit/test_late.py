"""Dataclasses whose methods are written late are the standard library's in everything but time."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError, field
from typing import Any, get_type_hints

import pytest

from schemas import late


def _classes(dataclass: Any) -> dict[str, type]:
    """Return the same classes by either decorator."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        """Common columns."""

        at: int
        why: str = ""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Event(Base):
        """A kind of its own."""

        names: tuple[str, ...] = ()
        more: dict[str, int] = field(default_factory=dict, compare=False)
        hidden: str = field(default="x", repr=False)
        fixed: int = field(default=7, init=False)

    @dataclass(slots=True)
    class Open:
        """One that changes."""

        x: int
        items: list[int] = field(default_factory=list)
        total: int = field(init=False)

        def __post_init__(self) -> None:
            self.total = self.x + len(self.items)

    @dataclass(frozen=True)
    class Own:
        """One with methods of its own."""

        x: int

        def __repr__(self) -> str:
            return "mine"

        def __hash__(self) -> int:
            return 5

    @dataclass(slots=True, eq=False)
    class Identity:
        """One that equals itself alone."""

        x: int = 0

    found = {"Base": Base, "Event": Event, "Open": Open, "Own": Own, "Identity": Identity}
    for name, cls in found.items():
        cls.__qualname__ = name
    return found


STANDARD, LATE = _classes(dataclasses.dataclass), _classes(late.dataclass)
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Base", (), {"at": 1}),
    ("Base", (1,), {}),
    ("Base", (), {}),
    ("Base", (), {"at": 1, "nonsense": 2}),
    ("Event", (), {"at": 1, "names": ("a",), "more": {"b": 2}}),
    ("Event", (), {"at": 1, "hidden": "secret"}),
    ("Event", (), {"at": 1, "fixed": 2}),
    ("Open", (1,), {}),
    ("Open", (1, [2, 3]), {}),
    ("Own", (3,), {}),
    ("Identity", (), {}),
]


def _described(classes: dict[str, type], call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Any:
    name, positional, named = call
    cls: Any = classes[name]
    try:
        made, same = cls(*positional, **named), cls(*positional, **named)
    except TypeError as error:
        return str(error).replace(f"{_classes.__qualname__}.<locals>.", "")
    try:
        hashed: Any = hash(made) == hash(same)
    except TypeError as error:
        hashed = str(error)
    return {
        "values": {each.name: getattr(made, each.name) for each in dataclasses.fields(made)},
        "repr": repr(made) if name != "Identity" else "",
        "equal": (made == same, made == object(), made != same),
        "hash": hashed,
        "replaced": repr(dataclasses.replace(made, **named)) if named else "",
        "copied": name == "Identity" or copy.deepcopy(made) == copy.copy(made) == made,
        "match": cls.__match_args__,
        "signature": [
            (each.name, each.kind, each.default is each.empty)
            for each in inspect.signature(cls).parameters.values()
        ],
    }


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_late_class_does_what_the_standard_one_does(call: Any) -> None:
    """Values, texts, equality, hashes, copies and refusals, call by call."""
    assert _described(LATE, call) == _described(STANDARD, call)


@pytest.mark.parametrize("classes", [STANDARD, LATE], ids=["standard", "late"])
def test_a_frozen_one_refuses_every_change(classes: dict[str, Any]) -> None:
    """Setting and deleting, known fields and unknown ones, one hash for equal ones."""
    made = classes["Base"](at=1)
    for name in ("at", "why"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(made, name, 2)
        with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
            delattr(made, name)
    assert len({made, classes["Base"](at=1), classes["Base"](at=2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(classes["Open"](1))


@late.dataclass(frozen=True, slots=True)
class Pickled:
    """One that pickle finds by its name."""

    x: int
    y: str = "y"


def test_frozen_slots_are_pickled_and_hints_are_resolved() -> None:
    """As processes hand them to each other, and as codecs read their types."""
    assert pickle.loads(pickle.dumps(Pickled(1))) == Pickled(1)  # noqa: S301 - our own bytes
    assert get_type_hints(Pickled.__init__) == {"x": int, "y": str, "return": type(None)}
    assert Pickled.__init__.__qualname__ == "Pickled.__init__"


def test_a_method_is_written_once_whoever_comes_first() -> None:
    """Threads that meet at the first call all get an instance; afterwards it is plain."""

    @late.dataclass(frozen=True, slots=True, kw_only=True)
    class Fresh:
        """Not used before."""

        x: int

    made: list[Fresh] = []
    threads = [threading.Thread(target=lambda: made.append(Fresh(x=1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [Fresh(x=1)] * 8
    assert inspect.isfunction(vars(Fresh)["__init__"])
    assert not inspect.isfunction(vars(Fresh)["__repr__"])


def test_importing_the_events_compiles_none_of_their_methods() -> None:
    """What a command's start must not pay for; counted in a process of its own."""
    code = (
        "import builtins, sys\n"
        "made = []\n"
        "real = builtins.exec\n"
        "builtins.exec = lambda text, *scope: (made.append(text), real(text, *scope))[1]\n"
        "import dataclasses\n"
        "made.clear()\n"
        "import schemas.events\n"
        "written = [t for t in made if isinstance(t, str) and 'def __init__' in t]\n"
        "print(len(written))\n"
        "schemas.events.PlanProblem(path='', line=1, column=1, message='')\n"
        "written = [t for t in made if isinstance(t, str) and 'def __init__' in t]\n"
        "print(len(written))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "1"]
