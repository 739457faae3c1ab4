"""Small parts of the runner: shells, environment, folders, identity, leases."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from infra.clock import ManualClock
from runner.actions.checkout import config_text, public_url
from runner.environment import (
    MARKER,
    default_variables,
    inherited,
    search_path,
    step_variables,
)
from runner.folders import Cleaner, CommandFileReadError, Seat, remove
from runner.gateway.leases import KINDS, Leases, Token
from runner.gateway_client import Clone
from runner.identity import IdentityStore, RunnerRunsError
from runner.leftovers import kill_leftovers
from runner.mirrors import credential_settings, revision_of
from runner.shells import ShellError, script_for
from schemas import events as e


@pytest.mark.parametrize(
    ("shell", "programs", "argv"),
    [
        (None, "bash", ["bash", "-e", "S"]),
        (None, "", ["sh", "-e", "S"]),
        ("bash", "bash", ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "S"]),
        ("sh", "", ["sh", "-e", "S"]),
        ("python", "python", ["python", "S"]),
        ("python", "python3", ["python3", "S"]),
        ("perl -w {0}", "", ["perl", "-w", "S"]),
        ("bash -c 'source {0}'", "", ["bash", "-c", "source S"]),
    ],
)
def test_shells_follow_githubs_rules(shell: str | None, programs: str, argv: list[str]) -> None:
    """The command of each `shell:`."""
    script = script_for("x", shell, lambda name: name in programs.split())

    assert script.command("S") == argv


def test_an_unknown_shell_is_refused_with_what_to_write() -> None:
    """The message names what is built in and the place of the script."""
    with pytest.raises(ShellError, match=r"\{0\}"):
        script_for("x", "fish", lambda _: True)


def test_only_allowed_variables_are_inherited() -> None:
    """Settings and secrets of the services stay behind, and so do the runner's own programs."""
    found = inherited(
        {
            "PATH": "/venv/bin:/opt/bin:/usr/bin",
            "TAILRACE_HOME": "/x",
            "AWS_SECRET": "s",
            "TZ": "UTC",
        },
        own_programs="/venv/bin",
    )

    assert set(found) == {"PATH", "TZ", "LANG"}
    assert found["PATH"].split(":")[:2] == ["/opt/bin", "/usr/bin"]


def test_githubs_variables_can_not_be_overridden_but_ci_can() -> None:
    """As on GitHub."""
    defaults = default_variables({"repository": "a/b"}, {"os": "Linux"}, action="s1")
    own = {"GITHUB_REPOSITORY": "evil/x", "CI": "false", "MINE": "1", "": "no", "A=B": "no"}

    found = step_variables({"PATH": "/usr/bin"}, own, defaults, ("/new", "/old"))

    assert found["GITHUB_REPOSITORY"] == "a/b"
    assert found["GITHUB_ACTION"] == "s1"
    assert (found["CI"], found["MINE"]) == ("false", "1")
    assert found["PATH"] == "/new:/old:/usr/bin"
    assert not {"", "A=B"} & set(found)


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    """Return a seat of the tests' own user."""
    (tmp_path / "work").mkdir()
    return Seat(0, None, tmp_path / "work", cleaner=Cleaner(), tool_cache=tmp_path / "tools")


def test_untouched_folders_serve_again_and_others_never(seat: Seat) -> None:
    """A file, another mode: the folders are made anew."""
    first = seat.take("a/b")
    seat.give_back(first)
    second = seat.take("a/b")
    assert second.root == first.root
    (second.workspace / "left").touch()
    seat.give_back(second)
    third = seat.take("a/b")
    assert third.root != second.root
    Path(third.places.home).chmod(0o755)
    seat.give_back(third)

    assert seat.take("a/b").root != third.root


def test_a_command_file_that_became_a_link_is_refused(seat: Seat, tmp_path: Path) -> None:
    """The runner may be root: it never follows what a job put in place of its file."""
    folders = seat.take("a/b")
    secret = tmp_path / "secret"
    secret.write_text("NAME=value")
    files = folders.make_command_files(1)
    Path(files["ENV"]).unlink()
    Path(files["ENV"]).symlink_to(secret)
    Path(files["OUTPUT"]).unlink()
    os.mkfifo(files["OUTPUT"])

    for name in ("ENV", "OUTPUT"):
        with pytest.raises(CommandFileReadError):
            folders.read_command_file(files[name], 100)
    assert folders.read_command_file(files["STATE"] + "gone", 100) == b""


def test_a_job_that_removes_its_files_gets_new_ones_and_the_seat_goes_on(seat: Seat) -> None:
    """`rm -rf` of the folder, or of what lies beside it, is no trouble of the runner's."""
    folders = seat.take("a/b")
    remove(folders.files)
    files = folders.make_command_files(2)
    assert folders.read_command_file(files["ENV"], 100) == b""
    remove(folders.files)
    folders.files.symlink_to("/nowhere")

    seat.give_back(folders)

    assert seat.take("a/b").root != folders.root


def test_a_link_is_removed_as_itself(tmp_path: Path) -> None:
    """Also one that leads nowhere."""
    link = tmp_path / "link"
    link.symlink_to("/nowhere")

    remove(link)

    assert not link.is_symlink()


def test_what_github_path_added_comes_first_and_once() -> None:
    """The last one added before the others."""
    assert search_path("/usr/bin:/new:/bin", ("/new", "/old")) == "/new:/old:/usr/bin:/bin"
    assert search_path("/usr/bin::", ()) == "/usr/bin::"


def test_write_protected_trees_are_removed_and_links_not_followed(tmp_path: Path) -> None:
    """What a job protected goes, what it pointed to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").touch()
    (tree / "link").symlink_to(outside)
    (tree / "deep").chmod(0o500)

    remove(tree)

    assert not tree.exists()
    assert (outside / "kept").exists()


def test_boots_are_ever_higher_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    """The last one is on disk before it is used."""
    store = IdentityStore(tmp_path)
    first = store.next_boot(ManualClock(2_000_000))
    second = store.next_boot(ManualClock(1_000_000))

    assert second > first
    assert store.runner_id("name") == store.runner_id("other") == "name"
    with pytest.raises(RunnerRunsError):
        IdentityStore(tmp_path)
    store.close()
    IdentityStore(tmp_path).close()


def test_only_what_a_runner_of_this_folder_left_behind_is_killed(tmp_path: Path) -> None:
    """Two installations on a machine have runners of one name: each spares the other's jobs."""
    ours, theirs = IdentityStore(tmp_path / "ours"), IdentityStore(tmp_path / "theirs")
    assert ours.runner_id("vm-runner-1") == theirs.runner_id("vm-runner-1")
    jobs = [
        subprocess.Popen(["sleep", "60"], env={**os.environ, MARKER: store.mark()})
        for store in (ours, theirs)
    ]
    try:
        assert kill_leftovers(ours.mark()) == 1
        assert jobs[0].wait(5) == -signal.SIGKILL
        assert jobs[1].poll() is None
    finally:
        for job in jobs:
            job.kill()
            job.wait(5)
        ours.close()
        theirs.close()
    again = IdentityStore(tmp_path / "theirs")
    assert again.mark() == theirs.mark() != ours.mark()
    again.close()


def test_a_credential_goes_to_its_own_origin_only() -> None:
    """Never to another host, never for a path or ssh."""
    settings = credential_settings(Clone("https://git.example:8443/a/b.git", "u", "p"))

    assert list(settings) == ["http.https://git.example:8443/.extraheader"]
    assert credential_settings(Clone("/srv/a.git", "u", "p")) == {}
    assert credential_settings(Clone("ssh://git@h/a", "u", "p")) == {}
    assert '[http "https://git.example:8443/"]' in config_text(settings)
    assert public_url("https://u:p@git.example/a.git") == "https://git.example/a.git"


def test_refs_name_their_kind() -> None:
    """Branches, tags, pull requests; anything else is a commit."""
    kinds = [revision_of(ref, "s").kind for ref in
             ("refs/heads/a/b", "refs/tags/v1", "refs/pull/3/merge", "HEAD")]  # fmt: skip

    assert kinds == ["branch", "tag", "pull", "sha"]


def _job(kind: type[e.Event], attempt: int = 1, boot: str = "b", **values: object) -> e.Event:
    return kind(
        event_id=f"{kind.__name__}{attempt}{boot}", repository="a/b", run_id="run", job_id="run.j",
        attempt=attempt, runner_id="r", boot_id=boot, **values,  # type: ignore[arg-type]
    )  # fmt: skip


ASSIGNED = _job(e.JobAssigned, pool="p", lane=0)
TOKEN = Token("run.j", 1, "r", "b")


@pytest.mark.parametrize(
    ("events", "lives"),
    [
        ((ASSIGNED,), True),
        ((ASSIGNED, _job(e.JobFinished, conclusion="success")), False),
        ((ASSIGNED, _job(e.JobFinished, boot="other", conclusion="success")), True),
        ((ASSIGNED, _job(e.AttemptLost, reason="lost")), False),
        ((ASSIGNED, _job(e.AssignmentDeclined, reason="withdrawn")), False),
        ((ASSIGNED, _job(e.RunnerDismissed, reason="silent")), False),
        ((ASSIGNED, _job(e.JobAssigned, attempt=2, pool="p", lane=0)), False),
        ((), False),
    ],
)
def test_a_lease_lives_from_assigned_to_its_end(
    events: tuple[e.Event, ...], *, lives: bool
) -> None:
    """Only the live attempt of the token's own boot; also after the state was kept and read."""
    leases = Leases()
    for event in events:
        leases.evolve(event)
    kept = Leases.from_json(leases.to_json())

    assert kept is not None
    assert (leases.lease(TOKEN) is not None) == lives
    assert kept.lease(TOKEN) == leases.lease(TOKEN)


def test_a_lease_knows_ref_and_fork_of_its_run_until_that_ends() -> None:
    """Also after the state was kept and read; memory is bounded by what lives."""
    leases = Leases()
    leases.evolve(
        e.RunPlanned(event_id="p", run_id="run", workflow="w", workflow_name="w", run_name="w",
                     run_number=1, fork=True, ref="refs/pull/1/merge")
    )  # fmt: skip
    leases.evolve(ASSIGNED)
    kept = Leases.from_json(leases.to_json())
    for found in (leases.lease(TOKEN), kept.lease(TOKEN) if kept else None):
        assert found is not None
        assert (found.fork, found.ref) == (True, "refs/pull/1/merge")
    leases.evolve(e.RunFinished(event_id="f", run_id="run", conclusion="success"))
    found = leases.lease(TOKEN)
    assert found is not None
    assert (found.fork, found.ref) == (False, "")


def test_the_gateway_reads_the_kinds_that_its_fold_knows() -> None:
    """Not one without a case, which is decoded for nothing, and none too few."""
    cases = re.findall(r"\be\.(\w+)\(\)", inspect.getsource(Leases.evolve))

    assert set(cases) == KINDS
