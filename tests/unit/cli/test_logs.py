"""`tailrace logs`: whole, live, resumed, of one job and of many."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from infra.cli.client import parse_events
from infra.cli.errors import Exit
from tests.support.stub_api import Answer, Request, StubApi, problem, stream
from tests.unit.cli.conftest import RUN_ID, Tailrace, a_job, a_run

BUILD = f"/jobs/{RUN_ID}.build/attempts/1/log"
TEST = f"/jobs/{RUN_ID}.test/attempts/1/log"


def lines(first: int, *texts: str) -> str:
    """Return a `lines` event as the API writes it."""
    found = [{"n": n, "t": 1_790_000_000_000 + n, "s": "out", "step": 1, "text": text}
             for n, text in enumerate(texts, first)]  # fmt: skip
    data = json.dumps({"first_line": first, "lines": found})
    return f"id: {first + len(texts) - 1}\nevent: lines\ndata: {data}\n\n"


def end(conclusion: str = "success") -> str:
    """Return an `end` event."""
    data = json.dumps({"lines": 3, "sha256": "x", "conclusion": conclusion})
    return f"event: end\ndata: {data}\n\n"


def raw(text: str) -> Answer:
    """Return a raw log in two pieces that break a line."""
    content = text.encode()
    half = len(content) // 2
    return Answer(chunks=(content[:half], content[half:]), content_type="text/plain")


def test_one_job_is_printed_byte_for_byte(api: StubApi, tailrace: Tailrace) -> None:
    """No prefix, nothing added: the output can be compared with sha256sum."""
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[a_job("build"), a_job("test")]))
    api.on(f"GET {BUILD}/raw", raw("one\n\ntwo\tü\n"))
    result = tailrace("logs", RUN_ID, "build")
    assert result.stdout == "one\n\ntwo\tü\n"
    assert result.exit_code == Exit.OK


def test_several_jobs_name_themselves_on_every_line(api: StubApi, tailrace: Tailrace) -> None:
    """The names are aligned; a line that came in two pieces is one line."""
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[a_job("build"), a_job("test")]))
    api.on(f"GET {BUILD}/raw", raw("one\ntwo\n"))
    api.on(f"GET {TEST}/raw", raw("three\n"))
    assert tailrace("logs", RUN_ID).stdout == "build | one\nbuild | two\ntest  | three\n"


def test_the_latest_attempt_is_shown_unless_another_is_asked_for(
    api: StubApi, tailrace: Tailrace
) -> None:
    """Attempts have logs of their own."""
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[a_job("build", attempts=2)]))
    api.on(f"GET /jobs/{RUN_ID}.build/attempts/1/log/raw", raw("first\n"))
    api.on(f"GET /jobs/{RUN_ID}.build/attempts/2/log/raw", raw("second\n"))
    assert tailrace("logs", RUN_ID).stdout == "second\n"
    assert tailrace("logs", RUN_ID, "--attempt", "1").stdout == "first\n"
    assert tailrace("logs", RUN_ID, "--attempt", "3").exit_code == Exit.NOT_FOUND


def test_no_log_says_why(api: StubApi, tailrace: Tailrace) -> None:
    """A job that waits is named with its reason."""
    blocked = {"reason": "pool_full", "detail": "pool default is full: 8 of 8 slots"}
    job = a_job("build", attempts=0, status="queued", conclusion=None, blocked=blocked)
    api.on(f"GET /runs/{RUN_ID}", a_run(status="queued", conclusion=None, jobs=[job]))
    result = tailrace("logs", RUN_ID)
    assert result.exit_code == Exit.NOT_FOUND
    assert "pool default is full: 8 of 8 slots" in result.stderr


def test_an_unknown_job_names_those_there_are(api: StubApi, tailrace: Tailrace) -> None:
    """The keys of the run's jobs are the hint."""
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[a_job("build"), a_job("test")]))
    result = tailrace("logs", RUN_ID, "biuld")
    assert result.exit_code == Exit.NOT_FOUND
    assert "its jobs: build, test" in result.stderr


def test_timestamps_and_json_come_from_the_stream(api: StubApi, tailrace: Tailrace) -> None:
    """Each line with its time; in JSON one object a line that names job and attempt."""
    api.on(f"GET /runs/{RUN_ID}", a_run(jobs=[a_job("build")]))
    api.on(f"GET {BUILD}/stream", stream(lines(0, "one", "two"), end()))
    stamped = tailrace("logs", RUN_ID, "-t").stdout.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  one", stamped[0])
    found = [json.loads(line) for line in tailrace("logs", RUN_ID, "--json").stdout.splitlines()]
    assert [(line["job"], line["attempt"], line["n"], line["text"]) for line in found] == [
        (f"{RUN_ID}.build", 1, 0, "one"), (f"{RUN_ID}.build", 1, 1, "two"),
    ]  # fmt: skip


def runs_in_turn(*runs: dict[str, Any]) -> Any:
    """Return a route that answers with one run after the other, then with the last."""
    left = list(runs)

    def answer(_: Request) -> Answer:
        return Answer(content=left.pop(0) if len(left) > 1 else left[0])

    return answer


def test_following_goes_on_where_the_connection_broke(api: StubApi, tailrace: Tailrace) -> None:
    """No line is lost or printed twice: the next request carries the last line's number."""

    def answer(request: Request) -> Answer:
        last = request.headers.get("Last-Event-ID")
        if last is None:
            # an event that is cut off by the broken connection does not count
            return stream(lines(0, "zero", "one"), "id: 2\nevent: lines\ndata: {")
        assert last == "1"
        return stream(lines(2, "two"), end())

    api.on(f"GET {BUILD}/stream", answer)
    api.on("GET /runs/stream", stream(": hello\n\n"))
    running = a_run(status="running", conclusion=None, jobs=[a_job("build", status="running")])
    api.on(f"GET /runs/{RUN_ID}", runs_in_turn(running, a_run(jobs=[a_job("build")])))
    result = tailrace("logs", RUN_ID, "build", "-f")
    assert result.stdout == "zero\none\ntwo\n"
    assert result.exit_code == Exit.OK


def test_following_shows_jobs_that_start_later(api: StubApi, tailrace: Tailrace) -> None:
    """A change of the run brings the next log; the reason of the wait is told meanwhile."""
    waiting = a_job(
        "test",
        attempts=0,
        status="queued",
        conclusion=None,
        blocked={"reason": "no_runner", "detail": "no runner has label gpu"},
    )
    first = a_run(status="running", conclusion=None, jobs=[a_job("build"), waiting])
    last = a_run(conclusion="failure", jobs=[a_job("build"), a_job("test", conclusion="failure")])
    api.on(f"GET /runs/{RUN_ID}", runs_in_turn(first, last))
    api.on("GET /runs/stream", stream('id: 1\nevent: run\ndata: {"run_id": "x"}\n\n'))
    api.on(f"GET {BUILD}/stream", stream(lines(0, "one"), end()))
    api.on(f"GET {TEST}/stream", stream(lines(0, "two"), end("failure")))
    result = tailrace("logs", RUN_ID, "-f")
    assert sorted(result.stdout.splitlines()) == ["build | one", "test  | two"]
    assert "test waits: no runner has label gpu" in result.stderr
    assert result.exit_code == Exit.NEGATIVE


@pytest.mark.parametrize(
    ("conclusion", "code"),
    [("success", Exit.OK), ("failure", Exit.NEGATIVE), ("timed_out", Exit.NEGATIVE),
     ("cancelled", Exit.CANCELLED), ("skipped", Exit.OK)],
)  # fmt: skip
def test_following_exits_by_the_conclusion(
    api: StubApi, tailrace: Tailrace, conclusion: str, code: Exit
) -> None:
    """Scripts can wait for a run with `logs -f`."""
    api.on(f"GET /runs/{RUN_ID}", a_run(conclusion=conclusion))
    api.on("GET /runs/stream", stream(": hello\n\n"))
    assert tailrace("logs", RUN_ID, "-f").exit_code == code


def test_a_refused_stream_ends_the_command(api: StubApi, tailrace: Tailrace) -> None:
    """A log that is gone is an answer, not something to try again for ever."""
    api.on(f"GET /runs/{RUN_ID}", a_run(status="running", conclusion=None,
                                       jobs=[a_job("build", status="running")]))  # fmt: skip
    api.on("GET /runs/stream", stream(": hello\n\n"))
    api.on(f"GET {BUILD}/stream", problem(404, "this log was deleted"))
    result = tailrace("logs", RUN_ID, "-f")
    assert result.exit_code == Exit.NOT_FOUND
    assert "this log was deleted" in result.stderr


def test_event_streams_are_parsed_as_the_standard_says() -> None:
    """Comments, several data lines, carriage returns, fields without a space, unfinished ends."""
    text = (b": comment\r\n\r\nid:7\r\ndata: a\r\ndata:b\r\n\r\n"
            b"event: end\ndata\ndata: c\n\nid: 8\n\ndata: unfinished\n")  # fmt: skip
    found = [
        (e.event, e.data, e.last_id) for e in parse_events(iter(text.splitlines(keepends=True)))
    ]
    assert found == [("message", "a\nb", "7"), ("end", "\nc", "7")]
