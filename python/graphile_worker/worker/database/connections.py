"""A worker's connections, each opened when it is needed, and again after it was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from zlib import crc32

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import tuple_row
from psycopg.types.string import ByteaBinaryLoader

from graphile_worker.cli.dsn import without_driver

Row = tuple[Any, ...]
Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]

#: Seconds after which a statement has no answer: the connection is replaced.
DEADLINE = 30.0
#: A session whose prepared statements are gone, or do not suit the tables any more.
_STALE_SESSION = ("26000", "0A000")


#: What a connection is made with where the connection string does not say otherwise: a peer that
#: vanished is noticed within half a minute, and no setting of the role decides how text is read.
_CONNECTION = {
    "client_encoding": "utf8", "connect_timeout": 10, "keepalives_idle": 10,
    "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30000,
}  # fmt: skip


def conninfo(dsn: str) -> str:
    """Return a connection string with this module's defaults for what it does not say."""
    given: dict[str, Any] = {**_CONNECTION, **conninfo_to_dict(without_driver(dsn))}
    return make_conninfo(**given)


class NotConnectedError(psycopg.OperationalError):
    """There is no connection, so that the statement was not sent."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.sqlstate = getattr(cause, "sqlstate", None)


class NoAnswerError(psycopg.OperationalError):
    """The server did not answer in time; the statement may have been carried out."""


class Connection:
    """One connection, for one statement at a time."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._conn: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._used_at = 0.0
        self._cancelling: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._conn is not None and not self._conn.closed

    async def connection(self) -> psycopg.AsyncConnection[Any]:
        """Return the connection, open."""
        if not self.is_open:
            self._conn = await self._connect()
            self._opened(self._conn)
        assert self._conn is not None
        return self._conn

    async def ready(self, seconds: float = DEADLINE) -> None:
        """Open the connection, if it is not; raise NotConnectedError where that fails."""
        async with self._lock:
            await self._ready(seconds)

    async def _ready(self, seconds: float) -> psycopg.AsyncConnection[Any]:
        try:
            if self.is_open:
                return await self.connection()
            async with asyncio.timeout(seconds):
                return await self.connection()
        except TimeoutError as error:
            raise NotConnectedError(
                TimeoutError(f"no connection within {seconds:g} seconds")
            ) from error
        except (psycopg.Error, OSError) as error:
            raise NotConnectedError(error) from error

    async def rows(
        self, query: bytes, values: Sequence[Any], seconds: float = DEADLINE
    ) -> list[Row]:
        """Run a statement in a transaction of its own; raise what the database says.

        Raise NotConnectedError where it was not sent, NoAnswerError where no answer came within
        the seconds; the server is then asked to cancel it, on another connection.
        """
        async with self._lock:
            conn = await self._ready(seconds)
            try:
                self._used_at = time.monotonic()
                async with asyncio.timeout(seconds):
                    return await self._rows(conn, query, values)
            except TimeoutError as error:
                self._abandon()
                raise NoAnswerError(
                    f"no answer within {seconds:g} seconds; the connection is replaced"
                ) from error
            except BaseException as error:
                # Cut off in the middle, there is no telling what the next answer belongs to.
                code = error.sqlstate if isinstance(error, psycopg.Error) else None
                if code is None or code in _STALE_SESSION:
                    await self.close()
                raise

    def _abandon(self) -> None:
        """Cancel what the server still does, and close the connection, without waiting for it."""
        conn, self._conn = self._conn, None
        if conn is not None:
            self._forget()
            task = asyncio.get_running_loop().create_task(_cancel(conn))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    async def close_unused(self, seconds: float) -> None:
        """Close the connection if no statement has run on it for so many seconds."""
        if not self._lock.locked() and time.monotonic() - self._used_at > seconds:
            await self.close()

    async def close(self) -> None:
        """Close the connection, if it is open."""
        conn, self._conn = self._conn, None
        if conn is not None:
            self._forget()
            await conn.close()

    def _forget(self) -> None:
        """Let go of what belongs to the connection."""

    def _opened(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)
        # Binary, whatever style of dates the role has been given.
        self._cursor.format = pq.Format.BINARY

    async def _rows(
        self, conn: psycopg.AsyncConnection[Any], query: bytes, values: Sequence[Any]
    ) -> list[Row]:
        await self._cursor.execute(query, values)
        return await self._cursor.fetchall()


class DirectConnection(Connection):
    """A connection for what is said for each batch of jobs: binary returns, with times as bytes.

    A job that comes to a worker that sleeps waits for this. So it is libpq's calls with psycopg's
    adapters and no cursor between them, and one turn of the event loop: half of the time.
    """

    def __init__(self, connect: Connect, *, prepare: bool) -> None:
        super().__init__(connect)
        self._prepare = prepare
        #: The names of statements, by their texts.
        self._prepared: dict[bytes, bytes] = {}
        self._values: Sequence[Any] = ()
        self._dumped: Sequence[Any] = ()
        self._results: list[PGresult] = []
        self._answered: asyncio.Future[PGresult] | None = None
        self._stop_hearing: Callable[[], None] = _nothing

    def _forget(self) -> None:
        self._stop_hearing()

    def _opened(self, conn: psycopg.AsyncConnection[Any]) -> None:
        conn.adapters.register_loader("timestamptz", ByteaBinaryLoader)
        self._adapters = Transformer.from_context(conn)
        self._prepared, self._values = {}, ()
        loop, socket = asyncio.get_running_loop(), conn.pgconn.socket

        def stop_hearing() -> None:
            self._stop_hearing = _nothing
            loop.remove_reader(socket)
            loop.remove_writer(socket)

        self._stop_hearing()
        loop.add_reader(socket, self._receive, conn.pgconn)
        self._stop_hearing = stop_hearing

    async def _rows(
        self, conn: psycopg.AsyncConnection[Any], query: bytes, values: Sequence[Any]
    ) -> list[Row]:
        pgconn, adapters = conn.pgconn, self._adapters
        if values != self._values:
            formats = [PyFormat.TEXT] * len(values)
            self._values, self._dumped = values, adapters.dump_sequence(values, formats)
        if not self._prepare:
            pgconn.send_query_params(_numbered(query, values), self._dumped, result_format=1)
        else:
            name = self._prepared.get(query)
            if name is None:
                # Another connection's statement behind the same pooler has another name.
                name = b"graphile_worker_%08x" % crc32(query)
                pgconn.send_prepare(name, _numbered(query, values))
                await self._answer(conn)
                self._prepared[query] = name
            pgconn.send_query_prepared(name, self._dumped, result_format=1)
        result = await self._answer(conn)
        adapters.set_pgresult(result, format=pq.Format.BINARY)
        return adapters.load_rows(0, result.ntuples, tuple)

    async def _answer(self, conn: psycopg.AsyncConnection[Any]) -> PGresult:
        """Send what is to be sent, and return the answer; raise what it says, or that none comes.

        Cancelled, it leaves a connection that is good for nothing.
        """
        loop, pgconn = asyncio.get_running_loop(), conn.pgconn
        self._results.clear()
        self._answered = loop.create_future()
        try:
            if pgconn.flush():
                loop.add_writer(pgconn.socket, self._send, pgconn)
            result = await self._answered
        finally:
            self._answered = None
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise error_from_result(result, conn.info.encoding)
        return result

    def _send(self, pgconn: PGconn) -> None:
        try:
            if pgconn.flush() == 0:
                asyncio.get_running_loop().remove_writer(pgconn.socket)
        except Exception as error:
            self._lost(pgconn, error)

    def _receive(self, pgconn: PGconn) -> None:
        try:
            pgconn.consume_input()
            answered = self._answered
            while answered is not None and not answered.done() and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    answered.set_result(self._results[-1])
                else:
                    self._results.append(result)
        except Exception as error:
            self._lost(pgconn, error)

    def _lost(self, pgconn: PGconn, error: Exception) -> None:
        # At once: a closed socket's number may be given to another one.
        self._stop_hearing()
        if self._answered is None:
            pgconn.finish()
        elif not self._answered.done():
            self._answered.set_exception(error)


async def _cancel(conn: psycopg.AsyncConnection[Any]) -> None:
    try:
        if psycopg.capabilities.has_cancel_safe():  # the older way blocks
            await conn.cancel_safe(timeout=5)
    except (psycopg.Error, OSError):
        pass  # the server is not there
    finally:
        await conn.close()


def _nothing() -> None:
    pass


def _numbered(query: bytes, values: Sequence[Any]) -> bytes:
    """Return the query with libpq's placeholders."""
    return query % tuple(b"$%d" % number for number in range(1, len(values) + 1))
