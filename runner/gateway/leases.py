"""Which attempts live, and with what key their runners sign: a fold of `events`.

It remembers live attempts, the refs of unfinished runs and which of them get no secrets, and the
last boot of each runner.
Pure. The gateway asks it before it releases anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import field

from schemas import events as e
from schemas.late import dataclass

#: The kinds that this fold reads; a reader skips everything else undecoded.
KINDS = frozenset({"JobAssigned", "JobFinished", "JobCancelled", "JobFailed", "AttemptLost",
                   "AssignmentDeclined", "JobScheduled", "RunPlanned", "RunFinished",
                   "RunnerJoined", "RunnerLost", "RunnerDismissed",
                   "RepositoryRemoved"})  # fmt: skip
#: How many boots that are over are remembered, so that nobody announces one again with a new key.
ENDED_BOOTS_MAX = 10_000
_FORMAT = 4


@dataclass(frozen=True, slots=True)
class Token:
    """Who asks: the fencing token of an attempt."""

    job_id: str
    attempt: int
    runner_id: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A live attempt; `cause` is the event_id of its JobAssigned.

    `fork` says that a fork is behind its run: no secrets, no cache that others read. `ref` is the
    run's: the only one whose caches it writes.
    """

    token: Token
    repository: str
    run_id: str
    delivery_id: str | None
    cause: str
    fork: bool
    environment: str = ""
    ref: str = ""


@dataclass(slots=True)
class _Live:
    attempt: int
    runner_id: str
    boot_id: str
    repository: str
    delivery_id: str | None
    cause: str
    environment: str = ""


@dataclass(slots=True)
class Leases:
    """The fold; `next_offsets` is by partition."""

    next_offsets: dict[int, int] = field(default_factory=dict)
    _live: dict[str, _Live] = field(default_factory=dict)
    #: (ref, whether a fork is behind it) by run_id, of unfinished runs.
    _runs: dict[str, tuple[str, bool]] = field(default_factory=dict)
    #: (boot_id, public key) by runner_id; the key is "" when the boot is over.
    _boots: dict[str, tuple[str, str]] = field(default_factory=dict)
    _ended: dict[str, None] = field(default_factory=dict)

    def evolve(self, event: e.Event) -> None:
        """Take the next event of a partition."""
        job_id = event.job_id or ""
        match event:
            case e.JobAssigned():
                self._live[job_id] = _Live(
                    event.attempt or 0, event.runner_id or "", event.boot_id or "",
                    event.repository, event.delivery_id, event.event_id,
                    event.environment,
                )  # fmt: skip
            case e.JobFinished() | e.AssignmentDeclined():
                live = self._live.get(job_id)
                mine = (event.attempt, event.runner_id, event.boot_id)
                if live is not None and (live.attempt, live.runner_id, live.boot_id) == mine:
                    del self._live[job_id]
            case e.AttemptLost() | e.JobCancelled() | e.JobFailed() | e.JobScheduled():
                self._live.pop(job_id, None)
            case e.RunnerJoined() | e.RunnerLost() | e.RunnerDismissed():
                self._boot(event)
            case e.RepositoryRemoved():
                self._end(lambda live: live.repository == event.repository)
            case e.RunPlanned():
                is_forks = event.fork or bool(event.secrets_withheld)
                self._runs[event.run_id or ""] = (event.ref, is_forks)
            case e.RunFinished():
                self._runs.pop(event.run_id or "", None)
            case _:
                pass

    def _end(self, ended: Callable[[_Live], bool]) -> None:
        for job_id in [job_id for job_id, live in self._live.items() if ended(live)]:
            del self._live[job_id]

    def _boot(self, event: e.RunnerJoined | e.RunnerLost | e.RunnerDismissed) -> None:
        if isinstance(event, e.RunnerJoined):
            self._joined(event)
            return
        self._gone(event.runner_id or "", event.boot_id or "")
        if isinstance(event, e.RunnerDismissed):
            self._end(lambda live: live.boot_id == event.boot_id)

    def _joined(self, event: e.RunnerJoined) -> None:
        """Take a boot's key: the first that was announced for it, and only while it is the last."""
        runner_id, boot_id = event.runner_id or "", event.boot_id or ""
        known = self._boots.get(runner_id)
        if known is None or boot_id > known[0]:
            self._boots[runner_id] = (boot_id, event.public_key)
            self._ended.pop(runner_id, None)

    def _gone(self, runner_id: str, boot_id: str) -> None:
        known = self._boots.get(runner_id)
        if known is None or known[0] != boot_id:
            return
        self._boots[runner_id] = (boot_id, "")
        self._ended[runner_id] = None
        if len(self._ended) > ENDED_BOOTS_MAX:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._boots[oldest]

    def key(self, runner_id: str, boot_id: str) -> str:
        """Return the public key of a boot that is not over; "" when it has none or is unknown."""
        known = self._boots.get(runner_id)
        return known[1] if known is not None and known[0] == boot_id else ""

    def lease(self, token: Token) -> Lease | None:
        """Return the lease that the token holds; None when its attempt is not the live one."""
        live = self._live.get(token.job_id)
        if live is None:
            return None
        if (live.attempt, live.runner_id, live.boot_id) != (
            token.attempt,
            token.runner_id,
            token.boot_id,
        ):
            return None
        run_id = token.job_id.partition(".")[0]
        ref, is_forks = self._runs.get(run_id, ("", False))
        return Lease(
            token,
            live.repository,
            run_id,
            live.delivery_id,
            live.cause,
            is_forks,
            live.environment,
            ref,
        )

    def __len__(self) -> int:
        """How many attempts live."""
        return len(self._live)

    # ----------------------------------------------------------------- kept across starts

    def to_json(self) -> str:
        """Return the whole state."""
        return json.dumps(
            {
                "format": _FORMAT,
                "next_offsets": self.next_offsets,
                "live": {
                    job: [
                        v.attempt,
                        v.runner_id,
                        v.boot_id,
                        v.repository,
                        v.delivery_id,
                        v.cause,
                        v.environment,
                    ]
                    for job, v in self._live.items()
                },
                "runs": self._runs,
                "boots": {runner: list(boot) for runner, boot in self._boots.items()},
                "ended": list(self._ended),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Leases | None:
        """Return the state back; None when it is of another format or damaged."""
        try:
            found = json.loads(text)
            if found["format"] != _FORMAT:
                return None
            return cls(
                {int(part): int(offset) for part, offset in found["next_offsets"].items()},
                {job: _Live(*values) for job, values in found["live"].items()},
                {run: (str(ref), bool(fork)) for run, (ref, fork) in found["runs"].items()},
                {runner: (str(boot), str(key)) for runner, (boot, key) in found["boots"].items()},
                dict.fromkeys(found["ended"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
