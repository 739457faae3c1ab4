"""The API on a real Kafka and a real PostgreSQL: queries, streams, logs, the door, forwarding."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from projector.api import models
from projector.api.routes_commands import COMMAND_BYTES_MAX
from schemas import events as e
from schemas.variables import TOGETHER_BYTES_MAX
from tests.support.eventually import eventually
from tests.support.histories import History, LogStream
from tests.support.read_side import TOKEN, ReadSide, read_side, running, running_api


@dataclass(slots=True)
class Client:
    """Asks one API with its token."""

    url: str

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; `headers` with None in them replace the token."""
        given = {"Authorization": f"Bearer {TOKEN}", **headers}
        request = urllib.request.Request(  # noqa: S310 - a URL of the test's own
            self.url + path, data=body, method=method,
            headers={name.replace("_", "-"): value for name, value in given.items() if value},
        )  # fmt: skip
        opener = urllib.request.build_opener(_NoRedirect())
        try:
            with opener.open(request, timeout=20) as answer:
                return answer.status, dict(answer.headers.items()), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers.items()), error.read()

    def json(self, path: str) -> Any:
        """Return the decoded answer of a query that must succeed."""
        status, _, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    @contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[Iterator[tuple[str, str, Any]]]:
        """Yield an iterator of (event, id, data) of a stream."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", **sent})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        try:
            yield _events(answer)
        finally:
            answer.close()
            connection.close()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, Any]]:
    fields: dict[str, str] = {}
    for raw in answer:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
            fields = {}
        else:
            fields = {}


@dataclass(slots=True)
class System:
    """A running read side and a client of it."""

    side: ReadSide
    client: Client
    history: History

    def tell(self) -> None:
        """Append what the history has told since the last time, and wait for the tables."""
        self.side.tell(self.history)


@pytest.fixture(scope="module")
def quiet(
    kafka: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """Yield a system with two runs that the tests of a module only read."""
    import psycopg

    name = f"test_api_{os.getpid()}"
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute(f"CREATE DATABASE {name}".encode())
    url = postgres_url.rpartition("/")[0] + f"/{name}"
    with (
        read_side(kafka, url, tmp_path_factory.mktemp("quiet")) as side,
        running(side.projector()),
        running_api(side) as origin,
    ):
        system = System(side, Client(origin), History().configured())
        system.history.whole_run()
        system.history.whole_run(conclusion="failure")
        system.tell()
        yield system
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def system(kafka: str, database_url: str, tmp_path: Path) -> Iterator[System]:
    """Yield a running projector, archiver and API."""
    with (
        read_side(kafka, database_url, tmp_path) as side,
        running(side.projector(), side.archiver(grace_finished_ms=500, grace_lost_ms=500)),
        running_api(side) as url,
    ):
        yield System(side, Client(url), History().configured())


def test_answers_have_the_shapes_that_openapi_names(system: System) -> None:
    """Answers are made in SQL; the models in OpenAPI hold for them."""
    run_id = system.history.whole_run(conclusion="failure")
    system.history.add(
        e.RunRejected, 1, run_id="20260131-bad", workflow="w.yml", workflow_name="W",
        problems=(e.PlanProblem(path="w.yml", line=1, column=2, message="no"),),
    )  # fmt: skip
    system.tell()
    ask = system.client.json

    assert len(models.RunPage.model_validate(ask("/api/v1/runs")).items) == 2
    run = models.RunDetail.model_validate(ask(f"/api/v1/runs/{run_id}"))
    assert [job.conclusion for job in run.jobs] == ["success", "failure"]
    assert run.jobs[1].attempts[0].reason == "user.exit_code"
    assert len(run.jobs[1].steps) == 2
    models.JobDetail.model_validate(ask(f"/api/v1/jobs/{run_id}.build"))
    trail = models.TrailPage.model_validate(ask(f"/api/v1/runs/{run_id}/events"))
    ids = {event.event_id for event in trail.items}
    assert [event.kind for event in trail.items if event.caused_by not in ids] == [
        "DeliveryReceived"
    ]
    assert models.RunDetail.model_validate(ask("/api/v1/runs/20260131-bad")).problems[0].line == 1


@pytest.mark.parametrize(
    "path",
    ["/api/v1/repositories", "/api/v1/repositories/acme/widgets", "/api/v1/workflows",
     "/api/v1/deliveries", "/api/v1/deliveries/git:acme/widgets:1", "/api/v1/runners",
     "/api/v1/pools", "/api/v1/queue", "/api/v1/openapi.json"],
)  # fmt: skip
def test_every_query_answers(quiet: System, path: str) -> None:
    """Each list and each thing in it can be asked for."""
    assert quiet.client.json(path)


def test_annotations_and_summaries_are_data_and_on_the_page(system: System) -> None:
    """What a job says beside its log: in the answer as it is, on the page without its HTML."""
    system.history.pushed("Remark")
    run = system.history.planned([("build", ())])
    job = system.history.job("build")
    system.history.scheduled(job)
    system.history.assigned(job)
    system.history.started(job)
    remark = e.Annotation(
        level="warning", message="<b>odd</b>", path="src/a.py", line=3, end_line=5, title="Lint"
    )
    system.history.finished(job, summary="# Done\n<script>", annotations=(remark,))
    system.history.run_finished()
    system.tell()
    [found] = system.client.json(f"/api/v1/runs/{run}")["jobs"]
    page = system.client.ask(f"/runs/{run}")[2].decode()

    assert found["summary"] == "# Done\n<script>"
    [note] = found["annotations"]
    assert (note["level"], note["path"], note["line"], note["message"]) == (
        "warning", "src/a.py", 3, "<b>odd</b>",
    )  # fmt: skip
    assert "<h4>Done</h4>" in page
    assert "&lt;script&gt;" in page
    assert "src/a.py:3-5" in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "1 annotation<" in page


def test_pages_follow_each_other_without_gap_or_repeat(system: System) -> None:
    """Also while new runs arrive at the front."""
    for _ in range(7):
        system.history.whole_run()
    system.tell()
    first = system.client.json("/api/v1/runs?limit=3")
    system.history.whole_run()
    system.tell()
    second = system.client.json(f"/api/v1/runs?limit=3&cursor={first['next_cursor']}")
    third = system.client.json(f"/api/v1/runs?limit=3&cursor={second['next_cursor']}")

    numbers = [r["run_number"] for page in (first, second, third) for r in page["items"]]
    assert numbers == [7, 6, 5, 4, 3, 2, 1]
    assert third["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "count"),
    [("conclusion=failure", 1), ("status=completed", 2), ("branch=main", 2), ("branch=other", 0),
     ("event=push&repository=acme/widgets", 2), ("repository=x", 0), ("actor=ada", 2)],
)  # fmt: skip
def test_filters_narrow_the_list_of_runs(quiet: System, query: str, count: int) -> None:
    """Every filter of the contract is looked at."""
    assert len(quiet.client.json(f"/api/v1/runs?{query}")["items"]) == count


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/runs/none", 404), ("/api/v1/jobs/none", 404), ("/api/v1/nothing", 404),
     ("/api/v1/runs?cursor=xyz", 400), ("/api/v1/runs?limit=0", 422),
     ("/api/v1/jobs/none/attempts/1/log", 404), ("/api/v1/runs/stream?run_id=none", 404)],
)  # fmt: skip
def test_errors_are_problem_documents(quiet: System, path: str, status: int) -> None:
    """RFC 9457, with a sentence that says what is wrong."""
    found, headers, body = quiet.client.ask(path)

    assert found == status
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == status
    assert json.loads(body)["detail"]


# --------------------------------------------------------------------------- the door


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic dGVzdA=="}, 401),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_the_door_checks_token_host_and_origin(
    quiet: System, headers: dict[str, str], status: int
) -> None:
    """Only the own name, the own origin and the token get in; no answer allows other origins."""
    found, answered, _ = quiet.client.ask("/api/v1/runs", "GET", None, **headers)

    assert found == status
    assert "access-control-allow-origin" not in answered
    assert "script-src 'self'" in answered["content-security-policy"]


def test_a_browser_signs_in_with_the_link(quiet: System) -> None:
    """The cookie is HttpOnly and Strict; with it pages answer; a post without Origin does not."""
    status, headers, _ = quiet.client.ask(
        f"/login?token={TOKEN}&next=//evil.example", Authorization="", Accept="text/html"
    )
    cookie = headers["set-cookie"]
    assert status == 200
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    value = cookie.split(";", 1)[0]

    assert quiet.client.ask("/", Authorization="", Cookie=value, Accept="text/html")[0] == 200
    assert quiet.client.ask("/api/v1/runs", Authorization="", Cookie=value)[0] == 200
    refused = quiet.client.ask("/logout", "POST", b"", Authorization="", Cookie=value)
    assert refused[0] == 403
    forged = quiet.client.ask("/api/v1/runs", Authorization="", Cookie=value[:-2] + "00")
    assert forged[0] == 401
    wrong = quiet.client.ask("/login?token=nope", Authorization="", Accept="text/html")
    assert wrong[0] == 401
    redirect = quiet.client.ask("/runs/x", Authorization="", Accept="text/html")
    assert (redirect[0], redirect[1]["location"]) == (303, "/login?next=%2Fruns%2Fx")


def test_health_needs_no_token(quiet: System) -> None:
    """A supervisor asks without one."""
    assert quiet.client.ask("/healthz", Authorization="")[0] == 200
    eventually(lambda: quiet.client.ask("/readyz", Authorization="")[0] == 200, what="being ready")
    assert quiet.client.ask("/metrics")[0] == 200


# --------------------------------------------------------------------------- streams


def test_a_run_is_followed_as_it_changes(system: System) -> None:
    """First as it is, then after each change; ids are offsets of the log."""
    system.history.pushed()
    run_id = system.history.planned([("build", ())])
    system.tell()
    with system.client.stream(f"/api/v1/runs/stream?run_id={run_id}") as events:
        kind, first_id, run = next(events)
        assert (kind, run["status"]) == ("run", "waiting")
        system.history.scheduled(system.history.job("build"))
        system.tell()
        _, next_id, run = next(events)

    assert (run["status"], run["jobs"][0]["status"]) == ("queued", "queued")
    assert int(next_id) > int(first_id)


def test_a_list_of_runs_is_followed_from_the_last_event_id(system: System) -> None:
    """A reader that was away gets what it missed."""
    system.history.whole_run()
    system.tell()
    as_of = system.client.json("/api/v1/runs")["as_of"]
    missed = system.history.whole_run()
    system.tell()

    with system.client.stream("/api/v1/runs/stream", Last_Event_ID=str(as_of)) as events:
        assert next(events)[2]["run_id"] == missed


# --------------------------------------------------------------------------- logs


def _running_job(system: System) -> tuple[str, LogStream]:
    system.history.pushed()
    system.history.planned([("build", ())])
    job = system.history.job("build")
    system.history.scheduled(job)
    system.history.assigned(job)
    system.history.started(job)
    system.tell()
    return job, LogStream(job)


def _log(job: str) -> str:
    return f"/api/v1/jobs/{job}/attempts/1/log"


def test_a_log_is_followed_live_to_its_end(system: System) -> None:
    """Lines come as they are printed; the end names count, sha256 and conclusion."""
    job, log = _running_job(system)
    with system.client.stream(f"{_log(job)}/stream") as events:
        system.side.append_logs([log.batch(["one", "two"])])
        kind, number, data = next(events)
        assert (kind, number) == ("lines", "1")
        assert [line["text"] for line in data["lines"]] == ["one", "two"]
        system.side.append_logs([log.batch(["three"], stream="e", step=2)])
        assert next(events)[2]["lines"][0] | {"t": 0} == {
            "n": 2, "t": 0, "s": "err", "step": 2, "text": "three",
        }  # fmt: skip
        system.side.append_logs([log.batch([], last=True)])
        system.history.finished(job, log_lines=3, log_sha256=log.digest.hexdigest())
        system.tell()
        kind, _, end = next(events)

    assert kind == "end"
    assert (end["lines"], end["sha256"], end["conclusion"]) == (
        3, log.digest.hexdigest(), "success",
    )  # fmt: skip


def _archived(system: System, job: str) -> dict[str, Any]:
    def archived() -> Any:
        attempt = system.client.json(f"/api/v1/jobs/{job}")["attempts"][-1]
        return attempt["log"] if attempt["log"]["archived"] else None

    return dict(eventually(archived, what="the archive"))


def test_an_archived_log_reads_as_it_did_live(system: System) -> None:
    """Lines, ranges, raw download and a stream from the middle are the same before and after."""
    job, log = _running_job(system)
    texts = [f"line {n} ü\x1b[31m" for n in range(5_000)]
    batches = [log.batch(texts[n : n + 300]) for n in range(0, 5_000, 300)]
    system.side.append_logs(batches)
    whole = "".join(f"{text}\n" for text in texts)

    def raw() -> str:
        return system.client.ask(f"{_log(job)}/raw")[2].decode()

    eventually(lambda: raw() == whole, what="the whole log, live")
    live = system.client.ask(f"{_log(job)}?from_line=1234&limit=3")
    assert live[1]["x-complete"] == "false"
    system.side.append_logs([log.batch([], last=True)])
    system.history.finished(job, log_lines=5_000)
    system.tell()
    known = _archived(system, job)

    assert (known["lines"], known["complete"]) == (5_000, True)
    assert known["sha256"] == log.digest.hexdigest()
    assert raw() == whole
    again = system.client.ask(f"{_log(job)}?from_line=1234&limit=3")
    assert (again[2], again[1]["x-next-line"]) == (live[2], "1237")
    assert system.client.ask(f"{_log(job)}?from_line=4999")[1]["x-complete"] == "true"
    with system.client.stream(f"{_log(job)}/stream", Last_Event_ID="4997") as events:
        assert [line["n"] for line in next(events)[2]["lines"]] == [4998, 4999]
        assert next(events)[0] == "end"


def test_a_lost_attempts_log_is_archived_as_incomplete(system: System) -> None:
    """What came is kept, and the log says why it has no end."""
    job, log = _running_job(system)
    system.side.append_logs([log.batch(["kept"])])
    system.history.add(e.AttemptLost, job, job_id=job, attempt=1, reason="infra.runner_lost")
    system.history.scheduled(job, 2, reason="infra.runner_lost")
    system.tell()

    def archived() -> Any:
        attempt = system.client.json(f"/api/v1/jobs/{job}")["attempts"][0]
        return attempt["log"] if attempt["log"]["archived"] else None

    known = eventually(archived, what="the archive")

    assert (known["lines"], known["complete"]) == (1, False)
    assert "infra.runner_lost" in known["detail"]
    assert system.client.ask(_log(job))[2] == b"kept\n"


def test_a_hole_in_a_log_is_named(system: System) -> None:
    """A batch that never came makes the log incomplete, by count."""
    job, log = _running_job(system)
    batches = [log.batch([f"{n}"]) for n in range(3)]
    system.side.append_logs([batches[0], batches[2], log.batch([], last=True)])
    system.history.finished(job)
    system.tell()
    known = _archived(system, job)

    assert known["complete"] is False
    assert "1 lines before line 2 are missing" in known["detail"]


# --------------------------------------------------------------------------- forwarding


@contextmanager
def _ingest() -> Iterator[tuple[str, list[tuple[str, bytes, int]]]]:
    """Yield the URL of a server that answers 202 and what it was sent."""
    seen: list[tuple[str, bytes, int]] = []
    servers: list[asyncio.Server] = []
    ready = threading.Event()
    port = 0
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _read_head(reader):
            body = await _read_body(reader, head)
            seen.append((head.split("\r\n", 1)[0], body, head.lower().count("bearer")))
            writer.write(b'HTTP/1.1 202 Accepted\r\ncontent-length: 16\r\n\r\n{"event_id":"x"}')
            await writer.drain()
        writer.close()

    async def main() -> None:
        nonlocal port
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        ready.set()

    loop.run_until_complete(main())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    ready.wait(5)
    try:
        yield f"http://127.0.0.1:{port}", seen
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        servers[0].close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


async def _read_head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""


async def _read_body(reader: asyncio.StreamReader, head: str) -> bytes:
    lower = head.lower()
    if "chunked" in lower:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return body
    length = int(lower.split("content-length: ", 1)[1].split("\r\n", 1)[0])
    return await reader.readexactly(length)


def test_webhooks_and_commands_are_forwarded(kafka: str, database_url: str, tmp_path: Path) -> None:
    """Bodies arrive byte for byte; commands get the token and the run's repository."""
    with (
        _ingest() as (ingest, seen),
        read_side(kafka, database_url, tmp_path) as side,
        running(side.projector()),
        running_api(side, ingest_url=ingest) as url,
    ):
        client = Client(url)
        history = History().configured()
        run_id = history.whole_run()
        side.append(history.events)
        side.await_folded()
        body = bytes(range(256)) * 5_000
        answer = client.ask("/webhooks/github/acme/widgets?a=b", "POST", body, Authorization="")
        assert (answer[0], json.loads(answer[2])) == (202, {"event_id": "x"})
        assert seen[-1] == ("POST /webhooks/github/acme/widgets?a=b HTTP/1.1", body, 0)

        assert client.ask(f"/api/v1/runs/{run_id}/cancel", "POST", b"{}")[0] == 202
        line = f"POST /api/v1/runs/{run_id}/cancel?repository=acme%2Fwidgets HTTP/1.1"
        assert seen[-1] == (line, b"{}", 1)
        assert client.ask("/api/v1/runs/none/cancel", "POST", b"{}")[0] == 404
        assert client.ask("/webhooks/x/y", "POST", bytes(26 * 1024 * 1024))[0] == 413
        assert len(seen) == 2


def test_variables_are_listed_by_scope_and_a_full_scope_is_refused(
    kafka: str, database_url: str, tmp_path: Path
) -> None:
    """As their events say; what a scope has no room for never reaches the log."""
    name = "acme/widgets"

    def told(number: int, scope: str, variable: str, value: str, environment: str = "") -> e.Event:
        return e.VariableSet(
            event_id=f"v{number}", occurred_at=number, repository=scope, name=variable,
            value=value, environment=environment, actor="ada",
        )  # fmt: skip

    with (
        _ingest() as (ingest, seen),
        read_side(kafka, database_url, tmp_path) as side,
        running(side.projector()),
        running_api(side, ingest_url=ingest) as url,
    ):
        client = Client(url)
        side.append(
            [
                *History().configured().events,
                told(1, "", "WHERE", "everywhere"),
                told(2, name, "WHERE", "here"),
                told(3, name, "WHERE", "there"),
                told(4, name, "GONE", "soon"),
                told(5, name, "WHERE", "prod", "Production"),
                e.VariableRemoved(event_id="v6", repository=name, name="GONE", actor="ada"),
                *(told(10 + n, name, f"N{n:03d}", "x", "full") for n in range(100)),
                *(told(200 + n, name, f"N{n}", "x" * 48_000, "large") for n in range(5)),
            ]
        )
        side.await_folded()
        at = f"/api/v1/repositories/{name}/variables"

        def values(path: str) -> dict[str, str]:
            found = models.VariableList.model_validate(client.json(path))
            return {variable.name: variable.value for variable in found.items}

        def put(path: str, value: str = "y") -> int:
            body = json.dumps({"value": value}).encode()
            return client.ask(path, "PUT", body, Content_Type="application/json")[0]

        assert values("/api/v1/variables") == {"WHERE": "everywhere"}
        assert values(at) == {"WHERE": "there"}
        assert values(f"{at}?environment=PRODUCTION") == {"WHERE": "prod"}
        assert put(f"{at}/MORE?environment=full") == 422
        assert put(f"{at}/n001?environment=full") == 202
        room = TOGETHER_BYTES_MAX - 5 * 48_002 - len("MORE")
        assert put(f"{at}/MORE?environment=large", "y" * (room + 1)) == 422
        assert put(f"{at}/MORE?environment=large", "ü" * (room // 2 + 1)) == 422
        # six bytes each in the JSON text, two in the value
        assert put(f"{at}/MORE?environment=large", "ü" * (room // 2)) == 202
        assert put(f"{at}/MORE", "y" * COMMAND_BYTES_MAX) == 413
        assert put("/api/v1/variables/MORE") == 202
        assert client.ask(f"{at}/WHERE", "DELETE")[0] == 202
        assert [line.split()[1] for line, _, _ in seen] == [
            f"{at}/n001?environment=full", f"{at}/MORE?environment=large",
            "/api/v1/variables/MORE", f"{at}/WHERE",
        ]  # fmt: skip
        assert json.loads(seen[1][1]) == {"value": "ü" * (room // 2)}
        assert values(f"{at}?environment=none") == {}
        assert client.ask("/api/v1/repositories/acme/nothing/variables")[0] == 404


def test_archiving_again_after_a_crash_gives_the_same_archive(
    kafka: str, database_url: str, tmp_path: Path
) -> None:
    """Killed before the position moved: the same bytes, and the same event twice."""
    with read_side(kafka, database_url, tmp_path) as side:
        history = History().configured()
        run_id = history.whole_run()
        side.append(history.events)
        log = LogStream(f"{run_id}.build")
        batches = [log.batch([f"{n} {i}" for i in range(50)]) for n in range(40)]
        side.append_logs([*batches, log.batch([], last=True)])
        archivers = [side.archiver(f"a{n}") for n in range(2)]
        for archiver in archivers:
            # the first one is gone without a word after it announced; its lease runs out
            with side.connect() as database:
                database.execute("DELETE FROM archive_lease")
            archiver._connection = side.connect()  # noqa: SLF001 - turned by hand, not run
            assert archiver.try_to_lead()
            eventually(lambda a=archiver: a.turn() == 0 and _announced(side) > 0, what="archive")  # type: ignore[misc]
            archiver._step_down()  # noqa: SLF001
        with running(side.projector()):
            side.await_folded()

        assert len(list(side.objects.list("logs/"))) == 1
        with side.connect() as database:
            events = database.execute(
                "SELECT DISTINCT event_id, data::text FROM event WHERE kind = 'LogArchived'"
            ).fetchall()
        assert len(events) == 1


def _announced(side: ReadSide) -> int:
    from infra.kafka import KafkaReader

    reader = KafkaReader(side.bootstrap, f"{side.prefix}-announced")
    try:
        reader.assign({(side.events_topic, 0): 0})
        found = reader.read(timeout_ms=2_000, records_max=1_000)
        return sum(record.header("ce_type") == b"tailrace.LogArchived" for record in found)
    finally:
        reader.close()


def test_an_ingest_that_is_away_is_a_503_that_says_try_again(quiet: System) -> None:
    """A forge, or a script, learns that nothing was accepted."""
    status, headers, body = quiet.client.ask("/webhooks/github/a/b", "POST", b"{}")

    assert (status, headers["retry-after"]) == (503, "1")
    assert "Nothing was accepted" in json.loads(body)["detail"]
