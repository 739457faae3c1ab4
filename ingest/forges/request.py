"""What every forge module reads, and the checks on names and ids that all of them share."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.late import dataclass

Json = dict[str, Any]

TEXT_CHARS_MAX = 512
MESSAGE_CHARS_MAX = 4_096
REF_CHARS_MAX = 1_024
DELIVERY_ID_CHARS_MAX = 128

_SHA = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})")
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DELIVERY_ID = re.compile(r"[A-Za-z0-9._:/=+-]+")
# git-check-ref-format(1): what no ref name may contain
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|[./]$|^[-./]")


class BodyError(ValueError):
    """The body isn't what its event header says; the message names the field and what belongs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A request whose signature was found right.

    `headers` have lower-case names. `body` is the JSON text (of a form: its decoded `payload`),
    `sha256` and `size` are of the raw bytes. `repository` is the name it is registered under.
    """

    repository: str
    headers: Mapping[str, str]
    body: bytes
    sha256: str
    size: int
    received_at: int
    default_branch: str = ""

    def header(self, *names: str) -> str:
        """Return the first of these headers that is there and not empty, or ""."""
        for name in names:
            value = self.headers.get(name)
            if value:
                return value.strip()
        return ""


def parsed(body: bytes) -> Json:
    """Return the JSON object that a body is; BodyError for anything else."""
    try:
        value = msgspec.json.decode(without_bom(body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BodyError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise BodyError("the body is nested too deeply for a webhook") from error
    if not isinstance(value, dict):
        raise BodyError(f"the body is a JSON {type(value).__name__}; expected an object")
    return value


def without_bom(body: bytes) -> bytes:
    """Return a body without the byte order mark that a proxy or a script put before it."""
    return body.removeprefix(codecs.BOM_UTF8)


def dumped(value: object) -> str:
    """Return compact JSON text."""
    return msgspec.json.encode(value).decode()


def event_name(name: str, header: str) -> str:
    """Return an event header's value; BodyError when it is no event name."""
    if _EVENT.fullmatch(name) is None:
        raise BodyError(f"{header} is {name[:80]!r}; expected an event name such as push")
    return name


def delivery_id(provider: str, given: str, request: WebhookRequest) -> str:
    """Return the id of a delivery; one without a usable id of its own is named by its bytes.

    The repository is part of it: whoever may send for one can't name another's deliveries.
    """
    if not given:
        given = f"sha256-{request.sha256[:40]}"
    elif len(given) > DELIVERY_ID_CHARS_MAX or _DELIVERY_ID.fullmatch(given) is None:
        given = f"id-{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:40]}"
    return f"{provider}:{request.repository}:{given}"


def obj(value: object) -> Json:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Json]:
    """Return the objects of a list, or nothing."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Return a string, cut and without NULs (no database column takes them), or ""."""
    if not isinstance(value, str):
        return ""
    return value[:chars_max].replace("\x00", "")


def number(value: object, name: str) -> int:
    """Return a number of a pull request or an issue; BodyError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
        raise BodyError(f"`{name}` is {value!r}; expected a positive whole number")
    return value


def sha(value: object, name: str) -> str:
    """Return a commit id in lower case; BodyError for anything else."""
    found = value.lower() if isinstance(value, str) else ""
    if _SHA.fullmatch(found) is None:
        raise BodyError(f"`{name}` is {str(value)[:80]!r}; expected a commit id of 40 or 64 digits")
    return found


def optional_sha(value: object, name: str) -> str:
    """Return a commit id, or "" when there is none."""
    return sha(value, name) if value not in (None, "") else ""


def is_null(commit: str) -> bool:
    """Tell the all-zero id, which stands for "no commit"."""
    return not commit.strip("0")


def ref_name(value: object, name: str) -> str:
    """Return a ref or branch name that git accepts; BodyError for anything else."""
    found = value if isinstance(value, str) else ""
    if not found or len(found) > REF_CHARS_MAX or _BAD_IN_REF.search(found):
        raise BodyError(f"`{name}` is {str(value)[:80]!r}; expected the name of a ref")
    return found


def optional_ref(value: object, name: str) -> str:
    """Return a ref name, or "" when there is none."""
    return ref_name(value, name) if value not in (None, "") else ""


def full_ref(value: object, name: str) -> str:
    """Return a ref that begins with refs/; BodyError for anything else."""
    found = ref_name(value, name)
    if not found.startswith("refs/"):
        raise BodyError(f"`{name}` is {found[:80]!r}; expected a full ref such as refs/heads/main")
    return found


def branch_ref(branch: str) -> str:
    """Return the full ref of a branch, or "" for none."""
    return f"refs/heads/{branch.removeprefix('refs/heads/')}" if branch else ""
