"""Which containers a job wants: its `container` and `services`, evaluated and checked. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import field

from runner.executors.containers.options import (
    OptionError,
    Options,
    Volume,
    check_volume,
    port_argument,
    read_options,
    read_volume,
)
from schemas.late import dataclass
from schemas.workflow.expressions import evaluate_value
from schemas.workflow.expressions.values import Value, to_string
from schemas.workflow.plan import JobPlan

_DOCKER = "docker://"
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One container; `name` is the service's id, "" for the container that steps run in."""

    name: str
    image: str
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    options: Options = field(default_factory=Options)
    username: str = ""
    password: str = field(default="", repr=False)
    entrypoint: str = ""
    command: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"service {self.name!r}" if self.name else "the job's container"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job asks of a container engine."""

    container: Spec | None = None
    services: tuple[Spec, ...] = ()

    def __bool__(self) -> bool:
        """Say whether it asks for anything."""
        return self.container is not None or bool(self.services)


def read_wanted(
    plan: JobPlan, contexts: Mapping[str, Value], own: tuple[str, ...], *, any_options: bool
) -> Wanted:
    """Return a job's containers; one without an image is none, as on GitHub.

    `own` are the job's folders. Raises OptionError, and ExpressionError for a template.
    """
    container = None
    if plan.container is not None:
        container = _spec("", evaluate_value(plan.container, contexts), own, any_options)
    services = evaluate_value(dict(plan.services), contexts) if plan.services else {}
    specs = (
        _spec(name, value, own, any_options)
        for name, value in (services.items() if isinstance(services, dict) else ())
    )
    return Wanted(container, tuple(spec for spec in specs if spec is not None))


def _spec(name: str, value: Value, own: tuple[str, ...], any_options: bool) -> Spec | None:  # noqa: FBT001
    given = value if isinstance(value, dict) else {"image": value}
    image = to_string(given.get("image")).strip().removeprefix(_DOCKER)
    if not image:
        return None
    where = f"services.{name}" if name else "container"
    if image.startswith("-") or any(character.isspace() for character in image):
        raise OptionError(f"{where}: {image!r} is no image's name")
    if name and not _ALIAS.fullmatch(name):
        raise OptionError(f"{where}: {name!r} can't be the name of a host")
    credentials = given.get("credentials")
    login = credentials if isinstance(credentials, dict) else {}
    try:
        options = read_options(
            to_string(given.get("options")), is_job=not name, any_options=any_options
        )
        volumes = (*map(read_volume, _texts(given.get("volumes"))), *options.volumes)
        for volume in volumes:
            check_volume(volume, own, any_options=any_options)
        command = _words(to_string(given.get("command")))
        ports = tuple(map(port_argument, (*_texts(given.get("ports")), *options.ports)))
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from error
    key = given.get("env")
    env = {name: to_string(text) for name, text in key.items()} if isinstance(key, dict) else {}
    return Spec(
        name=name,
        image=image,
        env={**options.env, **env},
        ports=ports,
        volumes=volumes,
        options=options,
        username=to_string(login.get("username")),
        password=to_string(login.get("password")),
        entrypoint=to_string(given.get("entrypoint")),
        command=command,
    )


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise OptionError(f"command {text!r} can't be read: {error}") from error


def _texts(value: Value) -> list[str]:
    if value is None or value == "":
        return []
    return [to_string(item) for item in (value if isinstance(value, list) else [value])]
