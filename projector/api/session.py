"""The browser's proof that it knows the token: a signed cookie, nothing stored."""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

COOKIE = "tailrace_session"
LIFE_MS = 30 * 24 * 60 * 60 * 1000


def make(token: bytes, now_ms: int) -> str:
    """Return a session's value; it ends after `LIFE_MS` or when the token changes."""
    until = str(now_ms + LIFE_MS)
    return f"{until}.{_signature(token, until)}"


def accepts(token: bytes, value: str, now_ms: int) -> bool:
    """Say whether a session was made with this token and has not run out."""
    until, _, signature = value.partition(".")
    good = hmac.compare_digest(signature.encode(), _signature(token, until).encode())
    return good and bool(token) and until.isdecimal() and int(until) > now_ms


def of_cookies(header: bytes) -> str:
    """Return the session in a Cookie header, "" when there is none."""
    if COOKIE.encode() not in header:
        return ""
    try:
        morsel = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def set_cookie(value: str, *, secure: bool, max_age_s: int = LIFE_MS // 1000) -> str:
    """Return the Set-Cookie header of a session."""
    attributes = f"Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict"
    return f"{COOKIE}={value}; {attributes}" + ("; Secure" if secure else "")


def _signature(token: bytes, until: str) -> str:
    key = hashlib.sha256(b"tailrace session\x00" + token).digest()
    return hmac.new(key, until.encode(), "sha256").hexdigest()
