"""The set `runs/services`: the `runs` cases again, through every real part of the system.

One installation of its own (Kafka, PostgreSQL, all services, a runner) runs all cases at once.
Each case's tree is a git repository that is registered with it, its event a signed webhook or a
command, and what the read models say of its run is held to what `run-local` is held to.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.cli.api import part
from infra.cli.client import Client
from infra.cli.local.delivery import Wanted, delivery_of, payload_of
from infra.cli.local.tree import Snapshot
from infra.clock import SystemClock
from infra.settings import Settings
from schemas.workflow.compiler.unit import compile_unit
from schemas.workflow.plan import WorkflowPlan
from tests.conformance.cases import Case, Outcome
from tests.conformance.read_back import STEP_FIELDS, run_of
from tests.conformance.runs import Ran, case_folders, merged_payload
from tests.support.stack import Stack, running
from tests.support.wire import Wire

#: Without any run that begins or ends for so long, those that are open count as stuck.
SILENCE_S = 90
SLOTS = 8
_AT_ONCE = 4
_POLL_S = 0.15
_TOKEN = "GITHUB_TOKEN"
#: What only the scheduler makes; such a delivery is appended as the scheduler appends it.
_FROM_WITHIN = frozenset({"schedule", "workflow_run"})


@dataclass(slots=True, eq=False)
class Given:
    """A case on its way through the services; `detail` says why it failed."""

    case: Case
    folder: Path
    name: str = ""
    plan: WorkflowPlan | None = None
    sha: str = ""
    bare: Path = field(default_factory=Path)
    delivery_id: str = ""
    run_id: str = ""
    run: dict[str, Any] | None = None
    detail: str | None = None

    @property
    def id(self) -> str:
        """The case's id."""
        return str(self.case["id"])


def run_services(root: Path) -> Iterator[Outcome]:
    """Every case, many side by side, in the order of their names."""
    for ran in service_runs(root):
        yield as_kept(ran).outcome()


def service_runs(root: Path) -> list[Ran]:
    """Run every case through an installation that is started for them."""
    cases = [_given(folder) for folder in case_folders(root)]
    if not cases:
        return []
    with tempfile.TemporaryDirectory(prefix="tailrace-services-") as temp:
        home = Path(temp)
        home.chmod(0o755)  # jobs run as a user of their own
        labels = sorted({*Settings.load({}).runner_labels, *_labels(cases)})
        shape = {"runner_slots": str(SLOTS), "runner_labels": ",".join(labels)}
        try:
            with running(home / "home", **shape) as stack:
                for wave in waves(cases):
                    _run(stack, wave, home / "repositories")
        except Exception as error:  # noqa: BLE001 - which cases it costs is the answer
            for given in cases:
                if given.run is None:
                    given.detail = given.detail or f"the services broke off: {error}"
    return [Ran(given.case, given.run, given.detail) for given in cases]


def _given(folder: Path) -> Given:
    given = Given(json.loads((folder / "expect.json").read_text(encoding="utf-8")), folder)
    path = folder / "repo" / given.case["workflow"]
    if path.is_file():
        given.plan = compile_unit(given.case["workflow"], path.read_bytes()).plan
    return given


def _labels(cases: list[Given]) -> Iterator[str]:
    """Yield the labels that jobs ask for by name: `run-local` takes jobs of any label."""
    for given in cases:
        for job in given.plan.jobs if given.plan is not None else ():
            asked = job.runs_on
            for label in asked if isinstance(asked, (list, tuple)) else (asked,):
                if isinstance(label, str) and "${{" not in label:
                    yield label


def waves(cases: list[Given]) -> Iterator[list[Given]]:
    """Yield cases that can run at the same time, each with the name of its repository.

    An installation has a repository's name once. A case that says it anywhere has it for itself,
    one such case after the other; any other case gets the name with its own id behind it.
    """
    by_name: dict[str, list[Given]] = {}
    for given in cases:
        name = given.case["context"]["repository"]
        given.name = name if _says_its_name(given) else f"{name}-{_plain(given.id)}"
        by_name.setdefault(given.name, []).append(given)
    for wave in zip_longest(*by_name.values()):
        yield [given for given in wave if given is not None]


def _says_its_name(given: Given) -> bool:
    """Say whether the case's repository or expectation could depend on the repository's name."""
    files = (path for path in (given.folder / "repo").rglob("*") if path.is_file())
    texts = [path.read_bytes().lower() for path in files]
    name = given.case["context"]["repository"].lower().encode()
    expected = {k: v for k, v in given.case.items() if k not in ("context", "source", "verified")}
    texts.append(json.dumps(expected, ensure_ascii=False).lower().encode())
    words = (name, b"repository", b"tojson(github)")
    return any(word in text for text in texts for word in words)


def _plain(text: str) -> str:
    """Return an id as a part of a repository's name that no other id becomes."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)[:80]
    return kept if kept == text else f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


# --------------------------------------------------------------------------- one wave


def _run(stack: Stack, wave: list[Given], folder: Path) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda given: _guarded(stack, given, _send, folder), wave))
    _wait(stack.client, [given for given in wave if given.detail is None])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda given: _guarded(stack, given, _read_back, folder), wave))


def _guarded(stack: Stack, given: Given, step: Any, folder: Path) -> None:
    """Do a step for a case unless it failed; what goes wrong is the case's failure."""
    if given.detail is not None:
        return
    client = stack.new_client()
    try:
        step(stack, client, given, folder)
    except Exception as error:  # noqa: BLE001 - one broken case must not hide the others
        given.detail = f"{type(error).__name__}: {error}"
    finally:
        client.close()


def _send(stack: Stack, client: Client, given: Given, folder: Path) -> None:
    """Make the repository, register it, and let its event happen."""
    case = given.case
    ref = str(case["context"].get("ref") or "")
    branch = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else "main"
    given.bare = folder / hashlib.sha256(given.id.encode()).hexdigest()[:16] / "repository.git"
    given.sha = commit_tree(given.folder / "repo", given.bare, branch, tag=_tag(ref))
    secrets = {name.upper(): value for name, value in (case.get("secrets") or {}).items()}
    registered = _register(client, given, branch, secrets.pop(_TOKEN, None))
    for name, value in secrets.items():
        client.put(f"/repositories/{part(given.name)}/secrets/{part(name)}", {"value": value})
    snapshot = Snapshot(
        root=given.folder, folder=given.bare, sha=given.sha, before="", message=case["id"],
        branch=branch, default=branch, base=given.sha, remote=f"https://forge/{given.name}",
    )  # fmt: skip
    given.delivery_id = _deliver(stack, client, given, snapshot, registered)


def _tag(ref: str) -> str:
    return ref.removeprefix("refs/tags/") if ref.startswith("refs/tags/") else ""


def _register(client: Client, given: Given, branch: str, token: str | None) -> dict[str, Any]:
    if given.name == given.case["context"]["repository"]:
        known = client.pages("/repositories", {}, items_max=10_000)
        if any(each["name"] == given.name for each in known):  # of the case before
            client.delete(f"/repositories/{part(given.name)}")
    wanted = {
        "name": given.name, "provider": "github", "clone_url": str(given.bare),
        "default_branch": branch, "fork_pull_requests": "always",
    }  # fmt: skip
    answer: dict[str, Any] = client.post(
        "/repositories", {**wanted, "token": token} if token else wanted
    )
    return answer


def _deliver(
    stack: Stack, client: Client, given: Given, snapshot: Snapshot, registered: dict[str, Any]
) -> str:
    """Return the id of the delivery: of a command, a webhook, or a decision of the scheduler."""
    case = given.case
    event = case["event"]
    triggers = given.plan.on if given.plan is not None else None
    payload = merged_payload(case)
    payload["repository"] = {**payload["repository"], "full_name": given.name}
    wanted = Wanted(event=event, payload=payload, workflow=case["workflow"], inputs={})
    at = f"/repositories/{part(given.name)}"
    if event in _FROM_WITHIN:
        delivery = delivery_of(wanted, snapshot, triggers, now_ms=SystemClock().now_ms())
        with_wire = Wire(stack.record()["kafka_bootstrap"])
        try:
            with_wire.append([delivery])
        finally:
            with_wire.close()
        return str(delivery.delivery_id)
    body = payload_of(event, wanted, snapshot, triggers)
    if event == "workflow_dispatch":
        command = {"workflow": case["workflow"], "ref": body["ref"], "inputs": body["inputs"]}
        return str(client.post(f"{at}/dispatches", command)["delivery_id"])
    if event == "repository_dispatch":
        said = {"event_type": body.get("action") or case["id"],
                "client_payload": body.get("client_payload") or {}}  # fmt: skip
        return str(client.post(f"{at}/repository_dispatches", said)["delivery_id"])
    return send_webhook(registered, event, json.dumps(body).encode(), given.name)


def send_webhook(registered: dict[str, Any], event: str, body: bytes, delivery: str) -> str:
    """Post a body as GitHub does; return the id of the delivery that it became."""
    url = urlsplit(registered["webhook_url"])
    signature = hmac.new(registered["secret"].encode(), body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": f"{delivery}-{hashlib.sha256(body).hexdigest()[:12]}",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    try:
        connection.request("POST", url.path, body, headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != http.client.ACCEPTED:
        raise RuntimeError(f"the webhook was answered {response.status}: {text[:300]!r}")
    return str(json.loads(text)["delivery_id"])


def commit_tree(tree: Path, bare: Path, branch: str, *, tag: str = "") -> str:
    """Make a bare repository whose branch is one commit of the files in `tree`."""
    bare.parent.mkdir(parents=True)

    def git(*arguments: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        who = {f"GIT_{each}_{what}": value for each in ("AUTHOR", "COMMITTER")
               for what, value in (("NAME", "Case"), ("EMAIL", "case@localhost"))}  # fmt: skip
        done = subprocess.run(
            ["git", "--git-dir", str(bare), "--work-tree", str(tree), "-c", "core.autocrlf=false",
             "-c", "core.excludesFile=/dev/null", "-c", "commit.gpgSign=false", *arguments],
            cwd=tree, env={**kept, **who}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"git {arguments[0]}: {done.stderr.strip()}")
        return done.stdout.strip()

    subprocess.run(
        ["git", "init", "-q", "--bare", "-b", branch, str(bare)], check=True, capture_output=True
    )
    git("add", "--all", ".")
    git("commit", "-q", "--allow-empty", "-m", "The case's tree")
    if tag:
        git("tag", tag)
    return git("rev-parse", "HEAD")


# --------------------------------------------------------------------------- waiting, reading


def _wait(client: Client, cases: list[Given]) -> None:
    """Wait until every run has ended; one that is still open after a long silence has failed."""
    open_cases = {given.delivery_id: given for given in cases}
    heard, seen = time.monotonic(), ""
    while open_cases:
        deliveries = {each["delivery_id"]: each
                      for each in client.pages("/deliveries", {}, items_max=10_000)}  # fmt: skip
        runs = {each["run_id"]: each for each in client.pages("/runs", {}, items_max=10_000)}
        for delivery_id, given in list(open_cases.items()):
            if _over(client, given, deliveries.get(delivery_id), runs):
                del open_cases[delivery_id]
        now = json.dumps([sorted(open_cases), sorted(runs)])
        if now != seen:
            heard, seen = time.monotonic(), now
        elif time.monotonic() - heard > SILENCE_S:
            for given in open_cases.values():
                given.detail = f"nothing ended for {SILENCE_S} s: {_where(client, given.run_id)}"
            return
        time.sleep(_POLL_S)


def _where(client: Client, run_id: str) -> str:
    """Return what an open run's jobs wait for."""
    if not run_id:
        return "the delivery has no answer"
    jobs = [job for job in client.get(f"/runs/{run_id}")["jobs"] if job["status"] != "completed"]
    said = [f"{job['key']} is {job['status']} {json.dumps(job['blocked'])}" for job in jobs]
    return f"run {run_id}: " + ("; ".join(said) or "all jobs have ended")


def _over(
    client: Client, given: Given, delivery: dict[str, Any] | None, runs: dict[str, Any]
) -> bool:
    """Say whether the case's run has ended, or there will be none."""
    if delivery is None or delivery["status"] == "received":
        return False
    own = [
        run for run in (runs.get(each) for each in delivery["run_ids"])
        if run is not None and run["workflow"] == given.case["workflow"]
    ]  # fmt: skip
    if own:
        given.run_id = own[0]["run_id"]
        return bool(own[0]["status"] == "completed")
    # a plan is there a moment before its run is
    outcomes = client.get(f"/deliveries/{part(given.delivery_id)}")["outcomes"]
    why = [each for each in outcomes if each["path"] in ("", given.case["workflow"])]
    if any(each["outcome"] in ("planned", "rejected") for each in why):
        return False
    reasons = [each.get("reason") for each in why] or [delivery["detail"] or delivery["status"]]
    given.detail = f"no run: {'; '.join(map(str, reasons))}"
    return True


def _read_back(_: Stack, client: Client, given: Given, __: Path) -> None:
    plans = {job.id: job for job in given.plan.jobs} if given.plan is not None else {}
    given.run = run_of(client, given.run_id, plans)


def as_kept(ran: Ran) -> Ran:
    """Return it without what its case expects of the outputs of steps, which no read model has."""
    expected = ran.case.get("steps_context")
    if not expected:
        return ran
    case = {**ran.case, "steps_context": _without_outputs(expected)}
    return Ran(case, ran.run, ran.detail)


def _without_outputs(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if not value.keys().isdisjoint(STEP_FIELDS) or "outputs" in value:
        return {name: value[name] for name in STEP_FIELDS if name in value}
    return {key: _without_outputs(item) for key, item in value.items()}
