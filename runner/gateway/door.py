"""Who may come in: the runner token, then a signature of a boot that lives, for a live attempt.

Each refusal says what is wrong and what to do; none repeats what was sent. A request counts once:
its nonce is remembered, and its signature names this start of the gateway, so that nothing that
was signed for an earlier one, whose memory is gone, is taken by this one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging

from fastapi import Request
from pydantic import BaseModel, Field

from infra.auth import TokenFile
from infra.clock import Clock, random_id
from infra.metrics import GATEWAY_REFUSED, Meters
from runner.depot import PIECE_BYTES
from runner.gateway.follower import Follower
from runner.gateway.leases import Lease, Token
from runner.gateway.nonces import Nonces, Verdict
from runner.gateway.problems import ProblemError, read
from runner.signing import ATTEMPT_HEADER, EPOCH_HEADER, SIGNATURE_HEADER, Asking, Proof, verifies
from schemas.late import dataclass

logger = logging.getLogger(__name__)

#: How far the clocks of a runner and of the gateway may be apart, either way.
WINDOW_MS = 30_000
WAIT_MS_MAX = 1_000
BODY_BYTES_MAX = PIECE_BYTES
_NAME_CHARACTERS_MAX = 300
_NONCE_KEY_BYTES = 16


class AttemptRequest(BaseModel):
    """Who asks, and how far the fold must be to know."""

    job_id: str = Field(max_length=_NAME_CHARACTERS_MAX)
    attempt: int = Field(ge=1)
    runner_id: str = Field(max_length=_NAME_CHARACTERS_MAX)
    boot_id: str = Field(max_length=_NAME_CHARACTERS_MAX)
    position: int = Field(ge=-1)


@dataclass(frozen=True, slots=True)
class Entered:
    """A request that was let in: whose it is, and its body."""

    lease: Lease
    body: bytes


class Door:
    """Lets requests in; made once a start, for its epoch and its nonces are this start's."""

    def __init__(
        self,
        follower: Follower,
        token: TokenFile,
        clock: Clock,
        meters: Meters,
        *,
        cells: int,
        wait_ms: int = WAIT_MS_MAX,
    ) -> None:
        """Ask `follower` who lives; what it has not read yet is waited for `wait_ms` at most."""
        self._follower = follower
        self._token = token
        self._clock = clock
        self._meters = meters
        self._cells = cells
        self._wait_ms = wait_ms
        self._epoch = random_id()
        # a request is good from WINDOW_MS before its time to WINDOW_MS after it
        self._nonces = Nonces(2 * WINDOW_MS)

    async def __call__(self, request: Request) -> Entered:
        """Return who asks for what. Raises ProblemError; call it before anything reads the body."""
        try:
            return await self._enter(request)
        except ProblemError as error:
            self._meters.count(GATEWAY_REFUSED, error.title)
            logger.info("refused %s: %s", request.url.path, error.detail)
            raise

    async def _enter(self, request: Request) -> Entered:
        if not self._token.accepts(request.headers.get("authorization")):
            raise ProblemError(401, "Wrong token", "the runner token is missing or wrong")
        text = request.headers.get(ATTEMPT_HEADER, "")
        who = read(AttemptRequest, text, f"the header {ATTEMPT_HEADER}")
        # before any refusal: a client that still sends would see a broken connection instead
        body = await _body(request)
        self._refuse_when_failed()
        proof = self._proof(request)
        asking = Asking(request.method, _path(request), body, text)
        await self._check(who, asking, proof)
        return Entered(await self._lease(who), body)

    # ----------------------------------------------------------------- the signature

    def _proof(self, request: Request) -> Proof:
        """Return the signature's header when it is for this start of the gateway, and for now."""
        proof = Proof.from_header(request.headers.get(SIGNATURE_HEADER, ""))
        if proof is None:
            raise ProblemError(
                401, "Not signed",
                f"the header {SIGNATURE_HEADER} is missing or of another form: the runner has to "
                "be of the gateway's version",
            )  # fmt: skip
        if not hmac.compare_digest(proof.epoch.encode(), self._epoch.encode()):
            raise ProblemError(
                401, "Another start",
                "the signature is for an earlier start of the gateway: sign again",
                {EPOCH_HEADER: self._epoch},
            )  # fmt: skip
        apart_ms = proof.time_ms - self._clock.now_ms()
        if abs(apart_ms) > WINDOW_MS:
            side = "ahead of" if apart_ms > 0 else "behind"
            raise ProblemError(
                401, "Wrong time",
                f"the request's time is {abs(apart_ms) / 1000:.0f} s {side} the gateway's, more "
                f"than {WINDOW_MS // 1000} s: set the clocks of both machines",
            )  # fmt: skip
        return proof

    async def _check(self, who: AttemptRequest, asking: Asking, proof: Proof) -> None:
        key = self._follower.key(who.runner_id, who.boot_id)
        if not key:
            # its RunnerJoined lies before its assignment: both may still be on their way here
            await asyncio.to_thread(self._wait, who)
            key = self._follower.key(who.runner_id, who.boot_id)
        if not key:
            self._refuse_while_reading()
            raise ProblemError(
                401, "Unknown boot",
                f"boot {who.boot_id} of {who.runner_id} is not known here with a key: it is over, "
                "or the runner is of an older version; start the runner again",
            )  # fmt: skip
        if not verifies(key, asking, proof):
            raise ProblemError(
                401, "Wrong signature",
                f"the signature is not that of boot {who.boot_id} of {who.runner_id} for this "
                "request",
            )  # fmt: skip
        self._once(who, proof)

    def _once(self, who: AttemptRequest, proof: Proof) -> None:
        """Refuse what was asked before; only what is signed is remembered."""
        text = f"{who.boot_id}\n{proof.nonce}".encode()
        nonce = hashlib.blake2b(text, digest_size=_NONCE_KEY_BYTES).digest()
        match self._nonces.take(nonce, proof.time_ms, steady_ms=self._clock.steady_ms()):
            case Verdict.SEEN:
                raise ProblemError(401, "Repeated", "this very request was answered before")
            case Verdict.TOO_OLD:
                raise ProblemError(
                    401, "Wrong time",
                    "the request's time lies before requests that are forgotten: was the "
                    "gateway's clock set back? start the gateway again",
                )  # fmt: skip
            case Verdict.FULL:
                raise ProblemError(
                    503, "Too many requests", "too many requests in a minute: ask again later"
                )
            case Verdict.FRESH:
                return

    # ----------------------------------------------------------------- the attempt

    async def _lease(self, who: AttemptRequest) -> Lease:
        self._refuse_when_failed()
        found = self._follower.live(_token(who))
        if found is None:
            found = await asyncio.to_thread(self._wait, who)
        if found is None:
            self._refuse_while_reading()
            raise ProblemError(
                409, "Not the live attempt",
                f"attempt {who.attempt} of {who.job_id} on this boot is not the live one",
            )  # fmt: skip
        return found

    def _refuse_when_failed(self) -> None:
        """Say that nothing is known any more: a fold that stands still says neither yes nor no."""
        if self._follower.failed is not None:
            raise ProblemError(
                503, "Unavailable",
                "the gateway can't follow the log and ends; its own log says why. Ask again: it "
                "is started again",
            )  # fmt: skip

    def _refuse_while_reading(self) -> None:
        """Say that it is not known yet: a fold that is still behind must not say no."""
        self._refuse_when_failed()  # while this request waited for it
        if not self._follower.caught_up:
            raise ProblemError(
                503, "Starting", "the gateway was just started and still reads the log: ask again"
            )

    def _wait(self, who: AttemptRequest) -> Lease | None:
        """Return the live lease as soon as the fold has it; None when it has not in time."""
        for partition in range(self._cells):
            # one cell is the rule; of several, the one that knows the lease answers
            last = partition == self._cells - 1
            lease = self._follower.lease(
                _token(who),
                partition=partition,
                position=who.position if self._cells == 1 else -1,
                timeout_ms=self._wait_ms if last else 0,
            )
            if lease is not None:
                return lease
        return None


def _token(who: AttemptRequest) -> Token:
    return Token(who.job_id, who.attempt, who.runner_id, who.boot_id)


def _path(request: Request) -> str:
    """Return path and query as they were sent: that is what was signed."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


async def _body(request: Request) -> bytes:
    size = request.headers.get("content-length", "")
    if size.isdigit() and int(size) > BODY_BYTES_MAX:
        raise _too_large()
    chunks: list[bytes] = []
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > BODY_BYTES_MAX:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> ProblemError:
    return ProblemError(413, "Too large", f"a request has {BODY_BYTES_MAX} bytes at most")
