"""The parts of an installation on one log in memory: the only wiring of a local run.

Planner, scheduler and runner are the services' own; what stands between them elsewhere (Kafka,
the fleet's process, the gateway's HTTP) is a thread or a call here. Everything of the run lies in
one temporary folder and ends with it.
"""

from __future__ import annotations

import os
import pwd
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import VERSION
from infra.clock import SystemClock
from infra.log import Append, MemoryLog
from infra.metrics import Unmetered
from infra.settings import Settings
from ingest.mirrors import Mirrors, Origin
from ingest.planner.plan import Planner
from runner.depot import Depot
from runner.environment import RunnerFacts, inherited
from runner.executors.containers.engine import Engine, detect
from runner.executors.host import ISOLATION_PROCESS
from runner.gateway.leases import Lease, Token
from runner.gateway.release import release
from runner.gateway_client import CLONE, Clone, GatewayError, Released
from runner.identity import Identity, architecture
from runner.service import Runner, RunnerConfig
from scheduler import liveness
from scheduler.shell import CellShell
from schemas import topics
from schemas.codec import EVENTS, HEARTBEATS, event_headers, event_id
from schemas.events import (
    CancelRequested,
    DeliveryPlanned,
    DeliveryReceived,
    Event,
    Outcome,
    Provider,
    RepositoryConfigured,
    WorkflowOutcome,
)
from schemas.lanes import Assignment
from schemas.late import dataclass
from schemas.workflow.expressions.values import Value
from schemas.workflow.plan import JobPlan, WorkflowPlan
from schemas.workflow.plan_json import plan_from_json, plan_to_json

if TYPE_CHECKING:
    from runner.gateway.shelf import Shelf
    from runner.patience import Patience

SOURCE = "tailrace/local"
LABEL = "tailrace-local"
POOL = "default"
NAME = "local"
_READ_MS = 250
_RECORDS_MAX = 1_000
_STOP_S = 10.0
_SLOTS_MIN = 2
_SLOTS_MAX = 16

StepsContext = dict[str, Any]


@dataclass(slots=True)
class Vault:
    """Secrets and the one repository, as the gateway reads them; values stay in memory."""

    repository: str = ""
    clone_url: str = ""
    values: dict[str, str] = field(default_factory=dict, repr=False)

    def secrets(
        self,
        repository: str,  # noqa: ARG002
        names: Iterable[str],
        environment: str = "",  # noqa: ARG002 - what is given by hand is for all jobs
    ) -> dict[str, str]:
        """Return those of the names that are set, by upper-case name."""
        return {name: self.values[name] for name in names if name in self.values}

    def secret_names(self, repository: str, environment: str = "") -> list[str]:  # noqa: ARG002
        """Return what is set."""
        return sorted(self.values)

    def forge_token(self, repository: str) -> str:  # noqa: ARG002
        """Return the token that was given as GITHUB_TOKEN, "" for none."""
        return self.values.get("GITHUB_TOKEN", "")

    def registration(self, repository: str) -> _Registered | None:
        """Return the tree's own repository."""
        return _Registered(self.clone_url) if repository == self.repository else None


@dataclass(frozen=True, slots=True)
class _Registered:
    clone_url: str
    provider: str = Provider.GIT


class LocalGateway:
    """What the gateway answers, without a request: the attempts of this process are live."""

    def __init__(self, vault: Vault, identity: Identity, objects: Path) -> None:
        """Answer the attempts of one boot; artifacts and caches lie in `objects`."""
        self._vault = vault
        self._identity = identity
        self._objects = objects
        self._shelf: Shelf | None = None
        self._making = threading.Lock()

    @property
    def public_key(self) -> str:
        """Nothing has to be proved within one process."""
        return ""

    def secrets(self, assignment: Assignment, names: Iterable[str]) -> Released:
        """Return the secrets of `names`; "*" stands for all."""
        answer = release(self._vault, self._lease(assignment), tuple(names))
        return Released({k: str(v) for k, v in answer.secrets.items()}, answer.refused)

    def clone(self, assignment: Assignment, repository: str = "") -> Clone:
        """Return where the tree's copy lies; other repositories are not registered here."""
        name = f"{CLONE}{repository}" if repository else CLONE
        answer = release(self._vault, self._lease(assignment), (name,))
        found = answer.secrets.get(name)
        if not isinstance(found, dict):
            why = answer.refused.get(name, "it is not registered")
            raise GatewayError(f"no access to {repository or assignment.repository}: {why}")
        # the copy needs no credential: a token is for the forge that it does not come from
        return Clone(str(found["url"]))

    def payload(self, assignment: Assignment, sha256: str) -> bytes:  # noqa: ARG002
        """Raise GatewayError: a local payload is never too big for its event."""
        raise GatewayError(f"there is no payload {sha256}")

    def depot(self, assignment: Assignment, patience: Patience) -> Depot:  # noqa: ARG002
        """Return the attempt's way to artifacts and caches, which end with the local run."""
        from runner.gateway.shelf import Owner, ShelfDepot

        lease = self._lease(assignment)
        owner = Owner(
            repository=lease.repository,
            run_id=lease.run_id,
            job_id=lease.token.job_id,
            attempt=lease.token.attempt,
            fork=lease.fork,
        )
        return ShelfDepot(self._one_shelf(), owner)

    def _one_shelf(self) -> Shelf:
        """Return the shelf of all attempts, made when the first asks: most runs keep nothing."""
        from infra.objects import open_store
        from runner.gateway.shelf import Shelf

        with self._making:
            if self._shelf is None:
                self._shelf = Shelf(open_store(self._objects.as_uri()), SystemClock())
            return self._shelf

    def _lease(self, assignment: Assignment) -> Lease:
        token = Token(
            assignment.job_id or "", assignment.attempt or 0,
            self._identity.runner_id, self._identity.boot_id,
        )  # fmt: skip
        return Lease(
            token, assignment.repository, assignment.run_id, assignment.delivery_id,
            assignment.order_id, not assignment.secrets_allowed,
        )  # fmt: skip


class LocalSystem:
    """Everything between a delivery and the end of its runs; use it in a `with`."""

    def __init__(
        self,
        home: Path,
        vault: Vault,
        on_steps: Callable[[str, StepsContext], None],
        *,
        containers: bool = False,
    ):
        """Keep all files below `home`; `on_steps` is told a job's id and its steps context.

        A container engine is looked for where `containers` are mentioned: it takes its time.
        """
        self.clock = SystemClock()
        self.log = MemoryLog(now_ms=self.clock.now_ms, waits=True)
        self.failed: Exception | None = None
        self._home = home
        self._vault = vault
        self._stopping = threading.Event()
        self._cell = CellShell(
            log=self.log, clock=self.clock, number=0, version=VERSION, host=socket.gethostname()
        )

        def told(assignment: Assignment, steps: Any) -> None:
            on_steps(assignment.job_id or "", steps)

        self._runner = Runner(
            _runner_config(home / "runner", vault, told, containers=containers),
            make_reader=self.log.reader,
            make_writer=self.log.writer,
            clock=self.clock,
            meters=Unmetered(),
        )
        parts = {"cell": self._serve_cell, "fleet": self._welcome, "runner": self._runner.run}
        self._threads = [
            threading.Thread(target=self._guarded, args=(part,), name=name, daemon=True)
            for name, part in parts.items()
        ]

    def __enter__(self) -> LocalSystem:
        """Start every part; the runner is ready while the planner still reads."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End every part, and whatever jobs still run."""
        self._stopping.set()
        self._runner.stop()
        self.log.stop_waiting()
        for thread in reversed(self._threads):
            thread.join(_STOP_S)

    def append(self, event: Event) -> None:
        """Append an event as ingest would."""
        headers = event_headers(event, source=SOURCE, occurred_at=event.occurred_at)
        key = event.repository or event.runner_id or ""
        self.log.put(Append(topics.EVENTS, 0, key.encode(), EVENTS.encode(event), headers))

    def configure(self, delivery: DeliveryReceived, variables: dict[str, str]) -> None:
        """Register the tree as the delivery's repository."""
        configured = self._configured(delivery, variables)
        self._vault.repository = delivery.repository
        self._vault.clone_url = configured.clone_url
        self.append(configured)

    def plan(self, delivery: DeliveryReceived, clone_url: str) -> DeliveryPlanned:
        """Return the planner's answer to a delivery. GitError, UnreachableError."""
        self._vault.clone_url = clone_url
        configured = self._configured(delivery, {})
        mirrors = Mirrors(self._home / "planner", Unmetered(), self.clock)
        origin = Origin(
            repository=delivery.repository,
            clone_url=clone_url,
            default_branch=configured.default_branch,
        )
        with closing(mirrors), mirrors.use(origin) as mirror:
            return Planner().plan(delivery, configured, mirror, now_ms=self.clock.now_ms())

    def _configured(
        self, delivery: DeliveryReceived, variables: dict[str, str]
    ) -> RepositoryConfigured:
        return RepositoryConfigured(
            event_id=event_id("RepositoryConfigured", delivery.repository),
            occurred_at=delivery.occurred_at,
            repository=delivery.repository,
            provider=Provider.GIT,
            clone_url=self._vault.clone_url,
            default_branch=delivery.default_branch,
            fork_pull_requests="always",
            variables=variables,
        )

    def cancel(self, repository: str, run_id: str) -> None:
        """Ask that a run end."""
        now_ms = self.clock.now_ms()
        self.append(
            CancelRequested(
                event_id=event_id("CancelRequested", run_id, now_ms),
                occurred_at=now_ms,
                repository=repository,
                run_id=run_id,
                actor=NAME,
                reason="interrupted at the keyboard",
            )
        )

    # ----------------------------------------------------------------- the parts

    def _guarded(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:  # noqa: BLE001 - whoever waits for the run is told
            self.failed = error
            with self.log.changed:
                self.log.changed.notify_all()

    def _serve_cell(self) -> None:
        self._cell.run(self._stopping)

    def _welcome(self) -> None:
        """Turn heartbeats into facts, as the fleet does; nobody falls silent here."""
        reader = self.log.reader()
        reader.assign({(topics.HEARTBEATS, n): 0 for n in range(topics.HEARTBEAT_PARTITIONS)})
        state = liveness.Liveness()
        while not self._stopping.is_set():
            for record in reader.read(timeout_ms=_READ_MS, records_max=_RECORDS_MAX):
                if record.value is None:
                    continue
                heartbeat = HEARTBEATS.decode(record.value)
                for fact in liveness.decide(state, heartbeat):
                    self.append(fact.event)
                liveness.evolve(state, heartbeat)


def _runner_config(
    folder: Path, vault: Vault, on_steps: Callable[[Assignment, Any], None], *, containers: bool
) -> RunnerConfig:
    settings = Settings.load()

    def engine() -> Engine | None:
        if not containers:
            return None
        any_options = settings.container_options == "any"
        return detect(settings.container_engine, os.environ, any_options=any_options)

    in_environment = sys.prefix != sys.base_prefix
    own_programs = str(Path(sys.prefix) / "bin") if in_environment else None
    return RunnerConfig(
        name=f"{NAME}-{os.getpid()}",
        instance=NAME,
        folder=folder,
        mirrors=folder / "mirrors",
        actions_url=settings.actions_url,
        tool_cache=folder / "tools",
        pool=POOL,
        labels=(LABEL,),
        slots=min(max(os.cpu_count() or 1, _SLOTS_MIN), _SLOTS_MAX),
        # as root, the name of root's own account means that no other user is taken
        job_user=pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else "",
        gateway=lambda identity: LocalGateway(vault, identity, folder / "objects"),
        environment=inherited(os.environ, own_programs=own_programs),
        facts=RunnerFacts(name=NAME, arch=architecture()),
        hostname=socket.gethostname(),
        version=VERSION,
        isolation=ISOLATION_PROCESS,
        on_steps=on_steps,
        engine=engine,
    )


# --------------------------------------------------------------------------- plans


class NoSuchJobError(ValueError):
    """No workflow that would run has such a job; the message names those that there are."""


def for_here(planned: DeliveryPlanned, workflow: str, job: str) -> DeliveryPlanned:
    """Return the answer as this machine takes it: one workflow, one job and what it needs.

    Labels are not looked at: every job runs here, whatever machine it asks for.
    """
    outcomes = [o for o in planned.workflows if not workflow or o.path in (workflow, "")]
    known: list[str] = []
    taken: list[WorkflowOutcome] = []
    for outcome in outcomes:
        if outcome.outcome != Outcome.PLANNED or outcome.plan_json is None:
            taken.append(outcome)
            continue
        plan = plan_from_json(outcome.plan_json)
        ids = [each.id for each in plan.jobs]
        known += ids
        if job:
            if job not in ids:
                continue
            plan = only(plan, job)
        jobs = tuple(_here(each) for each in plan.jobs)
        taken.append(replace(outcome, plan_json=plan_to_json(replace(plan, jobs=jobs))))
    if job and known and job not in known:
        raise NoSuchJobError(f"there is no job {job!r}; there are: {', '.join(known)}")
    return replace(planned, workflows=tuple(taken))


def only(plan: WorkflowPlan, job: str) -> WorkflowPlan:
    """Return the plan with a job, what it needs, what calls it and what it calls, alone."""
    by_id = {each.id: each for each in plan.jobs}
    kept: set[str] = set()
    waiting = [job]
    while waiting:
        current = waiting.pop()
        if current in kept:
            continue
        kept.add(current)
        waiting += by_id[current].needs
        waiting += [parent for parent in (by_id[current].parent,) if parent is not None]
    inside = tuple(f"{each}." for each in kept if each == job or not _is_above(each, job))
    return replace(
        plan, jobs=tuple(j for j in plan.jobs if j.id in kept or j.id.startswith(inside))
    )


def _is_above(caller: str, job: str) -> bool:
    return job.startswith(f"{caller}.")


def _here(job: JobPlan) -> JobPlan:
    return job if job.uses is not None else replace(job, runs_on=LABEL, pool=None)


__all__ = ["LABEL", "LocalSystem", "NoSuchJobError", "StepsContext", "Value", "Vault", "for_here",
           "only"]  # fmt: skip
