"""The queue that a command is about: its connection, its verbs, and reading its views."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from graphile_worker import __version__
from graphile_worker.cli import flags
from graphile_worker.cli.flags import Parser
from graphile_worker.client import drivers, verbs
from graphile_worker.client.sync import WorkerUtils
from graphile_worker.errors import AccessDenied, Busy, GraphileWorkerError
from graphile_worker.gw.values import seconds
from graphile_worker.install.session import acting_role
from graphile_worker.naming import SCHEMA, quote_ident
from graphile_worker.ownership import OWNERS, check_owners

Row = dict[str, Any]


class Queue:
    """A queue, whose statements end after some seconds."""

    def __init__(
        self, conn: psycopg.Connection[Any], schema: str = SCHEMA, timeout: float = 30.0
    ) -> None:
        self.conn, self.schema, self.timeout = conn, schema, timeout
        conn.adapters.register_loader("timestamptz", _CalendarLoader)
        #: The version of the extension, as far as it was looked at.
        self.version = __version__
        #: Its verbs; they run in the transaction of ``limited``.
        self.utils = WorkerUtils(conn, schema=schema)

    @property
    def has_controls(self) -> bool:
        """Whether it has pauses, limits and schedules, as from version 1.1.0 on."""
        return verbs.has_controls(self.version)

    def need_records(self, lacks: str) -> None:
        """Raise an error with the remedy if the version is too old for what is asked of it."""
        if not self.has_controls:
            raise GraphileWorkerError(
                f"the schema has version {self.version}, which {lacks}: run `gw-install upgrade`"
            )

    @contextmanager
    def limited(self, *, snapshot: bool = False, read_only: bool = False) -> Iterator[None]:
        """Run the block as one transaction, and end each statement that takes too long.

        With ``snapshot`` all of it sees the same moment, and nothing is changed; with ``read_only``
        nothing is changed.
        """
        try:
            with self.conn.transaction():
                limit = max(1, round(self.timeout * 1000))
                self.conn.execute(f"set local statement_timeout = {limit}".encode())
                self.conn.execute("set local search_path = pg_catalog, pg_temp")
                if snapshot:
                    self.conn.execute("set transaction isolation level repeatable read, read only")
                elif read_only:
                    self.conn.execute("set transaction read only")
                yield
        except psycopg.errors.QueryCanceled as error:
            raise Busy(
                f"the server stopped a query, which may take {self.timeout:g} s, and undid it: give"
                " it more with --timeout"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            user = acting_role(self.conn)
            raise AccessDenied(
                f"role {user} may not read the queue in the schema {self.schema}: as its owner, run"
                f" `gw-install grant {user} observe` (or admin, to change jobs as well)"
            ) from error

    def rows(self, query: str, **values: Any) -> list[Row]:
        """Return the rows of a query in which {s} is the schema."""
        ident = quote_ident(self.schema).replace("%", "%%")
        text = query.replace("{s}", ident).encode()
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(text, values).fetchall()

    def row(self, query: str, **values: Any) -> Row:
        """Return the only row of a query."""
        (only,) = self.rows(query, **values)
        return only

    def row_within(self, milliseconds: int, query: str, **values: Any) -> Row | None:
        """Return the only row of a query in ``limited``; None if it takes longer than that."""
        rows = self.rows_within(milliseconds, query, **values)
        return None if rows is None else rows[0]

    def rows_within(self, milliseconds: int, query: str, **values: Any) -> list[Row] | None:
        """Return the rows of a query in ``limited``; None if it takes longer than that."""
        limit = max(1, round(self.timeout * 1000))
        try:
            with self.conn.transaction():
                shorter = min(limit, milliseconds)
                self.conn.execute(f"set local statement_timeout = {shorter}".encode())
                rows = self.rows(query, **values)
                self.conn.execute(f"set local statement_timeout = {limit}".encode())
                return rows
        except psycopg.errors.QueryCanceled:
            return None

    def check(self, trusted: Sequence[str]) -> None:
        """Check that the queue is there and ours, and note its version."""
        with self.limited(read_only=True):
            owners = self.conn.execute(OWNERS, [self.schema]).fetchall()
            check_owners(owners, self.schema, trusted)
            self.version = drivers.run(self.conn, verbs.check(self.schema))

    def now(self) -> datetime:
        """Return the time of the transaction, by the server's clock."""
        found: datetime = self.row("select pg_catalog.now() as now")["now"]
        return found


class _CalendarLoader(TimestamptzLoader):
    """Reads times that Python's calendar does not have, such as infinity, as its first or last."""

    def load(self, data: Any) -> datetime:
        """Return the time, or the first or last one that there is."""
        try:
            return super().load(data)
        except psycopg.DataError:
            text = bytes(data)
            early = text.startswith(b"-") or text.endswith(b"BC")
            return (datetime.min if early else datetime.max).replace(tzinfo=UTC)


def covers(given: str, name: str) -> str:
    """Return SQL for whether a name of a pause or limit, maybe with an asterisk, covers another."""
    return (
        f"({given} = {name} or pg_catalog.right({given}, 1) = '*'"
        f" and pg_catalog.starts_with({name}, pg_catalog.left({given}, -1)))"
    )


def connects(parser: Parser) -> None:
    """Add the flags that name a queue, and the time limit of its statements."""
    flags.connects(parser, several=True)
    flags.env(
        parser, "--timeout", type=seconds, default=30.0,
        help="how many seconds a statement may take (default 30)",
    )  # fmt: skip


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Queue]:
    """Connect to the queue of the options, and check that it is ours."""
    with flags.connect(options) as conn:
        conn.prepare_threshold = None  # a pooler may give each transaction another session
        queue = Queue(conn, options.schema, options.timeout)
        queue.check(options.trust_owner or ())
        yield queue


def agreed(options: argparse.Namespace, what: str) -> None:
    """Ask for confirmation of a change of many jobs; raise if it is refused."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise GraphileWorkerError(f"{what}: say --yes to do so; nothing was changed")
    print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise GraphileWorkerError("not agreed to; nothing was changed")
