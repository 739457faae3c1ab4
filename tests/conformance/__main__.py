"""Prints passed, failed and total of each set, and every case that failed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.conformance.cases import Outcome
from tests.conformance.sets import SERVICES, SETS


def main() -> int:
    """Runs the sets of a folder; 0 when all cases passed, 1 when some failed, 2 for no cases."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder in the format of the language cases")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--set", action="append", dest="names", help="only this set; repeatable")
    parser.add_argument(
        "--no-services",
        action="store_true",
        help=f"leave out {SERVICES}: it starts an installation of its own, which takes half a "
        "minute with 50 cases on two cores",
    )
    arguments = parser.parse_args()
    results = {
        each.name: list(each.outcomes(arguments.folder))
        for each in SETS
        if not arguments.names or each.name in arguments.names
        if not (arguments.no_services and each.name == SERVICES)
    }
    if not any(results.values()):
        sys.stderr.write(f"{arguments.folder} has no cases in a known format\n")
        return 2
    sys.stdout.write(_as_json(results) if arguments.json else _as_text(results))
    return 0 if all(outcome.passed for found in results.values() for outcome in found) else 1


def _as_json(results: dict[str, list[Outcome]]) -> str:
    sets = {
        name: {
            "passed": sum(outcome.passed for outcome in found),
            "failed": sum(not outcome.passed for outcome in found),
            "total": len(found),
            "failing": [outcome.id for outcome in found if not outcome.passed],
        }
        for name, found in results.items()
    }
    return json.dumps({"sets": sets}, indent=2) + "\n"


def _as_text(results: dict[str, list[Outcome]]) -> str:
    lines = [f"{'set':<28}{'passed':>8}{'failed':>8}{'total':>8}"]
    for name, found in results.items():
        failed = [outcome for outcome in found if not outcome.passed]
        lines.append(f"{name:<28}{len(found) - len(failed):>8}{len(failed):>8}{len(found):>8}")
        lines.extend(f"  {outcome.id}: {outcome.detail}" for outcome in failed)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
