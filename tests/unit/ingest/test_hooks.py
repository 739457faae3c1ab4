"""The post-receive hook of a local repository, by real pushes to a real HTTP server."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.embedded.ports import free_port
from ingest.hooks import EARLIER, HookError, Hooks
from ingest.signatures import verified_body
from tests.support.gitrepo import GitRepo

SECRET = "hook-secret"
Received = list[tuple[dict[str, str], bytes]]


class Recorder(ThreadingHTTPServer):
    """Takes webhooks and remembers them."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: Received = []
        self.status = 202

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"http://127.0.0.1:{self.server_address[1]}/webhooks/git/ada/demo"


class _Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b'{"detail": "not today"}')

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Yield a server that takes webhooks."""
    server = Recorder()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """Return a repository with one commit."""
    made = GitRepo(tmp_path)
    made.commit({"a": "1"}, "first")
    return made


def install(repo: GitRepo, url: str, path: Path | None = None) -> Path:
    """Install the hook."""
    hooks = Hooks(runs_url="http://ci.example/")
    return hooks.install(path or repo.bare, repository="ada/demo", url=url, secret=SECRET)


def payloads(recorder: Recorder) -> list[dict[str, Any]]:
    """Return the verified bodies of what was sent."""
    found = []
    for headers, body in recorder.received:
        verified = verified_body("git", headers, body, SECRET.encode())
        assert verified is not None
        found.append(json.loads(verified))
    return found


def test_a_push_sends_a_signed_webhook_with_its_commits(repo: GitRepo, recorder: Recorder) -> None:
    """In GitHub's shape, oldest commit first, and the person who pushes is told where to look."""
    install(repo, recorder.url)
    old = repo.head()
    repo.run("commit", "-q", "--allow-empty", "-m", "second\n\nmore")
    repo.run("commit", "-q", "--allow-empty", "-m", "third")
    said = repo.push("main")
    [payload] = payloads(recorder)

    assert "tailrace: queued, http://ci.example/" in said
    assert (payload["ref"], payload["before"], payload["after"]) == (
        "refs/heads/main", old, repo.head(),
    )  # fmt: skip
    assert [commit["message"] for commit in payload["commits"]] == ["second\n\nmore", "third"]
    assert payload["head_commit"]["id"] == repo.head()
    assert payload["head_commit"]["author"] == {"name": "Ada", "email": "ada@example.org"}
    assert (payload["created"], payload["deleted"], payload["forced"]) == (False, False, False)
    assert payload["repository"]["full_name"] == "ada/demo"
    assert recorder.received[0][0]["x-tailrace-event"] == "push"


def test_every_updated_ref_has_a_delivery_of_its_own(repo: GitRepo, recorder: Recorder) -> None:
    """A new branch, a new tag, a force push and a deletion in one push."""
    repo.commit({"b": "1"}, branch="gone")
    install(repo, recorder.url)
    repo.run("checkout", "-q", "main")
    repo.run("commit", "-q", "--amend", "-m", "rewritten")
    repo.run("tag", "v1")
    repo.push("+main", "main:new", "v1", ":gone")
    found = {payload["ref"]: payload for payload in payloads(recorder)}
    ids = {headers["x-tailrace-delivery"] for headers, _ in recorder.received}

    assert set(found) == {"refs/heads/main", "refs/heads/new", "refs/tags/v1", "refs/heads/gone"}
    assert len(ids) == 4
    assert found["refs/heads/main"]["forced"] is True
    assert found["refs/heads/new"]["created"] is True
    assert (found["refs/heads/gone"]["deleted"], found["refs/heads/gone"]["head_commit"]) == (
        True, None,
    )  # fmt: skip


@pytest.mark.parametrize("away", [True, False])
def test_a_push_succeeds_whatever_becomes_of_the_webhook(
    repo: GitRepo, recorder: Recorder, *, away: bool
) -> None:
    """Nobody listens, or the answer is an error: the push is done and says why."""
    recorder.status = 503
    url = f"http://127.0.0.1:{free_port()}/webhooks/git/ada/demo" if away else recorder.url
    install(repo, url)
    repo.run("commit", "-q", "--allow-empty", "-m", "second")
    said = repo.push("main")

    assert "tailrace: not queued: " in said
    assert ("no answer from" if away else "not today") in said


def earlier_hook(repo: GitRepo, text: str) -> Path:
    """Write a hook of the user's own."""
    path = repo.bare / "hooks" / "post-receive"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_hook_that_was_there_keeps_running_and_comes_back(
    repo: GitRepo, recorder: Recorder, tmp_path: Path
) -> None:
    """It gets git's lines, as before; `repo rm` puts it back as it was."""
    seen = tmp_path / "seen"
    target = earlier_hook(repo, f"cat > {seen}")
    before = target.read_bytes()
    for _ in range(2):  # installing again changes nothing
        install(repo, recorder.url)
    repo.run("commit", "-q", "--allow-empty", "-m", "second")
    repo.push("main")

    assert seen.read_text(encoding="utf-8").split()[1:] == [repo.head(), "refs/heads/main"]
    assert len(recorder.received) == 1
    Hooks(runs_url="").remove(repo.bare)
    assert target.read_bytes() == before
    assert not (target.parent / EARLIER).exists()
    assert not (target.parent / "tailrace").exists()


def test_a_hook_that_somebody_changed_is_left_alone(repo: GitRepo, recorder: Recorder) -> None:
    """What is not ours is neither removed nor overwritten twice."""
    install(repo, recorder.url)
    target = earlier_hook(repo, "exit 0")
    Hooks(runs_url="").remove(repo.bare)
    assert target.exists()

    (target.parent / EARLIER).write_text("#!/bin/sh\n", encoding="utf-8")
    with pytest.raises(HookError, match="neither is ours"):
        install(repo, recorder.url)


def test_a_working_copy_can_be_pushed_to_as_well(
    repo: GitRepo, recorder: Recorder, tmp_path: Path
) -> None:
    """Its hooks lie in .git."""
    copy = tmp_path / "copy"
    repo.run("clone", "-q", str(repo.bare), str(copy))
    repo.run("-C", str(copy), "config", "receive.denyCurrentBranch", "updateInstead")
    assert install(repo, recorder.url, copy) == copy / ".git" / "hooks" / "post-receive"
    repo.run("remote", "set-url", "origin", str(copy))
    repo.run("commit", "-q", "--allow-empty", "-m", "second")
    repo.push("main")

    assert payloads(recorder)[0]["after"] == repo.head()


def test_a_repository_with_hooks_elsewhere_is_not_touched(repo: GitRepo) -> None:
    """core.hooksPath may be shared with other repositories."""
    repo.run("-C", str(repo.bare), "config", "core.hooksPath", "/srv/hooks")

    with pytest.raises(HookError, match=r"core\.hooksPath"):
        install(repo, "http://127.0.0.1:1/x")


@pytest.mark.parametrize(("objects", "config"), [(0o755, 0o600), (0o775, 0o640), (0o777, 0o644)])
def test_the_secret_is_readable_by_those_who_may_push(
    repo: GitRepo, objects: int, config: int
) -> None:
    """And by nobody else: who can write to the repository can run its hooks anyway."""
    (repo.bare / "objects").chmod(objects)
    target = install(repo, "http://127.0.0.1:1/x")

    found = (target.parent / "tailrace" / "config.json").stat().st_mode
    assert stat.S_IMODE(found) == config


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_the_owner_can_push_to_what_root_registered(tmp_path: Path, recorder: Recorder) -> None:
    """Root installs; the owner's own push runs the hook with the owner's rights."""
    owner = 65_534
    repo = GitRepo(tmp_path)
    repo.commit({"a": "1"})
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, owner, owner, follow_symlinks=False)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    install(repo, recorder.url)
    script = (
        "git -c user.name=B -c user.email=b@x commit -q --allow-empty -m second && "
        "git push origin main"
    )
    done = subprocess.run(
        ["sh", "-c", script], cwd=repo.work, user=owner, group=owner, extra_groups=[],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "tailrace: " in done.stderr
    if "is gone" not in done.stderr:  # the interpreter may lie in root's own home
        assert payloads(recorder)[0]["pusher"]["name"] == "nobody"
