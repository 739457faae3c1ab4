"""Remote repositories through a real git server, with and without its extras."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from infra.clock import ManualClock
from infra.embedded.ports import free_port
from infra.git import Git, GitError, checked_url, git_folder, local_path, shown_url
from infra.metrics import Meters
from ingest.mirrors import LEFT_AFTER_MS, Mirror, Mirrors, Origin, UnreachableError
from tests.support.eventually import eventually
from tests.support.gitrepo import GitRepo, workflow

CI = ".github/workflows/ci.yml"
Serve = Callable[[], str]


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """Return a repository with a workflow and a file of some size."""
    made = GitRepo(tmp_path)
    made.commit({CI: workflow(), "big": "x" * 100_000, "a": "1\n2\n3\n"})
    return made


@pytest.fixture
def served(tmp_path: Path, repo: GitRepo) -> Iterator[str]:
    """Yield the URL of the repository on a git server of its own."""
    port = free_port()
    daemon = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={tmp_path}", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"git://127.0.0.1:{port}/{repo.bare.name}"

    def answers() -> bool:
        done = subprocess.run(["git", "ls-remote", url], capture_output=True, check=False)
        return done.returncode == 0

    eventually(answers, what="git server")
    yield url
    daemon.terminate()
    daemon.wait(5)


@pytest.fixture
def mirror(tmp_path: Path, served: str) -> Iterator[Mirror]:
    """Yield a fresh mirror of the served repository."""
    origin = Origin(repository="ada/demo", clone_url=served, default_branch="main")
    made = Mirrors(tmp_path / "home", Meters(), ManualClock()).fresh(origin)
    yield made
    made.close()


def allow(repo: GitRepo, **settings: bool) -> None:
    """Set what the server's upload-pack allows."""
    for name, value in settings.items():
        repo.run("-C", str(repo.bare), "config", f"uploadpack.{name}", str(value).lower())


def blobs_in(tmp_path: Path) -> int:
    """Count the blobs that mirrors hold."""
    [folder] = (tmp_path / "home" / "mirrors").glob("*.git")
    done = subprocess.run(
        ["git", "-C", str(folder), "cat-file", "--batch-check", "--batch-all-objects"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.count(" blob ")


def read_workflow(mirror: Mirror, sha: str) -> bytes:
    """Return the workflow's text at a commit."""
    entry = mirror.file(mirror.commit(sha, hint="refs/heads/main"), CI)
    assert entry is not None
    return mirror.blobs([entry.oid])[entry.oid]


def test_a_mirror_holds_no_blob_but_workflows(
    tmp_path: Path, repo: GitRepo, mirror: Mirror
) -> None:
    """Where the server can filter, history is small; the workflow comes in one more request."""
    allow(repo, allowFilter=True, allowAnySHA1InWant=True)

    assert read_workflow(mirror, repo.head()) == workflow().encode()
    assert blobs_in(tmp_path) == 1


def test_a_server_without_filters_is_mirrored_in_full(
    tmp_path: Path, repo: GitRepo, mirror: Mirror
) -> None:
    """The same answers, with more bytes."""
    allow(repo, allowFilter=False)

    assert read_workflow(mirror, repo.head()) == workflow().encode()
    assert blobs_in(tmp_path) == 3


def test_a_new_commit_is_fetched_when_it_is_asked_for(repo: GitRepo, mirror: Mirror) -> None:
    """History comes with it: a diff needs nothing more."""
    allow(repo, allowFilter=True, allowAnySHA1InWant=True)
    first = repo.head()
    mirror.commit(first)
    second = repo.commit({"docs/a": "1"})

    assert mirror.commit(second, hint="refs/heads/main").parents == (first,)
    assert mirror.changed_paths(first, second) == ("docs/a",)


def test_a_commit_that_its_branch_has_left_is_fetched_by_its_id(
    repo: GitRepo, mirror: Mirror
) -> None:
    """A force push came between the webhook and the planner."""
    allow(repo, allowAnySHA1InWant=True)
    lost = repo.commit({"a": "9"})
    repo.run("reset", "-q", "--hard", "HEAD~1")
    repo.push("--force", "main")

    assert mirror.commit(lost, hint="refs/heads/main").oid == lost


def test_a_merge_is_the_same_commit_in_a_blobless_mirror(
    tmp_path: Path, repo: GitRepo, mirror: Mirror
) -> None:
    """The blobs that a merge reads are fetched; the result does not depend on where it is made."""
    allow(repo, allowFilter=True, allowAnySHA1InWant=True)
    base = repo.head()
    topic = repo.commit({"a": "1\n2\n3\n4\n"}, branch="topic", since=base)
    main = repo.commit({"a": "0\n1\n2\n3\n"})
    mirror.commit(main)
    mirror.commit(topic)
    local = Origin(repository="l", clone_url=str(repo.bare), default_branch="main")
    here = Mirrors(tmp_path / "other", Meters(), ManualClock()).fresh(local)
    here.commit(main)

    merged = mirror.merge(main, topic, "Merge")
    assert merged is not None
    assert merged == here.merge(main, topic, "Merge")
    here.close()


def test_a_mirror_that_several_make_at_once_is_whole_for_each(
    tmp_path: Path, repo: GitRepo
) -> None:
    """Ingest and the planner both come when a repository is new; nobody sees half a mirror."""
    head = repo.commit({"a": "1\n"})
    origin = Origin(repository="l", clone_url=str(repo.bare), default_branch="main")

    def read(home: Path, together: threading.Barrier) -> str:
        mirror = Mirrors(home, Meters(), ManualClock()).fresh(origin)
        together.wait()
        found = mirror.commit(head).oid
        mirror.close()
        return found

    for number in range(3):
        together = threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            homes = [tmp_path / f"home-{number}"] * 8
            assert list(pool.map(read, homes, [together] * 8)) == [head] * 8
        [_] = (tmp_path / f"home-{number}" / "mirrors").iterdir()


def test_what_killed_processes_left_is_removed_when_a_mirror_is_made(
    tmp_path: Path, repo: GitRepo
) -> None:
    """After an hour: what is younger may be another process's that still works on it."""
    clock = ManualClock()
    mirrors = Mirrors(tmp_path / "home", Meters(), clock)
    origin = Origin(repository="l", clone_url=str(repo.bare), default_branch="main")
    with mirrors.use(origin) as mirror:
        mirror.resolve("main")
    [made] = (tmp_path / "home" / "mirrors").iterdir()
    info = made / "objects" / "info"
    (info / "alternates").unlink()
    left = {}
    for name, age_ms in (("old", LEFT_AFTER_MS + 1_000), ("young", LEFT_AFTER_MS - 1_000)):
        folder, file = made.parent / f".new-{name}", info / f"alternates.{name}"
        (folder / "objects").mkdir(parents=True)
        file.write_text("/srv", encoding="utf-8")
        left[name] = (folder, file)
        for path in left[name]:
            os.utime(path, (0, (clock.now_ms() - age_ms) / 1000))
    for again in (origin, replace(origin, repository="other")):
        with closing(mirrors.fresh(again)) as mirror:
            assert mirror.resolve("main") == repo.head()
    mirrors.close()

    assert [path.exists() for path in left["old"]] == [False, False]
    assert [path.exists() for path in left["young"]] == [True, True]


def test_refs_are_resolved_at_the_server(repo: GitRepo, mirror: Mirror) -> None:
    """Branches, tags (to their commit) and the default branch."""
    repo.tag("v1", annotated=True)

    assert mirror.resolve("main") == repo.head()
    assert mirror.resolve("refs/tags/v1") == repo.head()
    assert mirror.resolve("none") is None
    assert mirror.default_branch() == "main"


def test_a_server_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    """With git's reason, and without what may be a password."""
    url = f"http://user:secret@127.0.0.1:{free_port()}/x.git"
    origin = Origin(repository="a/b", clone_url=url, default_branch="main")
    mirror = Mirrors(tmp_path, Meters(), ManualClock()).fresh(origin)

    with closing(mirror), pytest.raises(UnreachableError) as caught:
        mirror.commit("a" * 40)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c id", "ext::x", "https://a b/c"]
)
def test_what_git_might_take_for_an_option_is_no_url(url: str, tmp_path: Path) -> None:
    """Nor are remote helpers, which run commands."""
    with pytest.raises(GitError):
        checked_url(url)
    origin = Origin(repository="a/b", clone_url=url, default_branch="main")
    with pytest.raises(UnreachableError):
        Mirrors(tmp_path, Meters(), ManualClock()).fresh(origin).commit("a" * 40)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/a.git", Path("/srv/a.git")),
        ("file:///srv/a.git", Path("/srv/a.git")),
        ("file://other/srv/a.git", None),
        ("https://x/a.git", None),
        ("git@x:a.git", None),
    ],
)
def test_a_folder_of_this_machine_is_told_from_a_remote(url: str, path: Path | None) -> None:
    """Only these borrow objects."""
    assert local_path(url) == path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@x/a", "https://x/a"),
        ("https://token@x/a", "https://x/a"),
        ("ssh://git@x/a", "ssh://git@x/a"),
        ("ssh://git:pw@x/a", "ssh://git@x/a"),
        ("git@x:a", "git@x:a"),
    ],
)
def test_a_shown_url_has_no_secret(url: str, shown: str) -> None:
    """A token may be the user name."""
    assert shown_url(url) == shown


def test_working_copies_worktrees_and_bare_repositories_are_found(
    tmp_path: Path, repo: GitRepo
) -> None:
    """By looking at the folder, without asking git about a stranger's configuration."""
    worktree = tmp_path / "tree"
    repo.run("worktree", "add", "-q", str(worktree), "-b", "other")

    assert git_folder(repo.bare) == repo.bare
    assert git_folder(repo.work) == repo.work / ".git"
    assert git_folder(worktree) == repo.work / ".git"
    with pytest.raises(GitError, match="no git repository"):
        git_folder(tmp_path / "none")


def test_a_repositorys_hooks_and_configuration_run_nothing(tmp_path: Path, repo: GitRepo) -> None:
    """A borrowed repository may belong to anybody."""
    evil = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {evil}\n"
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor"):
        hook = repo.bare / "hooks" / name
        hook.write_text(script, encoding="utf-8")
        hook.chmod(0o755)
    with (repo.bare / "config").open("a", encoding="utf-8") as config:
        config.write(f"[core]\n fsmonitor = {repo.bare}/hooks/fsmonitor\n pager = touch {evil}\n"
                     f" sshCommand = touch {evil}\n[alias]\n fetch = !touch {evil}\n")  # fmt: skip
    base = repo.head()
    origin = Origin(repository="a/b", clone_url=str(repo.bare), default_branch="main")
    mirror = Mirrors(tmp_path / "home", Meters(), ManualClock()).fresh(origin)
    mirror.resolve("main")
    mirror.merge(base, base, "Merge")
    mirror.close()

    assert not evil.exists()


def test_a_killed_git_process_is_started_again(repo: GitRepo, tmp_path: Path) -> None:
    """The reader that stays open is no single point of failure."""
    origin = Origin(repository="a/b", clone_url=str(repo.bare), default_branch="main")
    mirror = Mirrors(tmp_path / "home", Meters(), ManualClock()).fresh(origin)
    mirror.commit(repo.head())
    reader = mirror._reader  # noqa: SLF001 - the process is what the test is about
    assert reader is not None
    reader._process.kill()  # noqa: SLF001
    reader._process.wait()  # noqa: SLF001

    assert mirror.commit(repo.head()).oid == repo.head()
    mirror.close()


def test_credentials_travel_in_the_environment_alone(tmp_path: Path) -> None:
    """Neither the command line nor any file shows them."""
    from infra.git import Credentials

    git = Git(tmp_path)
    process = git.start(
        ["cat-file", "--batch"], git_dir=tmp_path,
        credentials=Credentials(username="u", password="hunter2hunter2"), protocols="https",
    )  # fmt: skip
    try:
        assert "hunter2hunter2" not in " ".join(map(str, process.args))  # type: ignore[arg-type]
        for path in tmp_path.rglob("*"):
            assert b"hunter2hunter2" not in path.read_bytes()
        answer = subprocess.run(
            [str(tmp_path / "git-askpass"), "Password for 'https://u@x': "],
            env={"TAILRACE_GIT_PASSWORD": "hunter2hunter2"}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert answer.stdout == "hunter2hunter2\n"
    finally:
        process.kill()
        process.communicate()
