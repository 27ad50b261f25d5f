"""The dashboard as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import psycopg
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from graphile_worker.errors import (
    AccessDenied,
    Busy,
    GraphileWorkerError,
    InvalidArgument,
    UntrustedOwner,
)
from graphile_worker.gw.ui import actions, live, pages
from graphile_worker.gw.ui.redaction import HIDE, Redact, Redaction
from graphile_worker.gw.ui.security import (
    SESSION,
    Guard,
    User,
    form_of,
    is_same,
    root_of,
    session_of,
    set_cookie,
)
from graphile_worker.gw.ui.site import HERE, Database, Site, UnreachableError
from graphile_worker.gw.values import plain


def app(
    databases: str | Database | Mapping[str, str | Database] = "",
    *,
    token: str | None = None,
    user: User | None = None,
    hosts: Sequence[str] | None = None,
    read_only: bool = False,
    hide: Sequence[str] = HIDE,
    redact: Redact | None = None,
    timeout: float = 10.0,
) -> Starlette:
    """Return the dashboard as an ASGI application, to serve or to mount in another one.

    >>> api = fastapi.FastAPI()
    >>> api.mount("/jobs", web.app("postgresql:///shop", user=lambda request: request.user.name))

    Args:
        databases: a connection string or ``Database``, or several by name. An empty string stands
            for libpq's variables.
        token: those who log in with it, or send it as a bearer token, may use the dashboard.
        user: the mounting application's own login: takes the request and returns the name of the
            user, which the audit log shows, or None to refuse; may be async. Without ``user`` and
            ``token`` only requests from this machine are served.
        hosts: host names under which it is served; default with ``user`` or ``token``: any, else
            those of this machine.
        read_only: offer no action, whatever the database role may do.
        hide: patterns of keys whose values are not shown in payloads and results.
        redact: takes the task and its payload or result, and returns what is shown of it.
        timeout: seconds after which the server ends a statement.

    Returns:
        The application. It connects when a page is asked for.

    Raises:
        ValueError: there is no database, a name is empty, or ``token`` is too short.

    What a user may do is what the database role of the connection may do: connect as a role of
    the level observe for a dashboard that only reads, as one of the level admin for actions.
    """
    given = databases if isinstance(databases, Mapping) else {"queue": databases}
    if not given or not all(given):
        raise ValueError(f"databases is {databases!r}: give at least one, each with a name")
    if token is not None and len(token) < 16:
        raise ValueError("the token is too short: use at least 16 characters, chosen by chance")
    named = {
        name: one if isinstance(one, Database) else Database(one) for name, one in given.items()
    }
    site = Site(
        named, read_only=read_only, redaction=Redaction(hide, redact), timeout=timeout,
        has_login=token is not None and user is None,
    )  # fmt: skip
    made = Starlette(
        routes=[
            Route("/", _first),
            Route("/healthz", _health),
            Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
            *([Route("/login", _login, methods=["GET", "POST"])] if token is not None else []),
            *([Route("/logout", _logout, methods=["POST"])] if token is not None else []),
            Route("/{database}/live", live.events),
            *(Route(f"/{{database}}{path}", page) for path, page in pages.PAGES.items()),
            Route("/{database}/do/{action}", actions.endpoint, methods=["GET", "POST"]),
        ],
        middleware=[Middleware(Guard, token=token, user=user, hosts=hosts)],
        exception_handlers={
            GraphileWorkerError: _problem, ValueError: _problem, psycopg.Error: _problem,
            HTTPException: _problem,
        },
    )  # fmt: skip
    made.state.site, made.state.token = site, token
    made.state.live = {name: live.Live(source) for name, source in site.sources.items()}
    return made


_STATUSES = (
    (UnreachableError, 503), (AccessDenied, 403), (UntrustedOwner, 403), (Busy, 503),
    (InvalidArgument, 400), (ValueError, 400), (psycopg.OperationalError, 503),
    (GraphileWorkerError, 409),
)  # fmt: skip


def _problem(request: Request, error: Exception) -> Response:
    site: Site = request.app.state.site
    status = error.status_code if isinstance(error, HTTPException) else next(
        (code for kind, code in _STATUSES if isinstance(error, kind)), 500
    )  # fmt: skip
    text = error.detail if isinstance(error, HTTPException) else str(error)
    source = site.sources.get(request.path_params.get("database", ""))
    return site.page(
        request, "problem.html", status, source=source, title="That did not work",
        problem=plain(" ".join(text.split())),
    )  # fmt: skip


def _first(request: Request) -> Response:
    name = next(iter(request.app.state.site.sources))
    return RedirectResponse(f"{root_of(request)}/{name}/", 307)


def _health(request: Request) -> Response:
    """Tell whether each database can be used; what is wrong is on the pages."""
    site: Site = request.app.state.site
    try:
        for source in site.sources.values():
            with source.opened():
                pass
    except (GraphileWorkerError, psycopg.Error):
        return PlainTextResponse("a database cannot be used\n", 503)
    return PlainTextResponse("ok\n")


async def _login(request: Request) -> Response:
    site: Site = request.app.state.site
    wanted = request.query_params.get("next", "/")
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    target = f"{root_of(request)}{wanted if is_ours else '/'}"
    problem = ""
    if request.method == "POST":
        form = await form_of(request)
        if form is not None and is_same(form.get("token", ""), request.app.state.token):
            response: Response = RedirectResponse(target, 303)
            session = session_of(request.app.state.token)
            set_cookie(request, response, SESSION, session, 30 * 86400)
            return response
        await asyncio.sleep(0.5)
        problem = "This is not the token."
    return await run_in_threadpool(
        site.page, request, "login.html", 401 if problem else 200, title="Log in", problem=problem
    )


async def _logout(request: Request) -> Response:
    response = RedirectResponse(f"{root_of(request)}/login", 303)
    if await form_of(request) is not None:
        set_cookie(request, response, SESSION, "", 0)
    return response
