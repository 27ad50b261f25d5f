"""The databases that a dashboard shows, and how its pages are made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import jinja2
import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from graphile_worker import __version__
from graphile_worker.cli.dsn import without_driver
from graphile_worker.errors import GraphileWorkerError
from graphile_worker.gw.queue import Queue
from graphile_worker.gw.reads import Cache, headline
from graphile_worker.gw.records.history import took
from graphile_worker.gw.ui.redaction import Redaction
from graphile_worker.gw.ui.security import CSRF, DID, root_of, set_cookie
from graphile_worker.gw.values import many, short, since, span
from graphile_worker.naming import SCHEMA, quote_ident

HERE = Path(__file__).parent
_CAN_ACT = "select pg_catalog.has_function_privilege(%s, 'execute') as can"


class UnreachableError(GraphileWorkerError):
    """The database cannot be reached."""


@dataclass(frozen=True)
class Database:
    """A queue that the dashboard shows: the connection string, its schema, trusted owners of it."""

    dsn: str = ""
    schema: str = SCHEMA
    trust_owner: Sequence[str] = ()


@dataclass
class Source:
    """A database by its name, and what was read of it lately."""

    name: str
    database: Database
    timeout: float
    cache: Cache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = Cache(self.opened)

    @contextmanager
    def opened(self) -> Iterator[Queue]:
        """Connect to the queue; raise UnreachableError where that fails."""
        dsn = without_driver(self.database.dsn)
        try:
            conn = psycopg.connect(
                dsn, autocommit=True, connect_timeout=5, prepare_threshold=None,
                fallback_application_name="gw ui",
            )  # fmt: skip
        except psycopg.Error as error:
            raise UnreachableError(
                f"cannot connect to {self.name}: {' '.join(str(error).split())}"
            ) from error
        with conn:
            conn.execute("set client_encoding to 'UTF8'")
            queue = Queue(conn, self.database.schema, self.timeout)
            queue.check(self.database.trust_owner)
            queue.need_records("has no history, limits and failed jobs to show")
            yield queue


class Site:
    """The settings of a dashboard, and its templates."""

    def __init__(
        self, databases: Mapping[str, Database], *, read_only: bool, redaction: Redaction,
        timeout: float, has_login: bool,
    ) -> None:  # fmt: skip
        self.sources = {name: Source(name, one, timeout) for name, one in databases.items()}
        self.read_only, self.redaction, self.has_login = read_only, redaction, has_login
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True,
            lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        )  # fmt: skip
        self._templates.filters |= {
            "since": since, "span": span, "short": short, "many": many, "took": took,
            "headline": headline,
            "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str),
            "time": _time, "number": _number,
        }  # fmt: skip

    def can_act(self, queue: Queue) -> bool:
        """Return whether jobs may be changed here, by the database's own rights."""
        if self.read_only:
            return False
        name = f"{quote_ident(queue.schema)}.complete_jobs(bigint[])"
        with queue.limited(read_only=True):
            row = queue.conn.execute(_CAN_ACT, [name]).fetchone()
        return bool(row and row[0])

    def page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Return a page; ``source`` is the database it is about."""
        root = root_of(request)
        source: Source | None = values.get("source")
        path = request.url.path.removeprefix(root)

        def link(*parts: object, **query: object) -> str:
            start = [] if source is None else [source.name]
            named = "/".join(quote(str(part), safe="") for part in [*start, *parts])
            given = [(key, value) for key, value in query.items() if value not in (None, "", [])]
            more = f"?{urlencode(given, doseq=True)}" if given else ""
            return f"{root}/{named}{more}"

        did = unquote(request.cookies.get(DID, ""))
        body = self._templates.get_template(template).render({
            "source": None, "can_act": None, "title": "", "root": root, "link": link,
            "here": path, "url": str(request.url.path) + _query(request), "did": did,
            "csrf": request.state.csrf, "user": getattr(request.state, "user", None),
            "sources": list(self.sources), "has_login": self.has_login, "version": __version__,
            **values,
        })  # fmt: skip
        response = HTMLResponse(body, status)
        if CSRF not in request.cookies:
            set_cookie(request, response, CSRF, request.state.csrf, 30 * 86400)
        if did and "hx-request" not in request.headers:
            set_cookie(request, response, DID, "", 0)
        return response


def did(request: Request, response: Response, text: str) -> None:
    """Let the next page say what was done."""
    set_cookie(request, response, DID, quote(text[:500]), 60)


def _query(request: Request) -> str:
    return f"?{request.url.query}" if request.url.query else ""


def _time(value: datetime | None) -> str:
    if value is None:
        return ""
    if value.year in (datetime.min.year, datetime.max.year):
        return "never" if value.year == datetime.max.year else "always"
    return f"{value:%Y-%m-%d %H:%M:%S}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
