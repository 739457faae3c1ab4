"""The `github` context as a delivery determines it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.planner.context import github_json
from schemas.events import DeliveryReceived
from schemas.workflow.contexts import ref_name

PAYLOAD = {
    "repository": {"id": 5, "html_url": "https://git.example/ada/demo", "private": False,
                   "owner": {"id": 6}},
    "sender": {"id": 7},
}  # fmt: skip


def context(provider: str = "gitea", clone_url: str = "", **fields: Any) -> dict[str, Any]:
    """Return the context of a push by ada."""
    delivery = DeliveryReceived(
        event_id="e", repository="ada/demo", source="webhook", provider=provider, event="push",
        actor="ada", **{"payload_json": json.dumps(PAYLOAD), **fields},
    )  # fmt: skip
    text = github_json(
        delivery, event="push", ref="refs/heads/a/b", sha="c" * 40, clone_url=clone_url,
        public_url="http://ci.example",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(text)
    return found


def test_names_and_ids_come_from_the_delivery() -> None:
    """Ids are texts, as in GitHub's context; the ref has its short name."""
    found = context()

    assert found["actor"] == found["triggering_actor"] == "ada"
    assert (found["repository_id"], found["repository_owner_id"], found["actor_id"]) == (
        "5", "6", "7",
    )  # fmt: skip
    assert (found["ref_name"], found["ref_type"], found["repository_owner"]) == (
        "a/b", "branch", "ada",
    )  # fmt: skip
    assert found["repository_visibility"] == "public"
    assert "event" not in found


@pytest.mark.parametrize(
    ("provider", "clone_url", "payload", "server", "api"),
    [
        ("gitea", "", PAYLOAD, "https://git.example", "https://git.example/api/v1"),
        ("github", "https://github.com/ada/demo.git", {}, "https://github.com",
         "https://api.github.com"),
        ("github", "https://ghe.example:8443/ada/demo", {}, "https://ghe.example:8443",
         "https://ghe.example:8443/api/v3"),
        ("gitlab", "https://gl.example/ada/demo.git", {}, "https://gl.example",
         "https://gl.example/api/v4"),
        ("git", "/srv/demo.git", {}, "http://ci.example", "http://ci.example/api/v1"),
    ],
)  # fmt: skip
def test_the_server_is_the_forges(
    provider: str, clone_url: str, payload: object, server: str, api: str
) -> None:
    """From the payload's page, else the clone URL; a plain folder's server is this one."""
    found = context(provider, clone_url, payload_json=json.dumps(payload))

    assert (found["server_url"], found["api_url"]) == (server, api)


@pytest.mark.parametrize("payload", ["", "{", "[]", '{"repository": 5}', "[" * 100_000])
def test_a_payload_of_another_shape_only_loses_ids(payload: str) -> None:
    """The context never fails because of what a sender put into its body."""
    assert context(payload_json=payload)["repository_id"] == ""


@pytest.mark.parametrize(
    ("ref", "name"),
    [("refs/heads/a/b", "a/b"), ("refs/tags/v1", "v1"), ("refs/pull/7/merge", "7/merge")],
)
def test_a_ref_has_githubs_short_name(ref: str, name: str) -> None:
    """`github.ref_name` of branches, tags and pull requests."""
    assert ref_name(ref) == name
