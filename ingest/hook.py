"""What a repository's post-receive hook runs: sends a signed webhook for each updated ref.

`python -I hook.py CONFIG` with git's `old new ref` lines on stdin. It imports nothing but the
standard library, so that any user who may push can run it; it never fails a push, and never holds
one up for longer than a few seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import pwd
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 4.0
COMMITS_MAX = 20
_FIELDS = ("%H", "%T", "%an", "%ae", "%cn", "%ce", "%cI", "%B")
_UNIT, _RECORD = "\x1f", "\x1e"


def main(arguments: list[str]) -> int:
    """Send what git says was updated; prints one line and returns 0 whatever happens."""
    try:
        config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        lines = [line.split() for line in sys.stdin.read().splitlines()]
        updates = [(parts[0], parts[1], parts[2]) for parts in lines if len(parts) == 3]  # noqa: PLR2004
        for old, new, ref in updates:
            if ref.startswith(("refs/heads/", "refs/tags/")):
                send(config, payload(config, old, new, ref))
    except Exception as error:  # noqa: BLE001 - a push must never fail because of us
        say(f"not queued: {error}")
        return 0
    say(f"queued, {config['runs_url']}")
    return 0


def payload(config: dict[str, Any], old: str, new: str, ref: str) -> dict[str, Any]:
    """Return GitHub's push payload for an updated ref."""
    user = os.environ.get("TAILRACE_PUSHER") or os.environ.get("GL_USERNAME") or user_name()
    deleted, created = not new.strip("0"), not old.strip("0")
    commits = [] if deleted else log(new if created else f"{old}..{new}", one=created)
    head = next(iter([] if deleted else log(new, one=True)), None)
    name = config["repository"]
    return {
        "ref": ref,
        "before": old,
        "after": new,
        "base_ref": None,
        "created": created,
        "deleted": deleted,
        "forced": not created and not deleted and not is_ancestor(old, new),
        "compare": "",
        "commits": commits,
        "head_commit": head,
        "pusher": {"name": user},
        "sender": {"login": user, "type": "User"},
        "repository": {
            "name": name.rpartition("/")[2],
            "full_name": name,
            "owner": {"login": name.partition("/")[0]},
            "default_branch": default_branch() or config["default_branch"],
            "clone_url": config["clone_url"],
            "private": True,
        },
    }


def default_branch() -> str:
    """Return the branch that a bare repository's HEAD names, "" where it says nothing.

    The HEAD of a working copy is what somebody has checked out. Files are read, no git is started:
    the pusher waits.
    """
    folder = Path(os.environ.get("GIT_DIR") or ".")
    try:
        settings = "".join((folder / "config").read_text(encoding="utf-8").lower().split())
        head = (folder / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref: refs/heads/")
        if "bare=true" not in settings or name == head:
            return ""
        packed = folder / "packed-refs"
        is_packed = packed.exists() and f" refs/heads/{name}\n" in packed.read_text("utf-8")
        return name if is_packed or (folder / "refs/heads" / name).exists() else ""
    except (OSError, ValueError):
        return ""


def user_name() -> str:
    """Return the name of the user who pushes."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def log(revisions: str, *, one: bool) -> list[dict[str, Any]]:
    """Return commits as GitHub's payload has them, oldest first."""
    count = 1 if one else COMMITS_MAX
    output = git("log", f"--max-count={count}", f"--format={_UNIT.join(_FIELDS)}{_RECORD}",
                 "--end-of-options", revisions)  # fmt: skip
    found = []
    for record in output.split(_RECORD):
        parts = record.lstrip("\n").split(_UNIT)
        if len(parts) == len(_FIELDS):
            commit, tree, author, author_email, committer, committer_email, when, message = parts
            found.append(
                {
                    "id": commit,
                    "tree_id": tree,
                    "distinct": True,
                    "message": message.rstrip("\n"),
                    "timestamp": when,
                    "author": {"name": author, "email": author_email},
                    "committer": {"name": committer, "email": committer_email},
                }
            )
    return found[::-1]


def is_ancestor(old: str, new: str) -> bool:
    """Tell whether a push only adds commits."""
    command = ["git", "merge-base", "--is-ancestor", old, new]
    return (
        subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False).returncode == 0
    )


def git(*arguments: str) -> str:
    """Return the output of a git command, "" when it fails: the push is reported all the same."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def send(config: dict[str, Any], content: dict[str, Any]) -> None:
    """Post one signed webhook; raises with the reason when it was not accepted."""
    body = json.dumps(content, ensure_ascii=False).encode()
    signature = hmac.new(config["secret"].encode(), body, hashlib.sha256).hexdigest()
    url = urlsplit(config["url"])
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "127.0.0.1", url.port, timeout=TIMEOUT_S)
    try:
        connection.request(
            "POST",
            url.path,
            body,
            {
                "Content-Type": "application/json",
                "X-Tailrace-Event": "push",
                "X-Tailrace-Delivery": str(uuid.uuid4()),  # noqa: TID251 - runs on its own
                "X-Tailrace-Signature-256": f"sha256={signature}",
            },
        )
        response = connection.getresponse()
        answer = response.read(4096)
    except OSError as error:
        raise OSError(f"no answer from {url.scheme}://{url.netloc} ({error})") from error
    finally:
        connection.close()
    if response.status != http.client.ACCEPTED:
        raise ValueError(f"answer {response.status}: {detail(answer)}")


def detail(answer: bytes) -> str:
    """Return the sentence of a problem document."""
    try:
        return str(json.loads(answer)["detail"])
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode("utf-8", "replace")


def say(text: str) -> None:
    """Tell the person who pushes."""
    sys.stderr.write(f"tailrace: {text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
