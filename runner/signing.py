"""What a runner signs when it asks the gateway, and how: the only place that knows the form.

A boot makes an Ed25519 key in memory. Its public half travels with the heartbeat into
`RunnerJoined`; its private half never leaves the process and ends with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from schemas.late import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ATTEMPT_HEADER = "Tailrace-Attempt"
SIGNATURE_HEADER = "Tailrace-Signature"
#: An answer that refuses a signature for another start of the gateway names the right one.
EPOCH_HEADER = "Tailrace-Epoch"
NONCE_BYTES = 16

_FORM = "1"
_DOMAIN = f"tailrace-gateway-{_FORM}"
_PARTS = 5
_NONCE_CHARACTERS = 22
_EPOCH_CHARACTERS_MAX = 64
_TIME_DIGITS_MAX = 15
_KEYS_CACHED = 2_048


@dataclass(frozen=True, slots=True)
class Proof:
    """What stands in the signature's header.

    `epoch` names the start of the gateway that it is for, `time_ms` is the runner's clock.
    """

    epoch: str
    time_ms: int
    nonce: str
    signature: bytes

    def to_header(self) -> str:
        """Return it as the header's value."""
        return ";".join((_FORM, self.epoch, str(self.time_ms), self.nonce, _text(self.signature)))

    @classmethod
    def from_header(cls, value: str) -> Proof | None:
        """Return it back; None for anything that is not of this form."""
        parts = value.split(";")
        if len(parts) != _PARTS or parts[0] != _FORM:
            return None
        _, epoch, time, nonce, signature = parts
        if not (time.isascii() and time.isdigit() and len(time) <= _TIME_DIGITS_MAX):
            return None
        raw = _bytes(signature)
        if len(nonce) != _NONCE_CHARACTERS or len(epoch) > _EPOCH_CHARACTERS_MAX or raw is None:
            return None
        return cls(epoch, int(time), nonce, raw)


@dataclass(frozen=True, slots=True)
class Asking:
    """One request, as it is signed.

    `path` has the query; `attempt` is the attempt's header as it is sent: the fencing token.
    """

    method: str
    path: str
    body: bytes
    attempt: str

    def message(self, epoch: str, time_ms: int, nonce: str) -> bytes:
        """Return the signed bytes; no part can hold the newline that ends it."""
        digest = hashlib.sha256(self.body).hexdigest()
        parts = (_DOMAIN, self.method, self.path, digest, self.attempt, epoch, str(time_ms), nonce)
        return "\n".join(parts).encode()


class BootKey:
    """The key of one boot, in memory alone."""

    __slots__ = ("_key", "public")

    def __init__(self) -> None:
        """Make a key."""
        # late: a local run has nobody to prove anything to, and must begin at once
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.generate()
        self.public = _text(self._key.public_key().public_bytes_raw())

    def prove(self, asking: Asking, *, epoch: str, time_ms: int, nonce: bytes) -> Proof:
        """Return the signature of a request; `nonce` is random and never used again."""
        text = _text(nonce)
        return Proof(epoch, time_ms, text, self._key.sign(asking.message(epoch, time_ms, text)))


def verifies(public_key: str, asking: Asking, proof: Proof) -> bool:
    """Say whether the holder of a boot's key signed this request."""
    from cryptography.exceptions import InvalidSignature

    key = _public(public_key)
    if key is None:
        return False
    try:
        key.verify(proof.signature, asking.message(proof.epoch, proof.time_ms, proof.nonce))
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=_KEYS_CACHED)
def _public(text: str) -> Ed25519PublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = _bytes(text)
    try:
        return None if raw is None else Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        return None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
