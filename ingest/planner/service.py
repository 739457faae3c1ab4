"""The planner's shell: reads `events`, plans in threads, appends the answers.

One repository is planned in the order of its deliveries, different ones side by side; local
repositories never wait for remote ones. An answer counts once the broker has it: whatever was
unanswered when the process ended is read and answered again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from infra.clock import Clock
from infra.git import Credentials, GitError, local_path
from infra.log import Log, LogWriter, Record
from infra.metrics import DEAD_LETTERS, PLAN_SECONDS, PLANS, Meters
from ingest.log import to_append
from ingest.mirrors import Mirrors, Origin, UnreachableError
from ingest.planner import checkpoint
from ingest.planner.ledger import KINDS, Ledger, Work
from ingest.planner.plan import Planner, answer, moves_default_branch
from schemas.codec import EVENTS, CodecError, UnknownKindError, UnknownSchemaError, event_id
from schemas.events import (
    DeliveryPlanned,
    DeliveryReceived,
    Event,
    Provider,
    RepositoryConfigured,
    Source,
    WorkflowsIndexed,
)
from schemas.late import dataclass
from schemas.topics import EVENTS as EVENTS_TOPIC

logger = logging.getLogger(__name__)

SOURCE = "tailrace/planner"
LOCAL_THREADS = 4
REMOTE_THREADS = 16
READ_TIMEOUT_MS = 250
RECORDS_MAX = 2_000
CHECKPOINT_EVERY_MS = 5_000
#: Pauses between tries to reach a repository; the scheduler gives up on the planner after 60 s.
REMOTE_RETRY_MS = (500, 2_000, 5_000)
LOCAL_RETRY_MS = (100, 400)
RETRY_WITHIN_MS = 40_000
APPEND_RETRY_MS = 500

TokenOf = Callable[[str], str]
_USERNAMES = {Provider.GITHUB: "x-access-token", Provider.GITLAB: "oauth2"}
_KIND_PREFIX = b"tailrace."


class _StoppedError(Exception):
    """The planner ends: the delivery stays unanswered, for the next start."""


@dataclass(slots=True)
class _Lane:
    """The work of one repository, in order; at most one thread is in it."""

    waiting: deque[Work] = field(default_factory=deque)
    is_running: bool = False


class PlannerService:
    """Answers deliveries until it is told to stop."""

    def __init__(
        self,
        *,
        log: Log,
        writer: LogWriter,
        mirrors: Mirrors,
        planner: Planner,
        token_of: TokenOf,
        clock: Clock,
        meters: Meters,
        cells: int,
        checkpoint_path: Path | None = None,
        log_id: str = "",
        tell_default_branch: Callable[[str, str], None] = lambda _repository, _branch: None,
    ) -> None:
        """Read and answer `cells` partitions of `events`.

        `tell_default_branch` is told a repository's new default branch, for commands to come.
        """
        self._log = log
        self._reader = log.reader()
        self._writer = writer
        self._mirrors = mirrors
        self._planner = planner
        self._token_of = token_of
        self._tell_default_branch = tell_default_branch
        self._clock = clock
        self._meters = meters
        self._cells = cells
        self._checkpoint_path = checkpoint_path
        self._log_id = log_id
        # of one thread: a log may acknowledge within the call that appends
        self._lock = threading.RLock()
        self._ledger = Ledger()
        self._lanes: dict[str, _Lane] = {}
        self._indexed: dict[str, str] = {}
        #: Repositories whose last index failed: the next delivery tries again.
        self._behind: set[str] = set()
        self._local = ThreadPoolExecutor(LOCAL_THREADS, "plan-local")
        self._remote = ThreadPoolExecutor(REMOTE_THREADS, "plan-remote")
        self._stopping = threading.Event()
        self._is_live = False
        self._ends: dict[int, int] = {}
        self._saved_ms = 0

    # ----------------------------------------------------------------- the loop

    def run(self) -> None:
        """Catch up with the log, answer what is unanswered, then answer as deliveries come."""
        self._catch_up()
        with self._lock:
            todo = self._ledger.in_order()
        for work in todo:
            self._enqueue(work)
        self._is_live = True
        logger.info("planner is live; %d records waited for an answer", len(todo))
        while not self._stopping.is_set():
            for record in self._reader.read(timeout_ms=READ_TIMEOUT_MS, records_max=RECORDS_MAX):
                taken = self._take(record)
                if taken is not None:
                    self._enqueue(taken)
            self._save_now_and_then()

    def stop(self) -> None:
        """Make `run` return soon; safe in a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """Wait for answers that are being made, save the position, end git processes."""
        self._stopping.set()
        self._local.shutdown(wait=True, cancel_futures=True)
        # a fetch may take its time; what it is for is planned after the next start
        self._mirrors.interrupt()
        self._remote.shutdown(wait=True, cancel_futures=True)
        self._save()
        self._mirrors.close()

    def readiness(self) -> Mapping[str, Any]:
        """Return what /readyz shows."""
        with self._lock:
            waiting = len(self._ledger.waiting)
            repositories = len(self._ledger.repositories)
        return {
            "status": "ok" if self._is_live else "starting",
            "lag": waiting,
            "repositories": repositories,
        }

    def _catch_up(self) -> None:
        """Fold the log up to its end of now, from the checkpoint if it is of this log."""
        if self._checkpoint_path is not None:
            self._ledger = checkpoint.load(self._checkpoint_path, self._log_id)
        for cell in range(self._cells):
            first, end = self._reader.bounds(EVENTS_TOPIC, cell)
            known = self._ledger.next_offsets.get(cell, first)
            if not first <= known <= end:
                # records were taken away behind our back: what was saved says nothing
                self._ledger = Ledger()
        for cell in range(self._cells):
            start = self._ledger.next_offsets.get(cell)
            for record in self._log.read_to_end(EVENTS_TOPIC, cell, start):
                self._take(record)
        first_offsets = {c: self._reader.bounds(EVENTS_TOPIC, c)[0] for c in range(self._cells)}
        self._ledger.next_offsets = {**first_offsets, **self._ledger.next_offsets}
        self._reader.assign(
            {(EVENTS_TOPIC, cell): at for cell, at in self._ledger.next_offsets.items()}
        )

    def _take(self, record: Record) -> Work | None:
        event = self._decoded(record)
        with self._lock:
            return self._ledger.fold(event, record.partition, record.offset)

    def _decoded(self, record: Record) -> Event | None:
        kind = record.header("ce_type")
        if kind is not None and kind.removeprefix(_KIND_PREFIX).decode() not in KINDS:
            return None
        if record.value is None:
            return None
        try:
            return EVENTS.decode(record.value)
        except UnknownKindError:
            return None
        except UnknownSchemaError:
            raise
        except CodecError:
            logger.exception("record %d is damaged and passed over", record.offset)
            self._meters.count(DEAD_LETTERS, EVENTS_TOPIC)
            return None

    # ----------------------------------------------------------------- lanes

    def _enqueue(self, work: Work) -> None:
        with self._lock:
            lane = self._lanes.setdefault(work.repository, _Lane())
            lane.waiting.append(work)
            if lane.is_running:
                return
            lane.is_running = True
        pool = self._local if self._is_local(work.repository) else self._remote
        pool.submit(self._drain, work.repository, lane)

    def _is_local(self, repository: str) -> bool:
        configured = self._ledger.repositories.get(repository)
        return configured is None or local_path(configured.clone_url) is not None

    def _drain(self, repository: str, lane: _Lane) -> None:
        while True:
            with self._lock:
                if not lane.waiting or self._stopping.is_set():
                    lane.is_running = False
                    if not lane.waiting:
                        self._lanes.pop(repository, None)
                    return
                work = lane.waiting.popleft()
                is_waiting = self._ledger.is_waiting(work.event_id)
                configured = self._ledger.repositories.get(repository)
            if is_waiting:
                self._answer(work, configured)

    def _answer(self, work: Work, configured: RepositoryConfigured | None) -> None:
        if isinstance(work, RepositoryConfigured):
            self._index(work, configured)
            return
        started_ms = self._clock.steady_ms()
        renamed = self._renamed(work, configured) if configured is not None else None
        try:
            planned = self._planned(work, renamed or configured)
        except _StoppedError:
            return
        # before the answer: whoever ends between the two does both again
        if renamed is not None:
            self._rename(renamed, of=configured)
        elif configured is not None and not planned.error:
            self._follow(work, configured)
        self._append(planned, answers=work.event_id)
        self._meters.observe(PLAN_SECONDS, (self._clock.steady_ms() - started_ms) / 1000)
        for outcome in planned.workflows:
            self._meters.count(PLANS, outcome.outcome)
        if planned.error:
            self._meters.count(PLANS, "error")
            self._behind.add(work.repository)

    def _follow(self, work: DeliveryReceived, configured: RepositoryConfigured) -> None:
        """Index the default branch when it has a new head, or when it could not be read before."""
        if moves_default_branch(work, configured):
            self._append_index(configured, cause=work.event_id, sha=work.sha)
        elif work.repository in self._behind:
            self._append_index(configured, cause=work.event_id)

    def _renamed(
        self, work: DeliveryReceived, configured: RepositoryConfigured
    ) -> RepositoryConfigured | None:
        """Return the configuration with the default branch's new name, when it has got one.

        Followed is the forge where it said our name before, or where our branch is gone: another
        name may have been chosen at registration. A webhook may be old: the repository's own HEAD
        has the last word.
        """
        name = work.default_branch
        if work.source != Source.WEBHOOK or name in ("", configured.default_branch):
            return None
        with self._lock:
            agreed = work.repository in self._ledger.agreed
        try:
            with self._mirrors.use(self._origin(configured)) as mirror:
                if mirror.default_branch() != name or mirror.resolve(f"refs/heads/{name}") is None:
                    return None
                if not agreed and mirror.resolve(f"refs/heads/{configured.default_branch}"):
                    return None
        except (UnreachableError, GitError) as error:
            logger.warning("%s: default branch not looked up: %s", work.repository, error)
            return None
        return replace(
            configured,
            # of what it replaces: deliveries that wait behind this one give the same event
            event_id=event_id("RepositoryConfigured", work.repository, configured.event_id, name),
            # those it began with may have been changed since, and are kept apart
            variables={},
            occurred_at=self._clock.now_ms(),
            caused_by=work.event_id,
            delivery_id=work.delivery_id,
            default_branch=name,
            actor=work.actor,
        )

    def _rename(self, renamed: RepositoryConfigured, *, of: RepositoryConfigured | None) -> None:
        """Append a configuration with another default branch, unless `of` was replaced meanwhile.

        It repeats every other setting of `of`: appended after a newer configuration it would take
        that one back. The next delivery tries again, with what holds then.
        """
        repository, branch = renamed.repository, renamed.default_branch
        if not self._is_current(of, repository):
            logger.info("%s was configured anew: its default branch is left for now", repository)
            return
        # before the event: told twice is as good as once, and after it nobody would ask again
        self._tell_default_branch(repository, branch)
        with self._lock:
            if self._is_current(of, repository):
                logger.info("%s: its default branch is %s now", repository, branch)
                # read back, it is indexed as any other configuration
                self._append(renamed, answers="", retries=False)

    def _is_current(self, configured: RepositoryConfigured | None, repository: str) -> bool:
        with self._lock:
            return self._ledger.repositories.get(repository) is configured

    def _index(self, work: RepositoryConfigured, configured: RepositoryConfigured | None) -> None:
        # only the latest configuration matters; an older one is answered by its index
        appended = configured is work and self._append_index(work, cause=work.event_id)
        if not appended:
            with self._lock:
                self._ledger.answered(work.event_id, by=None)

    # ----------------------------------------------------------------- planning

    def _planned(
        self, delivery: DeliveryReceived, configured: RepositoryConfigured | None
    ) -> DeliveryPlanned:
        now_ms = self._clock.now_ms()
        if configured is None:
            return answer(
                delivery, now_ms=now_ms, ignored="not_registered: the repository was removed"
            )
        try:
            return self._retrying(configured, lambda: self._plan(delivery, configured))
        except UnreachableError as error:
            if self._stopping.is_set():
                raise _StoppedError from error
            logger.warning("delivery %s not planned: %s", delivery.delivery_id, error)
            return answer(delivery, now_ms=now_ms, error=f"infra.git_unreachable: {error}")
        except Exception as error:
            # a fault of ours must not hold up the repository's other deliveries
            logger.exception("planning of delivery %s failed", delivery.delivery_id)
            detail = f"{type(error).__name__}: {error}"
            return answer(delivery, now_ms=now_ms, error=f"infra.planner_failed: {detail}")

    def _plan(
        self, delivery: DeliveryReceived, configured: RepositoryConfigured
    ) -> DeliveryPlanned:
        with self._lock:
            listed = self._ledger.listed.get(configured.repository)
        with self._mirrors.use(self._origin(configured)) as mirror:
            return self._planner.plan(
                delivery,
                configured,
                mirror,
                now_ms=self._clock.now_ms(),
                read_remote=self._read_remote,
                listed=listed,
            )

    def _retrying(
        self, configured: RepositoryConfigured, plan: Callable[[], DeliveryPlanned]
    ) -> DeliveryPlanned:
        """Try again while a repository can't be reached: a webhook may come before its commit."""
        is_local = local_path(configured.clone_url) is not None
        until_ms = self._clock.steady_ms() + RETRY_WITHIN_MS
        for pause_ms in LOCAL_RETRY_MS if is_local else REMOTE_RETRY_MS:
            try:
                return plan()
            except (UnreachableError, GitError) as error:
                if self._stopping.is_set() or self._clock.steady_ms() + pause_ms > until_ms:
                    raise UnreachableError(str(error)) from error
                logger.info("%s: trying again: %s", configured.repository, error)
                self._stopping.wait(pause_ms / 1000)
        try:
            return plan()
        except GitError as error:
            raise UnreachableError(str(error)) from error

    def _append_index(
        self, configured: RepositoryConfigured, *, cause: str, sha: str | None = None
    ) -> bool:
        """Append what the default branch's head has; `sha` is the head as a delivery tells it.

        A head that was indexed already says nothing new, and asking git where the branch is costs
        more than all of planning.
        """
        if sha is not None and self._indexed.get(configured.repository) == sha:
            return False
        try:
            with self._mirrors.use(self._origin(configured)) as mirror:
                index = self._planner.index(
                    configured, mirror, cause=cause, now_ms=self._clock.now_ms(), sha=sha
                )
        except (UnreachableError, GitError) as error:
            logger.warning("workflows of %s not indexed: %s", configured.repository, error)
            self._behind.add(configured.repository)
            return False
        except Exception:
            logger.exception("indexing of %s failed", configured.repository)
            self._behind.add(configured.repository)
            return False
        self._behind.discard(configured.repository)
        if index is not None:
            self._indexed[configured.repository] = index.sha
            self._append(index, answers=cause)
        return index is not None

    def _origin(self, configured: RepositoryConfigured) -> Origin:
        def credentials() -> Credentials | None:
            token = self._token_of(configured.repository)
            if not token:
                return None
            username = _USERNAMES.get(Provider(configured.provider), "tailrace")
            return Credentials(username=username, password=token)

        return Origin(
            repository=configured.repository,
            clone_url=configured.clone_url,
            default_branch=configured.default_branch,
            credentials=credentials,
        )

    def _read_remote(self, repository: str, path: str, ref: str) -> tuple[bytes, str] | None:
        """Read a called workflow of another registered repository, at a ref of now."""
        configured = self._ledger.repositories.get(repository)
        if configured is None:
            return None
        # a mirror of its own: its repository's lane may be using the other one
        with closing(self._mirrors.fresh(self._origin(configured))) as mirror:
            sha = ref if _is_commit(ref) else mirror.resolve(ref)
            if not sha:
                return None
            commit = mirror.commit(sha)
            entry = mirror.file(commit, path)
            if entry is None:
                return None
            return mirror.blobs([entry.oid])[entry.oid], commit.oid

    # ----------------------------------------------------------------- answers

    def _append(
        self,
        event: DeliveryPlanned | WorkflowsIndexed | RepositoryConfigured,
        *,
        answers: str,
        retries: bool = True,
    ) -> None:
        """Append an event; one that `retries` until it is stored must stay right however late."""
        record = to_append(event, self._cells, SOURCE)

        def acked(error: Exception | None) -> None:
            if error is None:
                with self._lock:
                    self._ledger.answered(answers, by=event)
                return
            if not retries:
                logger.warning("%s: %s not stored: %s", event.repository, event.event_id, error)
                return
            logger.warning("answer to %s not stored, trying again: %s", answers, error)
            timer = threading.Timer(APPEND_RETRY_MS / 1000, self._append, (event,))
            timer.kwargs = {"answers": answers}
            timer.daemon = True
            timer.start()

        try:
            self._writer.append(record, acked)
        except BufferError as error:
            acked(error)

    # ----------------------------------------------------------------- position

    def _save_now_and_then(self) -> None:
        now_ms = self._clock.steady_ms()
        if now_ms - self._saved_ms >= CHECKPOINT_EVERY_MS:
            self._saved_ms = now_ms
            self._save()

    def _save(self) -> None:
        if self._checkpoint_path is None or not self._is_live:
            return
        with self._lock:
            try:
                checkpoint.save(self._checkpoint_path, self._ledger, self._log_id)
            except OSError as error:
                logger.warning("%s can't be written: %s", self._checkpoint_path, error)


def _is_commit(ref: str) -> bool:
    return len(ref) in (40, 64) and not ref.strip("0123456789abcdef")
