"""Which attempts live: a fold of `events` that remembers live attempts and unfinished runs only.

Pure. The gateway asks it before it releases anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from schemas import events as e

#: The kinds that this fold reads; a reader skips everything else undecoded.
KINDS = frozenset({"JobAssigned", "JobFinished", "JobCancelled", "JobFailed", "AttemptLost",
                   "AssignmentDeclined", "JobScheduled", "RunPlanned", "RunRejected",
                   "RunFinished", "RunnerDismissed", "RepositoryRemoved"})  # fmt: skip
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Token:
    """Who asks: the fencing token of an attempt."""

    job_id: str
    attempt: int
    runner_id: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A live attempt; `cause` is the event_id of its JobAssigned."""

    token: Token
    repository: str
    run_id: str
    delivery_id: str | None
    cause: str
    fork: bool


@dataclass(slots=True)
class _Live:
    attempt: int
    runner_id: str
    boot_id: str
    repository: str
    delivery_id: str | None
    cause: str


@dataclass(slots=True)
class Leases:
    """The fold; `next_offsets` is by partition."""

    next_offsets: dict[int, int] = field(default_factory=dict)
    _live: dict[str, _Live] = field(default_factory=dict)
    _forks: set[str] = field(default_factory=set)

    def evolve(self, event: e.Event) -> None:
        """Take the next event of a partition."""
        job_id = event.job_id or ""
        match event:
            case e.JobAssigned():
                self._live[job_id] = _Live(
                    event.attempt or 0, event.runner_id or "", event.boot_id or "",
                    event.repository, event.delivery_id, event.event_id,
                )  # fmt: skip
            case e.JobFinished() | e.AssignmentDeclined():
                live = self._live.get(job_id)
                mine = (event.attempt, event.runner_id, event.boot_id)
                if live is not None and (live.attempt, live.runner_id, live.boot_id) == mine:
                    del self._live[job_id]
            case e.AttemptLost() | e.JobCancelled() | e.JobFailed() | e.JobScheduled():
                self._live.pop(job_id, None)
            case e.RunnerDismissed():
                self._end(lambda live: live.boot_id == event.boot_id)
            case e.RepositoryRemoved():
                self._end(lambda live: live.repository == event.repository)
            case e.RunPlanned(fork=True):
                self._forks.add(event.run_id or "")
            case e.RunFinished():
                self._forks.discard(event.run_id or "")
            case _:
                pass

    def _end(self, ended: Callable[[_Live], bool]) -> None:
        for job_id in [job_id for job_id, live in self._live.items() if ended(live)]:
            del self._live[job_id]

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
        return Lease(
            token, live.repository, run_id, live.delivery_id, live.cause, run_id in self._forks
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
                    job: [v.attempt, v.runner_id, v.boot_id, v.repository, v.delivery_id, v.cause]
                    for job, v in self._live.items()
                },
                "forks": sorted(self._forks),
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
                set(found["forks"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
