"""Codes in words, instants and durations as people read them; pure."""

from __future__ import annotations

from datetime import UTC, datetime

REASONS = {
    "user.exit_code": "A step ended with an exit code other than 0",
    "user.timeout": "It ran longer than its time limit",
    "user.workflow_invalid": "The workflow file has mistakes",
    "user.bad_expression": "An expression could not be evaluated",
    "user.outputs_too_large": "Its outputs are larger than allowed",
    "user.condition": "Its condition did not hold",
    "infra.runner_lost": "Its runner was lost",
    "infra.runner_dismissed": "Its runner was dismissed",
    "infra.attempts_used_up": "No runner could finish it, and no attempts are left",
    "infra.git_unreachable": "The repository could not be read in time",
    "user.unsupported_container": "No runner for it has a container engine",
    "infra.gateway": "The gateway was away, or refused what it needed",
    "infra.damaged": "What was kept for it is damaged in the object store",
    "infra.start_failed": "The runner could not start it",
    "infra.checkout_failed": "The commit could not be checked out",
    "cancel.user": "Someone cancelled it",
    "cancel.requested": "Someone cancelled it",
    "cancel.superseded": "A newer run took its place",
    "cancel.late": "It succeeded after it had been asked to end",
    "cancel.fail_fast": "Another leg of its matrix failed",
    "cancel.timed_out": "It ran longer than its time limit",
    "needs": "Waits for other jobs",
    "approval": "Waits for approval",
    "no_runner": "No runner has its labels",
    "no_engine": "No runner with a container engine is up",
    "pool_full": "Every slot of its pool is in use",
    "max_parallel": "As many legs as allowed are running",
    "group": "Its concurrency group is held by another run",
    "merge_conflict": "The pull request conflicts with its base branch",
    "unreadable": "The webhook's body is not what its event header says",
    "duplicate_head": "The same commit came with the delivery before",
    "first": "First attempt",
}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # fmt: skip

STATES = {
    "success": "Succeeded",
    "failure": "Failed",
    "cancelled": "Cancelled",
    "skipped": "Skipped",
    "timed_out": "Timed out",
    "waiting": "Waiting",
    "queued": "Queued",
    "assigned": "Starting",
    "running": "Running",
    "completed": "Completed",
    "lost": "Runner lost",
}


def reason(code: str | None) -> str:
    """Return a reason as a sentence without a full stop; an unknown code reads as its words."""
    if not code:
        return ""
    known = REASONS.get(code)
    if known is not None:
        return known
    words = code.rpartition(".")[2].replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def state(status: str, conclusion: str | None) -> str:
    """Return the one word of style and icons: the conclusion once there is one."""
    return conclusion or status


def state_word(status: str, conclusion: str | None) -> str:
    """Return a state for people."""
    name = state(status, conclusion)
    return STATES.get(name, name.replace("_", " ").capitalize())


def duration(start_ms: int | None, end_ms: int | None) -> str:
    """Return a time span: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if start_ms is None or end_ms is None:
        return ""
    milliseconds = max(0, end_ms - start_ms)
    seconds = milliseconds // 1000
    if seconds < 10:  # noqa: PLR2004
        return f"{milliseconds / 1000:.1f} s"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ago(then_ms: int | None, now_ms: int) -> str:
    """Return how long ago an instant was: `now`, `40 s ago`, `3 min ago`, `2 days ago`."""
    if then_ms is None:
        return ""
    seconds = max(0, now_ms - then_ms) // 1000
    for size, name in ((86_400, "day"), (3_600, "h"), (60, "min")):
        count = seconds // size
        if count:
            return f"{count} {name}{'s' if name == 'day' and count > 1 else ''} ago"
    return f"{seconds} s ago" if seconds > 4 else "now"  # noqa: PLR2004


def instant(ms: int | None) -> str:
    """Return an instant in UTC, to the millisecond."""
    if ms is None:
        return ""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{ms % 1000:03d} UTC"


def day(ms: int | None) -> str:
    """Return an instant's day in UTC: `24 Nov 2026`."""
    if ms is None:
        return ""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}"


def size(size_bytes: int) -> str:
    """Return a size: `812 B`, `4.7 KiB`, `1.2 GiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def short_ref(ref: str) -> str:
    """Return a ref without its namespace: `main`, `v1.2`, `#17`."""
    if ref.startswith("refs/pull/"):
        return "#" + ref.split("/")[2]
    for prefix in ("refs/heads/", "refs/tags/"):
        if ref.startswith(prefix):
            return ref[len(prefix) :]
    return ref
