"""Whatever is sent: no webhook makes ingest fail, and none gets in without the secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.clock import ManualClock
from infra.log import MemoryLog
from infra.metrics import Meters
from infra.objects import FileStore
from ingest.signatures import FORM, sign, verified_body
from schemas.events import DeliveryReceived
from tests.support.intake import Intake

SECRET = b"property-secret"
PROVIDERS = ("github", "gitea", "gogs", "gitlab", "git")
EVENTS = (
    "push", "pull_request", "create", "delete", "release", "merge_group", "workflow_dispatch",
    "deployment", "issues", "ping", "pull_request_review", "check_run",
)  # fmt: skip
SHAS: st.SearchStrategy[object] = st.sampled_from(
    ["a" * 40, "0" * 40, "b" * 64, "", "main", None, 5]
)
REFS: st.SearchStrategy[object] = st.sampled_from(
    ["refs/heads/main", "refs/tags/v1", "main", "", "-x", "a b", None, {}]
)
FIELDS = (
    "ref", "before", "after", "head_commit", "commits", "repository", "sender", "pull_request",
    "number", "action", "head", "base", "sha", "repo", "full_name", "id", "login", "merged",
    "object_kind", "object_attributes", "project", "user", "release", "tag_name", "ref_type",
    "inputs", "merge_group", "deployment", "issue", "iid", "last_commit", "source", "target",
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 2**54), st.text(max_size=8), SHAS, REFS,
              st.sampled_from(["push", "tag_push", "merge_request", "note", "branch", "tag"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    ),
    max_leaves=25,
)  # fmt: skip
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8).map(
        lambda body: json.dumps(body).encode()
    ),
    VALUES.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=200),
)


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Intake:
    """Return ingest's webhook side on a log in memory, with a repository for each provider."""
    folder: Path = tmp_path_factory.mktemp("objects")
    return Intake(
        {f"ada/{provider}": (provider, SECRET) for provider in PROVIDERS},
        MemoryLog(), FileStore(folder), ManualClock(), Meters(),
    )  # fmt: skip


def headers_of(provider: str, event: str, body: bytes) -> dict[str, str]:
    """Return the headers with which a forge would send this body."""
    bare = sign(body, SECRET).removeprefix("sha256=")
    return {
        "github": {"X-GitHub-Event": event, "X-Hub-Signature-256": f"sha256={bare}"},
        "gitea": {"X-Gitea-Event": event, "X-Gitea-Signature": bare},
        "gogs": {"X-Gogs-Event": event, "X-Gogs-Signature": bare},
        "gitlab": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": SECRET.decode()},
        "git": {"X-Tailrace-Event": event, "X-Tailrace-Signature-256": f"sha256={bare}"},
    }[provider]


def post(
    intake: Intake, path: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, Any]]:
    """Send one webhook and return the answer."""
    return asyncio.run(intake.post(path, headers, body))


@given(provider=st.sampled_from(PROVIDERS), event=st.sampled_from(EVENTS), body=BODIES)
@settings(max_examples=400, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_no_signed_body_makes_ingest_fail(
    intake: Intake, provider: str, event: str, body: bytes
) -> None:
    """It is a fact, and where it is 400 one that starts nothing; facts can be written and read."""
    status, answer = post(
        intake, f"/webhooks/{provider}/ada/{provider}", headers_of(provider, event, body), body
    )

    assert status in (202, 400)
    assert answer["delivery_id"]
    fact = intake.events()[-1]
    assert isinstance(fact, DeliveryReceived)
    assert (fact.event_id, fact.inert.startswith("unreadable: ")) == (
        answer["event_id"], status == 400,
    )  # fmt: skip
    assert status == 202 or answer["detail"] in fact.inert


@given(
    provider=st.sampled_from(PROVIDERS),
    headers=st.dictionaries(
        st.sampled_from(
            ["X-GitHub-Event", "X-Hub-Signature-256", "X-Gitea-Signature", "X-Gitlab-Token",
             "Content-Type", "X-Tailrace-Signature-256", "Content-Encoding", "X-Gogs-Signature"]
        ),
        st.one_of(st.text(st.characters(max_codepoint=255), max_size=80), st.just(FORM)),
        max_size=5,
    ),
    body=st.binary(max_size=300),
    path=st.sampled_from(["/webhooks/{0}/ada/{0}", "/webhooks/{0}/nobody", "/webhooks/x/ada/{0}",
                          "/webhooks/{0}/", "/webhooks/git/ada/github"]),
)  # fmt: skip
@settings(max_examples=400, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_nothing_unsigned_gets_in(
    intake: Intake, provider: str, headers: dict[str, str], body: bytes, path: str
) -> None:
    """Whatever headers it has; and the answer does not tell what was wrong."""
    status, answer = post(intake, path.format(provider), headers, body)

    assert status == 401
    assert answer["detail"] == post(intake, "/webhooks/github/nobody", {}, b"")[1]["detail"]


@given(
    body=st.binary(min_size=1, max_size=200),
    at=st.integers(min_value=0),
    flip=st.integers(1, 255),
    provider=st.sampled_from([p for p in PROVIDERS if p != "gitlab"]),
)
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_breaks_the_signature(
    body: bytes, at: int, flip: int, provider: str
) -> None:
    """In the body or in the signature."""
    headers = {k.lower(): v for k, v in headers_of(provider, "push", body).items()}
    at %= len(body)
    changed = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]

    assert verified_body(provider, headers, body, SECRET) == body
    assert verified_body(provider, headers, changed, SECRET) is None
    name = next(name for name in headers if "signature" in name)
    digits = headers[name]
    place = len(digits) - 64 + at % 64
    other = "0" if digits[place] != "0" else "1"
    forged = {**headers, name: digits[:place] + other + digits[place + 1 :]}
    assert verified_body(provider, forged, body, SECRET) is None
