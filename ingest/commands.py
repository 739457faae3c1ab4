"""What users ask for, as events: the only place that turns a command into a fact.

A command with an Idempotency-Key can be sent again: the same key gives the same event id. Calls
to the vault and to git block and are made in threads.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets as random_secrets
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import field
from typing import Any, TypeVar
from urllib.parse import quote

from infra.clock import Clock, random_id
from infra.git import Credentials, GitError, checked_url, local_path, shown_url
from infra.vault import AlreadyThereError, Registration, SecretInfo, Vault, VaultAwayError
from ingest.hooks import HookError, Hooks
from ingest.keys import WebhookKeys
from ingest.log import EventLog
from ingest.mirrors import Mirrors, Origin, UnreachableError
from ingest.planner.plan import dispatch_problems
from ingest.planner.workflows import Workflows
from ingest.problems import Problem
from ingest.scopes import ScopeName, check_name, check_secret, check_variable
from schemas.codec import event_id, run_planned_id
from schemas.events import (
    CancelRequested,
    DeliveryReceived,
    Event,
    Provider,
    RepositoryConfigured,
    RepositoryRemoved,
    RunApproved,
    Source,
    VariableRemoved,
    VariableSet,
)
from schemas.late import dataclass
from schemas.topics import lane_topic
from schemas.variables import REPOSITORY_MAX, TOGETHER_BYTES_MAX, names_max, size_of

T = TypeVar("T")

FORK_POLICIES = ("approve", "never", "always")
FORK_SECRETS = ("never", "base")
INPUTS_MAX = 100
INPUTS_BYTES_MAX = 64 * 1024
REASON_CHARS_MAX = 500
EVENT_TYPE_CHARS_MAX = 100
CLIENT_PAYLOAD_KEYS_MAX = 10

_REPOSITORY = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.][A-Za-z0-9_.-]*){0,5}")
_RUN_ID = re.compile(r"[0-9]{8}-[0-9a-f]{12}")
_USERNAMES = {Provider.GITHUB: "x-access-token", Provider.GITLAB: "oauth2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRepository:
    """A request to add a repository."""

    name: str
    provider: str
    clone_url: str
    default_branch: str = ""
    token: str = field(default="", repr=False)
    pools: tuple[str, ...] = ("default",)
    fork_pull_requests: str = "approve"
    fork_secrets: str = "never"
    variables: Mapping[str, str] = field(default_factory=dict)


class Commands:
    """Carries out commands; raises Problem for what can't be done."""

    def __init__(
        self,
        *,
        vault: Vault,
        keys: WebhookKeys,
        log: EventLog,
        mirrors: Mirrors,
        workflows: Workflows,
        hooks: Hooks,
        clock: Clock,
        public_url: str,
    ) -> None:
        """Use the process's parts; `public_url` is where forges send webhooks."""
        self._vault = vault
        self._keys = keys
        self._log = log
        self._mirrors = mirrors
        self._workflows = workflows
        self._hooks = hooks
        self._clock = clock
        self._public_url = public_url.rstrip("/")

    # ----------------------------------------------------------------- repositories

    async def add_repository(self, new: NewRepository, actor: str, key: str) -> dict[str, Any]:
        """Register a repository; returns its webhook URL and secret."""
        check_repository(new)
        path = local_path(new.clone_url)
        branch = new.default_branch or await self._default_branch(new)
        secret = random_secrets.token_hex(32).encode()
        registration = Registration(
            repository=new.name,
            provider=new.provider,
            clone_url=new.clone_url,
            default_branch=branch,
            webhook_secret=secret,
            added_by=key,
        )
        try:
            await _in_thread(self._vault.register, registration, new.token)
        except AlreadyThereError as error:
            known = await self._registration(new.name)
            if not key or known.added_by != key:
                raise Problem(
                    409,
                    f"the repository {new.name} is registered already; remove it first, or use "
                    "another name",
                ) from error
            registration = known
        await self._keys.reload()
        now_ms = self._clock.now_ms()
        event = RepositoryConfigured(
            event_id=event_id("RepositoryConfigured", new.name, key or random_id()),
            occurred_at=now_ms,
            repository=new.name,
            provider=new.provider,
            clone_url=new.clone_url,
            default_branch=branch,
            pools=new.pools,
            fork_pull_requests=new.fork_pull_requests,
            variables={name.upper(): value for name, value in new.variables.items()},
            actor=actor,
            fork_secrets=new.fork_secrets,
        )
        offset = await self._log.append(event)
        answer = {
            "name": new.name,
            "webhook_url": self._webhook_url(new.provider, new.name),
            "secret": registration.webhook_secret.decode(),
            "default_branch": branch,
            "hook_installed": False,
            "event_id": event.event_id,
            "offset": offset,
        }
        if new.provider == Provider.GIT and path is not None:
            answer |= await self._install_hook(registration)
        return answer

    async def remove_repository(self, name: str, actor: str) -> dict[str, Any]:
        """Forget a repository, its secrets and its hook; its history stays."""
        registration = await self._registration(name)
        path = local_path(registration.clone_url)
        notes: dict[str, Any] = {}
        if registration.provider == Provider.GIT and path is not None:
            try:
                await asyncio.to_thread(self._hooks.remove, path)
            except HookError as error:
                notes["hook"] = str(error)
        await _in_thread(self._vault.remove, name)
        await self._keys.reload()
        event = RepositoryRemoved(
            event_id=event_id("RepositoryRemoved", name, random_id()),
            occurred_at=self._clock.now_ms(),
            repository=name,
            actor=actor,
        )
        return {**await self._stored(event), **notes}

    async def rotate_secret(self, name: str) -> dict[str, Any]:
        """Give a repository a new webhook secret; the old one is refused from now on."""
        registration = await self._registration(name)
        secret = random_secrets.token_hex(32).encode()
        await _in_thread(self._vault.rotate_webhook_secret, name, secret)
        await self._keys.reload()
        answer: dict[str, Any] = {
            "name": name,
            "webhook_url": self._webhook_url(registration.provider, name),
            "secret": secret.decode(),
            "hook_installed": False,
        }
        if registration.provider == Provider.GIT and local_path(registration.clone_url):
            renewed = Registration(
                repository=name,
                provider=registration.provider,
                clone_url=registration.clone_url,
                default_branch=registration.default_branch,
                webhook_secret=secret,
            )
            answer |= await self._install_hook(renewed)
        return answer

    # ----------------------------------------------------------------- runs

    async def dispatch(
        self, name: str, workflow: str, ref: str, inputs: Mapping[str, Any], actor: str, key: str
    ) -> dict[str, Any]:
        """Start a workflow by hand (`workflow_dispatch`)."""
        registration = await self._registration(name)
        _check_inputs(inputs)
        if not workflow:
            raise Problem(422, "`workflow` is missing: give a file name such as ci.yml")
        ref = ref or registration.default_branch
        full, sha = await self._resolved(registration, ref)
        await self._check_dispatch(registration, workflow, sha, inputs)
        delivery_id = f"dispatch:{name}:{key or random_id()}"
        payload = {
            "inputs": dict(inputs),
            "ref": full,
            "workflow": workflow,
            **_about(registration, actor),
        }
        return await self._dispatched(
            registration, delivery_id, payload, event="workflow_dispatch", ref=full, sha=sha,
            actor=actor, workflow=workflow, inputs_json=_compact(inputs),
        )  # fmt: skip

    async def repository_dispatch(
        self, name: str, event_type: str, client_payload: Mapping[str, Any], actor: str, key: str
    ) -> dict[str, Any]:
        """Start what listens to `repository_dispatch` with this type, at the default branch."""
        registration = await self._registration(name)
        _check_repository_dispatch(event_type, client_payload)
        full, sha = await self._resolved(registration, f"refs/heads/{registration.default_branch}")
        delivery_id = f"repository_dispatch:{name}:{key or random_id()}"
        payload = {
            "action": event_type,
            "branch": registration.default_branch,
            "client_payload": dict(client_payload),
            **_about(registration, actor),
        }
        return await self._dispatched(
            registration, delivery_id, payload, event="repository_dispatch", ref=full, sha=sha,
            actor=actor, action=event_type, message=event_type,
        )  # fmt: skip

    async def _dispatched(
        self,
        registration: Registration,
        delivery_id: str,
        payload: Mapping[str, Any],
        *,
        ref: str,
        sha: str,
        **more: str,
    ) -> dict[str, Any]:
        """Store the delivery of a command; `more` are fields of its event."""
        name = registration.repository
        event = DeliveryReceived(
            event_id=event_id("DeliveryReceived", name, delivery_id),
            occurred_at=self._clock.now_ms(),
            repository=name,
            delivery_id=delivery_id,
            source=Source.DISPATCH,
            provider=registration.provider,
            ref=ref,
            sha=sha,
            default_branch=registration.default_branch,
            payload_json=_compact(payload),
            **more,  # type: ignore[arg-type]
        )
        return {"delivery_id": delivery_id, "sha": sha, "ref": ref, **await self._stored(event)}

    async def cancel(
        self, run_id: str, repository: str, reason: str, actor: str, key: str
    ) -> dict[str, Any]:
        """Ask that a run end."""
        _check_run(run_id, repository)
        event = CancelRequested(
            event_id=event_id("CancelRequested", run_id, key or random_id()),
            occurred_at=self._clock.now_ms(),
            repository=repository,
            run_id=run_id,
            caused_by=run_planned_id(run_id),
            actor=actor,
            reason=reason[:REASON_CHARS_MAX] or "user",
        )
        return await self._stored(event)

    async def approve(self, run_id: str, repository: str, actor: str) -> dict[str, Any]:
        """Let a waiting run start; approving twice is approving once."""
        _check_run(run_id, repository)
        event = RunApproved(
            event_id=event_id("RunApproved", run_id),
            occurred_at=self._clock.now_ms(),
            repository=repository,
            run_id=run_id,
            caused_by=run_planned_id(run_id),
            actor=actor,
        )
        return await self._stored(event)

    # ----------------------------------------------------------------- secrets and variables

    async def set_secret(self, scope: ScopeName, name: str, value: object) -> bool:
        """Set a workflow secret; tells whether it is new."""
        await self._check_scope(scope)
        check_name("secret", name)
        text = check_secret(value)
        known = await _in_thread(self._secret_infos, scope)
        full = len(known) >= names_max(scope.repository, scope.environment)
        if full and name.upper() not in {info.name for info in known}:
            raise Problem(422, f"{scope} has {len(known)} secrets, which is all it may have")
        return await _in_thread(
            lambda: self._vault.set_secret(
                scope.repository, name, text, environment=scope.environment
            )
        )

    async def delete_secret(self, scope: ScopeName, name: str) -> None:
        """Forget a workflow secret."""
        await self._check_scope(scope)
        gone = await _in_thread(
            lambda: self._vault.delete_secret(scope.repository, name, environment=scope.environment)
        )
        if not gone:
            raise Problem(404, f"{scope} has no secret {name[:80]}")

    async def secret_infos(self, scope: ScopeName) -> list[SecretInfo]:
        """Return the names of a scope's secrets."""
        await self._check_scope(scope)
        return await _in_thread(self._secret_infos, scope)

    async def set_variable(
        self, scope: ScopeName, name: str, value: object, actor: str
    ) -> dict[str, Any]:
        """Set a value of the `vars` context."""
        await self._check_scope(scope)
        check_name("variable", name)
        event = VariableSet(
            event_id=event_id("VariableSet", *scope.parts, name.upper(), random_id()),
            occurred_at=self._clock.now_ms(),
            repository=scope.repository,
            name=name.upper(),
            value=check_variable(value),
            environment=scope.environment,
            actor=actor,
        )
        return await self._told(scope, event)

    async def delete_variable(self, scope: ScopeName, name: str, actor: str) -> dict[str, Any]:
        """Forget a value of the `vars` context; one that is not there stays so."""
        await self._check_scope(scope)
        check_name("variable", name)
        event = VariableRemoved(
            event_id=event_id("VariableRemoved", *scope.parts, name.upper(), random_id()),
            occurred_at=self._clock.now_ms(),
            repository=scope.repository,
            name=name.upper(),
            environment=scope.environment,
            actor=actor,
        )
        return await self._told(scope, event)

    def _secret_infos(self, scope: ScopeName) -> list[SecretInfo]:
        return self._vault.secret_infos(scope.repository, environment=scope.environment)

    async def _check_scope(self, scope: ScopeName) -> None:
        if scope.repository:
            await self._registration(scope.repository)

    async def _told(self, scope: ScopeName, event: Event) -> dict[str, Any]:
        """Append to the scope's cell; what is of the whole installation goes to every cell."""
        if scope.repository:
            return await self._stored(event)
        offset = await self._log.append_everywhere(event)
        return {"event_id": event.event_id, "offset": offset}

    # ----------------------------------------------------------------- inside

    async def _stored(self, event: Any) -> dict[str, Any]:
        offset = await self._log.append(event)
        return {"event_id": event.event_id, "offset": offset}

    async def _registration(self, name: str) -> Registration:
        found = await _in_thread(self._vault.registration, name)
        if found is None:
            raise Problem(
                404, f"no repository {name} is registered; `tailrace repo list` shows all"
            )
        return found

    def _webhook_url(self, provider: str, name: str) -> str:
        return f"{self._public_url}/webhooks/{provider}/{quote(name)}"

    def _origin(self, registration: Registration) -> Origin:
        def credentials() -> Credentials | None:
            token = self._vault.forge_token(registration.repository)
            if not token:
                return None
            username = _USERNAMES.get(Provider(registration.provider), "tailrace")
            return Credentials(username=username, password=token)

        return Origin(
            repository=registration.repository,
            clone_url=registration.clone_url,
            default_branch=registration.default_branch,
            credentials=credentials,
        )

    async def _default_branch(self, new: NewRepository) -> str:
        username = _USERNAMES.get(Provider(new.provider), "tailrace")
        given = Credentials(username=username, password=new.token) if new.token else None
        origin = Origin(
            repository=new.name,
            clone_url=new.clone_url,
            default_branch="",
            credentials=lambda: given,
        )
        try:
            with closing(self._mirrors.fresh(origin)) as mirror:
                found = await asyncio.to_thread(mirror.default_branch)
        except UnreachableError as error:
            raise Problem(
                422,
                f"the repository can't be read at {shown_url(new.clone_url)}: {error}; check the "
                "URL and the token",
            ) from error
        return found or "main"

    async def _resolved(self, registration: Registration, ref: str) -> tuple[str, str]:
        """Return the full ref and the commit of a branch or tag."""
        origin = self._origin(registration)

        def resolve() -> tuple[str, str] | None:
            names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
            with self._mirrors.use(origin) as mirror:
                for full in names:
                    sha = mirror.resolve(full)
                    if sha is not None:
                        return full, sha
            return None

        try:
            found = await asyncio.to_thread(resolve)
        except UnreachableError as error:
            raise Problem(502, f"the repository can't be read: {error}") from error
        if found is None:
            raise Problem(422, f"{registration.repository} has no branch or tag {ref}")
        return found

    async def _check_dispatch(
        self, registration: Registration, workflow: str, sha: str, inputs: Mapping[str, Any]
    ) -> None:
        origin = self._origin(registration)

        def check() -> list[str]:
            with self._mirrors.use(origin) as mirror:
                found = self._workflows.at(mirror, mirror.commit(sha))
            return dispatch_problems(found, workflow, inputs)

        try:
            problems = await asyncio.to_thread(check)
        except (UnreachableError, GitError) as error:
            raise Problem(502, f"the repository can't be read: {error}") from error
        if problems:
            raise Problem(422, "; ".join(problems), problems=problems)

    async def _install_hook(self, registration: Registration) -> dict[str, Any]:
        path = local_path(registration.clone_url)
        if path is None:
            return {"hook_installed": False}
        url = self._webhook_url(registration.provider, registration.repository)
        try:
            where = await asyncio.to_thread(
                self._hooks.install,
                path,
                repository=registration.repository,
                url=url,
                secret=registration.webhook_secret.decode(),
                default_branch=registration.default_branch,
            )
        except (HookError, GitError, OSError) as error:
            return {"hook_installed": False, "hook": str(error)}
        return {"hook_installed": True, "hook": str(where)}


async def _in_thread(call: Callable[..., T], *arguments: object) -> T:
    try:
        return await asyncio.to_thread(call, *arguments)
    except VaultAwayError as error:
        raise Problem(
            503, f"{error}; webhooks are accepted meanwhile", headers={"Retry-After": "5"}
        ) from error


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _about(registration: Registration, actor: str) -> dict[str, Any]:
    """Return what every payload of ours has: GitHub's `repository` and `sender`."""
    name = registration.repository
    return {
        "repository": {
            "full_name": name,
            "name": name.rpartition("/")[2],
            "owner": {"login": name.partition("/")[0]},
            "default_branch": registration.default_branch,
        },
        "sender": {"login": actor},
    }


def check_repository(new: NewRepository) -> None:
    """Refuse, as a Problem, what no repository can be added with."""
    if _REPOSITORY.fullmatch(new.name) is None or ".." in new.name or len(new.name) > 200:  # noqa: PLR2004
        raise Problem(
            422,
            f"`name` is {new.name[:80]!r}: use owner/name of letters, digits, '.', '_' and '-'",
        )
    if new.provider not in frozenset(Provider):
        raise Problem(422, f"`provider` is {new.provider!r}: use one of {', '.join(Provider)}")
    if new.fork_pull_requests not in FORK_POLICIES:
        raise Problem(422, f"`fork_pull_requests`: use one of {', '.join(FORK_POLICIES)}")
    if new.fork_secrets not in FORK_SECRETS:
        raise Problem(422, f"`fork_secrets`: use one of {', '.join(FORK_SECRETS)}")
    _check_variables(new.variables)
    if shown_url(new.clone_url) != new.clone_url:
        # it would be in every event and on every page
        raise Problem(422, "`clone_url` has a user name or password in it: give it as `token`")
    try:
        if local_path(new.clone_url) is None:
            checked_url(new.clone_url)
        for pool in new.pools:
            lane_topic(pool)
    except (GitError, ValueError) as error:
        raise Problem(422, str(error)) from error


def _check_variables(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        check_name("variable", name)
        check_variable(value)
    if len(variables) > REPOSITORY_MAX:
        raise Problem(422, f"a repository may have {REPOSITORY_MAX} variables")
    size = size_of(variables)
    if size > TOGETHER_BYTES_MAX:
        raise Problem(
            422,
            f"`variables` have {size} bytes of names and values; a repository may have "
            f"{TOGETHER_BYTES_MAX}",
        )


def _json_bytes(value: Mapping[str, Any]) -> int:
    """Return how much a value is as JSON in UTF-8, as it is stored."""
    return len(_compact(value).encode(errors="replace"))


def _check_inputs(inputs: Mapping[str, Any]) -> None:
    if len(inputs) > INPUTS_MAX or _json_bytes(inputs) > INPUTS_BYTES_MAX:
        raise Problem(422, f"`inputs`: at most {INPUTS_MAX} values of {INPUTS_BYTES_MAX} bytes")


def _check_repository_dispatch(event_type: str, client_payload: Mapping[str, Any]) -> None:
    if not event_type or len(event_type) > EVENT_TYPE_CHARS_MAX or not event_type.isprintable():
        raise Problem(422, f"`event_type` must be a text of 1 to {EVENT_TYPE_CHARS_MAX} characters")
    if len(client_payload) > CLIENT_PAYLOAD_KEYS_MAX:
        raise Problem(
            422, f"`client_payload` may have {CLIENT_PAYLOAD_KEYS_MAX} keys at its top; nest them"
        )
    if _json_bytes(client_payload) > INPUTS_BYTES_MAX:
        raise Problem(422, f"`client_payload` may have {INPUTS_BYTES_MAX} bytes")


def _check_run(run_id: str, repository: str) -> None:
    if _RUN_ID.fullmatch(run_id) is None:
        raise Problem(404, f"there is no run {run_id[:80]}")
    if not repository:
        raise Problem(422, "`repository` is missing: whose run is it?")
