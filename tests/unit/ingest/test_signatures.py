"""Webhook signatures, scheme by scheme."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote_plus

import pytest

from ingest.signatures import FORM, form_payload, sign, verified_body

SECRET = b"a secret"
BODY = b'{"ref": "refs/heads/main"}'
HEX = hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()
FORM_BODY = b"payload=" + quote_plus(BODY).encode()
FORM_HEX = hmac.new(SECRET, FORM_BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("provider", "headers", "body"),
    [
        ("github", {"x-hub-signature-256": f"sha256={HEX}"}, BODY),
        ("github", {"x-hub-signature-256": f"sha256={FORM_HEX}", "content-type": FORM}, FORM_BODY),
        ("gitea", {"x-gitea-signature": HEX}, BODY),
        ("gitea", {"x-hub-signature-256": f"sha256={HEX}"}, BODY),
        ("gitea", {"x-gitea-signature": HEX, "content-type": FORM}, FORM_BODY),
        ("gogs", {"x-gogs-signature": HEX}, BODY),
        ("gogs", {"x-gogs-signature": HEX, "content-type": f"{FORM}; charset=utf-8"}, FORM_BODY),
        ("gitlab", {"x-gitlab-token": SECRET.decode()}, BODY),
        ("git", {"x-tailrace-signature-256": sign(BODY, SECRET)}, BODY),
    ],
)
def test_a_right_signature_gives_the_json_text(
    provider: str, headers: dict[str, str], body: bytes
) -> None:
    """Each forge's own scheme is understood; a form's payload is decoded."""
    assert verified_body(provider, headers, body, SECRET) == BODY


@pytest.mark.parametrize(
    ("provider", "headers", "body"),
    [
        ("github", {}, BODY),
        ("github", {"x-hub-signature-256": ""}, BODY),
        ("github", {"x-hub-signature-256": "sha256="}, BODY),
        ("github", {"x-hub-signature": "sha1=" + "0" * 40}, BODY),
        ("github", {"x-hub-signature-256": f"sha256={HEX}"}, BODY + b" "),
        # GitHub signs the form, not the payload in it
        ("github", {"x-hub-signature-256": f"sha256={HEX}", "content-type": FORM}, FORM_BODY),
        # Gitea signs the payload, not the form
        ("gitea", {"x-gitea-signature": FORM_HEX, "content-type": FORM}, FORM_BODY),
        # an empty header of the forge's own is not made up for by another
        ("gitea", {"x-gitea-signature": "", "x-hub-signature-256": f"sha256={HEX}"}, BODY),
        ("gitea", {"x-gitea-signature": HEX, "content-type": FORM}, b"other=1"),
        ("gogs", {"x-gitea-signature": HEX}, BODY),
        ("gitlab", {}, BODY),
        ("gitlab", {"x-gitlab-token": ""}, BODY),
        ("gitlab", {"x-gitlab-token": "a secre"}, BODY),
        ("gitlab", {"x-gitlab-token": "é"}, BODY),
        ("git", {"x-tailrace-signature-256": "sha256=é"}, BODY),
        ("unheard-of", {"x-hub-signature-256": f"sha256={HEX}"}, BODY),
    ],
)
def test_a_wrong_signature_gives_nothing(
    provider: str, headers: dict[str, str], body: bytes
) -> None:
    """Missing, empty, old, shortened and misplaced signatures are all refused."""
    assert verified_body(provider, headers, body, SECRET) is None


def test_an_empty_secret_verifies_nothing() -> None:
    """A repository without a secret has no valid signature at all."""
    signed = {"x-hub-signature-256": sign(BODY, b"")}
    assert verified_body("github", signed, BODY, b"") is None
    assert verified_body("gitlab", {"x-gitlab-token": ""}, BODY, b"") is None


@pytest.mark.parametrize(
    ("form", "payload"),
    [
        (b"payload=%7B%22a%22%3A+%22%C3%A9%3D%25%22%7D", '{"a": "é=%"}'.encode()),
        (b"x=1&payload=%7b%7d&y=2", b"{}"),
        (b"payload=", b""),
        (b"notpayload=1&payload=2", b"2"),
        (b"notpayload=1", None),
        (b"&" * 1000, None),
        (b"", None),
    ],
)
def test_a_forms_payload_is_found_and_decoded(form: bytes, payload: bytes | None) -> None:
    """The field is taken by its whole name; percent and plus encoding are undone."""
    assert form_payload(form) == payload
