"""Bodies that are not what their event header says."""

from __future__ import annotations

import json

import pytest

from ingest.forges import BodyError
from tests.unit.ingest.forge_bodies import (
    NEW,
    PROJECT,
    about,
    gitea_pull_request,
    gitlab,
    gitlab_push,
    merge_request,
    pull,
    pull_request,
    push,
    read,
)

WRONG = (
    ("github", "push", push(ref=None), "`ref`"),
    ("github", "push", push(ref="refs/heads/a..b"), "`ref`"),
    ("github", "push", push(before="HEAD"), "`before`"),
    ("github", "push", push(after=5), "`after`"),
    ("github", "pull_request", pull_request("opened") | {"number": "7"}, "`number`"),
    ("github", "pull_request", pull_request("opened", pull(base={})), "`pull_request.base.ref`"),
    ("github", "pull_request", about(action="opened", pull_request=[]), "`pull_request`"),
    ("github", "pull_request", pull_request("opened", pull(head={"ref": "x", "sha": "tip"})),
     "`pull_request.head.sha`"),
    ("github", "merge_group", about(action="checks_requested"), "`merge_group`"),
    ("github", "merge_group", about(merge_group={"head_ref": "main", "head_sha": NEW}),
     "`merge_group.head_ref`"),
    ("github", "create", about(ref="x", ref_type="repository"), "`ref_type`"),
    ("github", "delete", about(ref_type="tag"), "`ref`"),
    ("github", "release", about(release={"tag_name": ""}), "`release.tag_name`"),
    ("github", "workflow_dispatch", about(ref="main", inputs=[]), "`inputs`"),
    ("github", "deployment", about(), "`deployment`"),
    ("github", "issues", about(issue={"number": -1}), "`number`"),
    ("github", "push", b"ref=refs/heads/main", "not JSON"),
    ("github", "push", json.dumps(push()).encode("utf-16"), "not JSON"),
    ("github", "push", b"", "not JSON"),
    ("gitea", "pull_request_approved", about(action="reviewed"), "`pull_request`"),
    ("gitea", "push", push(after="tip"), "`after`"),
    ("gogs", "pull_request", gitea_pull_request("opened", {"number": 7}),
     "`pull_request.base.ref`"),
    ("gitlab", "Push Hook", {"project": PROJECT}, "`object_kind`"),
    ("gitlab", "Push Hook", gitlab_push(after=None), "`after`"),
    ("gitlab", "Merge Request Hook", gitlab("merge_request"), "`object_attributes`"),
    ("gitlab", "Merge Request Hook", merge_request("open", iid=None), "`number`"),
    ("gitlab", "Note Hook", gitlab_push(), "object_kind"),
    ("gitlab", "Feature Flag Hook", gitlab_push(), "object_kind"),
    ("gitlab", "Release Hook", gitlab("release", action="create"), "`release.tag_name`"),
)  # fmt: skip


@pytest.mark.parametrize(("provider", "event", "body", "names"), WRONG)
def test_a_wrong_shape_is_an_error_that_names_the_field(
    provider: str, event: str, body: object, names: str
) -> None:
    """What was found there, and what was expected."""
    with pytest.raises(BodyError, match=names) as caught:
        read(provider, event, body)
    assert len(str(caught.value)) < 300
