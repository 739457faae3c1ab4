"""The pages: HTML made on the server from the same queries as the API.

Every page works without JavaScript but the live log; with it, parts of a page are exchanged as
runs change.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import lru_cache
from importlib import resources
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

import jinja2
import msgspec
from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from projector.api import session, words
from projector.api.markdown import to_html
from projector.api.problems import ProblemError
from projector.api.routes_commands import repository_of
from projector.api.routes_query import services_of
from projector.api.services import Services

router = APIRouter(include_in_schema=False)

RUNS_A_PAGE = 40
EVENTS_A_PAGE = 200
FORM_BYTES_MAX = 8 * 1024
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
          "svg": "image/svg+xml"}  # fmt: skip


# --------------------------------------------------------------------------- static files


@lru_cache(maxsize=1)
def static_files() -> dict[str, tuple[str, bytes]]:
    """Return name -> (digest, content) of every static file; addresses hold the digest."""
    folder = resources.files("projector").joinpath("web", "static")
    found = {}
    for entry in folder.iterdir():
        content = entry.read_bytes()
        found[entry.name] = (hashlib.sha256(content).hexdigest()[:12], content)
    return found


def static_url(name: str) -> str:
    """Return a static file's address, which changes with its content."""
    return f"/static/{static_files()[name][0]}/{name}"


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str) -> Response:
    """A static file, to be kept for ever."""
    found = static_files().get(name)
    if found is None or found[0] != digest:
        raise ProblemError(404, f"There is no file {name}.", code="no-such-file")
    media_type = _TYPES[name.rpartition(".")[2]]
    kept = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found[1], headers={"Content-Type": media_type, **kept})


@router.get("/favicon.ico")
async def favicon() -> Response:
    """The mark, for browsers that ask here."""
    return RedirectResponse(static_url("mark.svg"), status_code=308)


# --------------------------------------------------------------------------- rendering


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("projector", "web/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(static_url=static_url, words=words)
    environment.filters.update(
        reason=words.reason,
        instant=words.instant,
        short_ref=words.short_ref,
        url=lambda text: quote(str(text), safe=""),
        pretty=lambda value: msgspec.json.format(msgspec.json.encode(value), indent=2).decode(),
    )
    return environment


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page."""
    now_ms = services_of(request).wiring.clock.now_ms()
    html = (
        _environment().get_template(template).render(path=request.url.path, now_ms=now_ms, **values)
    )
    return HTMLResponse(html, status_code=status)


def is_page(request: Request) -> bool:
    """Say whether a request is for a page rather than for the API."""
    return not request.url.path.startswith(("/api/", "/static/", "/webhooks/"))


def error_page(request: Request, status: int, detail: str) -> Response:
    """Return an error as a page."""
    return render(request, "error.html", status=status, code=status, detail=detail)


# --------------------------------------------------------------------------- runs


@router.get("/")
async def overview(
    request: Request,
    *,
    repository: str = "",
    status: str = "",
    conclusion: str = "",
    cursor: Annotated[str, Query(max_length=2000)] = "",
) -> Response:
    """Runs, newest first, under the installation's state in four numbers."""
    queries = services_of(request).queries
    given = {"repository": repository, "status": status, "conclusion": conclusion}
    filters = {name: value for name, value in given.items() if value}
    page = await queries.runs(filters, cursor or None, RUNS_A_PAGE)
    counts = await queries.value("counts")
    repositories = await queries.repositories(None, 100)
    return render(
        request,
        "runs.html",
        runs=page["items"],
        next_cursor=page["next_cursor"],
        first_page=not cursor,
        counts=counts,
        filters=filters,
        repositories=[item["name"] for item in repositories["items"]],
    )


@router.get("/runs/{run_id}")
async def run_page(request: Request, run_id: str) -> Response:
    """A run: the job that wants attention is open."""
    return await _run_page(request, run_id, None, None)


@router.get("/runs/{run_id}/jobs/{job_id}")
async def job_page(
    request: Request, run_id: str, job_id: str, attempt: int | None = None
) -> Response:
    """A run with one of its jobs open."""
    return await _run_page(request, run_id, job_id, attempt)


async def _run_page(
    request: Request, run_id: str, job_id: str | None, attempt: int | None
) -> Response:
    run = await _run(services_of(request), run_id, attempt)
    jobs = run["jobs"]
    job = next((job for job in jobs if job["job_id"] == job_id), None)
    if job is None and job_id is not None:
        raise ProblemError(404, f"The run has no job {job_id}.", code="no-such-job")
    job = job or _worth_showing(jobs)
    chosen = None
    if job is not None:
        wanted = attempt or job["live_attempt"]
        chosen = next((item for item in job["attempts"] if item["attempt"] == wanted), None)
        if attempt is not None and chosen is None:
            raise ProblemError(404, f"The job has no attempt {attempt}.", code="no-such-attempt")
    services = services_of(request)
    now_ms = services.wiring.clock.now_ms()
    values = {"run_id": run_id, "now_ms": now_ms, "level": None}
    artifacts = await services.queries.value("run_artifacts", values=values)
    annotations = await services.queries.value("run_annotations", values=values)
    return render(
        request,
        "run.html",
        run=run,
        job=job,
        attempt=chosen,
        artifacts=artifacts["items"] if artifacts else [],
        annotations=annotations["items"] if annotations else [],
        summary=await _rendered(job["summary"] if job is not None else None),
        tab="jobs",
    )


async def _rendered(summary: str | None) -> Markup | None:
    """Render a summary beside the event loop: the largest takes a while."""
    return await asyncio.to_thread(to_html, summary) if summary else None


def _worth_showing(jobs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the job to open: the first that failed, else that runs, else that ran."""
    for wanted in ("failure", "timed_out", "running", "assigned", "cancelled", "success"):
        for job in jobs:
            if words.state(job["status"], job["conclusion"]) == wanted:
                return job
    return jobs[0] if jobs else None


async def _run(services: Services, run_id: str, attempt: int | None = None) -> dict[str, Any]:
    values = {"run_id": run_id, "attempt": attempt}
    run = await services.queries.value("run", values=values)
    if run is None:
        raise ProblemError(404, f"There is no run {run_id}.", code="no-such-run")
    return dict(run)


@router.get("/runs/{run_id}/events")
async def events_page(request: Request, run_id: str, cursor: str = "") -> Response:
    """A run's audit trail: each event, and what caused it."""
    services = services_of(request)
    run = await _run(services, run_id)
    page = await services.queries.run_events(run_id, cursor or None, EVENTS_A_PAGE)
    offsets = {event["event_id"]: event["offset"] for event in page["items"]}
    return render(
        request,
        "events.html",
        run=run,
        events=page["items"],
        offsets=offsets,
        next_cursor=page["next_cursor"],
        first_page=not cursor,
        tab="events",
    )


@router.post("/runs/{run_id}/{command}")
async def command(request: Request, run_id: str, command: str) -> Response:
    """The cancel and approve buttons without JavaScript; the guard checked the origin."""
    if command not in ("cancel", "approve"):
        raise ProblemError(404, f"There is no command {command}.", code="no-such-command")
    services = services_of(request)
    repository = await repository_of(services, run_id)
    status, body = await services.upstream.call(
        "POST",
        f"/api/v1/runs/{run_id}/{command}",
        b"{}",
        query=f"repository={quote(repository, safe='')}".encode(),
        authorization=b"Bearer " + services.wiring.token.read(),
    )
    if status >= 400:  # noqa: PLR2004
        raise ProblemError(status, body.decode("utf-8", "replace")[:500], code="refused")
    return RedirectResponse(f"/runs/{quote(run_id)}", status_code=303)


# --------------------------------------------------------------------------- runners, deliveries


@router.get("/runners")
async def runners_page(request: Request) -> Response:
    """Pools, runners and what waits for them."""
    queries = services_of(request).queries
    return render(
        request,
        "runners.html",
        pools=(await queries.value("pools"))["items"],
        runners=(await queries.value("runners"))["items"],
        queue=(await queries.value("queue", values={"limit": 50}))["items"],
    )


@router.get("/repositories")
async def repositories_page(request: Request, cursor: str = "") -> Response:
    """Repositories with their latest runs."""
    page = await services_of(request).queries.repositories(cursor or None, 100)
    return render(
        request, "repositories.html", items=page["items"], next_cursor=page["next_cursor"]
    )


@router.get("/deliveries")
async def deliveries_page(request: Request, cursor: str = "") -> Response:
    """Every delivery and what became of it."""
    page = await services_of(request).queries.deliveries({}, cursor or None, RUNS_A_PAGE)
    return render(request, "deliveries.html", items=page["items"], next_cursor=page["next_cursor"])


# --------------------------------------------------------------------------- signing in


@router.get("/login")
async def login_page(request: Request, token: str = "", next: str = "/") -> Response:
    """Sign in with the token of a link, or ask for it."""
    target = _local(next)
    if not token:
        return render(request, "login.html", target=target, wrong=False)
    if not _is_token(request, token):
        return render(request, "login.html", status=401, target=target, wrong=True)
    # A page that goes on, no redirect: a SameSite=Strict cookie is not sent along a redirect
    # that began on another site, for instance in a web mailer.
    answer = render(request, "signed_in.html", target=target)
    return _with_session(request, answer)


@router.post("/login")
async def login(request: Request) -> Response:
    """Sign in with the token of the form."""
    form = await _form(request)
    target = _local(form.get("next", "/"))
    if not _is_token(request, form.get("token", "").strip()):
        return render(request, "login.html", status=401, target=target, wrong=True)
    return _with_session(request, RedirectResponse(target, status_code=303))


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Forget this browser's session."""
    answer = RedirectResponse("/login", status_code=303)
    secure = services_of(request).wiring.public_url.startswith("https:")
    answer.headers.append("set-cookie", session.set_cookie("", secure=secure, max_age_s=0))
    return answer


def _is_token(request: Request, token: str) -> bool:
    return services_of(request).wiring.token.accepts(f"Bearer {token}")


def _with_session(request: Request, answer: Response) -> Response:
    wiring = services_of(request).wiring
    value = session.make(wiring.token.read(), wiring.clock.now_ms())
    secure = wiring.public_url.startswith("https:")
    answer.headers.append("set-cookie", session.set_cookie(value, secure=secure))
    return answer


def _local(target: str) -> str:
    """Return a path of this origin; anything that could lead elsewhere is the first page."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if plain and "\\" not in target and target.isprintable() else "/"


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES_MAX:
            raise ProblemError(413, "The form is too large.", code="body-too-large")
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
