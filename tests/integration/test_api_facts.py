"""What jobs left behind, through the API: artifacts and their bytes, annotations, groups."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import zipfile
from collections.abc import Iterator

import pytest

from infra.clock import SystemClock
from projector.api import models
from runner.depot import Entry, store
from runner.gateway.shelf import DAY_MS, Owner, Shelf, ShelfDepot
from schemas import events as e
from schemas.stored import PIECE_BYTES, piece_key
from tests.integration.test_api_read import Client, System
from tests.support.histories import REPOSITORY, History
from tests.support.read_side import ReadSide, read_side, running, running_api


@pytest.fixture(scope="module")
def system(
    kafka: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """Yield a running projector and API for the tests of the module."""
    import psycopg

    name = f"test_facts_{os.getpid()}"
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute(f"CREATE DATABASE {name}".encode())
    url = postgres_url.rpartition("/")[0] + f"/{name}"
    with (
        read_side(kafka, url, tmp_path_factory.mktemp("facts")) as side,
        running(side.projector()),
        running_api(side) as origin,
    ):
        yield System(side, Client(origin), History().configured())
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def started(system: System) -> tuple[str, str]:
    """Let a job begin; returns its run and itself."""
    history = system.history
    history.pushed()
    run_id = history.planned([("build", ())])
    job = history.job("build")
    history.scheduled(job)
    history.assigned(job)
    history.started(job)
    return run_id, job


def zipped(size_bytes: int = 100) -> bytes:
    """Return a zip whose content is hard to press."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        file.writestr("f", os.urandom(size_bytes))
    return target.getvalue()


def uploaded(
    system: System, job: str, name: str, content: bytes, expires_at: int | None = None
) -> Entry:
    """Upload an artifact as a runner does, and tell the log."""
    run_id = job.partition(".")[0]
    owner = Owner(repository=REPOSITORY, run_id=run_id, job_id=job, attempt=1)
    shelf = Shelf(system.side.objects, SystemClock())
    size, sha256, pieces = store(ShelfDepot(shelf, owner), io.BytesIO(content))
    entry = Entry(name=name, size_bytes=size, sha256=sha256, pieces=pieces, files=1)
    kept = shelf.save_artifact(owner, entry, overwrite=True, retention_days=0).entry
    system.history.add(
        e.ArtifactUploaded, job, kept.artifact_id, job_id=job, attempt=1, name=name,
        size_bytes=size, sha256=sha256, uri=kept.uri, files=1, artifact_id=kept.artifact_id,
        expires_at=kept.expires_at if expires_at is None else expires_at,
    )  # fmt: skip
    return kept


def test_a_run_lists_the_newest_artifact_of_each_name(system: System) -> None:
    """With what the download needs; by id, too; the answers are what OpenAPI says."""
    run_id, job = started(system)
    old = uploaded(system, job, "report", zipped())
    new = uploaded(system, job, "report", zipped())
    long = uploaded(system, job, "ü" * 500, zipped())
    system.tell()

    found = system.client.json(f"/api/v1/runs/{run_id}/artifacts")
    models.ArtifactList.model_validate(found)
    assert [item["artifact_id"] for item in found["items"]] == [new.artifact_id, long.artifact_id]
    one = system.client.json(f"/api/v1/artifacts/{new.artifact_id}")
    models.ArtifactDetail.model_validate(one)
    assert (one["name"], one["job"], one["expired"]) == ("report", "Build", False)
    assert one["expires_at"] == new.created_at + 90 * DAY_MS
    assert system.client.ask(f"/api/v1/artifacts/{old.artifact_id}")[0] == 404
    assert system.client.ask("/api/v1/runs/nope/artifacts")[0] == 404


def test_a_download_is_the_file_and_nothing_that_runs(system: System) -> None:
    """More than a piece, whole and in parts, with the headers that keep it a file."""
    _, job = started(system)
    content = zipped(PIECE_BYTES + 1000)
    entry = uploaded(system, job, "Bericht für Ä;x=1", content)
    system.tell()
    path = f"/api/v1/artifacts/{entry.artifact_id}/zip"

    status, headers, body = system.client.ask(path)
    assert (status, body) == (200, content)
    assert headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert headers["content-type"] == "application/zip"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox;")
    assert headers["content-disposition"] == (
        'attachment; filename="Bericht f_r __x_1.zip"; '
        "filename*=UTF-8''Bericht%20f%C3%BCr%20%C3%84%3Bx%3D1.zip"
    )
    status, headers, body = system.client.ask(path, Range=f"bytes={PIECE_BYTES - 2}-{PIECE_BYTES}")
    assert (status, body) == (206, content[PIECE_BYTES - 2 : PIECE_BYTES + 1])
    assert headers["content-range"] == (f"bytes {PIECE_BYTES - 2}-{PIECE_BYTES}/{len(content)}")
    assert system.client.ask(path, Range="bytes=-3")[2] == content[-3:]
    assert system.client.ask(path, Range="bytes=-3", If_Range='"old"')[2] == content
    assert system.client.ask(path, Range=f"bytes={len(content)}-")[0] == 416
    assert system.client.ask(path, If_None_Match=f'"{entry.sha256}"')[::2] == (304, b"")
    status, headers, body = system.client.ask(path, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(content)), b"")
    assert system.client.ask(path, Authorization="")[0] == 401


def test_what_expired_is_listed_and_not_given(system: System) -> None:
    """From its instant on, whether or not the bytes are removed yet."""
    run_id, job = started(system)
    entry = uploaded(system, job, "old", zipped(), expires_at=1)
    system.tell()

    [item] = system.client.json(f"/api/v1/runs/{run_id}/artifacts")["items"]
    assert item["expired"] is True
    status, _, body = system.client.ask(f"/api/v1/artifacts/{entry.artifact_id}/zip")
    assert status == 410
    assert json.loads(body)["type"] == "urn:tailrace:problem:artifact-expired"


def test_a_damaged_file_is_never_sent(system: System) -> None:
    """Damage at its beginning is an error, damage behind it cuts the answer short."""
    _, job = started(system)
    small = uploaded(system, job, "small", zipped())
    large = uploaded(system, job, "large", zipped(PIECE_BYTES * 2))
    gone = uploaded(system, job, "gone", zipped(50))
    system.tell()
    side: ReadSide = system.side
    for entry, place in ((small, 0), (large, 1)):
        key = piece_key(REPOSITORY, entry.pieces[place])
        side.objects.delete(key)
        side.objects.put(key, b"something else")
    side.objects.delete(piece_key(REPOSITORY, gone.pieces[0]))

    def ask(entry: Entry) -> tuple[int, str]:
        status, _, body = system.client.ask(f"/api/v1/artifacts/{entry.artifact_id}/zip")
        return status, json.loads(body)["type"].rpartition(":")[2]

    assert ask(small) == (500, "artifact-damaged")
    assert ask(gone) == (410, "artifact-gone")
    with pytest.raises(http.client.IncompleteRead) as cut:
        system.client.ask(f"/api/v1/artifacts/{large.artifact_id}/zip")
    assert len(cut.value.partial) == PIECE_BYTES


def test_annotations_and_groups_are_data(system: System) -> None:
    """Of the live attempt, the worst of a job first; groups with their first and last lines."""
    run_id, job = started(system)
    history = system.history
    token = {"job_id": job, "attempt": 1, "runner_id": history.runner_id,
             "boot_id": history.boot_id}  # fmt: skip
    groups = (
        e.LogGroup(title="Compile", first_line=4, lines=3),
        e.LogGroup(title="Link", first_line=8, lines=1),
    )
    history.add(
        e.StepFinished, job, 1, **token, number=2, name="Run make", outcome="success",
        conclusion="success", first_line=3, lines=9, groups=groups,
    )  # fmt: skip
    remarks = (
        e.Annotation(level="warning", message="w", path="a.py", line=3, end_line=4, step=2),
        e.Annotation(level="error", message="e", path="b.py", line=1, step=2),
        e.Annotation(level="notice", message="n", step=7),
    )
    history.finished(job, conclusion="failure", annotations=remarks)
    system.tell()

    found = system.client.json(f"/api/v1/runs/{run_id}/annotations")
    models.AnnotationList.model_validate(found)
    shown = [(i["level"], i["path"], i["line"], i["job"], i["step_name"]) for i in found["items"]]
    assert shown == [
        ("error", "b.py", 1, "Build", "Run make"),
        ("warning", "a.py", 3, "Build", "Run make"),
        ("notice", "", 0, "Build", None),
    ]
    only = system.client.json(f"/api/v1/runs/{run_id}/annotations?level=notice")["items"]
    assert [item["message"] for item in only] == ["n"]
    assert system.client.ask(f"/api/v1/runs/{run_id}/annotations?level=x")[0] == 422
    path = f"/api/v1/jobs/{job}/attempts/1/groups"
    found = system.client.json(path)
    models.GroupList.model_validate(found)
    lines = [(i["step"], i["title"], i["first_line"], i["last_line"]) for i in found["items"]]
    assert lines == [(2, "Compile", 4, 6), (2, "Link", 8, 8)]
    assert system.client.json(f"{path}?step=1")["items"] == []
    assert system.client.ask(f"/api/v1/jobs/{job}/attempts/9/groups")[0] == 404


def test_the_tables_of_facts_come_again_from_the_log(system: System) -> None:
    """Emptied and folded once more, they are the same."""
    from projector import store as tables

    _, job = started(system)
    uploaded(system, job, "again", zipped())
    system.tell()
    before = system.side.checksum()
    assert before["artifact"][0] > 0
    with system.side.connect() as database:
        tables.unfold(database)
    with running(system.side.projector("again")):
        system.side.await_folded()
    assert system.side.checksum() == before
