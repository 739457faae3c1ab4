"""`jobs.<job_id>` to a JobPlan; needs and calls are resolved later."""

from __future__ import annotations

import re
from typing import Literal, cast

from schemas.workflow.compiler.check import INSERT_KEY, Check, Field, shape
from schemas.workflow.compiler.extensions import EXTENSION_KEYS, read_extensions
from schemas.workflow.compiler.shared import (
    read_concurrency,
    read_defaults,
    read_permissions,
)
from schemas.workflow.compiler.step_section import read_steps, read_timeout
from schemas.workflow.compiler.strategy_section import read_strategy
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import DefaultsPlan, EnvironmentPlan, JobPlan, Permissions
from schemas.workflow.reader import MappingNode, Node, ScalarNode, SequenceNode

_ROW = "jobs.<job_id>."
_EITHER = frozenset({"name", "needs", "if", "permissions", "concurrency", "strategy"})
JOB_KEYS = (
    _EITHER
    | EXTENSION_KEYS
    | {
        "runs-on",
        "timeout-minutes",
        "cancel-timeout-minutes",
        "continue-on-error",
        "container",
        "services",
        "env",
        "environment",
        "outputs",
        "defaults",
        "steps",
        "snapshot",
    }
)
CALL_KEYS = _EITHER | {"uses", "with", "secrets"}
CONTAINER_KEYS = frozenset({"image", "options", "env", "ports", "volumes", "credentials"})
SERVICE_KEYS = CONTAINER_KEYS | {"entrypoint", "command"}
GROUP_OWNERS = frozenset({"org", "organization", "ent", "enterprise"})
RUNS_ON_KEYS = ("group", "labels")
SNAPSHOT_KEYS = ("image-name", "version", "if")
ENVIRONMENT_KEYS = ("name", "url", "deployment")
CREDENTIALS_KEYS = ("username", "password")
LOCAL_CALL = re.compile(r"\./[^@]+\.ya?ml\Z")
REMOTE_CALL = re.compile(r"[^/@\s.][^/@\s]*/[^/@\s]+/[^@\s]+\.ya?ml@\S+\Z")


def read_job(
    check: Check,
    job_id: str,
    id_node: ScalarNode,
    node: Node,
    defaults: DefaultsPlan,
    permissions: Permissions | None,
) -> JobPlan | None:
    """One job; `defaults` and `permissions` are the workflow's, for a job without its own."""
    if not isinstance(node, MappingNode):
        check.report(node, f"the job '{job_id}' must be a mapping", rule="jobs")
        return None
    names = {name_node.text for name_node, _ in node.entries}
    calls = "uses" in names or (not {"runs-on", "steps"} & names and {"with", "secrets"} & names)
    what = f"the job '{job_id}'"
    if calls:
        what += ", which calls a workflow"
    found = check.fields(node, what, CALL_KEYS if calls else JOB_KEYS)
    if "uses" in found:
        _report_both(check, node, found["uses"][0])
    return _Job(check, job_id, found, node).plan(
        id_node.line, defaults, permissions, calls=bool(calls)
    )


def _report_both(check: Check, node: MappingNode, uses: ScalarNode) -> None:
    """Says at `uses` that the job has begun as one with steps: one of the two must go."""
    for name_node, _ in node.entries:
        if name_node is uses:
            return
        if name_node.text in ("runs-on", "steps"):
            check.report(
                uses,
                "a job either runs steps or calls a workflow, and "
                f"'{name_node.text}' stands before",
                hint="put the call into a job of its own",
                rule="jobs",
            )
            return


class _Job:
    """Reads the fields of one job."""

    def __init__(
        self, check: Check, job_id: str, found: dict[str, Field], node: MappingNode
    ) -> None:
        self.check = check
        self.job_id = job_id
        self.found = found
        self.node = node

    def plan(
        self,
        line: int,
        defaults: DefaultsPlan,
        permissions: Permissions | None,
        *,
        calls: bool,
    ) -> JobPlan:
        check, get = self.check, self.found.get
        if calls:
            if "uses" not in self.found:
                check.report(self.node, "Required property is missing: uses", rule="jobs")
        elif "runs-on" not in self.found:
            check.report(self.node, "Required property is missing: runs-on", rule="jobs")
        elif "steps" not in self.found:
            check.warn(self.node, f"the job '{self.job_id}' has no steps", rule="jobs")
        if entry := get("cancel-timeout-minutes"):
            check.number(entry[1], "cancel-timeout-minutes", key=_ROW + "timeout-minutes")
        if entry := get("snapshot"):
            self._snapshot(entry[1])
        env = (
            check.mapping_of_texts(entry[1], "env", key=_ROW + "env")
            if (entry := get("env"))
            else {}
        )
        extensions = read_extensions(check, self.found, env)
        return JobPlan(
            id=self.job_id,
            name=self._text("name"),
            needs=check.strings(entry[1], "needs") if (entry := get("needs")) else (),
            condition=check.condition(entry[1], "if", key=_ROW + "if")
            if (entry := get("if"))
            else None,
            runs_on=self._runs_on(),
            env=env,
            defaults_run=self._defaults(defaults),
            outputs=self._outputs(),
            steps=read_steps(check, entry[1]) if (entry := get("steps")) else (),
            strategy=read_strategy(check, entry[1]) if (entry := get("strategy")) else None,
            timeout_minutes=read_timeout(check, get("timeout-minutes"), _ROW + "timeout-minutes"),
            continue_on_error=check.boolean(
                entry[1], "continue-on-error", key=_ROW + "continue-on-error"
            )
            if (entry := get("continue-on-error"))
            else False,
            concurrency=read_concurrency(check, entry[1], _ROW + "concurrency")
            if (entry := get("concurrency"))
            else None,
            permissions=read_permissions(check, entry[1])
            if (entry := get("permissions"))
            else permissions,
            environment=self._environment(),
            container=self._container(),
            services=self._services(),
            uses=self._uses(),
            with_=self._call_values("with", _ROW + "with.<with_id>"),
            secrets=self._secrets(),
            retry=extensions.retry,
            queue_timeout_minutes=extensions.queue_timeout_minutes,
            priority=extensions.priority,
            pool=extensions.pool,
            line=line,
        )

    def _text(self, name: str) -> str | None:
        entry = self.found.get(name)
        return self.check.text_of(entry[1], name, key=_ROW + name) if entry else None

    def _defaults(self, defaults: DefaultsPlan) -> DefaultsPlan:
        entry = self.found.get("defaults")
        if entry is None:
            return defaults
        own = read_defaults(self.check, entry[1], _ROW + "defaults.run")
        return DefaultsPlan(
            shell=own.shell if own.shell is not None else defaults.shell,
            working_directory=own.working_directory
            if own.working_directory is not None
            else defaults.working_directory,
        )

    def _outputs(self) -> dict[str, str]:
        entry = self.found.get("outputs")
        if entry is None:
            return {}
        row = _ROW + "outputs.<output_id>"
        return {
            name: self.check.text_of(value, f"the output '{name}'", key=row)
            for name, _, value in self.check.pairs(entry[1], "outputs")
        }

    def _runs_on(self) -> Value:
        entry = self.found.get("runs-on")
        if entry is None:
            return None
        check, node, row = self.check, entry[1], _ROW + "runs-on"
        if not isinstance(node, MappingNode):
            return self._labels(node, "runs-on")
        found = check.fields(node, "runs-on", RUNS_ON_KEYS)
        value: dict[str, Value] = {}
        if "group" in found:
            value["group"] = self._group(found["group"][1], row)
        if "labels" in found:
            value["labels"] = self._labels(found["labels"][1], "labels")
        if not node.entries:
            check.report(node, "runs-on must not be empty")
        return value

    def _group(self, node: Node, row: str) -> str:
        """A runner group, which may say whose it is: `org/name` or `enterprise/name`."""
        group = self.check.text_of(node, "group", key=row, empty=False)
        owner, slash, name = group.partition("/")
        if slash and OPEN not in group and (owner not in GROUP_OWNERS or not name or "/" in name):
            self.check.report(
                node,
                f"'{group}' names no runner group: before '/' only "
                f"{', '.join(sorted(GROUP_OWNERS))} may stand",
            )
        return group

    def _labels(self, node: Node, what: str) -> Value:
        labels = self.check.strings(node, what, key=_ROW + "runs-on")
        if isinstance(node, SequenceNode):
            if not labels:
                self.check.report(node, f"{what} must not be empty")
            return list(labels)
        return labels[0] if labels else None

    def _environment(self) -> EnvironmentPlan | None:
        entry = self.found.get("environment")
        if entry is None:
            return None
        check, node, row = self.check, entry[1], _ROW + "environment"
        if not isinstance(node, MappingNode):
            name = check.text_of(node, "environment", key=row)
            return EnvironmentPlan(name=name) if name else None
        found = check.fields(node, "environment", ENVIRONMENT_KEYS)
        if "name" not in found:
            check.report(node, "Required property is missing: name")
            return None
        return EnvironmentPlan(
            name=check.text_of(found["name"][1], "name", key=row),
            url=check.text_of(found["url"][1], "url", key=row + ".url") if "url" in found else None,
            deployment=check.boolean(found["deployment"][1], "deployment", key=row)
            if "deployment" in found
            else True,
        )

    def _snapshot(self, node: Node) -> None:
        """Of GitHub's hosted images: the shape is checked, and nothing is done."""
        check = self.check
        if not isinstance(node, MappingNode):
            check.text_of(node, "snapshot", empty=False)
            return
        found = check.fields(node, "snapshot", SNAPSHOT_KEYS)
        if "image-name" not in found:
            check.report(node, "Required property is missing: image-name")
        for name in ("image-name", "version"):
            if name in found:
                check.text_of(found[name][1], name, empty=False)
        if "if" in found:
            check.condition(found["if"][1], "if", key=_ROW + "snapshot.if")

    def _container(self) -> Value:
        entry = self.found.get("container")
        if entry is None:
            return None
        return self._image(entry[1], "container", _ROW + "container", CONTAINER_KEYS)

    def _image(self, node: Node, what: str, row: str, allowed: frozenset[str]) -> Value:
        """A container by its image or by a mapping; the shapes inside are checked."""
        check = self.check
        if not isinstance(node, MappingNode):
            # A job's empty container is none; a service must be something.
            return check.text_of(node, what, key=row, empty=what == "container") or None
        value: dict[str, Value] = {}
        inner = row + ".<service_id>" if row.endswith("services") else row
        for name, (_, item) in check.fields(node, what, allowed).items():
            if name == "env":
                value[name] = cast(
                    "Value", check.mapping_of_texts(item, "env", key=f"{inner}.env.<env_id>")
                )
            elif name == "credentials":
                value[name] = self._credentials(item, f"{inner}.credentials")
            elif name in ("ports", "volumes"):
                value[name] = self._list(item, name, row)
            else:
                value[name] = check.text_of(item, name, key=row)
        if not value.get("image"):
            place = next((v for k, v in node.entries if k.text == "image"), node)
            check.report(place, "Container image cannot be empty")
        return value

    def _list(self, node: Node, what: str, row: str) -> Value:
        """A list of texts, or one expression that gives it."""
        if (whole := self.check.whole(node, what, row)) is not None:
            return whole
        if not isinstance(node, SequenceNode):
            self.check.report(node, f"{what} must be a list, not {shape(node)}")
            return []
        return list(self.check.strings(node, what, key=row))

    def _credentials(self, node: Node, row: str) -> Value:
        if (whole := self.check.whole(node, "credentials", row)) is not None:
            return whole
        found = self.check.fields(node, "credentials", CREDENTIALS_KEYS)
        return {
            name: self.check.text_of(item, name, key=row, empty=False)
            for name, (_, item) in found.items()
        }

    def _services(self) -> dict[str, Value]:
        entry = self.found.get("services")
        if entry is None:
            return {}
        node, row = entry[1], _ROW + "services"
        if isinstance(node, ScalarNode):
            return self.check.mapping_of_texts(node, "services", key=row)
        return {
            name: self._image(value, f"the service '{name}'", row, SERVICE_KEYS)
            for name, _, value in self.check.pairs(node, "services", key=row)
        }

    def _uses(self) -> str | None:
        entry = self.found.get("uses")
        if entry is None:
            return None
        node = entry[1]
        uses = self.check.text_of(node, "uses", empty=False)
        if isinstance(node, ScalarNode) and OPEN in node.text:
            self.check.warn(
                node, "uses is an expression, so the call is not resolved", rule="calls"
            )
        elif uses and not (LOCAL_CALL.match(uses) or REMOTE_CALL.match(uses)):
            self.check.report(
                node,
                f"'{uses}' names no reusable workflow: expected ./path/file.yml "
                "(of this commit, without @ref) or owner/repository/path/file.yml@ref",
                rule="calls",
            )
        return uses

    def _call_values(self, name: str, row: str) -> dict[str, Value]:
        entry = self.found.get(name)
        if entry is None:
            return {}
        values: dict[str, Value] = {}
        for key, _, value in self.check.pairs(entry[1], name, key=row):
            scalar = self.check.scalar(value, f"'{key}' of {name}")
            if scalar is not None and isinstance(scalar.value, str) and OPEN in scalar.value:
                self.check.parsed(scalar, scalar.value, key, row)
            values[key] = scalar.value if scalar is not None else None
        return values

    def _secrets(self) -> Literal["inherit"] | dict[str, Value] | None:
        entry = self.found.get("secrets")
        if entry is None:
            return None
        if isinstance(entry[1], MappingNode):
            return self._call_values("secrets", _ROW + "secrets.<secrets_id>")
        if self.check.text_of(entry[1], "secrets") != "inherit":
            self.check.report(entry[1], "secrets must be a mapping or 'inherit'")
        return "inherit"


__all__ = ["INSERT_KEY", "read_job"]
