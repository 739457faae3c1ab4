"""`on:` to Triggers."""

from __future__ import annotations

from typing import cast

from schemas.workflow.compiler.check import Check, Field
from schemas.workflow.cron import INTERVAL_MINUTES_MIN, CronError, parse_cron, zone
from schemas.workflow.events import EVENTS, EventRule
from schemas.workflow.expressions.template import OPEN
from schemas.workflow.expressions.values import Value
from schemas.workflow.filters import validate_pattern
from schemas.workflow.plan import EventPlan, InputPlan, InputType, SchedulePlan, Triggers
from schemas.workflow.reader import MappingNode, Node, ScalarNode, SequenceNode

SCHEDULE_KEYS = ("cron", "timezone")
DISPATCH_KEYS = ("inputs",)
CALL_KEYS = ("inputs", "secrets", "outputs")
CALL_INPUT_KEYS = ("description", "type", "required", "default")
DISPATCH_INPUT_KEYS = (*CALL_INPUT_KEYS, "options")
SECRET_KEYS = ("description", "required")
OUTPUT_KEYS = ("description", "value")
CALL_TYPES = ("boolean", "number", "string")
DISPATCH_TYPES = (*CALL_TYPES, "choice", "environment")
_CALL_DEFAULT = "on.workflow_call.inputs.<inputs_id>.default"
_CALL_OUTPUT = "on.workflow_call.outputs.<output_id>.value"
EXCLUSIVE = (("branches", "branches-ignore"), ("tags", "tags-ignore"), ("paths", "paths-ignore"))


def read_triggers(check: Check, node: Node) -> Triggers:
    """The triggers of a workflow, from a name, a list of names or a mapping."""
    reader = _Reader(check)
    if isinstance(node, MappingNode):
        for name, name_node, value in check.pairs(node, "on"):
            if reader.known(name_node, name):
                reader.configured(name, name_node, value)
    elif isinstance(node, SequenceNode):
        for item in node.items:
            reader.named(item)
    else:
        reader.named(node)
    if not reader.events and not reader.unknown:
        check.report(node, "on: lists no event", hint="for instance on: push")
    return Triggers(
        events=tuple(reader.events),
        schedules=tuple(reader.schedules),
        dispatch_inputs=reader.dispatch_inputs,
        call_inputs=reader.call_inputs,
        call_secrets=reader.call_secrets,
        call_outputs=reader.call_outputs,
    )


class _Reader:
    """Collects the parts of the triggers while it walks over `on:`."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.events: list[EventPlan] = []
        self.schedules: list[SchedulePlan] = []
        self.dispatch_inputs: dict[str, InputPlan] = {}
        self.call_inputs: dict[str, InputPlan] = {}
        self.call_secrets: dict[str, bool] = {}
        self.call_outputs: dict[str, str] = {}
        self.unknown = 0

    def known(self, node: Node, name: str) -> bool:
        """Whether an event exists; says so if not."""
        if name in EVENTS:
            return True
        self.unknown += 1
        self.check.report(
            node, f"'{name}' is not an event", hint=self.check.guess(name, EVENTS), rule="events"
        )
        return False

    def named(self, node: Node) -> None:
        """An event by name only."""
        name = self.check.text_of(node, "an event of on", empty=False)
        if name and OPEN not in name and self.known(node, name):
            if any(event.event == name for event in self.events):
                self.check.warn(node, f"'{name}' is listed twice", rule="events")
                return
            if name == "schedule":
                self.check.warn(node, "schedule without a cron never runs", rule="events")
            if name == "workflow_run":
                self._any_workflow(node)
            self.events.append(EventPlan(event=name, line=node.line))

    def configured(self, name: str, name_node: ScalarNode, value: Node) -> None:
        """An event with its configuration."""
        empty = isinstance(value, ScalarNode) and value.value is None
        if name == "schedule":
            self._schedules(value)
        elif name == "workflow_dispatch":
            if not empty:
                self._dispatch(value)
        elif name == "workflow_call":
            if not empty:
                self._call(value)
        elif not empty:
            self.events.append(self._event(EVENTS[name], name_node, value))
            return
        elif name == "workflow_run":
            self._any_workflow(name_node)
        self.events.append(EventPlan(event=name, line=name_node.line))

    def _event(self, rule: EventRule, name_node: ScalarNode, value: Node) -> EventPlan:
        allowed = rule.keys
        if not allowed:
            self.check.report(value, f"{rule.event} takes no configuration", rule="events")
            return EventPlan(event=rule.event, line=name_node.line)
        found = self.check.fields(value, f"on.{rule.event}", allowed)
        for one, other in EXCLUSIVE:
            if one in found and other in found:
                self.check.report(
                    found[other][0],
                    f"{rule.event} cannot have both '{one}' and '{other}'",
                    hint=f"use '!' patterns in '{one}'",
                    rule="events",
                )
        if "workflows" in allowed and "workflows" not in found:
            self._any_workflow(name_node)
        return EventPlan(
            event=rule.event,
            types=self._types(rule, found.get("types")),
            branches=self._patterns(found, "branches", is_ref=True),
            branches_ignore=self._patterns(found, "branches-ignore", is_ref=True),
            tags=self._patterns(found, "tags", is_ref=True),
            tags_ignore=self._patterns(found, "tags-ignore", is_ref=True),
            paths=self._patterns(found, "paths", is_ref=False),
            paths_ignore=self._patterns(found, "paths-ignore", is_ref=False),
            workflows=self.check.strings(found["workflows"][1], "workflows")
            if "workflows" in found
            else (),
            line=name_node.line,
        )

    def _any_workflow(self, node: Node) -> None:
        self.check.warn(
            node,
            "workflow_run names no workflows, so the end of every other one starts this one",
            hint="workflows: [CI]",
            rule="events",
        )

    def _types(self, rule: EventRule, entry: Field | None) -> tuple[str, ...]:
        if entry is None:
            return ()
        node = entry[1]
        items = node.items if isinstance(node, SequenceNode) else [node]
        names = []
        for item in items:
            name = self.check.text_of(item, "an activity type", empty=False)
            if not rule.free_types and name and name not in rule.types:
                self.check.report(
                    item,
                    f"'{name}' is not an activity type of {rule.event}; expected one of: "
                    f"{', '.join(sorted(rule.types))}",
                    hint=self.check.guess(name, rule.types),
                    rule="events",
                )
            names.append(name)
        return tuple(names)

    def _patterns(self, found: dict[str, Field], name: str, *, is_ref: bool) -> tuple[str, ...]:
        if name not in found:
            return ()
        node = found[name][1]
        patterns = self.check.strings(node, name)
        items = node.items if isinstance(node, SequenceNode) else [node]
        if not patterns:
            self.check.warn(node, f"'{name}' has no patterns and filters nothing", rule="filters")
        for item, pattern in zip(items, patterns, strict=False):
            for problem in validate_pattern(pattern, is_ref=is_ref) if pattern else ():
                quoted = isinstance(item, ScalarNode) and item.style in ("'", '"')
                self.check.report(
                    (item.line, item.column + problem.offset + (1 if quoted else 0)),
                    f"in the pattern '{pattern}': {problem.message}",
                    severity=problem.severity,
                    rule="filters",
                )
        if patterns and not name.endswith("-ignore") and all(p.startswith("!") for p in patterns):
            self.check.warn(
                node,
                f"'{name}' has only '!' patterns, so nothing ever matches",
                hint=f"use '{name}-ignore'",
                rule="filters",
            )
        return patterns

    def _schedules(self, node: Node) -> None:
        check = self.check
        if not isinstance(node, SequenceNode):
            check.report(node, "schedule must be a list of cron entries", rule="events")
            return
        if not node.items:
            check.report(node, "schedule lists no cron", rule="events")
        for item in node.items:
            found = check.fields(item, "schedule", SCHEDULE_KEYS)
            if "cron" not in found:
                if isinstance(item, MappingNode):
                    check.report(item, "Required property is missing: cron", rule="events")
                continue
            cron = check.text_of(found["cron"][1], "cron", empty=False)
            timezone = None
            if "timezone" in found:
                timezone = check.text_of(found["timezone"][1], "timezone", empty=False)
                self._checked_zone(found["timezone"][1], timezone)
            if cron:
                self._checked_cron(found["cron"][1], cron)
            self.schedules.append(SchedulePlan(cron=cron, timezone=timezone, line=item.line))

    def _checked_zone(self, node: Node, name: str) -> None:
        try:
            zone(name)
        except CronError as error:
            self.check.report(node, str(error), rule="cron")

    def _checked_cron(self, node: Node, text: str) -> None:
        try:
            cron = parse_cron(text)
        except CronError as error:
            self.check.report(node, f"Invalid cron expression '{text}': {error}", rule="cron")
            return
        if cron.interval_minutes_min < INTERVAL_MINUTES_MIN:
            self.check.warn(
                node,
                f"'{text}' is due more often than every {INTERVAL_MINUTES_MIN} minutes, "
                "which GitHub does not offer",
                rule="cron",
            )

    def _dispatch(self, node: Node) -> None:
        # GitHub overlooks other keys here, and nowhere else; they do nothing.
        for name, name_node, value in self.check.pairs(node, "on.workflow_dispatch"):
            if name not in DISPATCH_KEYS:
                self.check.warn(
                    name_node,
                    f"'{name}' is not a key of on.workflow_dispatch and has no effect",
                    hint=self.check.guess(name, DISPATCH_KEYS) or "",
                    rule="unknown-key",
                )
            elif not _is_null(value):
                self.dispatch_inputs = self._inputs(value, call=False)

    def _call(self, node: Node) -> None:
        check = self.check
        found = check.fields(node, "on.workflow_call", CALL_KEYS)
        if "inputs" in found:
            self.call_inputs = self._inputs(found["inputs"][1], call=True)
        if "secrets" in found:
            self._call_secrets(found["secrets"][1])
        if "outputs" in found:
            self._call_outputs(found["outputs"][1])

    def _call_secrets(self, node: Node) -> None:
        check = self.check
        for name, name_node, value in check.pairs(node, "secrets"):
            check.identifier(name_node, name, "secret name", severity="warning")
            required: bool | str = False
            if not _is_null(value):
                spec = check.fields(value, f"the secret '{name}'", SECRET_KEYS)
                if "description" in spec:
                    check.text_of(spec["description"][1], "description")
                if "required" in spec:
                    required = check.boolean(spec["required"][1], "required")
            self.call_secrets[name] = required is True

    def _call_outputs(self, node: Node) -> None:
        check = self.check
        for name, name_node, value in check.pairs(node, "outputs"):
            check.identifier(name_node, name, "output name", severity="warning")
            spec = check.fields(value, f"the output '{name}'", OUTPUT_KEYS)
            if "description" in spec:
                check.text_of(spec["description"][1], "description")
            if "value" in spec:
                self.call_outputs[name] = check.text_of(spec["value"][1], "value", key=_CALL_OUTPUT)
            elif isinstance(value, MappingNode):
                check.report(value, "Required property is missing: value")

    def _inputs(self, node: Node, *, call: bool) -> dict[str, InputPlan]:
        inputs: dict[str, InputPlan] = {}
        for name, name_node, value in self.check.pairs(node, "inputs"):
            self.check.identifier(name_node, name, "input name", severity="warning")
            if _is_null(value) and not call:
                inputs[name] = InputPlan()
            else:
                inputs[name] = self._input(name, value, call=call)
        return inputs

    def _input(self, name: str, node: Node, *, call: bool) -> InputPlan:
        check = self.check
        allowed = CALL_INPUT_KEYS if call else DISPATCH_INPUT_KEYS
        spec = check.fields(node, f"the input '{name}'", allowed)
        kind = "string"
        before = len(check.problems)
        if "type" in spec:
            kind = self._input_type(spec["type"][1], CALL_TYPES if call else DISPATCH_TYPES)
        elif call and isinstance(node, MappingNode):
            check.report(node, "Required property is missing: type")
        required = check.boolean(spec["required"][1], "required") if "required" in spec else False
        default: Value = None
        if "default" in spec:
            default = self._default(kind, spec["default"][1], call=call)
        options = self._choices(spec["options"][1]) if "options" in spec else ()
        if kind != "string" or len(check.problems) == before:
            self._options(kind, node, spec, options, default)
        return InputPlan(
            type=cast("InputType", kind),
            description=check.text_of(spec["description"][1], "description")
            if "description" in spec
            else "",
            required=required is True,
            default=default,
            options=options,
        )

    def _choices(self, node: Node) -> tuple[str, ...]:
        """The options of a choice; an empty one stands for no choice."""
        if not isinstance(node, SequenceNode):
            self.check.report(node, "options must be a list", rule="inputs")
            return ()
        return self.check.strings(node, "options", empty=True)

    def _input_type(self, node: Node, types: tuple[str, ...]) -> str:
        name = self.check.text_of(node, "type")
        if name in types:
            return name
        self.check.report(
            node,
            f"'{name}' is not an input type; expected one of: {', '.join(types)}",
            hint=self.check.guess(name, types),
        )
        return "string"

    def _default(self, kind: str, node: Node, *, call: bool) -> Value:
        check = self.check
        scalar = check.scalar(node, "default")
        if scalar is None or scalar.value is None:
            return None
        text = check.text_of(scalar, "default", key=_CALL_DEFAULT if call else None)
        if OPEN in text:
            return text
        if kind == "boolean":
            if isinstance(scalar.value, bool):
                return scalar.value
            if text in ("true", "false"):
                check.warn(scalar, "the default of a boolean input is quoted", rule="inputs")
                return text == "true"
            check.report(scalar, f"the default '{text}' is not true or false", rule="inputs")
            return None
        if kind == "number":
            if isinstance(scalar.value, (int, float)) and not isinstance(scalar.value, bool):
                return scalar.value
            check.report(scalar, f"the default '{text}' is not a number", rule="inputs")
            return None
        return text

    def _options(
        self,
        kind: str,
        node: Node,
        spec: dict[str, Field],
        options: tuple[str, ...],
        default: Value,
    ) -> None:
        if kind == "choice":
            if not options:
                place = spec["options"][1] if "options" in spec else node
                self.check.report(place, "Missing 'options' for choice input", rule="inputs")
            elif default is not None and default not in options:
                self.check.warn(
                    spec["default"][1], f"the default '{default}' is no option", rule="inputs"
                )
        elif "options" in spec:
            self.check.report(
                spec["options"][0],
                "Input type is not 'choice', but 'options' is defined",
                rule="inputs",
            )


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.value is None
