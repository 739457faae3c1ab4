"""The events of `on:` as data: activity types, filters, and which commit a run of each is about."""

from __future__ import annotations

from schemas.late import dataclass

BRANCHES = frozenset({"branches", "branches-ignore"})
TAGS = frozenset({"tags", "tags-ignore"})
PATHS = frozenset({"paths", "paths-ignore"})

DEFAULT_BRANCH = "the default branch"
PUSHED = "the pushed ref"
MERGE = "the pull request's merge commit (refs/pull/N/merge)"
CALLER = "as the caller"


@dataclass(frozen=True, slots=True)
class EventRule:
    """What may be said about an event in `on:`, and what a run for it works on.

    `types` are the activity types that exist (empty: none, any when `free_types`), those in
    `default_types` start a workflow that names none (None: all). `source` says which commit the
    workflow file is read from, `sha` and `ref` what GITHUB_SHA and GITHUB_REF are.
    """

    event: str
    types: tuple[str, ...] = ()
    default_types: tuple[str, ...] | None = None
    filters: frozenset[str] = frozenset()
    source: str = DEFAULT_BRANCH
    sha: str = "its last commit"
    ref: str = DEFAULT_BRANCH
    free_types: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """What may be written below the event; nothing when it takes no configuration."""
        return self.filters | ({"types"} if self.types or self.free_types else set())


_CHANGED = ("created", "edited", "deleted")
_PULL_REQUEST = (
    "assigned",
    "unassigned",
    "labeled",
    "unlabeled",
    "opened",
    "edited",
    "closed",
    "reopened",
    "synchronize",
    "converted_to_draft",
    "locked",
    "unlocked",
    "enqueued",
    "dequeued",
    "milestoned",
    "demilestoned",
    "ready_for_review",
    "review_requested",
    "review_request_removed",
    "auto_merge_enabled",
    "auto_merge_disabled",
    "stacked",
)
_ISSUES = (
    "opened",
    "edited",
    "deleted",
    "transferred",
    "pinned",
    "unpinned",
    "closed",
    "reopened",
    "assigned",
    "unassigned",
    "labeled",
    "unlabeled",
    "locked",
    "unlocked",
    "milestoned",
    "demilestoned",
    "typed",
    "untyped",
    "field_added",
    "field_removed",
)
_DISCUSSION = (
    "created",
    "edited",
    "deleted",
    "transferred",
    "pinned",
    "unpinned",
    "labeled",
    "unlabeled",
    "locked",
    "unlocked",
    "category_changed",
    "answered",
    "unanswered",
)
_RELEASE = ("published", "unpublished", "created", "edited", "deleted", "prereleased", "released")
_PULL_REQUEST_DEFAULT = ("opened", "synchronize", "reopened")

EVENTS: dict[str, EventRule] = {
    rule.event: rule
    for rule in (
        EventRule("branch_protection_rule", _CHANGED),
        EventRule("check_run", ("created", "rerequested", "completed", "requested_action")),
        EventRule("check_suite", ("completed",)),
        EventRule("create", source="the created ref", sha="its last commit", ref="the created ref"),
        EventRule("delete"),
        EventRule(
            "deployment",
            source="the deployed ref",
            sha="the deployed commit",
            ref="the deployed ref",
        ),
        EventRule(
            "deployment_status",
            source="the deployed ref",
            sha="the deployed commit",
            ref="the deployed ref",
        ),
        EventRule("discussion", _DISCUSSION),
        EventRule("discussion_comment", _CHANGED),
        EventRule("fork"),
        EventRule("gollum"),
        EventRule(
            "image_version",
            ("created", "ready", "deleted"),
            filters=frozenset({"names", "versions"}),
        ),
        EventRule("issue_comment", _CHANGED),
        EventRule("issues", _ISSUES),
        EventRule("label", _CHANGED),
        EventRule(
            "merge_group",
            ("checks_requested",),
            filters=BRANCHES,
            source="the merge group's commit",
            sha="the merge group's commit",
            ref="the merge group's ref",
        ),
        EventRule("milestone", ("created", "closed", "opened", "edited", "deleted")),
        EventRule("page_build"),
        EventRule("project", ("created", "closed", "reopened", "edited", "deleted")),
        EventRule("project_card", ("created", "moved", "converted", "edited", "deleted")),
        EventRule("project_column", ("created", "updated", "moved", "deleted")),
        EventRule("public"),
        EventRule(
            "pull_request",
            _PULL_REQUEST,
            _PULL_REQUEST_DEFAULT,
            BRANCHES | PATHS,
            source=MERGE,
            sha="the merge commit",
            ref="refs/pull/N/merge",
        ),
        EventRule("pull_request_comment", _CHANGED),
        EventRule(
            "pull_request_review",
            ("submitted", "edited", "dismissed"),
            source=MERGE,
            sha="the merge commit",
            ref="refs/pull/N/merge",
        ),
        EventRule(
            "pull_request_review_comment",
            _CHANGED,
            source=MERGE,
            sha="the merge commit",
            ref="refs/pull/N/merge",
        ),
        EventRule("pull_request_target", _PULL_REQUEST, _PULL_REQUEST_DEFAULT, BRANCHES | PATHS),
        EventRule(
            "push",
            filters=BRANCHES | TAGS | PATHS,
            source=PUSHED,
            sha="the pushed commit",
            ref=PUSHED,
        ),
        EventRule(
            "registry_package",
            ("published", "updated"),
            source="the published package's commit",
            sha="the published package's commit",
            ref="the published package's ref",
        ),
        EventRule(
            "release",
            _RELEASE,
            source="the release's tag",
            sha="the tagged commit",
            ref="refs/tags/<tag_name>",
        ),
        EventRule("repository_dispatch", free_types=True),
        EventRule("schedule"),
        EventRule("status"),
        EventRule("watch", ("started",)),
        EventRule("workflow_call", source=CALLER, sha=CALLER, ref=CALLER),
        EventRule(
            "workflow_dispatch",
            source="the chosen ref",
            sha="its last commit",
            ref="the chosen ref",
        ),
        EventRule(
            "workflow_run",
            ("requested", "completed", "in_progress"),
            filters=BRANCHES | {"workflows"},
        ),
    )
}
