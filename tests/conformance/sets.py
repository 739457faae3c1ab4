"""All sets by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import commands, expressions, filters, runs, services, webhooks, workflows
from tests.conformance.cases import CaseSet, Outcome


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A set: its name in reports, what it needs in the folder, and how it is run."""

    name: str
    needs: str
    run: CaseSet

    def outcomes(self, root: Path) -> Iterator[Outcome]:
        """The outcomes of all cases in a folder; none when the folder has no such set."""
        if (root / self.needs).exists():
            yield from self.run(root)


SERVICES = "runs/services"
SETS: tuple[NamedSet, ...] = (
    NamedSet("expressions/cases", "expressions/cases.jsonl", expressions.run_cases),
    NamedSet("expressions/if", "expressions/if.jsonl", expressions.run_conditions),
    NamedSet("expressions/steps", "expressions/steps.jsonl", expressions.run_steps),
    NamedSet("commands/files", "commands/files.jsonl", commands.run_files),
    NamedSet("commands/parse", "commands/parse.jsonl", commands.run_parse),
    NamedSet("commands/sequences", "commands/sequences.jsonl", commands.run_sequences),
    NamedSet("filters/match", "filters/match.jsonl", filters.run_match),
    NamedSet("filters/validate", "filters/validate.jsonl", filters.run_validate),
    NamedSet("workflows_valid", "workflows_valid", workflows.run_valid),
    NamedSet("workflows_valid/templates", "workflows_valid", workflows.run_templates),
    NamedSet("workflows_invalid", "workflows_invalid", workflows.run_invalid),
    NamedSet("runs", "runs", runs.run_local),
    NamedSet(SERVICES, "runs", services.run_services),
    NamedSet("webhooks", "webhooks/index.jsonl", webhooks.run_webhooks),
)
