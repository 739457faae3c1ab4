"""Decides what one request of an attempt gets; every answer is a fact on `events`, names only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Protocol

from infra.clock import Clock
from runner.gateway.leases import Lease
from runner.gateway_client import CLONE
from schemas.codec import event_id
from schemas.events import SecretsReleased
from schemas.late import dataclass
from schemas.workflow.secrets import ALL_SECRETS, TOKEN_SECRET

logger = logging.getLogger(__name__)

SOURCE = "tailrace/gateway"
NAMES_MAX = 256
_NO_SUCH = "no secret of this name is set for the job's environment, repository or installation"
_FORK = "a fork's pull request is behind the run, which therefore gets no secrets"
_TOKENS = frozenset({TOKEN_SECRET, "GITHUB_TOKEN"})


class Registered(Protocol):
    """A registered repository, as the vault keeps it."""

    @property
    def provider(self) -> str:
        """The forge."""
        ...

    @property
    def clone_url(self) -> str:
        """Where it is cloned from."""
        ...


class SecretSource(Protocol):
    """The part of the vault that is read here; calls block."""

    def secrets(self, repository: str, names: Any, environment: str = "") -> dict[str, str]:
        """Return those of the names that are set for a job, by upper-case name."""
        ...

    def secret_names(self, repository: str, environment: str = "") -> list[str]:
        """Return the names of all that are set for a job."""
        ...

    def forge_token(self, repository: str) -> str:
        """Return the forge token, "" for none."""
        ...

    def registration(self, repository: str) -> Registered | None:
        """Return a registered repository."""
        ...


@dataclass(slots=True)
class Answer:
    """What is released, and what is refused and why."""

    secrets: dict[str, Any] = field(default_factory=dict, repr=False)
    refused: dict[str, str] = field(default_factory=dict)


def release(source: SecretSource, lease: Lease, names: tuple[str, ...]) -> Answer:
    """Return the answer for a live attempt; asks the vault, so it blocks."""
    answer = Answer()
    plain: list[str] = []
    for name in dict.fromkeys(names):
        if name.startswith(CLONE):
            _release_clone(source, lease, name, answer)
        elif lease.fork:
            answer.refused[name] = _FORK
        elif name == ALL_SECRETS:
            plain += source.secret_names(lease.repository, lease.environment)
            _release_token(source, lease, TOKEN_SECRET, answer)
        elif name.upper() in _TOKENS:
            _release_token(source, lease, name.upper(), answer)
        else:
            plain.append(name.upper())
    if plain:
        found = source.secrets(lease.repository, plain, lease.environment)
        answer.secrets |= found
        answer.refused |= {name: _NO_SUCH for name in plain if name not in found}
    return answer


def _release_token(source: SecretSource, lease: Lease, name: str, answer: Answer) -> None:
    token = source.forge_token(lease.repository)
    if token:
        answer.secrets[name] = token
    else:
        answer.refused[name] = "no forge token is kept for the repository"


def _release_clone(source: SecretSource, lease: Lease, name: str, answer: Answer) -> None:
    """Release where to clone from: the job's own repository, with the credential to read it.

    Another registered repository only when it has no credential: what is closed on its forge
    stays closed to the jobs of others. A fork's run may read its base, but gets no credential
    that could write: the clone then must be possible without.
    """
    wanted = name.removeprefix(CLONE) or lease.repository
    found = source.registration(wanted)
    own = wanted == lease.repository
    if found is None:
        answer.refused[name] = f"{wanted} is not registered here"
        return
    token = source.forge_token(wanted)
    if not own and (token or found.clone_url.startswith(("/", "file:"))):
        answer.refused[name] = f"{wanted} is not open to jobs of {lease.repository}"
        return
    answer.secrets[name] = {
        "url": found.clone_url,
        "username": _user_of(found.provider) if token else "",
        "password": token,
    }


def _user_of(provider: str) -> str:
    return "oauth2" if provider == "gitlab" else "x-access-token"


def about_attempt(lease: Lease) -> dict[str, Any]:
    """Return what every fact of the gateway says of the attempt that it is about."""
    token = lease.token
    return {
        "repository": lease.repository,
        "run_id": lease.run_id,
        "caused_by": lease.cause,
        "delivery_id": lease.delivery_id,
        "job_id": token.job_id,
        "attempt": token.attempt,
        "runner_id": token.runner_id,
        "boot_id": token.boot_id,
    }


def released(answer: Answer, lease: Lease, clock: Clock, *, number: int) -> SecretsReleased:
    """Return the fact of an answer; `number` tells requests of one instant apart."""
    token = lease.token
    now_ms = clock.now_ms()
    return SecretsReleased(
        event_id=event_id(
            "SecretsReleased", token.job_id, token.attempt, token.boot_id, now_ms, number
        ),
        occurred_at=now_ms,
        **about_attempt(lease),
        names=tuple(sorted(answer.secrets)),
        refused=tuple(sorted(answer.refused)),
        reason="; ".join(sorted(set(answer.refused.values()))),
    )


def shown(values: Mapping[str, object]) -> str:
    """Return names for a log line."""
    return ", ".join(sorted(values)) or "nothing"
