"""The only place that knows what can be set, how, and with what default.

A value comes from the first of: the environment (`TAILRACE_…`), the file
`TAILRACE_HOME/tailrace.toml`, what the running system recorded about itself, the default.
Importing this module is cheap: the command line does it before it knows what it will do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "TAILRACE_"
FILE_NAME = "tailrace.toml"
RECORD = Path("run") / "tailrace.json"
"""Where, under the home, a running system records its addresses for everybody else."""

_PASSWORD = re.compile(r"(?<=:)[^:@/]+(?=@)")

Values = Mapping[str, Any]


class SettingsError(Exception):
    """A setting can't be used. The text names where it was set, and what is expected there."""


def _setting(
    doc: str,
    *,
    default: object = None,
    derive: Callable[[Values], object] | None = None,
    choices: tuple[str, ...] = (),
    least: int | None = None,
    secret: bool = False,
) -> Any:
    """Describe one field: its default, or how the default follows from the fields above it."""
    return dataclasses.field(
        metadata={
            "doc": doc,
            "derive": derive if derive is not None else lambda _values: default,
            "choices": choices,
            "least": least,
            "secret": secret,
        }
    )


def _default_home(_values: Values) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/tailrace")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "tailrace"


def _loopback(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared only


def _port(doc: str, default: int) -> Any:
    return _setting(doc, default=default, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. `Settings.load()` is the way to get one.

    A default may follow from settings above it (`cache` lies in `home`).
    """

    home: Path = _setting(  # noqa: RUF009 - makes a field, not a value
        "Folder of all data: log, database, objects, secrets, logs of the processes.",
        derive=_default_home,
    )
    cache: Path = _setting(  # noqa: RUF009 - makes a field, not a value
        "Folder of what was downloaded; may be shared between installations.",
        derive=lambda values: values["home"] / "cache",
    )

    # Where the outside things are
    kafka_port: int = _port("Port of the embedded Kafka.", 8892)
    kafka_controller_port: int = _port("Port of the embedded Kafka's controller.", 8893)
    kafka_heap_mb: int = _setting("Heap of the embedded Kafka, in MiB.", default=512, least=192)
    kafka_bootstrap: str = _setting(
        "host:port[,…] of Kafka. Setting it switches the embedded one off.",
        derive=lambda values: f"127.0.0.1:{values['kafka_port']}",
    )
    postgres_port: int = _port("Port of the embedded PostgreSQL.", 8832)
    kafka_replication: int = _setting(
        "Copies of each topic; 3 with a Kafka of your own, 1 with the embedded one.",
        default=1,
        least=1,
    )
    database_url: str = _setting(
        "postgresql://… of the read models and the vault. Setting it switches the embedded "
        "PostgreSQL off.",
        derive=lambda values: f"postgresql://tailrace@127.0.0.1:{values['postgres_port']}/tailrace",
        secret=True,
    )
    object_store: str = _setting(
        "Where archived logs and artifacts go: file:///folder or s3://bucket/prefix.",
        derive=lambda values: f"file://{values['home'] / 'objects'}",
    )

    artifact_retention_days: int = _setting(
        "How long artifacts are kept, in days; `retention-days` of an upload may say less.",
        default=90,
        least=1,
    )
    cache_quota_mb: int = _setting(
        "What the caches of a repository may have together, in MiB; the least recently used go "
        "first.",
        default=10_240,
        least=1,
    )
    cache_unused_days: int = _setting(
        "After how many days without use a cache is removed.", default=7, least=1
    )

    # Addresses of the services
    public_host: str = _setting(
        "Address on which the public origin listens. Put a TLS proxy before it rather than "
        "opening it to a network.",
        default="127.0.0.1",
    )
    public_port: int = _port("Port of the public origin: pages, API, webhooks.", 8810)
    public_url: str = _setting(
        "The public origin's URL as browsers and forges see it.",
        derive=lambda values: f"http://{values['public_host']}:{values['public_port']}",
    )
    api_url: str = _setting(
        "Where the command line reaches the public origin; another machine's, for instance.",
        derive=lambda values: f"http://{_loopback(values['public_host'])}:{values['public_port']}",
    )
    api_token: str = _setting(
        "Token of the command line. Empty: the one in `secrets/token` of the home.",
        default="",
        secret=True,
    )
    ingest_port: int = _port("Port of webhooks and commands.", 8811)
    ingest_url: str = _setting(
        "Where the public origin forwards webhooks and commands to.",
        derive=lambda values: f"http://127.0.0.1:{values['ingest_port']}",
    )
    gateway_port: int = _port("Port of the gateway for running jobs.", 8812)
    gateway_url: str = _setting(
        "Where runners reach the gateway.",
        derive=lambda values: f"http://127.0.0.1:{values['gateway_port']}",
    )
    planner_port: int = _port("Health port of the planner.", 8821)
    scheduler_port: int = _port("Health port of a scheduler (each copy gets its own).", 8822)
    fleet_port: int = _port("Health port of the fleet.", 8824)
    projector_port: int = _port("Health port of the projector.", 8825)
    runner_port: int = _port("Health port of a runner (each gets its own; 0: any free one).", 0)

    # Size and shape
    cells: int = _setting(
        "Partitions of `events`, each with one active scheduler. Fixed when the log is made.",
        default=1,
        least=1,
    )
    pools: tuple[str, ...] = _setting(
        "Pools of runners whose topics are made, separated by commas.", default=("default",)
    )
    scheduler_count: int = _setting(
        "Copies of the scheduler; all but one a cell stand by.", default=2, least=1
    )
    runner_count: int = _setting("Runners started on this machine.", default=1, least=0)
    runner_slots: int = _setting("Jobs that a runner runs at the same time.", default=4, least=1)
    runner_id: str = _setting(
        "Stable name of a runner. Empty: machine name and instance.", default=""
    )
    runner_pool: str = _setting("Pool that a runner joins.", default="default")
    runner_labels: tuple[str, ...] = _setting(
        "Labels (`runs-on`) that a runner serves, separated by commas.",
        default=(
            "self-hosted",
            "linux",
            "x64",
            "ubuntu-latest",
            "ubuntu-24.04",
            "ubuntu-22.04",
        ),
    )
    actions_url: str = _setting(
        "Where actions of other repositories (`uses: owner/name@ref`) are cloned from: "
        "https://…, or file:///folder with owner/name below it.",
        default="https://github.com",
    )
    job_user: str = _setting(
        "System user that runs jobs when Tailrace runs as root. Empty: one is added.", default=""
    )
    container_engine: str = _setting(
        "What runs containers of jobs: auto (docker, else podman), none, docker, podman, or the "
        "path of either. A runner asks it at its start and says whether it has one.",
        default="auto",
    )
    container_options: str = _setting(
        "What jobs may ask of the container engine: safe refuses options and volumes that reach "
        "beyond the job's containers; any is for runners whose workflows are all trusted.",
        default="safe",
        choices=("safe", "any"),
    )
    allow_hosts: tuple[str, ...] = _setting(
        "Host names under which the public origin may be asked, beside its own URL's, "
        "separated by commas.",
        default=(),
    )

    # How the processes behave
    instance: str = _setting(
        "Name of this process among its like (scheduler-2); set by the supervisor.", default=""
    )
    restart: bool = _setting("Whether the supervisor restarts what ended: on or off.", default=True)
    start_timeout_s: int = _setting(
        "How long `tailrace up` waits for all services, in seconds.", default=120, least=1
    )
    log_level: str = _setting(
        "Least severity that is logged.",
        default="info",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = _setting(
        "json: a line is an object; text: for reading.", default="json", choices=("json", "text")
    )
    log_file_mb: int = _setting(
        "Size at which the log file of a process is set aside, in MiB.", default=32, least=1
    )

    otlp_endpoint: str = _setting(
        "Where traces go (OTLP over HTTP); needs the extra `telemetry`. Empty: nowhere.", default=""
    )

    sources: Mapping[str, str] = dataclasses.field(compare=False, repr=False)
    """By setting: `default`, `running`, or the variable or file that set it."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings of this process. Raises SettingsError.

        `environ` replaces the process environment, for instance in tests.
        """
        environ = os.environ if environ is None else environ
        home = _home(environ)
        layers = [_from_environment(environ), _from_file(home), _from_record(home)]
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for field in _fields():
            found = next((layer[field.name] for layer in layers if field.name in layer), None)
            if found is None:
                values[field.name] = field.metadata["derive"](values)
                sources[field.name] = "default"
            else:
                values[field.name], sources[field.name] = found
        values["home"] = home
        return cls(**values, sources=sources)

    def is_fixed(self, name: str) -> bool:
        """Tell whether the user set it, so that it must not be replaced by something free."""
        return self.sources[name] not in ("default", "running")

    @property
    def secrets_dir(self) -> Path:
        """The 0700 folder of token, runner-token, vault.key and the database's password."""
        return self.home / "secrets"

    @property
    def run_dir(self) -> Path:
        """The folder of ports, lock and control socket of the running system."""
        return self.home / "run"

    @property
    def logs_dir(self) -> Path:
        """The folder of one log file a process."""
        return self.home / "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One setting as `tailrace config` shows it."""

    name: str
    variable: str
    value: str
    source: str
    doc: str


def describe(settings: Settings) -> tuple[Described, ...]:
    """Return every setting with its value (passwords as ***), its origin and its meaning."""
    return tuple(
        Described(
            name=field.name,
            variable=variable_of(field.name),
            value=_shown(getattr(settings, field.name), secret=field.metadata["secret"]),
            source=settings.sources[field.name],
            doc=field.metadata["doc"],
        )
        for field in _fields()
    )


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def record_text(values: Mapping[str, object]) -> str:
    """Return what belongs into the record of a running system, for `Settings.load` to find."""
    return json.dumps({name: _plain(value) for name, value in values.items()}, indent=2) + "\n"


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(Settings) if "doc" in field.metadata)


def _home(environ: Mapping[str, str]) -> Path:
    text = environ.get(variable_of("home"))
    home = Path(text).expanduser() if text else _default_home({})
    return home.absolute()


Layer = dict[str, tuple[Any, str]]


def _from_environment(environ: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for field in _fields():
        variable = variable_of(field.name)
        text = environ.get(variable)
        # An empty variable is one that somebody unset in a shell script.
        if text:
            layer[field.name] = (_parse(field, text, f"The variable {variable}"), variable)
    return layer


def _from_file(home: Path) -> Layer:
    path = home / FILE_NAME
    if not path.exists():
        return {}
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from error
    known = {field.name: field for field in _fields() if field.name not in ("home", "instance")}
    layer: Layer = {}
    for key, value in content.items():
        if key not in known:
            raise SettingsError(f"{path}: unknown setting `{key}`.{_similar(key, known)}")
        where = f"{path}: the setting `{key}`"
        layer[key] = (_parse(known[key], _text_of(value, where), where), str(path))
    return layer


def _from_record(home: Path) -> Layer:
    try:
        content = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Nothing runs, or the record is another user's: the defaults will do.
        return {}
    layer: Layer = {}
    for field in _fields():
        if field.name in content:
            value = _parse(field, str(content[field.name]), f"{home / RECORD}: `{field.name}`")
            layer[field.name] = (value, "running")
    return layer


def _parse(field: dataclasses.Field[Any], text: str, where: str) -> object:
    """Return the value that `text` stands for. Raises SettingsError with what is expected."""
    kind, text = str(field.type), text.strip()
    choices, least = field.metadata["choices"], field.metadata["least"]
    if choices and text not in choices:
        raise SettingsError(f"{where} is {text!r}; expected one of: {', '.join(choices)}.")
    if kind == "int":
        expected = "a whole number" + (f" of at least {least}" if least is not None else "")
        if not re.fullmatch(r"-?[0-9]{1,12}", text) or (least is not None and int(text) < least):
            raise SettingsError(f"{where} is {text!r}; expected {expected}.")
        return int(text)
    if kind == "bool":
        if text.lower() not in _TRUE | _FALSE:
            raise SettingsError(f"{where} is {text!r}; expected on or off.")
        return text.lower() in _TRUE
    if kind == "Path":
        return Path(text).expanduser().absolute()
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


_TRUE = frozenset({"on", "true", "yes", "1"})
_FALSE = frozenset({"off", "false", "no", "0"})


def _text_of(value: object, where: str) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if isinstance(value, (str, int)):
        return str(value)
    raise SettingsError(
        f"{where} is a {type(value).__name__}; expected a text, a number, true or false, or a "
        f"list of texts."
    )


def _similar(key: str, known: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"{hint} `tailrace config` lists all of them."


def _shown(value: object, *, secret: bool) -> str:
    text = str(_plain(value))
    if not secret or not text:
        return text
    return _PASSWORD.sub("***", text) if "://" in text else "***"


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, int) else str(value)
