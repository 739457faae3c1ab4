"""The set `webhooks`: recorded deliveries are accepted by ingest and give their facts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.clock import ManualClock
from infra.log import MemoryLog
from infra.metrics import Meters
from infra.objects import FileStore
from schemas.events import DeliveryReceived
from tests.conformance.cases import Case, Outcome, checked, comparable, read_lines
from tests.support.intake import Intake

GITEA_SECRET = "s3cret-for-tests"
_ACCEPTED = 202


def run_webhooks(root: Path) -> Iterator[Outcome]:
    """Each recorded request: accepted with its signature, refused without, facts as given."""
    folder = root / "webhooks"
    with tempfile.TemporaryDirectory(prefix="tailrace-") as objects:
        for case in read_lines(folder / "index.jsonl"):
            body = (folder / case["file"]).read_bytes()
            yield checked(case["id"], lambda c=case, b=body: _check(c, b, Path(objects)))  # type: ignore[misc]


def run_gitea_deliveries(folder: Path) -> Iterator[Outcome]:
    """Requests of a real Gitea, with all their headers; forms among them."""
    with tempfile.TemporaryDirectory(prefix="tailrace-") as objects:
        for path in sorted(folder.glob("*.headers.txt")):
            stem = path.name.removesuffix(".headers.txt")
            [body] = (f for f in folder.glob(f"{stem}.body.*"))
            lines = path.read_text(encoding="utf-8").splitlines()[1:]
            headers = dict(line.split(": ", 1) for line in lines if ": " in line)
            case = {"id": stem, "provider": "gitea", "secret": GITEA_SECRET, "headers": headers,
                    "event": headers["X-Gitea-Event"], "facts": {}}  # fmt: skip
            raw = body.read_bytes()
            yield checked(stem, lambda c=case, b=raw: _check(c, b, Path(objects)))  # type: ignore[misc]


def _check(case: Case, body: bytes, objects: Path) -> str | None:
    """Return what is wrong with the answer or with the fact; None when nothing is."""
    name = case["facts"].get("repository") or "some/repository"
    intake = Intake(
        {name: (case["provider"], case["secret"].encode())},
        MemoryLog(), FileStore(objects), ManualClock(), Meters(),
    )  # fmt: skip
    path = f"/webhooks/{case['provider']}/{name}"
    refused, _ = asyncio.run(intake.post(path, _unsigned(case["headers"]), body))
    if refused == _ACCEPTED or intake.events():
        return "accepted although it has no signature"
    status, answer = asyncio.run(intake.post(path, case["headers"], body))
    if status != _ACCEPTED:
        return f"answered {status}: {answer.get('detail')}"
    [fact] = intake.events()
    if not isinstance(fact, DeliveryReceived):
        return f"a {type(fact).__name__} was appended"
    if fact.event != case["event"]:
        return f"event: expected {case['event']}, got {fact.event}"
    return _facts_differ(case["facts"], fact, objects)


def _unsigned(headers: dict[str, str]) -> dict[str, str]:
    signatures = ("signature", "token")
    return {k: v for k, v in headers.items() if not any(s in k.lower() for s in signatures)}


def _facts_differ(facts: dict[str, Any], fact: DeliveryReceived, objects: Path) -> str | None:
    text = fact.payload_json
    if text is None:
        text = FileStore(objects).get(fact.payload_uri or "").decode()
    payload = json.loads(text)
    found = {
        "repository": fact.repository,
        "ref": fact.ref,
        "ref_type": "tag" if fact.ref.startswith("refs/tags/") else "branch",
        "before": fact.before,
        # an annotated tag's own id is not the commit that is built
        "after": payload.get("after") if fact.tag_name or fact.deleted else fact.sha,
        "head_sha": fact.sha,
        "head_ref": fact.head_ref,
        "base_ref": fact.base_ref,
        "tag_name": fact.tag_name,
        "pr_number": fact.number,
        "sender": fact.actor,
        "deleted": fact.deleted,
        "created": payload.get("created"),
        "forced": payload.get("forced"),
        "inputs": json.loads(fact.inputs_json) if fact.inputs_json else None,
    }
    for name, expected in facts.items():
        actual = found.get(name, payload.get(name))
        if name == "ref" and isinstance(actual, str) and not expected.startswith("refs/"):
            actual = actual.split("/", 2)[-1]
        if comparable(actual) != comparable(expected):
            return f"{name}: expected {expected!r}, got {actual!r}"
    return None
